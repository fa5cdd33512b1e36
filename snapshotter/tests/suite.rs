//! The behaviours that containerd's own test suite of snapshotters (`core/snapshots/testsuite`) asks for, one test each.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use mica_snapshotter::proto::{Info, Kind};
use tonic::Code;

use crate::client::{code, labels};
use crate::common::sandbox::Sandbox;
use crate::work::{Running, mount, start};

mod tables;

/// A committed snapshot of what a script makes on a parent.
fn layer(sandbox: &Sandbox, running: &Running, name: &str, parent: &str, script: &str) {
    let key = format!("{name}-key");
    let mounts = running.client.prepare(&key, parent).unwrap();
    let mounted = mount(sandbox, &mounts);
    mounted.sh(script);
    drop(mounted);
    running.client.commit(name, &key).unwrap();
}

/// What a script says in a view of a snapshot.
fn seen(sandbox: &Sandbox, running: &Running, name: &str, script: &str) -> String {
    let mounts = running.client.view("seen", name).unwrap();
    let text = mount(sandbox, &mounts).sh(script);
    running.client.remove("seen").unwrap();
    text
}

const TREE: &str = "find . -mindepth 1 | sort | while read f; do \
    [ -d $f ] && echo $f/ || echo \"$f $(cat $f)\"; done";

/// Basic: prepare, write, commit, a child, its commit, a listing, a view, and removal from the top.
#[test]
fn root_suite_basic() {
    let sandbox = Sandbox::new();
    let running = start(&sandbox);
    let client = &running.client;
    let root = labels(&[("containerd.io/gc.root", "2024")]);
    let mounts = client
        .create("Prepare", "preparing", "", root.clone())
        .unwrap();
    let mounted = mount(&sandbox, &mounts);
    mounted.sh("echo foo >foo; mkdir -p a/b/c");
    client
        .commit_with("committed", "preparing", root.clone())
        .unwrap();
    let first = client.stat("committed").unwrap();
    assert_eq!((first.kind(), first.parent.as_str()), (Kind::Committed, ""));
    assert_eq!(first.labels, root);
    assert_eq!(code(client.stat("preparing")), Code::NotFound);
    let mounts = client.prepare("next", "committed").unwrap();
    let mounted = mount(&sandbox, &mounts);
    assert_eq!(mounted.sh(TREE), "./a/\n./a/b/\n./a/b/c/\n./foo foo\n");
    mounted.sh("echo bar >bar; echo bar >foo; rm -r a/b");
    let info = client.stat("next").unwrap();
    assert_eq!(
        (info.kind(), info.parent.as_str()),
        (Kind::Active, "committed")
    );
    client.commit("committed-next", "next").unwrap();
    let second = client.stat("committed-next").unwrap();
    assert_eq!(
        (second.kind(), second.parent.as_str()),
        (Kind::Committed, "committed")
    );
    assert_eq!(code(client.stat("next")), Code::NotFound);
    assert_eq!(client.list(&[]).unwrap(), [first, second]);
    let tree = seen(&sandbox, &running, "committed-next", TREE);
    assert_eq!(tree, "./a/\n./bar bar\n./foo bar\n");
    assert_eq!(code(client.remove("committed")), Code::FailedPrecondition);
    client.remove("committed-next").unwrap();
    client.remove("committed").unwrap();
    assert!(client.list(&[]).unwrap().is_empty());
}

/// StatActive, StatCommitted, TransitivityTest: each names its parent, and the parent its own.
#[test]
fn root_suite_stat_and_parents() {
    let sandbox = Sandbox::new();
    let running = start(&sandbox);
    layer(&sandbox, &running, "a", "", "echo foo >foo");
    layer(&sandbox, &running, "b", "a", "echo more >>foo");
    let client = &running.client;
    client.prepare("active", "b").unwrap();
    client.view("view", "b").unwrap();
    let of = |name| {
        let info = client.stat(name).unwrap();
        assert!(info.created_at.is_some() && info.updated_at == info.created_at);
        (info.kind(), info.name, info.parent)
    };
    let is = |kind, name: &str, parent: &str| (kind, name.to_owned(), parent.to_owned());
    assert_eq!(of("a"), is(Kind::Committed, "a", ""));
    assert_eq!(of("b"), is(Kind::Committed, "b", "a"));
    assert_eq!(of("active"), is(Kind::Active, "active", "b"));
    assert_eq!(of("view"), is(Kind::View, "view", "b"));
    assert_eq!(seen(&sandbox, &running, "b", "cat foo"), "foo\nmore\n");
}

