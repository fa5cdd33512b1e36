//! Kills at random moments below programs that write to volumes.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::USER;
use crate::common::keeper::{daemon, kill, surviving, wait_until};
use crate::common::random::Random;
use crate::common::sandbox::Sandbox;
use crate::common::user::as_user;

const SCRIPT: &str = include_str!("volumes.py");
const SECONDS: u32 = 15;
const KILLS: u32 = 25;

/// Appends, changes of names, locks, databases and mappings: none fails, none is lost, none is done twice.
fn under_kills(sandbox: &Sandbox, mut python: Command) {
    let kills = std::env::var("MICA_SURVIVE_KILLS").ok();
    let kills = kills.and_then(|kills| kills.parse().ok()).unwrap_or(KILLS);
    let seconds = SECONDS.max(kills * SECONDS / KILLS);
    let mount = surviving(sandbox);
    let made = sandbox.mica(["volume", "create", "data"]);
    made.ok();
    let inside = mount.path("volumes/data");
    python.args(["-c", SCRIPT]).arg(&inside);
    python.arg(seconds.to_string()).stdin(Stdio::null());
    let mut load = python.spawn().expect("python3");
    let end = Instant::now() + Duration::from_secs(seconds.into());
    let mut random = Random(29);
    let mut done = 0;
    while done < kills && Instant::now() < end {
        let left = end.saturating_duration_since(Instant::now()) / (kills - done);
        let most = usize::try_from(left.as_micros()).expect("a time");
        thread::sleep(Duration::from_micros(random.below(2 * most + 1) as u64));
        if load.try_wait().expect("its end").is_some() {
            break;
        }
        kill(&mount);
        done += 1;
    }
    assert!(load.wait().expect("its end").success());
    assert!(done > 5, "only {done}");
    let daemon = daemon(&mount).as_raw_nonzero();
    wait_until("nothing is left open", || {
        let files = fs::read_dir(format!("/proc/{daemon}/fd"));
        files.is_ok_and(|files| files.count() < 200)
    });
    mount.unmount();
}

/// By passthrough, where there is one.
#[test]
fn fuse_surviving_kills_under_writers() {
    let sandbox = Sandbox::new();
    under_kills(&sandbox, Command::new("/usr/bin/python3"));
}

/// Every read and write is a request.
#[test]
fn fuse_surviving_kills_under_an_ordinary_users_writers() {
    let sandbox = Sandbox::as_user(USER);
    under_kills(&sandbox, as_user(USER, "/usr/bin/python3"));
}
