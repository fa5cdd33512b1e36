use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::{base, errno, hex, image, mounted, names};
use crate::common::image::{ImageBuilder, digest};
use crate::common::sandbox::Sandbox;
use crate::common::walk;

/// The tree below a tag directory is the image's merged root: types, modes, owners, nanosecond times, sizes, links, devices and extended attributes are the image's.
#[test]
fn fuse_the_tree_is_the_image() {
    let sandbox = Sandbox::new();
    sandbox.load(
        &ImageBuilder::new("app:1")
            .layer(|l| {
                l.dir("d", 0o1777)
                    .owner(1000, 100)
                    .mtime(1_600_000_000, 123_456_789)
                    .file("d/old", "gone")
                    .file("d/file", "below")
            })
            .layer(|l| {
                l.file("d/file", "content")
                    .mode(0o4755)
                    .owner(70_000, 80_000)
                    .mtime(-5, 500_000_000)
                    .xattr("user.note", "a\nb")
                    .hardlink("d/twin", "d/file")
                    .mode(0o4755)
                    .owner(70_000, 80_000)
                    .mtime(-5, 500_000_000)
                    .symlink("d/link", "file")
                    .char_device("d/null", 1, 3)
                    .block_device("d/loop", 7, 300)
                    .fifo("d/pipe")
                    .file(b"d/\xff\xfe".as_slice(), "latin")
                    .file(format!("d/{}", "n".repeat(255)), "long")
            }),
    );
    let mount = sandbox.mount();
    let dir = mount.image("app/1/d");
    let stat = |name: &str| fs::symlink_metadata(dir.join(name)).expect(name);
    let top = fs::metadata(&dir).expect("d");
    assert_eq!((top.mode(), top.uid(), top.gid()), (0o041777, 1000, 100));
    assert_eq!(
        (top.mtime(), top.mtime_nsec()),
        (1_600_000_000, 123_456_789)
    );
    let file = stat("file");
    assert_eq!(
        (file.mode(), file.uid(), file.gid(), file.size()),
        (0o104755, 70_000, 80_000, 7)
    );
    assert_eq!((file.mtime(), file.mtime_nsec()), (-5, 500_000_000));
    assert_eq!(file.ino(), stat("twin").ino());
    assert_eq!((file.nlink(), stat("old").nlink()), (2, 1));
    assert_eq!(
        walk::xattrs(&dir.join("file")).expect("xattrs")[b"user.note".as_slice()],
        b"a\nb"
    );
    assert_eq!(fs::read(dir.join("twin")).expect("twin"), b"content");
    assert_eq!(
        fs::read_link(dir.join("link")).expect("link").to_str(),
        Some("file")
    );
    assert!(stat("null").file_type().is_char_device());
    assert_eq!(rustix::fs::major(stat("null").rdev()), 1);
    assert_eq!(
        (
            rustix::fs::major(stat("loop").rdev()),
            rustix::fs::minor(stat("loop").rdev())
        ),
        (7, 300)
    );
    assert!(stat("pipe").file_type().is_fifo());
    assert_eq!(
        fs::read(dir.join("n".repeat(255))).expect("the long name"),
        b"long"
    );
    assert_eq!(names(&dir).len(), 9, "{:?}", names(&dir));
}

/// A whiteout hides lower layers only, wherever it stands in its layer.
#[test]
fn fuse_whiteouts() {
    for late in [false, true] {
        let sandbox = Sandbox::new();
        sandbox.load(
            &ImageBuilder::new("app:1")
                .layer(|l| {
                    l.dir("d", 0o755)
                        .file("d/low", "1")
                        .file("gone", "1")
                        .file("stays", "1")
                })
                .layer(|l| {
                    let l = if late {
                        l
                    } else {
                        l.whiteout("d").whiteout("gone")
                    };
                    let l = l.dir("d", 0o755).file("d/high", "2");
                    if late {
                        l.whiteout("d").whiteout("gone")
                    } else {
                        l
                    }
                }),
        );
        let mount = sandbox.mount();
        assert_eq!(names(mount.image("app/1")), ["d", "stays"], "late: {late}");
        assert_eq!(names(mount.image("app/1/d")), ["high"], "late: {late}");
    }
}

/// An opaque marker hides the lower layers' entries of its directory, never its own layer's, and leaves mode and owner as they were if its layer does not list the directory.
#[test]
fn fuse_opaque_directories() {
    for late in [false, true] {
        let sandbox = Sandbox::new();
        sandbox.load(
            &ImageBuilder::new("app:1")
                .layer(|l| {
                    l.dir("d", 0o755)
                        .file("d/low", "1")
                        .dir("d/sub", 0o755)
                        .file("d/sub/low", "1")
                })
                .layer(|l| {
                    let l = if late { l } else { l.opaque("d") };
                    let l = l.dir("d", 0o700).file("d/high", "2").dir("d/sub", 0o755);
                    if late { l.opaque("d") } else { l }
                }),
        );
        let mount = sandbox.mount();
        assert_eq!(
            names(mount.image("app/1/d")),
            ["high", "sub"],
            "late: {late}"
        );
        assert!(names(mount.image("app/1/d/sub")).is_empty(), "late: {late}");
    }
    let sandbox = Sandbox::new();
    sandbox.load(
        &ImageBuilder::new("app:1")
            .layer(|l| l.dir("d", 0o2770).owner(7, 8).file("d/old", "1"))
            .layer(|l| l.opaque("d").file("d/new", "2")),
    );
    let mount = sandbox.mount();
    let stat = fs::metadata(mount.image("app/1/d")).expect("d");
    assert_eq!((stat.mode(), stat.uid(), stat.gid()), (0o042770, 7, 8));
    assert_eq!(names(mount.image("app/1/d")), ["new"]);
}