/// PreareViewFailingtest: a key is given once.
#[test]
fn root_suite_a_key_is_given_once() {
    let sandbox = Sandbox::new();
    let running = start(&sandbox);
    let client = &running.client;
    layer(&sandbox, &running, "a", "", "true");
    for (first, second) in [
        ("Prepare", "View"),
        ("Prepare", "Prepare"),
        ("View", "View"),
    ] {
        client.create(first, "key", "a", labels(&[])).unwrap();
        let again = client.create(second, "key", "a", labels(&[]));
        assert_eq!(code(again), Code::AlreadyExists);
        client.remove("key").unwrap();
    }
    client.prepare("key", "").unwrap();
    assert_eq!(code(client.commit("a", "key")), Code::AlreadyExists);
    assert_eq!(client.stat("key").unwrap().kind(), Kind::Active);
}

/// Update: labels alone can be changed, all of them or one.
#[test]
fn root_suite_update() {
    let sandbox = Sandbox::new();
    let running = start(&sandbox);
    let client = &running.client;
    layer(&sandbox, &running, "a", "", "true");
    let info = |pairs: &[(&str, &str)]| Info {
        name: "a".into(),
        parent: "nonsense".into(),
        kind: Kind::View.into(),
        labels: labels(pairs),
        ..Info::default()
    };
    let after = client.update(info(&[("x", "1"), ("y", "2")]), &[]).unwrap();
    assert_eq!(after.labels, labels(&[("x", "1"), ("y", "2")]));
    assert_eq!((after.kind(), after.parent.as_str()), (Kind::Committed, ""));
    assert!(after.updated_at != after.created_at);
    let after = client
        .update(info(&[("x", "3"), ("z", "4")]), &["labels.x"])
        .unwrap();
    assert_eq!(after.labels, labels(&[("x", "3"), ("y", "2")]));
    let after = client.update(info(&[]), &["labels.y"]).unwrap();
    assert_eq!(after.labels, labels(&[("x", "3")]));
    let after = client.update(info(&[("z.z", "4")]), &["labels"]).unwrap();
    assert_eq!(after.labels, labels(&[("z.z", "4")]));
    for field in ["parent", "kind", "name", "", "label"] {
        assert_eq!(
            code(client.update(info(&[]), &[field])),
            Code::InvalidArgument
        );
    }
    assert_eq!(client.stat("a").unwrap(), after);
    let other = Info {
        name: "b".into(),
        ..info(&[])
    };
    assert_eq!(code(client.update(other, &[])), Code::NotFound);
}

/// Remove, RemoveIntermediateSnapshot: from the top only, and with what it had.
#[test]
fn root_suite_remove() {
    let sandbox = Sandbox::new();
    let running = start(&sandbox);
    let client = &running.client;
    layer(&sandbox, &running, "a", "", "echo 1 >f");
    layer(&sandbox, &running, "b", "a", "echo 2 >f");
    client.prepare("top", "b").unwrap();
    assert_eq!(code(client.remove("b")), Code::FailedPrecondition);
    assert_eq!(code(client.remove("a")), Code::FailedPrecondition);
    for key in ["top", "b", "a"] {
        client.remove(key).unwrap();
        assert_eq!(code(client.remove(key)), Code::NotFound);
    }
    // As they say it: a name that was removed can be given again.
    layer(&sandbox, &running, "a", "", "echo 3 >f");
    assert_eq!(seen(&sandbox, &running, "a", "cat f"), "3\n");
    client.remove("a").unwrap();
    let left = sandbox.sh("ls store/snapshots").ok().stdout();
    assert_eq!(left, "log\n");
    client.cleanup().unwrap();
}

