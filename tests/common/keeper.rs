//! The keeper of a mount, and the end of its daemons.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::mount::{Mount, runs};
use super::sandbox::Sandbox;

/// Mounts with `-o survive=on` and whatever else is asked for.
#[track_caller]
pub fn surviving(sandbox: &Sandbox) -> Mount {
    sandbox.mount_with(&["-o", "survive=on"])
}

/// The same, with something in the environment of all its processes.
#[track_caller]
pub fn surviving_with(sandbox: &Sandbox, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Mount {
    let point = sandbox.mkdir("surviving");
    let mut command = sandbox.command();
    command.args(["mount", "-o", "survive=on"]).arg(&point);
    command.env(name, value);
    sandbox.mount_by(&point, command)
}

/// Kills the daemon of a mount, and comes back when it is gone.
#[track_caller]
pub fn kill(mount: &Mount) -> Pid {
    let daemon = daemon(mount);
    kill_process(daemon, Signal::KILL).expect("kill");
    wait_until("the daemon is gone", || !runs(daemon));
    daemon
}

/// The daemon, also if another is just about to begin.
#[track_caller]
pub fn daemon(mount: &Mount) -> Pid {
    let mut found = None;
    wait_until("a daemon", || {
        found = mount.daemon();
        found.is_some()
    });
    found.expect("a daemon")
}

/// The keepers of the sandbox that the mount at `point` is of: they have its store in their environment.
pub fn keepers(point: &Path) -> Vec<Pid> {
    let store = point.with_file_name("store");
    let store = format!("MICA_STORE={}", store.display());
    let all = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = all.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    let keeps = |pid: &Pid| {
        let dir = format!("/proc/{}", pid.as_raw_nonzero());
        let environment = fs::read(format!("{dir}/environ")).unwrap_or_default();
        fs::read_to_string(format!("{dir}/comm")).is_ok_and(|name| name == "mica-keeper\n")
            && environment
                .split(|byte| *byte == 0)
                .any(|word| word == store.as_bytes())
    };
    pids.filter(keeps).collect()
}

/// The one keeper, when it holds what it is to hold.
#[track_caller]
pub fn keeper(point: &Path) -> Pid {
    let mut found = Vec::new();
    wait_until("a keeper", || {
        found = keepers(point);
        found.len() == 1 && holds(found[0])
    });
    found[0]
}

fn holds(keeper: Pid) -> bool {
    let files = fs::read_dir(format!("/proc/{}/fd", keeper.as_raw_nonzero()));
    let mut files = files.into_iter().flatten().flatten();
    // The last of what it is given at first.
    let is_memory = |file: &Path| file.starts_with("/memfd:mica-counters (deleted)");
    files.any(|file| fs::read_link(file.path()).is_ok_and(|file| is_memory(&file)))
}

/// The daemon that a keeper has started after `before`, whether or not it has a mount any more.
#[track_caller]
pub fn next_daemon(keeper: Pid, before: Pid) -> Pid {
    let keeper = keeper.as_raw_nonzero();
    let children = format!("/proc/{keeper}/task/{keeper}/children");
    let mut found = None;
    wait_until("the next daemon", || {
        let children = fs::read_to_string(&children).unwrap_or_default();
        let pids = children
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok());
        found = pids
            .filter_map(Pid::from_raw)
            .find(|pid| *pid != before && runs(*pid));
        found.is_some()
    });
    found.expect("a daemon")
}

/// Waits, but not for ever.
#[track_caller]
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < end, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Stops a process, and comes back when all its threads stand still.
#[track_caller]
pub fn stop(pid: Pid) {
    kill_process(pid, Signal::STOP).expect("kill");
    let tasks = format!("/proc/{}/task", pid.as_raw_nonzero());
    wait_until("it stands still", || {
        fs::read_dir(&tasks)
            .expect("its threads")
            .flatten()
            .all(|task| {
                let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                stat.rsplit(") ")
                    .next()
                    .is_some_and(|rest| rest.starts_with('T'))
            })
    });
}
