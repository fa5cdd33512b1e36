//! Indexes that another version of mica has written.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::common::image::ImageBuilder;
use crate::common::sandbox::Sandbox;
use crate::common::walk;

fn image() -> ImageBuilder {
    ImageBuilder::new("app:1")
        .layer(|l| {
            l.dir("etc", 0o755)
                .file("etc/passwd", "root")
                .file("big", vec![3; 300_000])
        })
        .layer(|l| l.file("etc/group", "wheel").whiteout("big"))
}

/// Gives every index another version number.
fn age(sandbox: &Sandbox, version: u32) -> Vec<(PathBuf, Vec<u8>)> {
    let layers = fs::read_dir(sandbox.store().join("layers")).expect("layers");
    let paths: Vec<PathBuf> = layers.map(|entry| entry.expect("entry").path()).collect();
    let before = paths.iter().map(|path| {
        let bytes = fs::read(path).expect("an index");
        let file = OpenOptions::new().write(true).open(path).expect("open");
        file.write_all_at(&version.to_le_bytes(), 8).expect("write");
        (path.clone(), bytes)
    });
    before.collect()
}

#[test]
fn fuse_regression_indexes_of_another_version_are_made_anew() {
    for version in [1, 77] {
        let sandbox = Sandbox::new();
        sandbox.load(&image());
        let mount = sandbox.mount();
        let expected = walk::walk(&mount.image("app/1")).expect("walk");
        drop(mount);
        let before = age(&sandbox, version);
        sandbox.mica(["check"]).ok();
        let mount = sandbox.mount();
        let found = walk::walk(&mount.image("app/1")).expect("walk");
        assert_eq!(walk::compare(&expected, &found), [""; 0]);
        for (path, bytes) in &before {
            assert!(fs::read(path).expect("index") == *bytes, "{path:?}");
        }
        let tmp = fs::read_dir(sandbox.store().join("tmp")).expect("tmp");
        assert_eq!(tmp.count(), 0);
        drop(mount);
        // Verbs too, and over it another image that shares a layer.
        age(&sandbox, version);
        sandbox.load(&image().tag("app:2").layer(|l| l.file("more", "m")));
        sandbox.mica(["diff", "app:1", "app:2"]).ok();
    }
}

/// A damaged tar gives no sums that would make it look right.
#[test]
fn fuse_regression_no_index_is_made_of_a_damaged_tar() {
    let sandbox = Sandbox::new();
    let image = image();
    sandbox.load(&image);
    age(&sandbox, 1);
    let digest = image.diff_ids()[0].replace("sha256:", "");
    let blob = sandbox.store().join("blobs/sha256").join(digest);
    let file = OpenOptions::new().write(true).open(blob).expect("blob");
    file.write_all_at(b"WRONG", 4000).expect("write");
    let mount = sandbox.mount();
    let read = fs::read(mount.image("app/1/etc/passwd"));
    assert_eq!(read.unwrap_err().raw_os_error(), Some(libc::EIO));
}

#[test]
fn fuse_regression_the_tar_of_a_damaged_layer_is_eio() {
    let sandbox = Sandbox::new();
    let image = image();
    sandbox.load(&image);
    let digest = image.diff_ids()[0].replace("sha256:", "");
    let blob = sandbox.store().join("blobs/sha256").join(&digest);
    let mount = sandbox.mount();
    let tar = mount.path(format!("layers/{digest}/tar"));
    let right = fs::read(&tar).expect("the tar");
    drop(mount);
    let file = OpenOptions::new().write(true).open(&blob).expect("blob");
    // In a header, in padding, in content, behind the end marker.
    for at in [100, 1_500, 2_048, right.len() - 1] {
        let byte = [right[at] ^ 4];
        file.write_all_at(&byte, at as u64).expect("write");
        let mount = sandbox.mount();
        let tar = mount.path(format!("layers/{digest}/tar"));
        let read = fs::read(&tar);
        assert_eq!(
            read.err().and_then(|e| e.raw_os_error()),
            Some(libc::EIO),
            "byte {at}"
        );
        drop(mount);
        file.write_all_at(&[right[at]], at as u64).expect("write");
    }
    let mount = sandbox.mount();
    let tar = mount.path(format!("layers/{digest}/tar"));
    assert!(fs::read(&tar).expect("the tar") == right);
}

/// The owner of the store can do it by hand, or a disk fails: then its readers get EIO, everybody else goes on, and nobody sees a
/// wrong attribute.
#[test]
fn fuse_regression_an_index_that_is_cut_or_changed_under_a_mount_harms_its_readers_only() {
    for damage in ["cut", "changed"] {
        let sandbox = Sandbox::new();
        let large = ImageBuilder::new("app:1").layer(|mut l| {
            for dir in 0..60 {
                l = l.dir(format!("d{dir}"), 0o755);
                for file in 0..60 {
                    l = l.file(format!("d{dir}/f{file}"), format!("{dir} {file}"));
                }
            }
            l
        });
        sandbox.load(&large);
        sandbox.load(&ImageBuilder::new("other:1").layer(|l| l.file("f", "other")));
        let mount = sandbox.mount();
        let root = mount.image("app/1");
        assert_eq!(fs::read(root.join("d0/f0")).expect("read"), b"0 0");
        let digest = large.diff_ids()[0].replace("sha256:", "");
        let index = sandbox.store().join(format!("layers/{digest}.idx"));
        let file = OpenOptions::new().write(true).open(&index).expect("open");
        match damage {
            "cut" => file.set_len(0).expect("truncate"),
            _ => {
                let length = file.metadata().expect("stat").len();
                let noise = vec![0x5a; (length - 400) as usize];
                file.write_all_at(&noise, 400).expect("write");
            }
        }
        let (mut right, mut refused) = (0, 0);
        for dir in 0..60 {
            for number in 0..60 {
                match fs::read(root.join(format!("d{dir}/f{number}"))) {
                    Ok(read) => {
                        assert_eq!(read, format!("{dir} {number}").into_bytes(), "{damage}");
                        right += 1;
                    }
                    Err(error) => {
                        assert_eq!(error.raw_os_error(), Some(libc::EIO), "{damage}");
                        refused += 1;
                    }
                }
            }
        }
        assert!(
            right > 0 && refused > 0,
            "{damage}: {right} right, {refused} refused"
        );
        let other = fs::read(mount.image("other/1/f")).expect("another image");
        assert_eq!(other, b"other");
        assert!(mount.is_mounted());
        let check = sandbox.mica(["check"]).fails();
        assert!((check.stdout() + &check.stderr()).contains(&digest[..12]));
    }
}
