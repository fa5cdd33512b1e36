//! A store of an earlier mica, open to all as it was made then: opened, shut and used.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
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
