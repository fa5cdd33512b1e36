//! Loads that are cut short, run at once, or find no room.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mica::archive::Input;
use mica::layer::Limits;
use mica::ops::transfer::load::{LoadError, Loaded, Options, Silent, load};
use mica::store::{OpenMode, Store};

use super::*;
use crate::common::image::Pack;
use crate::common::tier;

fn attempt(store: &Store, bytes: &[u8], stream: bool) -> Result<Loaded, LoadError> {
    let dir = tempfile::tempdir().expect("a directory");
    let options = |input| Options {
        input,
        platform: None,
        limits: Limits::default(),
    };
    if !stream {
        let path = dir.path().join("a.tar");
        fs::write(&path, bytes).expect("the archive");
        return load(store, options(Input::Path(path)), &Silent);
    }
    let (reader, writer) = rustix::pipe::pipe().expect("a pipe");
    let mut writer = fs::File::from(writer);
    std::thread::scope(|scope| {
        // A reader that has seen enough closes the pipe.
        scope.spawn(move || writer.write_all(bytes));
        load(store, options(Input::Stream(reader)), &Silent)
    })
}

/// Cut at any byte, by offset or as a stream, an archive is refused and leaves nothing.
#[test]
fn truncation_at_any_byte() {
    let sandbox = Sandbox::new();
    let image = ImageBuilder::new("app:1").layer(|l| l.dir("d", 0o755).file("d/f", "content"));
    image.docker_archive(&sandbox.path("app.tar"));
    image.oci_archive(&sandbox.path("app.oci"));
    let store = Store::open(&sandbox.store(), OpenMode::Create).expect("a store");
    for name in ["app.tar", "app.oci"] {
        let bytes = fs::read(sandbox.path(name)).expect("the archive");
        for length in (0..bytes.len())
            .step_by(7)
            .chain((0..bytes.len()).step_by(512))
        {
            for stream in [false, true] {
                let result = attempt(&store, &bytes[..length], stream);
                assert!(result.is_err(), "{name} cut at {length} was loaded");
                assert!(store.names().expect("names").images.is_empty());
            }
        }
    }
    let lock = store.lock().expect("the lock");
    store.collect(&lock).expect("a collection");
    drop(lock);
    assert_empty(&sandbox.store());
    let bytes = fs::read(sandbox.path("app.tar")).expect("the archive");
    assert_eq!(
        attempt(&store, &bytes, true)
            .expect("the whole archive")
            .images
            .len(),
        1
    );
}

/// Any byte of an archive changed: refused, or the same image.
#[test]
fn damage_at_any_byte() {
    let sandbox = Sandbox::new();
    let image = ImageBuilder::new("app:1").layer(|l| l.dir("d", 0o755).file("d/f", "content"));
    image.docker_archive(&sandbox.path("app.tar"));
    let bytes = fs::read(sandbox.path("app.tar")).expect("the archive");
    let store = Store::open(&sandbox.store(), OpenMode::Create).expect("a store");
    let diff_ids = image.diff_ids();
    for at in (0..bytes.len()).step_by(11) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x20;
        if let Ok(loaded) = attempt(&store, &damaged, at % 2 == 0) {
            let names = store.names().expect("names");
            let record = names.images.get(&loaded.images[0].id).expect("the image");
            assert_eq!(
                record
                    .layers
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>(),
                diff_ids,
                "at {at}"
            );
        }
    }
    assert_whole(&sandbox);
}