/// Nothing of mica's own is in an image tree, and neither whiteouts nor overlay attributes of a layer are visible there; a character device 0:0 is a whiteout, as it is for overlayfs.
#[test]
fn fuse_nothing_of_ours_in_an_image() {
    let sandbox = Sandbox::new();
    sandbox.load(
        &ImageBuilder::new("app:1")
            .layer(|l| {
                let l = l.dir("d", 0o755).file("d/low", "1").file("gone", "1");
                l.file("too", "1").char_device("low", 0, 0)
            })
            .layer(|l| {
                l.whiteout("gone")
                    .char_device("too", 0, 0)
                    .dir("d", 0o755)
                    .xattr("trusted.overlay.opaque", "y")
                    .xattr("user.overlay.redirect", "/elsewhere")
                    .xattr("user.kept", "yes")
            }),
    );
    let mount = sandbox.mount();
    let root = mount.image("app/1");
    assert_eq!(names(&root), ["d"]);
    assert_eq!(names(root.join("d")), ["low"]);
    let listed: Vec<Vec<u8>> = walk::xattrs(&root.join("d"))
        .expect("xattrs")
        .into_keys()
        .collect();
    assert_eq!(listed, [b"user.kept".to_vec()]);
    assert!(walk::xattrs(&root).expect("xattrs").is_empty());
}

/// All names of one file in one layer have the same inode number, in every image that holds the layer.
#[test]
fn fuse_one_inode_per_file() {
    let (_sandbox, mount) = mounted(&["app:1", "other:2"]);
    let ino = |path: &str| fs::metadata(mount.image(path)).expect(path).ino();
    assert_eq!(ino("app/1/usr/big"), ino("app/1/usr/big2"));
    assert_eq!(ino("app/1/usr/big"), ino("other/2/usr/big"));
    assert_ne!(ino("app/1/own"), ino("other/2/own"));
}

/// An image tree is read-only: create, remove, rename, chmod, chown, truncate and setxattr fail with EROFS.
#[test]
fn fuse_image_trees_are_read_only() {
    let (_sandbox, mount) = mounted(&["app:1"]);
    let etc = mount.image("app/1/etc");
    let file = etc.join("passwd");
    assert_eq!(errno(File::create_new(etc.join("new"))), Errno::ROFS);
    assert_eq!(errno(fs::create_dir(etc.join("new"))), Errno::ROFS);
    assert_eq!(errno(fs::remove_file(&file)), Errno::ROFS);
    assert_eq!(errno(fs::remove_dir(&etc)), Errno::ROFS);
    assert_eq!(errno(fs::rename(&file, etc.join("moved"))), Errno::ROFS);
    assert_eq!(
        errno(fs::rename(&file, mount.image("app/moved"))),
        Errno::ROFS
    );
    assert_eq!(errno(fs::hard_link(&file, etc.join("linked"))), Errno::ROFS);
    assert_eq!(
        errno(std::os::unix::fs::symlink("x", etc.join("new"))),
        Errno::ROFS
    );
    assert_eq!(
        errno(fs::set_permissions(
            &file,
            fs::Permissions::from_mode(0o600)
        )),
        Errno::ROFS
    );
    assert_eq!(
        errno(std::os::unix::fs::chown(&file, Some(1), None)),
        Errno::ROFS
    );
    assert_eq!(
        errno(OpenOptions::new().write(true).truncate(true).open(&file)),
        Errno::ROFS
    );
    let path = CString::new(file.to_str().expect("UTF-8")).expect("a path");
    let set = rustix::fs::setxattr(&path, c"user.x", b"1", XattrFlags::empty());
    assert_eq!(set, Err(Errno::ROFS));
    assert_eq!(
        fs::read_to_string(&file).expect("passwd"),
        "root:x:0:0::/:/bin/sh\n"
    );
}

/// Opening an image file for writing succeeds where its mode allows and the first write fails with EROFS; mounted with `-o strict` the open itself fails.
#[test]
fn fuse_writing_is_refused() {
    let (sandbox, mount) = mounted(&["app:1"]);
    let path = mount.image("app/1/etc/passwd");
    let mut file = OpenOptions::new()
        .write(true)
        .open(&path)
        .expect("the open succeeds");
    assert_eq!(errno(file.write(b"changed")), Errno::ROFS);
    drop(file);
    assert_eq!(
        fs::read_to_string(&path).expect("passwd"),
        "root:x:0:0::/:/bin/sh\n"
    );
    mount.unmount();
    let strict = sandbox.mount_with(&["-o", "strict"]);
    let path = strict.image("app/1/etc/passwd");
    assert_eq!(
        errno(OpenOptions::new().write(true).open(&path)),
        Errno::ROFS
    );
    assert_eq!(
        fs::read_to_string(&path).expect("passwd"),
        "root:x:0:0::/:/bin/sh\n"
    );
}

