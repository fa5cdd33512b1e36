//! The oracle: what kernel overlayfs shows for the same image in podman's storage.
//!
//! Every entry of the real images is compared: type, mode, owner, nanosecond mtime, size, symlink target, device number,
//! extended attributes, hard-link groups, and the bytes of every file. The list of accepted differences is [`accepted`].

use std::path::Path;

use crate::common::image::ImageBuilder;
use crate::common::podman::Podman;
use crate::common::sandbox::Sandbox;
use crate::common::{podman, real, tier, walk};

/// The differences that are meant, by the line that `walk` prints for them.
///
/// - The root directory's mtime: a tag directory carries the image's date of creation (doc/SEMANTICS.md); podman's carries
///   the time of the load, whatever the layers say.
/// - The root directory's mode: podman makes it 0555 even where a layer says otherwise.
/// - Times before 1970: podman sets them to 0, the layer's tar has them.
/// - An extended attribute with an empty value: the layer's tar has it, podman's tar reader (Go's) takes an empty PAX
///   value for a deleted one.
///
/// Sizes and link counts of directories, which every file system counts its own way, are not compared to begin with.
fn accepted(line: &str) -> bool {
    line.starts_with("/: mtime should be ")
        || line.starts_with("/: mode should be 40555, is ")
        || line.contains(": mtime should be (0, 0), is (-")
        || (line.contains(": xattrs should be ") && {
            let (left, right) = line.split_once(", is ").unwrap_or_default();
            left.ends_with(&right.replace("user.empty=,", ""))
        })
}

/// A base system, and layers that add, delete, replace and bring back.
#[test]
fn root_oracle_small_image() {
    compare_real("small");
}

/// python3, nginx, nodejs, git and a compiler in some twenty layers.
#[test]
fn root_oracle_real_image() {
    compare_real("real");
}

/// The layers of an oci-archive are compressed; the tree is the same.
#[test]
fn root_oracle_oci_archive() {
    tier::root();
    let sandbox = Sandbox::new();
    sandbox.load_file(&real::oci_archive("small")).ok();
    let mount = sandbox.mount();
    let expected = podman::real_image(&sandbox, "small");
    assert_same(&expected, &mount.image("localhost/mica-test/small"), 3_000);
}

/// Layers by hand: every kind of entry, whiteouts and opaque directories over each.
#[test]
fn root_oracle_handmade_image() {
    tier::root();
    let image = ImageBuilder::new("localhost/handmade:1")
        .layer(|l| {
            l.dir(".", 0o711)
                .dir("d", 0o755)
                .file("d/a", "a")
                .file("d/b", "b")
                .hardlink("d/c", "d/a")
                .dir("d/sub", 0o700)
                .owner(12, 34)
                .mtime(1_000_000_000, 123_456_789)
                .file("d/sub/x", "x")
                .dir("opaque", 0o755)
                .file("opaque/lower", "lower")
                .file("file-then-dir", "file")
                .dir("dir-then-file", 0o755)
                .file("dir-then-file/below", "below")
                .symlink("link", "d/a")
                .char_device("null", 1, 3)
                .block_device("loop", 7, 1)
                .fifo("fifo")
                .file("xattr", "x")
                .xattr("user.key", b"value with\nnewline=and more")
                .file("capable", "program")
                .xattr(
                    "security.capability",
                    b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
                )
        })
        .layer(|l| {
            l.whiteout("d/b")
                .dir("d", 0o711)
                .file("d/new", "new")
                .dir("opaque", 0o750)
                .opaque("opaque")
                .file("opaque/upper", "upper")
                .whiteout("file-then-dir")
                .dir("file-then-dir", 0o755)
                .file("file-then-dir/below", "below")
                .whiteout("dir-then-file")
                .file("dir-then-file", "file")
                .symlink("link", "nowhere")
                .whiteout("fifo")
        })
        .layer(|l| {
            l.dir("d", 0o755)
                .dir("d/sub", 0o755)
                .file("d/sub/y", "y")
                .file("d/b", "again")
        });
    let sandbox = Sandbox::new();
    sandbox.load(&image);
    let archive = sandbox.path("handmade.tar");
    image.docker_archive(&archive);
    let podman = Podman::new(&sandbox, sandbox.path("podman"));
    podman.load(&sandbox, &archive);
    let expected = podman.mount(&sandbox, "localhost/handmade:1");
    let mount = sandbox.mount();
    assert_same(&expected, &mount.image("localhost/handmade/1"), 15);
}

fn compare_real(name: &str) {
    tier::root();
    let archive = real::docker_archive(name);
    let sandbox = Sandbox::new();
    sandbox.load_file(&archive).ok();
    let mount = sandbox.mount();
    let expected = podman::real_image(&sandbox, name);
    let tag = mount.image(format!("localhost/mica-test/{name}"));
    assert_same(&expected, &tag, 3_000);
}

fn assert_same(expected: &Path, actual: &Path, at_least: usize) {
    let entries = walk::walk(expected).expect("walking the oracle").len();
    assert!(
        entries >= at_least,
        "the oracle shows {entries} entries only"
    );
    let mut found = walk::differences(expected, actual).expect("walking both trees");
    found.retain(|line| !accepted(line));
    let shown = found
        .iter()
        .take(50)
        .cloned()
        .collect::<Vec<_>>()
        .join("\n");
    assert!(
        found.is_empty(),
        "{} differences from kernel overlayfs in {entries} entries:\n{shown}",
        found.len()
    );
}
