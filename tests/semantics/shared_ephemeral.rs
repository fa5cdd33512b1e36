//! Ephemeral volumes that a container shares with others: what its end does to them, and to everybody else.

use std::fs;
use std::process::Command;

use crate::ephemeral::{TIMES, User, ephemeral, goes, is_there, until};
use crate::running::{left, mica, sandbox, shown, volumes};

/// The end of a container does not wait for others that use its volumes, and keeps no other verb waiting for them.
#[test]
fn regression_root_the_end_of_a_container_does_not_wait_for_other_users_of_its_volume() {
    let s = sandbox();
    let data = ephemeral(&s, "shared");
    let _user = User::shell(
        &s,
        &format!("cd {}; READY; exec sleep 1000", data.display()),
    );
    let trace = s.path("trace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-e", "trace=flock", "-o"]).arg(&trace);
    strace
        .arg(env!("CARGO_BIN_EXE_mica"))
        .arg("--store")
        .arg(s.store());
    strace.args([
        "run",
        "--rm",
        "-v",
        "shared:/v",
        "-v",
        "/anonymous",
        "app:1",
        "true",
    ]);
    s.run(strace).ok();
    let trace = fs::read_to_string(trace).expect("strace");
    let taken = trace.lines().filter(|line| line.contains("flock(")).count();
    assert!((1..60).contains(&taken), "{taken} times:\n{trace}");
    assert!(is_there(&s, "shared") && data.join("file").exists());
    assert_eq!(volumes(&s), 1, "the anonymous one has gone");
}

/// An ephemeral volume that somebody has named has its time after a container as after any other user; an anonymous one goes with its last container.
#[test]
fn regression_root_a_named_ephemeral_volume_lingers_after_its_container() {
    let s = sandbox();
    ephemeral(&s, "scratch");
    shown(&s, "run --rm -v scratch:/v app:1 touch /v/f");
    assert!(is_there(&s, "scratch"));
    until("a later look ends it", || {
        s.mica(["volume", "ls"]).ok();
        !is_there(&s, "scratch")
    });
    let mount = s.mount_with(&["-o", "volume_linger=100000"]);
    ephemeral(&s, "scratch");
    shown(&s, "run --rm -v scratch:/v app:1 touch /v/f");
    assert!(is_there(&s, "scratch"));
    assert!(mount.path("volumes/scratch/f").exists());
}

/// Who uses the name of an ephemeral volume that has ended a moment ago is told so: `run -v` makes no other in its place until one is asked for.
#[test]
fn regression_root_who_misses_an_ephemeral_volume_is_told() {
    let s = sandbox();
    let mount = s.mount_with(&["-o", TIMES]);
    let data = ephemeral(&s, "scratch");
    fs::read(mount.path("volumes/scratch/file")).expect("a use");
    goes(&s, &mount, "scratch", &data);
    let late = mica(&s, "run --rm -v scratch:/v app:1 true").code(125);
    assert!(
        late.stderr().contains("mica volume create"),
        "{}",
        late.stderr()
    );
    assert!(!is_there(&s, "scratch"));
    assert!(left(&s).is_empty());
    shown(&s, "volume create scratch");
    shown(&s, "run --rm -v scratch:/v app:1 touch /v/f");
    shown(&s, "run --rm -v another:/v app:1 true");
    shown(&s, "volume rm scratch another");
    // Removed by somebody, not ended.
    shown(&s, "run --rm -v scratch:/v app:1 true");
}
