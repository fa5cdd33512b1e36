//! containerd, the snapshotter and the daemon of M, killed under a container that runs.

use super::*;
use crate::common::keeper;

const ORDERS: [[usize; 3]; 6] = [
    [0, 1, 2],
    [0, 2, 1],
    [1, 0, 2],
    [1, 2, 0],
    [2, 0, 1],
    [2, 1, 0],
];

/// In each order, with the mount that survives its daemon: the container notices nothing, another one starts afterwards, and nothing
/// is left when both are gone.
#[test]
fn net_root_containerd_killed_in_any_order() {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Kind::Plain);
    let app = image("app:1");
    let name = pushed(&sandbox, &registry, &app, "team/app:1");
    sandbox.mica(["pull", "-q", &name]).ok();
    crate::common::tier::root();
    let m = keeper::surviving(&sandbox);
    let mut snapshotter = start(&sandbox);
    let mut containerd = Containerd::start(&sandbox);
    containerd.shown(&format!(
        "images pull --plain-http --snapshotter mica {name}"
    ));
    let script = "while :; do cat /data/old /bin/busybox >/dev/null || echo >/failed; busybox find / -xdev >/dev/null || echo >/failed; echo -n x >>/mine; sleep 0.1; done";
    containerd.shown(&format!("run -d --snapshotter mica {name} web -- {script}"));
    let look = |containerd: &Containerd| -> usize {
        let seen = containerd.shown("task exec --exec-id x web -- : >>/mine; busybox wc -c </mine; ls / | busybox grep -c failed || true");
        let mut numbers = seen.split_whitespace().map(|n| n.parse().unwrap());
        let (turns, failed): (usize, usize) = (numbers.next().unwrap(), numbers.next().unwrap());
        assert_eq!(failed, 0);
        turns
    };
    for order in ORDERS {
        let before = look(&containerd);
        for one in order {
            match one {
                0 => containerd.kill(),
                1 => snapshotter.kill(),
                _ => drop(keeper::kill(&m)),
            }
        }
        // And back, in the same order; the daemon comes by itself.
        for one in order {
            match one {
                0 => containerd.restart(),
                1 => snapshotter = start(&sandbox),
                _ => {}
            }
        }
        wait_until("it goes on", || look(&containerd) > before + 3);
        let refused = sandbox.mica(["rmi", &name]).fails();
        assert!(refused.stderr().contains("web"), "{}", refused.describe());
        wait_until("containerd has connected again", || {
            let list = "snapshots --snapshotter mica ls";
            containerd.run(list).status.success()
        });
        let seen = containerd.shown(&format!(
            "run --rm --snapshotter mica {name} two -- cat /data/old"
        ));
        assert_eq!(seen, "new", "{order:?}");
    }
    containerd.shown("task kill -s SIGKILL web");
    wait_until("the container has ended", || {
        containerd.run("task rm web").status.success()
    });
    containerd.shown("container rm web");
    containerd.shown(&format!("images rm --sync {name}"));
    wait_until("containerd has collected", || {
        snapshots(&containerd).lines().count() == 1
    });
    assert_eq!(sandbox.sh("ls store/snapshots").ok().stdout(), "log\n");
    sandbox.mica(["rmi", &name]).ok();
    sandbox.mica(["check"]).ok();
    drop((containerd, snapshotter));
    m.unmount();
}
