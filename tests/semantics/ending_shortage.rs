//! When the next daemon cannot write.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;

use rustix::fs::{FlockOperation, flock};

use super::image;
use crate::common::keeper::{daemon, keeper, kill, next_daemon, surviving, wait_until};
use crate::common::mount::runs;
use crate::common::sandbox::Sandbox;
use crate::common::tier;

/// A daemon that begins while the disk is full, or while somebody holds the lock of the store, serves images and `M/stores` at once, and volumes and verbs as soon as that is over.
#[test]
fn fuse_ending_without_room_or_lock() {
    tier::root();
    let sandbox = Sandbox::new();
    sandbox
        .sh("mkdir -m 700 store && mount -t tmpfs -o size=20m,nr_inodes=300,mode=700 tmpfs store")
        .ok();
    sandbox.load(&image("app:1"));
    let mount = surviving(&sandbox);
    let open = File::open(mount.image("app/1/usr/big")).expect("open");
    let stores = File::open(mount.path("stores/containers")).expect("open");
    fs::create_dir(mount.path("volumes/data")).expect("mkdir");
    fs::write(mount.path("volumes/data/f"), "written").expect("write");
    let keeper = keeper(&mount.point);
    let lock = File::open(sandbox.store().join("lock")).expect("the lock");
    for what in ["bytes", "inodes", "lock"] {
        match what {
            "bytes" => drop(sandbox.sh("! cat /dev/zero >store/fill").ok()),
            "inodes" => drop(
                sandbox
                    .sh("mkdir store/fill; ! seq -f store/fill/%g 400 | xargs touch")
                    .ok(),
            ),
            _ => flock(&lock, FlockOperation::LockExclusive).expect("flock"),
        }
        let before = kill(&mount);
        fs::write("/proc/sys/vm/drop_caches", "3").expect("drop_caches");
        assert_eq!(fs::read(mount.image("app/1/own")).expect(what), b"app:1");
        assert_eq!(open.read_at(&mut [0; 10], 200_000).expect(what), 10);
        let stat = fs::metadata(mount.path("stores/containers")).expect(what);
        assert_eq!(stat.dev(), stores.metadata().expect("stat").dev());
        // Longer than a keeper waits.
        if what == "lock" {
            std::thread::sleep(std::time::Duration::from_secs(12));
        }
        let next = next_daemon(keeper, before);
        match what {
            "lock" => {
                assert!(mount.daemon().is_none(), "{what}: it has no lease");
                flock(&lock, FlockOperation::Unlock).expect("flock");
                wait_until("another has a lease", || !runs(next));
            }
            _ => {
                // It has the lease that the one before has left: who makes room removes nothing that is used.
                assert_eq!(mount.daemon(), Some(next), "{what}");
                let inside = mount.image("app/1/usr");
                let mut user = Command::new("sleep");
                let mut user = user.arg("60").current_dir(inside).spawn().expect("sleep");
                let refused = sandbox.mica(["rmi", "app:1"]).fails().stderr();
                assert!(refused.contains("is using"), "{what}: {refused}");
                user.kill().expect("kill");
                user.wait().expect("wait");
                sandbox.sh("rm -r store/fill").ok();
            }
        }
        daemon(&mount);
        assert_eq!(fs::read(mount.image("app/1/own")).expect(what), b"app:1");
        wait_until("the volumes are back", || {
            fs::read(mount.path("volumes/data/f")).is_ok_and(|content| content == b"written")
        });
        let another = format!("app:{what}");
        sandbox.mica(["tag", "app:1", &another]).ok();
        assert!(mount.image(format!("app/{what}/own")).exists());
        sandbox.mica(["rmi", &another]).ok();
    }
    drop((open, stores));
    mount.unmount();
    sandbox.mica(["check"]).ok();
    sandbox.sh("umount -l store").ok();
}
