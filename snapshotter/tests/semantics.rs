//! What doc/SEMANTICS.md promises of snapshots: each test is one of its sentences.

use tonic::Code;

use crate::client::{Labels, code, labels};
use crate::common::sandbox::Sandbox;
use crate::layers::unpack;
use crate::work::{chains, image, mount, start};

/// A layer that the store has is neither fetched nor unpacked for containerd: whoever says what he is about to unpack hears that it exists.
#[test]
fn root_semantics_layers_exist() {
    let sandbox = Sandbox::new();
    let app = image("app:1");
    sandbox.load(&app);
    let running = start(&sandbox);
    assert_eq!(unpack(&running, &app, &Labels::new()), [true; 3]);
    assert_eq!(sandbox.sh("ls store/snapshots").ok().stdout(), "log\n");
}

/// A snapshot keeps its layers until containerd removes it, whether mica-snapshotter runs or not: `rmi` and the prunes leave them, and `mica users` names it.
#[test]
fn root_semantics_a_snapshot_keeps_its_layers() {
    let sandbox = Sandbox::new();
    let app = image("app:1");
    sandbox.load(&app);
    let mut running = start(&sandbox);
    assert_eq!(unpack(&running, &app, &Labels::new()), [true; 3]);
    running.kill();
    sandbox.mica(["image", "prune", "-af"]).ok();
    let said = sandbox.mica(["rmi", "app:1"]).fails().stderr();
    assert!(said.contains("containerd snapshot"), "{said}");
    let users = sandbox.mica(["users", "app:1"]).ok().stdout();
    assert!(users.contains("containerd snapshot"), "{users}");
    let running = start(&sandbox);
    for chain in chains(&app).iter().rev() {
        running.client.remove(chain).unwrap();
    }
    sandbox.mica(["rmi", "app:1"]).ok();
}

/// What is written over a snapshot is in no layer of M and in no other snapshot, and what has been committed does not change.
#[test]
fn root_semantics_snapshots_are_apart() {
    let sandbox = Sandbox::new();
    let app = image("app:1");
    sandbox.load(&app);
    let m = sandbox.mount();
    let running = start(&sandbox);
    let client = &running.client;
    assert_eq!(unpack(&running, &app, &Labels::new()), [true; 3]);
    let top = &chains(&app)[2];
    let change = |name: &str, parent: &str, script: &str| {
        let mounted = mount(&sandbox, &client.prepare(name, parent).unwrap());
        mounted.sh(script)
    };
    change("a", top, "echo a >data/old; rm cache/b; echo a >mine");
    client.commit("done", "a").unwrap();
    change("b", "done", "echo b >data/old; rm mine");
    let seen = change("c", "done", "cat data/old mine; ls cache");
    assert_eq!(seen, "a\na\n");
    let seen = change("d", top, "cat data/old; ls cache mine 2>&1 | head -1");
    assert!(seen.starts_with("new"), "{seen}");
    let old = std::fs::read(m.image("app/1").join("data/old")).unwrap();
    assert_eq!(old, b"new");
    drop(running);
    m.unmount();
}

/// A snapshot that is asked for with the ids of a user namespace shows the layers with the owners that these ids are outside, and no file is copied for it; where the kernel cannot do that, it is refused.
#[test]
fn root_semantics_owners_of_other_ids() {
    let sandbox = Sandbox::new();
    let app = image("app:1");
    sandbox.load(&app);
    let m = sandbox.mount();
    let running = start(&sandbox);
    let client = &running.client;
    assert_eq!(unpack(&running, &app, &Labels::new()), [true; 3]);
    let of = |ids: &str| {
        labels(&[
            ("containerd.io/snapshot/uidmapping", ids),
            ("containerd.io/snapshot/gidmapping", ids),
        ])
    };
    let top = &chains(&app)[2];
    let mounts = client
        .create("Prepare", "web", top, of("0:200000:65536"))
        .unwrap();
    let web = mount(&sandbox, &mounts);
    let seen = web.sh("stat -c %u:%g data data/old bin/busybox; cat data/old");
    assert_eq!(seen, "200007:200008\n200000:200000\n200000:200000\nnew");
    drop(web);
    assert_eq!(
        sandbox
            .sh("find store/snapshots/*/fs -mindepth 1")
            .ok()
            .stdout(),
        ""
    );
    // Such as ids that the kernel does not take.
    let refused = client.create("Prepare", "none", top, of("0:1:10,5:100:10"));
    assert_eq!(code(refused), Code::FailedPrecondition);
    drop(running);
    m.unmount();
}

/// What mica-snapshotter has acknowledged is there after it has been killed; a request that fails has changed nothing.
#[test]
fn root_semantics_acknowledged() {
    let sandbox = Sandbox::new();
    let mut running = start(&sandbox);
    running.client.prepare("a", "").unwrap();
    running.client.commit("b", "a").unwrap();
    running.client.prepare("c", "b").unwrap();
    let refused = running.client.create("Prepare", "d", "none", labels(&[]));
    assert_eq!(code(refused), Code::NotFound);
    assert_eq!(code(running.client.remove("b")), Code::FailedPrecondition);
    assert_eq!(code(running.client.commit("b", "c")), Code::AlreadyExists);
    running.kill();
    let running = start(&sandbox);
    assert_eq!(running.client.names(&[]), ["b", "c"]);
    let left = sandbox.sh("ls store/snapshots").ok().stdout();
    assert_eq!(left, "0\n1\nlog\n");
    running.end();
    sandbox.mica(["check"]).ok();
}
