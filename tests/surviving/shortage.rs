//! Daemons that cannot begin: what programs, processes, locks and disks can do against them.

use std::fs;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};

use super::USER;
use crate::common::image::ImageBuilder;
use crate::common::keeper::{keeper, kill, surviving, surviving_with, wait_until};
use crate::common::mount::runs;
use crate::common::sandbox::{Sandbox, program};
use crate::common::user::as_user;

fn app() -> ImageBuilder {
    ImageBuilder::new("app:1").layer(|l| l.file("f", "content"))
}

/// The keeper's own program would say that it serves, and never answer anybody.
#[test]
fn fuse_regression_a_keeper_is_no_server() {
    let sandbox = Sandbox::new();
    sandbox.load(&app());
    let mount = surviving(&sandbox);
    for program in [program("mica-keeper").as_path(), "/proc/self/exe".as_ref()] {
        let answer = mount.control(&format!("replace {}", program.display()));
        assert!(answer.starts_with("error: "), "{answer}");
        assert_eq!(fs::read(mount.image("app/1/f")).expect("read"), b"content");
    }
    mount.unmount();
}

/// Daemons that are killed before they begin are tried again, for as long as is promised, and not as fast as can be.
#[test]
fn fuse_regression_daemons_that_are_killed_are_not_a_flood() {
    let sandbox = Sandbox::new();
    sandbox.load(&app());
    let mount = surviving_with(&sandbox, "MICA_NEXT_SERVER", "is killed");
    let keeper = keeper(&mount.point);
    kill(&mount);
    fs::read(mount.image("app/1/f")).expect_err("nobody has begun");
    wait_until("the keeper ends", || !runs(keeper));
    let log = fs::read_to_string(sandbox.store().join("daemon.log")).expect("the log");
    let tried = log.matches("did not begin").count();
    assert!((10..=101).contains(&tried), "{tried}");
    assert!(log.contains("the mount ends"), "{log}");
    mount.forget();
    sandbox.mica(["umount", "-l", "surviving"]).ok();
}

/// While no process can be started the next daemon is waited for.
#[test]
fn fuse_regression_no_more_processes_for_a_moment() {
    let sandbox = Sandbox::as_user(USER);
    sandbox.load(&app());
    let mount = surviving(&sandbox);
    let keeper = keeper(&mount.point);
    let most = getrlimit(Resource::Nproc).maximum;
    let most = most.map_or_else(|| "unlimited".to_owned(), |most| most.to_string());
    let limit = |most: &str| {
        let mut command = as_user(USER, "prlimit");
        command.arg(format!("--pid={}", keeper.as_raw_nonzero()));
        command.arg(format!("--nproc={most}:"));
        sandbox.run(command).ok();
    };
    limit("0");
    kill(&mount);
    let daemon_log = sandbox.store().join("daemon.log");
    wait_until("it has been tried", || {
        fs::read_to_string(&daemon_log).is_ok_and(|log| log.contains("starting a server"))
    });
    std::thread::sleep(Duration::from_millis(500));
    assert!(runs(keeper));
    limit(&most);
    let mut cat = as_user(USER, "cat");
    cat.arg(mount.image("app/1/f"));
    assert_eq!(sandbox.run(cat).ok().stdout(), "content");
    mount.unmount();
}
