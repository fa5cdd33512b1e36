//! What is acknowledged lasts, and who waits is told for whom.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use mica::store::{OpenMode, Store};

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
    drop(lock);
    assert!(tag.wait().expect("mica").success());
}
