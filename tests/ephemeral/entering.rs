//! Who enters an ephemeral volume while it ends: the volume as a whole, or nothing by that name. Never an error, never a part.
//!
//! The daemon is held between each two steps of ending a volume (`sys::pause`).

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use rustix::fs::{CWD, Mode};

use super::{LINGER, Mount, Sandbox, TIMES, User, ephemeral, is_there, until};

/// What has been done of ending a volume at the places where it stops.
const STEPS: [&str; 5] = ["looked", "unnamed", "told", "looked again", "decided"];
const FILES: usize = 4;

/// A mount whose daemon stops at a place.
fn held_at(sandbox: &Sandbox, times: &str, place: &str) -> (Mount, PathBuf) {
    let (point, pipes) = (sandbox.mkdir("m"), sandbox.mkdir("pipes"));
    for pipe in ["at", "go"].map(|pipe| pipes.join(pipe)) {
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).expect("a pipe");
    }
    let mut command = sandbox.command();
    command.args(["mount", "-o", times]).arg(&point);
    command.env("MICA_PAUSE", format!("{place}={}", pipes.display()));
    (sandbox.mount_by(&point, command), pipes)
}

/// Waits until it has stopped there.
fn arrived(pipes: &Path) {
    drop(File::open(pipes.join("at")).expect("the pipe"));
}

/// Lets it go on.
fn go(pipes: &Path) {
    let go = File::options().write(true).open(pipes.join("go"));
    drop(go.expect("the pipe"));
}

/// Lets it go on, and not stop again.
fn let_go(pipes: &Path) {
    fs::remove_file(pipes.join("at")).expect("the pipe");
    go(pipes);
}

fn volume(sandbox: &Sandbox) -> PathBuf {
    let data = ephemeral(sandbox, "vol");
    fs::create_dir(data.join("d")).expect("a directory");
    for number in 0..FILES {
        fs::write(data.join(format!("d/{number}")), number.to_string()).expect("a file");
    }
    data
}

/// A process whose working directory is the volume.
fn enter(path: &Path) -> io::Result<User> {
    let mut sleep = Command::new("sleep");
    let sleep = sleep.arg("1000").current_dir(path).process_group(0);
    sleep.stdin(Stdio::null()).stdout(Stdio::null());
    Ok(User(sleep.spawn()?))
}

/// All of it is there, as who is inside sees it.
fn readable(user: &User) -> io::Result<()> {
    let inside = PathBuf::from(format!("/proc/{}/cwd", user.pid()));
    assert_eq!(fs::read_to_string(inside.join("file"))?, "vol");
    assert_eq!(fs::read_dir(inside.join("d"))?.count(), FILES);
    for number in 0..FILES {
        let text = fs::read_to_string(inside.join(format!("d/{number}")))?;
        assert_eq!(text, number.to_string());
    }
    Ok(())
}

/// And can be changed.
fn whole(user: &User) -> io::Result<()> {
    readable(user)?;
    fs::write(format!("/proc/{}/cwd/new", user.pid()), "x")
}

#[track_caller]
fn gone(sandbox: &Sandbox, mount: &Mount, data: &Path, when: &str) {
    until(&format!("{when}: its data is deleted"), || !data.exists());
    assert!(!is_there(sandbox, "vol"), "{when}");
    let after = enter(&mount.path("volumes/vol"))
        .err()
        .expect("it has ended");
    assert_eq!(after.kind(), io::ErrorKind::NotFound, "{when}: {after}");
}

/// Who enters an ephemeral volume at the moment at which it ends finds all of it and keeps it, or nothing by that name: never an error, and never a part.
#[test]
fn regression_fuse_who_enters_an_ephemeral_volume_that_ends_finds_it_whole_or_not_at_all() {
    let steps = STEPS.iter().enumerate().map(|step| (step, "on"));
    for ((number, step), cache) in steps.chain([((0, &STEPS[0]), "off")]) {
        let sandbox = Sandbox::new();
        let options = format!("{TIMES},volume_cache={cache}");
        let (mount, pipes) = held_at(&sandbox, &options, "evaporating");
        let data = volume(&sandbox);
        let path = mount.path("volumes/vol");
        // A use; and the kernel has seen all of it.
        readable(&enter(&path).expect("the volume")).expect("the volume");
        for _ in 0..number {
            arrived(&pipes);
            go(&pipes);
        }
        arrived(&pipes);
        match enter(&path) {
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::NotFound, "{step}: {error}");
                assert_ne!(number, 0, "it has not ended yet");
                let_go(&pipes);
                gone(&sandbox, &mount, &data, step);
            }
            Ok(user) => {
                assert_eq!(number, 0, "{step}: it has no name");
                for later in STEPS.get(1..).expect("steps") {
                    go(&pipes);
                    arrived(&pipes);
                    whole(&user).unwrap_or_else(|error| panic!("{later}: {error}"));
                }
                let_go(&pipes);
                let other = enter(&path).expect("the volume");
                whole(&other).expect("the volume");
                whole(&user).expect("the volume");
                assert!(is_there(&sandbox, "vol"));
                drop((user, other));
                gone(&sandbox, &mount, &data, step);
            }
        }
        mount.unmount();
    }
}

/// Who was answered before the name went, and is inside only when the volume would have ended, keeps it.
#[test]
fn fuse_who_is_entering_an_ephemeral_volume_keeps_it() {
    for place in ["volume found", "volume entered"] {
        let sandbox = Sandbox::new();
        let (mount, pipes) = held_at(&sandbox, "volume_wait=2,volume_linger=0.5", place);
        let data = volume(&sandbox);
        let path = mount.path("volumes/vol");
        let entering = thread::spawn(move || enter(&path));
        arrived(&pipes);
        // Nobody has used it: it ends after its wait.
        until("its name goes", || !is_there(&sandbox, "vol"));
        thread::sleep(LINGER);
        let_go(&pipes);
        match entering.join().expect("a thread") {
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::NotFound, "{place}: {error}");
                gone(&sandbox, &mount, &data, place);
            }
            Ok(user) => {
                let end = Instant::now() + LINGER * 4;
                while Instant::now() < end {
                    whole(&user).unwrap_or_else(|error| panic!("{place}: {error}"));
                }
                assert!(is_there(&sandbox, "vol"), "{place}");
                drop(user);
                gone(&sandbox, &mount, &data, place);
            }
        }
        mount.unmount();
    }
}
