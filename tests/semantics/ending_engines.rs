//! When the daemon ends below an engine.

use std::fs::{self, File};
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, fcntl_lock, flock};
use rustix::io::Errno;
use rustix::process::{Signal, kill_process};

use crate::common::keeper::{daemon, keeper, kill, next_daemon, surviving, wait_until};
use crate::common::mount::runs;
use crate::common::sandbox::Sandbox;
use crate::engines::reader::Reader;
use crate::engines::{Engines, image as with_tools};

fn forget_pages() {
    fs::write("/proc/sys/vm/drop_caches", "3").expect("drop_caches");
}

/// Containers of engines on `M/stores` outlive the daemon too, also with mapped ids, and see no error; others are listed, entered and started meanwhile.
#[test]
fn root_ending_below_containers() {
    let sandbox = Sandbox::new();
    sandbox.load(&with_tools("app:1"));
    let mount = surviving(&sandbox);
    let engines = Engines::new(&sandbox, &mount);
    let map = "--uidmap 0:100000:65536 --gidmap 0:200000:65536";
    let containers = [
        Reader::start(&sandbox, &engines, "plain", ""),
        Reader::start(&sandbox, &engines, "mapped", map),
    ];
    for turn in 0..20 {
        let before = containers[0].rounds();
        kill(&mount);
        forget_pages();
        match turn % 5 {
            0 => assert_eq!(engines.container("", "app:1", "cat /data/old"), "new"),
            1 => assert_eq!(
                engines.container(map, "app:1", "stat -c %u:%g /data"),
                "7:8\n"
            ),
            2 => assert_eq!(engines.shown("podman images -q").lines().count(), 1),
            _ => thread::sleep(Duration::from_millis(50 * turn)),
        }
        wait_until("it goes on", || containers[0].rounds() > before + 1);
    }
    for container in &containers {
        container.is_well();
        assert!(container.rounds() > 20);
    }
    drop(containers);
    mount.unmount();
}

/// Locks that an engine has on files of `M/stores` outlive the daemon, and names that change while there is none show in the engine's listings when the next one is.
#[test]
fn root_ending_below_an_engine_s_locks() {
    let sandbox = Sandbox::new();
    sandbox.load(&with_tools("app:1"));
    let mount = surviving(&sandbox);
    let engines = Engines::new(&sandbox, &mount);
    let names = || {
        let shown = engines.shown("podman images --format {{.Repository}}:{{.Tag}} --sort tag");
        shown.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(names(), ["docker.io/library/app:1"]);
    let lock = mount.path("stores/containers/overlay-images/images.lock");
    let open = || File::open(&lock).expect("open");
    let (ours, whole) = (open(), open());
    fcntl_lock(&ours, FlockOperation::LockShared).expect("a lock of bytes");
    flock(&whole, FlockOperation::LockExclusive).expect("a lock");
    let keeper = keeper(&mount.point);
    kill_process(keeper, Signal::STOP).expect("kill");
    kill(&mount);
    sandbox.mica(["tag", "app:1", "app:2"]).ok();
    sandbox.mica(["rmi", "app:1"]).ok();
    kill_process(keeper, Signal::CONT).expect("kill");
    wait_until("the names are the new ones", || {
        names() == ["docker.io/library/app:2"]
    });
    let other = flock(open(), FlockOperation::NonBlockingLockExclusive);
    assert_eq!(other, Err(Errno::WOULDBLOCK));
    flock(&whole, FlockOperation::Unlock).expect("unlock");
    flock(open(), FlockOperation::NonBlockingLockExclusive).expect("a lock");
    drop((ours, whole));
    mount.unmount();
}

/// What engines have mounted on `M/stores` is served after `mica umount` until the last of it is gone, by the next daemon if one dies meanwhile.
#[test]
fn root_ending_after_the_mount() {
    let sandbox = Sandbox::new();
    sandbox.load(&with_tools("app:1"));
    let mount = surviving(&sandbox);
    let engines = Engines::new(&sandbox, &mount);
    let container = Reader::start(&sandbox, &engines, "last", "");
    let (keeper, mut server) = (keeper(&mount.point), daemon(&mount));
    sandbox.mica([Path::new("umount"), &mount.point]).ok();
    assert!(!mount.is_mounted());
    // podman insists on a directory there.
    fs::create_dir_all(mount.path("stores/containers")).expect("mkdir");
    for _ in 0..3 {
        let before = container.rounds();
        kill_process(server, Signal::KILL).expect("kill");
        server = next_daemon(keeper, server);
        forget_pages();
        wait_until("it goes on", || container.rounds() > before + 1);
    }
    assert!(container.runs() && runs(keeper));
    drop(container);
    wait_until("both end", || {
        forget_pages();
        !runs(keeper) && !runs(server)
    });
    mount.forget();
}