/// `M/layers/<diff_id>/diff` shows that layer alone, a whiteout as a character device 0:0 and an opaque directory with `trusted.overlay.opaque=y`.
#[test]
fn fuse_one_layer_alone() {
    let sandbox = Sandbox::new();
    let image = ImageBuilder::new("app:1").layer(base).layer(|l| {
        l.dir(".", 0o755)
            .dir("etc", 0o755)
            .whiteout("etc/hosts")
            .dir("usr", 0o755)
            .opaque("usr")
            .file("usr/new", "n")
    });
    sandbox.load(&image);
    let mount = sandbox.mount();
    let diff = mount
        .path("layers")
        .join(hex(&image.diff_ids()[1]))
        .join("diff");
    assert_eq!(names(&diff), ["etc", "usr"]);
    assert_eq!(names(diff.join("etc")), ["hosts"]);
    let whiteout = fs::symlink_metadata(diff.join("etc/hosts")).expect("the whiteout");
    assert!(whiteout.file_type().is_char_device());
    assert_eq!(whiteout.rdev(), 0);
    let attributes = walk::xattrs(&diff.join("usr")).expect("xattrs");
    assert_eq!(
        attributes.get(b"trusted.overlay.opaque".as_slice()),
        Some(&b"y".to_vec())
    );
    let lower = mount
        .path("layers")
        .join(hex(&image.diff_ids()[0]))
        .join("diff");
    let merged = sandbox.mkdir("merged");
    let stack = format!("lowerdir={}:{}", diff.display(), lower.display());
    sandbox
        .sh(&format!(
            "mount -t overlay overlay -o '{stack}' {}",
            merged.display()
        ))
        .ok();
    let expected = walk::walk(&mount.image("app/1")).expect("the image");
    let mut stacked = walk::walk(&merged).expect("the overlay");
    sandbox.umount(&merged);
    // The mtime of a tag directory is the image's creation time.
    stacked.get_mut(b"".as_slice()).expect("the root").mtime = expected[b"".as_slice()].mtime;
    // An overlay mounted by root reads the trusted attribute and shows the user one as it is.
    for entry in stacked.values_mut() {
        entry.xattrs.remove(b"user.overlay.opaque".as_slice());
    }
    let differences = walk::compare(&expected, &stacked);
    assert!(differences.is_empty(), "{differences:#?}");
}

/// `M/layers/<diff_id>/tar` is the layer's tar, byte for byte.
#[test]
fn fuse_the_layer_as_tar() {
    let (_sandbox, mount) = mounted(&["app:1"]);
    for (diff_id, tar) in image("app:1").diff_ids().iter().zip(&image("app:1").layers) {
        let bytes = fs::read(mount.path("layers").join(hex(diff_id)).join("tar")).expect("tar");
        assert_eq!(digest(&bytes), *diff_id);
        assert!(bytes == *tar);
    }
}

/// An inode number of an image is the same after the daemon was started anew, whatever was looked at first, after an index was built anew, and after other images came and went.
#[test]
fn fuse_inode_numbers_stay() {
    let (sandbox, mount) = mounted(&["app:1", "other:1"]);
    let numbers = |mount: &crate::common::sandbox::Mount, tags: [&str; 3]| {
        let mut found = std::collections::BTreeMap::new();
        for tag in tags {
            let root = match tag {
                "by-id" => mount.path("by-id").join(hex(&image("app:1").id())),
                tag => mount.image(tag),
            };
            found.insert(tag.to_owned(), fs::metadata(&root).expect(tag).ino());
            for entry in walk::walk(&root).expect("walk") {
                let path = root.join(std::ffi::OsStr::from_bytes(&entry.0));
                let stat = fs::symlink_metadata(&path).expect("stat");
                found.insert(format!("{tag} {}", entry.0.escape_ascii()), stat.ino());
            }
        }
        found
    };
    let first = numbers(&mount, ["app/1", "other/1", "by-id"]);
    assert!(first.len() > 10);
    drop(mount);
    let mount = sandbox.mount();
    assert_eq!(numbers(&mount, ["by-id", "other/1", "app/1"]), first);
    drop(mount);
    for entry in fs::read_dir(sandbox.store().join("layers")).expect("layers") {
        fs::remove_file(entry.expect("entry").path()).expect("remove");
    }
    sandbox.mica(["check", "--repair"]).ok();
    sandbox.load(&ImageBuilder::new("new:1").layer(|l| l.file("new", "1")));
    let mount = sandbox.mount();
    fs::metadata(mount.image("new/1/new")).expect("new");
    sandbox.mica(["rmi", "new:1"]).ok();
    assert_eq!(numbers(&mount, ["other/1", "by-id", "app/1"]), first);
}
