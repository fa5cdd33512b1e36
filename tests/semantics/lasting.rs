//! What is acknowledged lasts, and who waits is told for whom.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use mica::store::{OpenMode, Store};
use rustix::process::{Signal, kill_process};

use crate::common::image::ImageBuilder;
use crate::common::sandbox::Sandbox;
use crate::ephemeral::until;

/// A container that `rm` or `container prune` has removed stays removed after a power cut.
#[test]
fn regression_root_a_removed_container_stays_removed() {
    crate::common::tier::root();
    let sandbox = Sandbox::new();
    sandbox.load(&ImageBuilder::new("app:1").layer(|l| l.file("f", "x")));
    for verb in [&["rm", "one"][..], &["container", "prune", "-f"]] {
        sandbox
            .mica(["run", "--name", "one", "app:1", "/none"])
            .code(127);
        let trace = sandbox.path("trace");
        let mut strace = Command::new("strace");
        strace
            .args(["-f", "-y", "-e", "trace=unlink,unlinkat,fsync", "-o"])
            .arg(&trace);
        strace
            .arg(env!("CARGO_BIN_EXE_mica"))
            .arg("--store")
            .arg(sandbox.store())
            .args(verb);
        sandbox.run(strace).ok();
        let trace = fs::read_to_string(&trace).expect("strace");
        let record = trace
            .lines()
            .position(|line| line.contains("unlink") && line.contains("config.json"));
        let after = trace.lines().skip(record.expect("the record goes"));
        let synced = after.filter(|line| line.contains("fsync(") && line.contains("/containers/"));
        assert!(synced.count() > 0, "{trace}");
    }
}

/// A verb that waits long for another says for which, and goes on when that one has finished.
#[test]
fn regression_a_verb_that_waits_says_for_whom() {
    let sandbox = Sandbox::new();
    sandbox.load(&ImageBuilder::new("app:1").layer(|l| l.file("f", "x")));
    let store = Store::open(&sandbox.store(), OpenMode::Existing).expect("the store");
    let lock = store.lock().expect("the lock");
    let said = sandbox.path("said");
    let mut command = sandbox.command();
    command
        .args(["tag", "app:1", "app:2"])
        .stdout(Stdio::null());
    command.stderr(fs::File::create(&said).expect("a file"));
    let mut tag = command.spawn().expect("mica");
    let words = |path: &Path| fs::read_to_string(path).expect("what it says");
    until("it says for whom", || words(&said).contains("waiting for"));
    assert!(
        words(&said).contains(&format!("process {}", std::process::id())),
        "{}",
        words(&said)
    );
    assert_eq!(words(&said).lines().count(), 1);
    // Until then it sleeps.
    let status = format!("/proc/{}/status", tag.id());
    let awake = || {
        let status = fs::read_to_string(&status).expect("its status");
        let switches = status.lines().find(|line| line.starts_with("voluntary_"));
        switches.expect("a count").to_owned()
    };
    let before = awake();
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!(awake(), before);
    drop(lock);
    assert!(tag.wait().expect("mica").success());
}

/// A verb does not wait for ever for a mount whose daemon does not answer: `umount` says which process that is, and `umount -l` detaches it.
#[test]
fn regression_fuse_a_silent_daemon_holds_nobody_up() {
    let sandbox = Sandbox::new();
    sandbox.load(&ImageBuilder::new("app:1").layer(|l| l.file("f", "x")));
    let mount = sandbox.mount();
    let daemon = mount.daemon().expect("a daemon");
    kill_process(daemon, Signal::STOP).expect("kill");
    let mica = |args: &[&str]| {
        let mut command = sandbox.command();
        command.args(args).arg(&mount.point);
        sandbox.run(command)
    };
    let said = mica(&["umount"]).code(1).stderr();
    let who = format!("process {}", daemon.as_raw_nonzero());
    assert!(
        said.contains(&who) && said.contains("does not answer"),
        "{said}"
    );
    mica(&["umount", "-l"]).ok();
    assert!(!mount.is_mounted());
    kill_process(daemon, Signal::CONT).expect("kill");
}

/// A mount that a verb does not wait for any longer shows the change by itself as soon as it can: the verb has succeeded and warns.
#[test]
fn regression_fuse_a_mount_left_behind_catches_up() {
    let sandbox = Sandbox::new();
    sandbox.load(&ImageBuilder::new("app:1").layer(|l| l.file("f", "x")));
    let mount = sandbox.mount();
    let daemon = mount.daemon().expect("a daemon");
    let shows = |tag: &str, volume: &str| {
        let file = mount.image("late").join(tag).join("f");
        until("the mount shows the tag", || file.exists());
        let listed = std::fs::read_dir(mount.image("late")).expect("a listing");
        assert!(listed.flatten().any(|entry| entry.file_name() == tag));
        let volume = mount.path("volumes").join(volume);
        until("the mount shows the volume", || volume.is_dir());
    };
    let verbs = |tag: &str, volume: &str| {
        let mut make = sandbox.command();
        make.args(["volume", "create", volume])
            .stdout(Stdio::null());
        let mut make = make.spawn().expect("mica");
        let run = sandbox.mica(["tag", "app:1", &format!("late:{tag}")]).ok();
        assert!(
            run.stderr().contains("will by itself"),
            "{}",
            run.describe()
        );
        assert!(make.wait().expect("mica").success());
    };
    // Known to be absent.
    assert!(!mount.image("late").exists() && !mount.path("volumes/slow").exists());
    kill_process(daemon, Signal::STOP).expect("kill");
    verbs("1", "slow");
    kill_process(daemon, Signal::CONT).expect("kill");
    shows("1", "slow");
    // Now it answers, and can open nothing.
    let pid = daemon.as_raw_nonzero();
    let limit = |soft: &str| {
        sandbox
            .sh(&format!("prlimit --pid {pid} --nofile{soft}"))
            .ok()
    };
    let usual = limit(" --output SOFT --noheadings").stdout();
    limit("=8:");
    verbs("2", "poor");
    limit(&format!("={}:", usual.trim()));
    shows("2", "poor");
}

/// A volume that `volume create` has acknowledged is there after a power cut, an ephemeral one too.
#[test]
fn a_made_volume_is_durable() {
    for kind in [
        &["volume", "create", "made"][..],
        &["volume", "create", "--ephemeral", "brief"],
    ] {
        let sandbox = Sandbox::new();
        sandbox.mica(["volume", "create", "first"]).ok();
        let trace = sandbox.path("trace");
        let mut strace = Command::new("strace");
        strace
            .args(["-f", "-y", "-e", "trace=mkdir,rename,renameat2,fsync", "-o"])
            .arg(&trace);
        strace
            .arg(env!("CARGO_BIN_EXE_mica"))
            .arg("--store")
            .arg(sandbox.store())
            .args(kind);
        sandbox.run(strace).ok();
        let trace = fs::read_to_string(&trace).expect("strace");
        let lines: Vec<&str> = trace.lines().collect();
        let last = |what: &[&str]| {
            let all = |line: &&str| what.iter().all(|part| line.contains(part));
            let found = lines.iter().rposition(all);
            found.unwrap_or_else(|| panic!("no {what:?}: {trace}"))
        };
        let data = last(&["mkdir(", "/_data"]);
        let synced = last(&["fsync(", "/volumes>"]);
        let named = last(&["rename", "volumes.json"]);
        let store = format!("{}>", sandbox.store().display());
        assert!(
            data < synced && synced < named && named < last(&["fsync(", &store]),
            "{trace}"
        );
    }
}