/// Two loads of one archive at once, and a third of another that shares its layers: all succeed.
#[test]
fn loads_at_once() {
    let sandbox = Sandbox::new();
    sample("app:1").docker_archive(&sandbox.path("one.tar"));
    sample("app:2")
        .layer(|l| l.file("more", ""))
        .docker_archive(&sandbox.path("two.tar"));
    for round in 0..8 {
        let mut children = Vec::new();
        for archive in ["one.tar", "one.tar", "two.tar", "one.tar"] {
            let mut command = sandbox.command();
            command
                .args(["load", "-i", archive])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            children.push(command.spawn().expect("mica"));
        }
        for child in children {
            let output = child.wait_with_output().expect("mica");
            assert!(
                output.status.success(),
                "round {round}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        assert_whole(&sandbox);
        assert_eq!(stored_layers(&sandbox).len(), 3);
        sandbox.mica(["rmi", "app:1", "app:2"]).ok();
        assert_empty(&sandbox.store());
    }
}

/// Killed in the middle of a stream, a load leaves nothing visible, and nothing at all after the next verb.
#[test]
fn killed_in_the_middle() {
    let sandbox = Sandbox::new();
    sandbox.load(&ImageBuilder::new("kept:1").layer(|l| l.file("a", "b")));
    let before = sandbox.store_files();
    let archive = sandbox.path("app.tar");
    sample("app:1").docker_archive(&archive);
    let bytes = fs::read(&archive).expect("the archive");
    for part in [1, 3, 5, 7, 9] {
        let mut command = sandbox.command();
        command
            .arg("load")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = command.spawn().expect("mica");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin
            .write_all(&bytes[..bytes.len() * part / 10])
            .expect("the pipe");
        stdin.flush().expect("the pipe");
        // Until it has taken in what it was given.
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(200) {
            std::thread::sleep(Duration::from_millis(20));
        }
        child.kill().and_then(|()| child.wait()).expect("kill");
        drop(stdin);
        sandbox.mica(["gc"]).ok();
        assert_eq!(sandbox.store_files(), before, "killed after {part}/10");
    }
}

/// Calls that change the disk.
const CHANGES: [&str; 8] = [
    "write",
    "fsync",
    "fdatasync",
    "rename",
    "renameat2",
    "unlink",
    "unlinkat",
    "mkdir",
];

/// Injects `fault` at the first, second, ... of each of these calls of a load, until the load ends undisturbed. After
/// each run the image is there whole, or nothing of it is left once the next verb has run.
fn sweep(archive: &str, calls: &[&str], fault: &str) {
    let sandbox = Sandbox::new();
    sandbox.load(&ImageBuilder::new("kept:1").layer(|l| l.file("a", "b")));
    let before = sandbox.store_files();
    match archive {
        "app.oci" => sample("app:1")
            .pack(Pack::Gzip)
            .oci_archive(&sandbox.path(archive)),
        _ => sample("app:1").docker_archive(&sandbox.path(archive)),
    }
    let mut disturbed = 0;
    for call in calls {
        for n in 1.. {
            let mut strace = Command::new("strace");
            strace.args(["-f", "-qq", "-o", "trace", "-e", &format!("trace={call}")]);
            strace.args(["-e", &format!("inject={call}:{fault}:when={n}")]);
            strace
                .arg(env!("CARGO_BIN_EXE_mica"))
                .args(["load", "-q", "-i", archive]);
            strace
                .env("MICA_STORE", sandbox.store())
                .current_dir(sandbox.dir());
            let run = sandbox.run(strace);
            let visible = !sandbox
                .mica(["images", "-q", "app"])
                .ok()
                .stdout()
                .is_empty();
            sandbox.mica(["gc"]).ok();
            sandbox.mica(["check"]).ok();
            if visible {
                assert_whole(&sandbox);
                sandbox.mica(["rmi", "app:1"]).ok();
            } else {
                assert!(
                    !run.status.success(),
                    "{fault} at {call} {n}: {}",
                    run.describe()
                );
            }
            assert_eq!(sandbox.store_files(), before, "{fault} at {call} {n}");
            let trace = fs::read_to_string(sandbox.path("trace")).expect("the trace");
            if run.status.success() && !trace.contains("(INJECTED)") {
                break;
            }
            disturbed += 1;
        }
    }
    assert!(
        disturbed >= 2 * calls.len(),
        "disturbed {disturbed} times only"
    );
}

#[test]
fn killed_at_every_change() {
    sweep("app.oci", &CHANGES, "signal=KILL");
}

#[test]
fn a_disk_that_fails_at_every_change() {
    sweep("app.tar", &["fsync", "renameat2", "rename"], "error=EIO");
    sweep("app.tar", &["write"], "error=ENOSPC");
}

/// No room in the middle of a load: an error, nothing kept, and what was there still is.
#[test]
fn root_no_room() {
    tier::root();
    let sandbox = Sandbox::new();
    let store = sandbox.mkdir("store");
    let mut mount = Command::new("mount");
    mount
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(&store);
    sandbox.run(mount).ok();
    sandbox.load(&ImageBuilder::new("kept:1").layer(|l| l.file("a", "b")));
    let before = sandbox.store_files();
    sample("app:1").docker_archive(&sandbox.path("app.tar"));
    let mica = env!("CARGO_BIN_EXE_mica");
    for run in [
        sandbox.mica(["load", "-i", "app.tar"]),
        sandbox.sh(&format!("cat app.tar | '{mica}' load")),
    ] {
        let run = run.code(1);
        assert!(
            run.stderr()
                .to_lowercase()
                .contains("no space left on device"),
            "{}",
            run.describe()
        );
        assert_eq!(sandbox.store_files(), before);
    }
    let mut umount = Command::new("umount");
    umount.arg(&store);
    sandbox.run(umount).ok();
}
