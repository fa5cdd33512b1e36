//! Containers in user namespaces.

use super::*;
use crate::kubelet::{Ids, Kubelet, Namespaces, Users};
use crate::layers::shifted_mounts;
use crate::node::{empty_networks, is_one_six};

const MAPS: &str = "--uidmap 0:100000:65536 --gidmap 0:100000:65536";
const LOOK: &str = "cat /proc/self/uid_map; stat -c %u:%g / /data /bin/busybox; cat /data/old; ls /cache; busybox rm /cache/b; echo mine >/data/mine; stat -c %u:%g /data/mine";
const SEEN: [&str; 8] = ["0", "100000", "65536", "0:0", "7:8", "0:0", "newb", "0:0"];

/// By `ctr run`: on the store's layers with other owners if it asks for that, else on containerd's own copy of them.
#[test]
fn net_root_containerd_in_a_user_namespace() {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Kind::Plain);
    let app = image("app:1");
    let name = pushed(&sandbox, &registry, &app, "team/app:1");
    sandbox.mica(["pull", "-q", &name]).ok();
    let m = sandbox.mount();
    let snapshotter = start(&sandbox);
    let containerd = Containerd::start(&sandbox);
    containerd.shown(&format!(
        "images pull --plain-http --snapshotter mica {name}"
    ));
    let run = |options: &str| {
        let run = format!("run --rm --snapshotter mica {MAPS} {options} {name} one");
        let seen = containerd.shown(&format!("{run} -- {LOOK}"));
        let words: Vec<&str> = seen.split_whitespace().collect();
        assert_eq!(words, SEEN, "{options}");
    };
    let committed = || {
        let all = snapshots(&containerd);
        all.lines().filter(|l| l.contains("Committed")).count()
    };
    run("--remap-labels");
    assert_eq!(committed(), 3, "{}", snapshots(&containerd));
    run("");
    // Nothing of either has come into M.
    let tree = format!("images/{}/team/app/1/cache/b", registry.host());
    assert!(m.path(tree).exists());
    wait_until("containerd has collected", || {
        !snapshots(&containerd).contains("Active")
    });
    assert_eq!(shifted_mounts(&sandbox), 0, "nobody needs them any more");
    drop((containerd, snapshotter));
    m.unmount();
}

/// By the CRI plugin, as for a pod with `hostUsers: false`.
#[test]
fn net_root_containerd_pods_with_users_of_their_own() {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Kind::Plain);
    let pause_name = pushed(&sandbox, &registry, &cri::pause(), "pause:1");
    let name = pushed(&sandbox, &registry, &image("app:1"), "team/app:1");
    let m = sandbox.mount();
    let snapshotter = start(&sandbox);
    empty_networks(&sandbox);
    let containerd = Containerd::start_with(&sandbox, &pause_name);
    let kubelet = Kubelet::connect(&containerd);
    let id = kubelet.pull(&name);
    let before = snapshots_of_pods(&containerd).lines().count();
    let ids = vec![Ids {
        outside: 100_000,
        inside: 0,
        count: 65_536,
    }];
    let users = Users {
        mode: 0,
        uids: ids.clone(),
        gids: ids,
    };
    let namespaces = Namespaces {
        network: 0,
        pid: 1,
        users: Some(users),
    };
    let both = kubelet.run("pod", &sandbox.mkdir("logs"), &id, namespaces);
    let seen = kubelet.exec(&both.1.id, LOOK);
    let mut words: Vec<&str> = seen.split_whitespace().collect();
    if is_one_six() {
        // It does not know the field: the pod has the node's users.
        assert_eq!(words[..3], ["0", "0", "4294967295"]);
        words.splice(..3, SEEN[..3].iter().copied());
    }
    assert_eq!(words, SEEN);
    // The container's and the pod's; no copy of either image.
    let after = snapshots_of_pods(&containerd);
    assert_eq!(after.lines().count(), before + 2, "{after}");
    kubelet.stop(both);
    drop((containerd, snapshotter));
    m.unmount();
}

fn snapshots_of_pods(containerd: &Containerd) -> String {
    containerd.shown("-n k8s.io snapshots --snapshotter mica ls")
}
