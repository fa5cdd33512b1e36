//! The rest of containerd's list, by tables: what a chain of snapshots shows beside a plain directory with the same done to it, what
//! an update changes, what a filter finds.

use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use mica_snapshotter::proto::{Info, Kind, Mount, Timestamp};
use tonic::Code;

use crate::client::{code, labels};
use crate::common::sandbox::Sandbox;
use crate::common::walk;
use crate::work::{Running, start};

/// Does something in what is mounted of a snapshot, with paths as short as containerd makes them.
fn within(sandbox: &Sandbox, mounts: &[Mount], work: impl FnOnce(&Path)) {
    let [mount] = mounts else {
        panic!("one mount, not {mounts:?}");
    };
    let at = sandbox.mkdir("at");
    let snapshots = sandbox.store().join("snapshots");
    let prefix = format!("{}/", snapshots.display());
    let mut command = Command::new("mount");
    match mount.r#type.as_str() {
        "bind" => command.args(["-o", "bind", &mount.source]),
        kind => {
            let options = mount.options.join(",").replace(&prefix, "");
            command.args(["-t", kind, "-o", &options, "overlay"])
        }
    };
    command.arg(&at).current_dir(snapshots);
    sandbox.run(command).ok();
    work(&at);
    sandbox.umount("at");
}

/// Each script is a layer. What is seen before and after it, and of all of them in a view, is what a plain directory has; but for
/// times, since both are written one after the other.
fn as_a_directory(
    sandbox: &Sandbox,
    running: &Running,
    name: &str,
    layers: &[String],
    every: usize,
) {
    let flat = sandbox.mkdir(&format!("flat-{name}"));
    let same = |at: &Path, when: &str| {
        let mut found = walk::differences(&flat, at).unwrap();
        found.retain(|line| !line.contains(": mtime "));
        assert!(found.is_empty(), "{name}, {when}:\n{}", found.join("\n"));
    };
    let client = &running.client;
    let mut parent = String::new();
    for (n, script) in layers.iter().enumerate() {
        let (key, committed) = (format!("{name}-key-{n}"), format!("{name}-{n}"));
        let mounts = client.prepare(&key, &parent).unwrap();
        within(sandbox, &mounts, |at| {
            let looks = n % every == 0;
            if looks {
                same(at, &format!("before {n}"));
            }
            for place in [&flat, at] {
                sandbox
                    .sh(&format!("cd {}; {script}", place.display()))
                    .ok();
            }
            if looks {
                same(at, &format!("after {n}"));
            }
        });
        client.commit(&committed, &key).unwrap();
        parent = committed;
    }
    let mounts = client.view(&format!("{name}-view"), &parent).unwrap();
    within(sandbox, &mounts, |at| same(at, "in a view"));
}

/// LayerFileupdate, RemoveDirectoryInLowerLayer, Chown, Rename, DirectoryPermissionOnCommit, DeletedFilesInChildSnapshot,
/// MoveFileFromLowerLayer.
#[test]
fn root_suite_layers_as_a_plain_directory() {
    let sandbox = Sandbox::new();
    let running = start(&sandbox);
    let table: [(&str, &[&str]); 7] = [
        (
            "update",
            &[
                "mkdir -m 700 etc; echo one >etc/hosts; echo PATH >etc/profile",
                "echo two >etc/hosts; echo PATH >etc/profile; chmod 666 etc/profile; mkdir -m 700 root; echo x >root/.rc",
                "echo six >etc/hosts",
            ],
        ),
        (
            "removed-directory",
            &[
                "mkdir -m 700 lib; touch lib/hidden",
                "rm -r lib; mkdir -m 700 lib; touch lib/not-hidden",
                "touch lib/new",
            ],
        ),
        (
            "chown",
            &[
                "mkdir -pm 700 opt/a/b; echo hello >opt/a/b/f",
                "chown 1:1 opt opt/a opt/a/b opt/a/b/f",
            ],
        ),
        (
            "rename",
            &[
                "mkdir -m 700 dir some; echo first >some/f1; echo nothing >some/f2",
                "mv dir dir2; echo new >some/over; mv some/over some/f1; mv some/f2 some/f3",
            ],
        ),
        (
            "permissions",
            &[
                "mkdir -m 700 d1 d2 d3 d4 d5; echo x >d4/f; echo x >d5/f; chown 1:1 d1 d2 d3 d5 d5/f",
                "chown 0:0 d2; rmdir d3; chown 1:1 d4 d4/f",
                "mkdir -m 700 d3; chown 1:1 d3; rm -r d5; mkdir -m 700 d5; chown 1:1 d5",
            ],
        ),
        (
            "deleted",
            &["echo foo >foo; echo foobar >foobar", "rm foobar", "true"],
        ),
        (
            "moved",
            &[
                "mkdir -m 700 d1 d2; echo hello >d1/f1; echo more >d2/f2",
                "mkdir -m 700 d3; echo hello >d3/f1; rm -r d1; ln d2/f2 d3/f2; rm d2/f2",
            ],
        ),
    ];
    for (name, layers) in table {
        let layers: Vec<String> = layers.iter().map(|&layer| layer.to_owned()).collect();
        as_a_directory(&sandbox, &running, name, &layers, 1);
    }
}

