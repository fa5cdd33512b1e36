//! Verbs on volumes, killed at each system call that matters.

use std::fs;
use std::process::Command;

use crate::common::sandbox::Sandbox;

/// Whatever it is killed at, the next change leaves no directory that is no volume's.
#[test]
fn regression_a_killed_volume_create_leaves_nothing() {
    for call in ["mkdir", "fsync", "renameat2"] {
        for number in 1.. {
            let sandbox = Sandbox::new();
            sandbox.mica(["volume", "create", "first"]).ok();
            let inject = format!("inject={call}:signal=KILL:when={number}");
            let mut strace = Command::new("strace");
            strace.args(["-f", "-o", "/dev/null", "-e", &inject]);
            strace
                .arg(env!("CARGO_BIN_EXE_mica"))
                .arg("--store")
                .arg(sandbox.store());
            strace.args(["volume", "create", "killed"]);
            let ended = sandbox.run(strace).status.code();
            sandbox.mica(["volume", "create", "next"]).ok();
            let named = sandbox.mica(["volume", "ls", "-q"]).ok().stdout();
            let data = fs::read_dir(sandbox.store().join("volumes")).expect("readdir");
            assert_eq!(
                data.count(),
                named.lines().count(),
                "{call} {number}: {named}"
            );
            sandbox.mica(["check"]).ok();
            if ended == Some(0) {
                break;
            }
        }
    }
}