/// LayerFileupdate, RemoveDirectoryInLowerLayer, DeletedFilesInChildSnapshot, MoveFileFromLowerLayer, Rename: what children see
/// of what their parents have.
#[test]
fn root_suite_changes_over_layers() {
    let sandbox = Sandbox::new();
    let running = start(&sandbox);
    let first = "mkdir -p etc d1/deep old; for f in etc/hosts etc/profile d1/f gone old/a; do echo $f >$f; done";
    layer(&sandbox, &running, "1", "", first);
    let second = "echo more >>etc/hosts; rm -r d1; rm gone; mv old/a moved; mv old new; mkdir d1; echo y >d1/y";
    layer(&sandbox, &running, "2", "1", second);
    layer(
        &sandbox,
        &running,
        "3",
        "2",
        "mv new newest; rm etc/profile; echo back >gone",
    );
    let tree = seen(&sandbox, &running, "3", TREE);
    assert_eq!(
        tree,
        "./d1/\n./d1/y y\n./etc/\n./etc/hosts etc/hosts\nmore\n./gone back\n./moved old/a\n./newest/\n"
    );
    // The layers below are what they were.
    let tree = seen(&sandbox, &running, "1", "cat gone d1/f; ls");
    assert_eq!(tree, "gone\nd1/f\nd1\netc\ngone\nold\n");
}

/// Chown, DirectoryPermissionOnCommit: owners and modes survive the commit, also those of the root.
#[test]
fn root_suite_owners_and_modes() {
    let sandbox = Sandbox::new();
    let running = start(&sandbox);
    let first = "mkdir opt opt/a; touch opt/f; chown 1:2 opt opt/f; chmod 700 opt/a; chmod 711 .; chown 5:6 .";
    layer(&sandbox, &running, "1", "", first);
    layer(
        &sandbox,
        &running,
        "2",
        "1",
        "chown 3:4 opt/f; mkdir -m 1777 d; mkdir s; chmod 2755 s",
    );
    let stats = "stat -c '%n %u:%g %a' . opt opt/a opt/f d s";
    let seen = seen(&sandbox, &running, "2", stats);
    let expected = ". 5:6 711\nopt 1:2 755\nopt/a 0:0 700\nopt/f 3:4 644\nd 0:0 1777\ns 0:0 2755\n";
    assert_eq!(seen, expected);
}

/// ViewReadonly: nothing can be written into a view, of one layer or of several, or of none.
#[test]
fn root_suite_a_view_is_read_only() {
    let sandbox = Sandbox::new();
    let running = start(&sandbox);
    layer(&sandbox, &running, "1", "", "echo 1 >f");
    layer(&sandbox, &running, "2", "1", "echo 2 >g");
    for parent in ["", "1", "2"] {
        let mounted = mount(&sandbox, &running.client.view("v", parent).unwrap());
        let refused = mounted.sh("touch new 2>&1 || true");
        assert!(
            refused.contains("Read-only file system"),
            "{parent}: {refused}"
        );
        assert_eq!(running.client.mounts("v").unwrap().len(), 1);
        drop(mounted);
        running.client.remove("v").unwrap();
    }
}

/// StatInWalk, and the listing of what a kind is; more than fit one message.
#[test]
fn root_suite_walk() {
    let sandbox = Sandbox::new();
    let running = start(&sandbox);
    let client = &running.client;
    layer(&sandbox, &running, "a", "", "true");
    let keys: Vec<String> = (0..250).map(|n| format!("key-{n:03}")).collect();
    for key in &keys {
        client.prepare(key, "a").unwrap();
    }
    for info in client.list(&[]).unwrap() {
        assert_eq!(client.stat(&info.name).unwrap(), info);
    }
    assert_eq!(client.names(&["kind==active"]), keys);
    assert_eq!(
        client.names(&["kind==committed", "name==key-007"]),
        ["a", "key-007"]
    );
    assert_eq!(
        client.names(&["parent==a,name~=/-00[1-2]$/"]),
        ["key-001", "key-002"]
    );
    assert_eq!(code(client.list(&["kind==", " ="])), Code::InvalidArgument);
}