/// 128LayersMount, with something taken away and written over in each of them.
#[test]
fn root_suite_128_layers_as_a_plain_directory() {
    let sandbox = Sandbox::new();
    let running = start(&sandbox);
    let first = "echo bottom >bottom; echo first >over; mkdir add only; echo bye >only/bottom";
    let more = (1..128).map(|n| {
        format!("echo {n} >over; echo same >add/{n}; rm -r only; mkdir only; echo me >only/{n}")
    });
    let layers: Vec<String> = std::iter::once(first.to_owned()).chain(more).collect();
    as_a_directory(&sandbox, &running, "many", &layers, 16);
}

fn now() -> Timestamp {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    Timestamp {
        seconds: i64::try_from(now.as_secs()).unwrap(),
        nanos: i32::try_from(now.subsec_nanos()).unwrap(),
    }
}

/// Update, of each kind with and without a parent; the times are those of the request.
#[test]
fn root_suite_update_of_each_kind() {
    let sandbox = Sandbox::new();
    let running = start(&sandbox);
    let client = &running.client;
    let order = |time: &Option<Timestamp>| time.as_ref().map(|t| (t.seconds, t.nanos));
    let now = || order(&Some(now()));
    let began = now();
    client.prepare("c1-key", "").unwrap();
    client.commit("c1", "c1-key").unwrap();
    client.prepare("c2-key", "c1").unwrap();
    client.commit("c2", "c2-key").unwrap();
    client.prepare("a1", "c2").unwrap();
    client.prepare("a2", "").unwrap();
    client.view("v1", "c2").unwrap();
    client.view("v2", "").unwrap();
    let made = now();
    let table = [
        ("c1", Kind::Committed, ""),
        ("c2", Kind::Committed, "c1"),
        ("a1", Kind::Active, "c2"),
        ("a2", Kind::Active, ""),
        ("v1", Kind::View, "c2"),
        ("v2", Kind::View, ""),
    ];
    for (name, kind, parent) in table {
        let is_it = |info: &Info| {
            assert_eq!(
                (info.name.as_str(), info.kind(), info.parent.as_str()),
                (name, kind, parent)
            );
        };
        let first = client.stat(name).unwrap();
        is_it(&first);
        assert_eq!(first.created_at, first.updated_at);
        let created = order(&first.created_at);
        assert!(began <= created && created <= made, "{first:?}");
        let with = |pairs: &[(&str, &str)]| Info {
            parent: "nonsense".into(),
            labels: labels(pairs),
            ..first.clone()
        };
        let before = now();
        let all = [("l1", "v1"), ("l2", "v2"), ("l3", "v3")];
        let second = client.update(with(&all), &[]).unwrap();
        is_it(&second);
        assert_eq!(second.labels, labels(&all));
        assert_eq!(second.created_at, first.created_at);
        let updated = order(&second.updated_at);
        assert!(before <= updated && updated <= now(), "{second:?}");
        // One is changed, one that is not given goes, others stay; and what is given besides is not looked at.
        let some = with(&[("l1", "updated"), ("l4", "v4")]);
        let third = client.update(some, &["labels.l1", "labels.l2"]).unwrap();
        assert_eq!(third.labels, labels(&[("l1", "updated"), ("l3", "v3")]));
        let fourth = client.update(with(&[("l4", "v4")]), &["labels"]).unwrap();
        assert_eq!(fourth.labels, labels(&[("l4", "v4")]));
        let refused = client.update(with(&[]), &["parent"]);
        assert_eq!(code(refused), Code::InvalidArgument);
        assert_eq!(client.stat(name).unwrap(), fourth);
    }
}

