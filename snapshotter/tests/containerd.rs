//! containerd itself, with `ctr`, and its CRI plugin, as the kubelet drives it.

use crate::common::registry::{Kind, Registry};
use crate::common::sandbox::Sandbox;
use crate::node::{Containerd, blobs_fetched, pushed};
use crate::work::{chains, image, start, wait_until};

mod cri;
mod nodes;
mod orders;
mod users;

fn snapshots(containerd: &Containerd) -> String {
    containerd.shown("snapshots --snapshotter mica ls")
}

/// `ctr`: pull, run, list, remove; containerd, the snapshotter and the mount go and come, in any order, under a container.
#[test]
fn net_root_containerd_ctr() {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Kind::Plain);
    let app = image("app:1");
    let name = pushed(&sandbox, &registry, &app, "team/app:1");
    sandbox.mica(["pull", "-q", &name]).ok();
    let m = sandbox.mount();
    let mut snapshotter = start(&sandbox);
    let mut containerd = Containerd::start(&sandbox);
    containerd.shown(&format!(
        "images pull --plain-http --snapshotter mica {name}"
    ));
    // Unpacked by the client, and then the store's all the same.
    let listed = snapshots(&containerd);
    assert!(
        chains(&app).iter().all(|chain| listed.contains(chain)),
        "{listed}"
    );
    assert_eq!(sandbox.sh("ls store/snapshots").ok().stdout(), "log\n");
    let run = format!("run --rm --snapshotter mica {name}");
    let seen = containerd.shown(&format!(
        "{run} one -- cat /data/old; ls /cache; touch /mine"
    ));
    assert_eq!(seen, "newb\n");
    // One that stays.
    containerd.shown(&format!(
        "run -d --snapshotter mica {name} web -- while :; do sleep 1; done"
    ));
    let exec = |containerd: &Containerd, script: &str| {
        containerd.shown(&format!("task exec --exec-id x web -- {script}"))
    };
    exec(&containerd, "echo 1 >>/mine");
    let refused = sandbox.mica(["rmi", &name]).fails();
    assert!(refused.stderr().contains("web"), "{}", refused.describe());
    let users = sandbox.mica(["users", &name]).ok().stdout();
    assert!(users.contains("containerd"), "{users}");
    snapshotter.kill();
    assert_eq!(exec(&containerd, "cat /data/old /mine"), "new1\n");
    containerd.restart();
    drop(snapshotter);
    let mut snapshotter = start(&sandbox);
    containerd.restart();
    snapshotter.kill();
    assert_eq!(exec(&containerd, "cat /data/old; echo 2 >>/mine"), "new");
    let _snapshotter = start(&sandbox);
    // The mount goes on for whoever has something of it, and a new one is there for the next.
    sandbox
        .mica(["umount", "-l", m.path("").to_str().unwrap()])
        .ok();
    m.forget();
    let m = sandbox.mount();
    assert_eq!(exec(&containerd, "cat /data/old /mine"), "new1\n2\n");
    wait_until("containerd has connected again", || {
        let list = "snapshots --snapshotter mica ls";
        containerd.run(list).status.success()
    });
    let seen = containerd.shown(&format!("{run} two -- cat /data/old"));
    assert_eq!(seen, "new");
    containerd.shown("task kill -s SIGKILL web");
    wait_until("the container has ended", || {
        containerd.run("task rm web").status.success()
    });
    containerd.shown("container rm web");
    containerd.shown(&format!("images rm --sync {name}"));
    // Nobody has anything any more: containerd gives it back, and the image can go.
    wait_until("containerd has collected", || {
        snapshots(&containerd).lines().count() == 1
    });
    sandbox.mica(["rmi", &name]).ok();
    assert_eq!(sandbox.sh("ls store/snapshots").ok().stdout(), "log\n");
    sandbox.mica(["check"]).ok();
    drop(containerd);
    m.unmount();
}

/// Private content: an image that mica has not, unpacked, run, committed on, beside the same by containerd's own overlayfs.
#[test]
fn net_root_containerd_without_mica_s_layers() {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Kind::Plain);
    let app = image("app:1");
    let name = pushed(&sandbox, &registry, &app, "team/app:1");
    let m = sandbox.mount();
    let _snapshotter = start(&sandbox);
    let containerd = Containerd::start(&sandbox);
    let script = "cat /data/old; ls /cache /data; stat -c %u:%g:%a /data /bin/busybox";
    let mut seen = Vec::new();
    for snapshotter in ["mica", "overlayfs"] {
        containerd.shown(&format!(
            "images pull --plain-http --snapshotter {snapshotter} {name}"
        ));
        let run = format!("run --rm --snapshotter {snapshotter} {name} one");
        seen.push(containerd.shown(&format!("{run} -- {script}")));
    }
    assert_eq!(seen[0], seen[1]);
    let chains = chains(&app);
    let usage = |name: &str| {
        let line = format!("snapshots --snapshotter {name} usage -b {}", chains[1]);
        let text = containerd.shown(&line);
        let row = text.lines().nth(1).unwrap_or_default().to_owned();
        row.split_whitespace()
            .skip(1)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(usage("mica"), usage("overlayfs"));
    assert_eq!(sandbox.mica(["images", "-aq"]).ok().stdout(), "");
    containerd.shown(&format!("images rm --sync {name}"));
    wait_until("containerd has collected", || {
        snapshots(&containerd).lines().count() == 1
    });
    assert_eq!(sandbox.sh("ls store/snapshots").ok().stdout(), "log\n");
    drop(containerd);
    m.unmount();
}

/// `ctr-remote images rpull`, which says what it is about to unpack: of layers that the store has nothing is fetched, others are
/// pulled by mica, once.
#[test]
fn net_root_containerd_ctr_remote() {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Kind::Plain);
    let app = image("app:1");
    let name = pushed(&sandbox, &registry, &app, "team/app:1");
    let other = image("other:1").layer(|l| l.file("other", "other"));
    let other_name = pushed(&sandbox, &registry, &other, "team/other:1");
    sandbox.mica(["pull", "-q", &name]).ok();
    let m = sandbox.mount();
    let snapshotter = start(&sandbox);
    let containerd = Containerd::start(&sandbox);
    // The config by both and, of the second, the layer that is new.
    for (name, most) in [(&name, 1), (&other_name, 3)] {
        let before = blobs_fetched(&registry);
        let mut command = std::process::Command::new("ctr-remote");
        command.arg("-a").arg(containerd.socket());
        command.args([
            "images",
            "rpull",
            "--plain-http",
            "--snapshotter",
            "mica",
            name,
        ]);
        sandbox.run(command).ok();
        let fetched = blobs_fetched(&registry) - before;
        assert!(fetched <= most, "{fetched}: {}", registry.log());
        let run = format!("run --rm --snapshotter mica {name} one");
        assert_eq!(containerd.shown(&format!("{run} -- cat /data/old")), "new");
    }
    wait_until("containerd has collected", || {
        sandbox.sh("ls store/snapshots").ok().stdout() == "log\n"
    });
    let tree = format!("images/{}/team/other/1/other", registry.host());
    assert!(m.path(tree).exists());
    drop((containerd, snapshotter));
    m.unmount();
}