/// Usage: of what is its own, while it is written and after the commit; hard links once.
#[test]
fn root_suite_usage() {
    let sandbox = Sandbox::new();
    let running = start(&sandbox);
    let client = &running.client;
    layer(
        &sandbox,
        &running,
        "a",
        "",
        "head -c 1000000 /dev/zero >big; ln big link; mkdir d",
    );
    let (size, inodes) = client.usage("a").unwrap();
    assert!((1_000_000..1_100_000).contains(&size), "{size}");
    assert_eq!(inodes, 3);
    let mounted = mount(&sandbox, &client.prepare("b", "a").unwrap());
    let (before, _) = client.usage("b").unwrap();
    mounted.sh("head -c 500000 /dev/zero >more");
    let (after, inodes) = client.usage("b").unwrap();
    assert!(
        (500_000..600_000).contains(&(after - before)),
        "{before} {after}"
    );
    assert_eq!(inodes, 2);
    client.view("v", "a").unwrap();
    assert_eq!(client.usage("v").unwrap(), (0, 0));
    assert_eq!(code(client.usage("none")), Code::NotFound);
}

/// 128LayersMount: that many layers in one mount, with the paths made short as containerd does it.
#[test]
fn root_suite_128_layers() {
    let sandbox = Sandbox::new();
    let running = start(&sandbox);
    let client = &running.client;
    let mut parent = String::new();
    for n in 0..128 {
        let (key, name) = (format!("key-{n}"), format!("layer-{n}"));
        let mounts = client.prepare(&key, &parent).unwrap();
        let upper = mounts[0]
            .options
            .iter()
            .find_map(|o| o.strip_prefix("upperdir="));
        let upper = upper.unwrap_or(&mounts[0].source).to_owned();
        std::fs::write(format!("{upper}/file-{n}"), "x").unwrap();
        client.commit(&name, &key).unwrap();
        parent = name;
    }
    let mounts = client.view("view", &parent).unwrap();
    let prefix = format!("{}/", sandbox.store().join("snapshots").display());
    let options = mounts[0].options.join(",").replace(&prefix, "");
    let script = format!(
        "mkdir at; cd store/snapshots && mount -t overlay -o {options} overlay ../../at && ls ../../at | wc -l; umount ../../at"
    );
    assert_eq!(sandbox.sh(&script).ok().stdout(), "128\n");
}

/// The upper directory of an active snapshot is nobody else's to look into.
#[test]
fn root_suite_directories_are_private() {
    let sandbox = Sandbox::new();
    let running = start(&sandbox);
    running.client.prepare("a", "").unwrap();
    for name in ["store", "store/snapshots", "store/snapshots/0"] {
        let stat = std::fs::metadata(sandbox.path(name)).unwrap();
        assert_eq!(
            (stat.permissions().mode() & 0o077, stat.uid()),
            (0, 0),
            "{name}"
        );
    }
    let socket = std::fs::metadata(&running.socket).unwrap();
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
}

/// What has been committed is what a layer can be made of, by the walker that makes them of containers: nothing of the log is needed.
#[test]
fn root_suite_what_is_committed_can_become_a_layer() {
    use mica::layer::from_dir::{self, OverlayAttributes, Owners, Source};
    let sandbox = Sandbox::new();
    let running = start(&sandbox);
    layer(
        &sandbox,
        &running,
        "1",
        "",
        "echo gone >gone; mkdir d; echo x >d/x",
    );
    layer(
        &sandbox,
        &running,
        "2",
        "1",
        "rm gone d/x; echo new >d/new; chown 3:4 d/new",
    );
    let upper = sandbox
        .sh("ls -d store/snapshots/[0-9]* | tail -1")
        .ok()
        .stdout();
    let upper = sandbox.path(upper.trim()).join("fs");
    let source = Source {
        directory: &upper,
        base: None,
        overlay: OverlayAttributes::Trusted,
        owners: Owners::Same,
        made: &[],
        latest: None,
    };
    let mut tar = Vec::new();
    from_dir::write(&source, &mut tar).unwrap();
    let mut archive = tar::Archive::new(&tar[..]);
    let mut names: Vec<String> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    names.sort();
    assert_eq!(names, ["./", ".wh.gone", "d/", "d/.wh.x", "d/new"]);
}