/// Remove: a key, and a name, that was given back can be given again, as another kind too.
#[test]
fn root_suite_names_are_used_again() {
    let sandbox = Sandbox::new();
    let running = start(&sandbox);
    let client = &running.client;
    client.prepare("key", "").unwrap();
    client.commit("name", "key").unwrap();
    client.prepare("again", "name").unwrap();
    client.remove("again").unwrap();
    client.view("again", "name").unwrap();
    client.remove("again").unwrap();
    client.prepare("again", "").unwrap();
    client.remove("name").unwrap();
    client.commit("name", "again").unwrap();
    assert_eq!(client.names(&[]), ["name"]);
    // CloseTwice: a client that goes, twice, and one that comes.
    for _ in 0..2 {
        let other = crate::client::Client::connect(&running.socket);
        assert_eq!(other.names(&[]), ["name"]);
    }
}

/// Walk: what each filter finds.
#[test]
fn root_suite_filters() {
    let sandbox = Sandbox::new();
    let running = start(&sandbox);
    let client = &running.client;
    let root = "containerd.io/gc.root";
    let create = |method: &str, key: &str, parent: &str, l: &str| {
        let mut labels = labels(&[(root, "walk")]);
        if !l.is_empty() {
            labels.insert("l".into(), l.into());
        }
        client.create(method, key, parent, labels).unwrap();
    };
    let commit = |name: &str, key: &str, l: &[(&str, &str)]| {
        let mut labels = labels(l);
        labels.insert(root.into(), "walk".into());
        client.commit_with(name, key, labels).unwrap();
    };
    create("Prepare", "a-np", "", "");
    create("Prepare", "p-tmp", "", "");
    commit("p", "p-tmp", &[]);
    create("Prepare", "a", "p", "");
    create("View", "v", "p", "");
    create("Prepare", "p-wl-tmp", "", "");
    commit("p-wl", "p-wl-tmp", &[("l", "1")]);
    create("Prepare", "a-wl", "p-wl", "2");
    create("View", "v-wl", "p-wl", "3");
    create("Prepare", "a-np-wl", "", "2");
    client.prepare("other", "").unwrap();
    let walk = "labels.\"containerd.io/gc.root\"==walk";
    let kind = |kind: &str| format!("kind=={kind},{walk}");
    let table: [(&[&str], &str); 10] = [
        (&[walk], "a a-np a-np-wl a-wl p p-wl v v-wl"),
        (&[&kind("active")], "a a-np a-np-wl a-wl"),
        (&[&kind("view")], "v v-wl"),
        (&[&kind("committed")], "p p-wl"),
        (&["name==p", "name==a-np-wl"], "a-np-wl p"),
        (&["name==a-wl,labels.l"], "a-wl"),
        (&["parent==p"], "a v"),
        (&[&format!("parent!=\"\",{walk}")], "a a-wl v v-wl"),
        (&["labels.l"], "a-np-wl a-wl p-wl v-wl"),
        (&["labels.l==2"], "a-np-wl a-wl"),
    ];
    for (filters, expected) in table {
        assert_eq!(client.names(filters).join(" "), expected, "{filters:?}");
    }
}

/// RootPermission: the root of a snapshot on nothing is everybody's to enter.
#[test]
fn root_suite_the_root_of_nothing() {
    let sandbox = Sandbox::new();
    let running = start(&sandbox);
    let mounts = running.client.prepare("a", "").unwrap();
    let stat = "stat -c %a:%u:%g at";
    within(&sandbox, &mounts, |_| {
        assert_eq!(sandbox.sh(stat).ok().stdout(), "755:0:0\n");
    });
}
