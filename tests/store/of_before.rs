//! A store of an earlier mica, open to all as it was made then: opened, shut and used.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixListener;
use std::process::Command;

use crate::common::sandbox::Sandbox;

/// Made by the version before stores were private: an image with two tags, one pinned; volumes, one of them made ephemeral with
/// `chmod +t` (its wait put off for ever), one bound to /tmp; a container that never ran.
const FIXTURE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/fixtures/store-open-to-all.tar.gz"
);

fn unpacked() -> Sandbox {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.store()).expect("mkdir");
    let mut tar = Command::new("tar");
    tar.args(["-xpzf", FIXTURE, "--no-same-owner", "-C"])
        .arg(sandbox.store());
    sandbox.run(tar).ok();
    sandbox
}

#[test]
fn a_store_of_before_is_opened_and_shut() {
    let sandbox = unpacked();
    let mode = |name: &str| fs::metadata(sandbox.store().join(name)).expect(name).mode() & 0o777;
    assert_eq!(mode(""), 0o755);
    let images = sandbox
        .mica(["images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"])
        .ok();
    assert_eq!(images.stdout(), "old:1 14bcb889bbb8\nold:2 14bcb889bbb8\n");
    assert_eq!(images.stderr().lines().count(), 1, "{}", images.stderr());
    for name in [
        "",
        "blobs",
        "blobs/sha256",
        "layers",
        "leases",
        "tmp",
        "volumes",
    ] {
        assert_eq!(mode(name), 0o700, "{name}");
    }
    for name in [
        "index.json",
        "volumes.json",
        "meta.json",
        "oci-layout",
        "lock",
    ] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    let check = sandbox.mica(["check"]);
    assert!(
        check.status.code() == Some(0) || check.stdout().contains("--repair"),
        "{}",
        check.describe()
    );
    sandbox.mica(["check", "--repair"]).ok();
    sandbox.mica(["check"]).ok();
    sandbox.mica(["rmi", "old:1"]).fails();
    sandbox.mica(["unpin", "old:1"]).ok();
    sandbox.mica(["tag", "old:2", "new:1"]).ok();
    assert_eq!(sandbox.mica(["images"]).ok().stderr(), "");
    let listed = sandbox
        .mica(["volume", "ls", "--format", "{{.Name}} {{.Kind}}"])
        .ok();
    assert_eq!(
        listed.stdout(),
        "bound bind\nevaporates ephemeral\nkeeps persistent\n"
    );
    let ps = sandbox
        .mica(["ps", "-a", "--format", "{{.Names}} {{.Image}} {{.Status}}"])
        .ok();
    assert_eq!(ps.stdout(), "stopped old:1 Created\n");
    sandbox.mica(["rm", "stopped"]).ok();
}

#[test]
fn fuse_a_store_of_before_is_mounted() {
    let sandbox = unpacked();
    let mount = sandbox.mount();
    let read = |path: &str| fs::read_to_string(mount.path(path)).expect(path);
    assert_eq!(read("images/old/1/etc/link"), "a file of the base\n");
    assert_eq!(read("volumes/keeps/file"), "kept\n");
    assert_eq!(read("volumes/evaporates/file"), "going\n");
    let mut value = [0; 8];
    let mark = |name: &str, value: &mut [u8]| {
        rustix::fs::getxattr(
            mount.path("volumes").join(name),
            "user.mica.ephemeral",
            value,
        )
    };
    assert_eq!(mark("evaporates", &mut value), Ok(1));
    assert_eq!(mark("keeps", &mut value), Err(rustix::io::Errno::NODATA));
    fs::write(mount.path("volumes/keeps/new"), "new").expect("a file");
    sandbox.mica(["volume", "keep", "evaporates"]).ok();
    assert_eq!(
        mark("evaporates", &mut value),
        Err(rustix::io::Errno::NODATA)
    );
}

/// The daemon of a mount that an earlier mica has left behind: its lease, and the answers that it has.
#[test]
fn a_mount_of_before_is_told_and_keeps_nobody_waiting() {
    let sandbox = unpacked();
    // The first verb shuts the store.
    sandbox.mica(["images"]).ok();
    let leases = sandbox.store().join("leases");
    let lease = leases.join("daemon-1-0-0.json");
    let record =
        r#"{"kind":"daemon","mountpoint":"/of/before","pid":1,"since":"2024-05-06T07:08:09Z"}"#;
    fs::write(&lease, format!("{record}\n")).expect("a lease");
    let held = fs::File::open(&lease).expect("the lease");
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).expect("flock");
    let listener = UnixListener::bind(leases.join("daemon-1-0-0.sock")).expect("a socket");
    let (sender, asked) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut line = String::new();
            let _ = BufReader::new(&stream).read_line(&mut line);
            let answer: &[u8] = match line.trim() {
                "sync" => b"ok\n",
                "users" => b"",
                _ => b"error: unknown request\n",
            };
            let _ = stream.write_all(answer);
            if sender.send(line.trim().to_owned()).is_err() {
                return;
            }
        }
    });
    for verb in [
        &["tag", "old:2", "new:1"][..],
        &["rmi", "new:1"],
        &["volume", "create", "made"],
        &["volume", "rm", "made"],
        &["rm", "stopped"],
        &["gc"],
        &["images"],
        &["system", "df"],
        &["users"],
    ] {
        let run = sandbox.mica(verb).ok();
        assert!(!run.stderr().contains("/of/before"), "{}", run.describe());
    }
    let asked: Vec<String> = asked.try_iter().collect();
    let told = asked.iter().filter(|line| *line == "sync").count();
    assert_eq!(told, 4, "{asked:?}");
}
