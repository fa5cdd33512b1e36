use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use super::{hex, image, mounted, names};
use crate::common::image::digest;
use crate::common::walk;

fn xattr(path: &Path, name: &str) -> String {
    let mut value = vec![0u8; 256];
    let length = rustix::fs::getxattr(path, name, &mut value[..])
        .unwrap_or_else(|e| panic!("{name} of {}: {e}", path.display()));
    String::from_utf8_lossy(&value[..length]).into_owned()
}

/// The mtime of a tag directory is the image's creation time, its size the image's size, its ctime the time it was tagged here.
#[test]
fn fuse_stat_of_a_tag_directory() {
    let before = SystemTime::now();
    let (_sandbox, mount) = mounted(&["app:1"]);
    let stat = fs::metadata(mount.image("app/1")).expect("stat");
    // 2024-05-06T07:08:09.123456789Z
    assert_eq!(
        (stat.mtime(), stat.mtime_nsec()),
        (1_714_979_289, 123_456_789)
    );
    let content: usize =
        300_000 + "root:x:0:0::/:/bin/sh\n".len() + "127.0.0.1 localhost\n".len() + "app:1".len();
    assert_eq!(stat.size(), content as u64);
    let since = before
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("the clock")
        .as_secs();
    let tagged = u64::try_from(stat.ctime()).expect("after 1970");
    assert!((since..since + 600).contains(&tagged), "{since} {tagged}");
}

/// `user.mica.id` on a tag directory is the image's ID and `user.mica.layer` on a file is the layer it came from; neither is ever listed.
#[test]
fn fuse_hidden_attributes() {
    let (_sandbox, mount) = mounted(&["app:1"]);
    let image = image("app:1");
    let tag = mount.image("app/1");
    assert_eq!(xattr(&tag, "user.mica.id"), image.id());
    assert_eq!(
        xattr(&tag.join("etc/passwd"), "user.mica.layer"),
        image.diff_ids()[0]
    );
    assert_eq!(
        xattr(&tag.join("own"), "user.mica.layer"),
        image.diff_ids()[1]
    );
    assert!(walk::xattrs(&tag).expect("xattrs").is_empty());
    assert!(walk::xattrs(&tag.join("own")).expect("xattrs").is_empty());
}

/// `M/info/images/<repository>/<tag>/config.json` is the image's config byte for byte, and its sha256 is the ID.
#[test]
fn fuse_config_of_an_image() {
    let (_sandbox, mount) = mounted(&["app:1"]);
    let info = mount.path("info/images/app/1");
    let bytes = fs::read(info.join("config.json")).expect("config.json");
    assert_eq!(bytes, image("app:1").config_bytes());
    assert_eq!(digest(&bytes), image("app:1").id());
    let id = fs::read_to_string(info.join("id")).expect("id");
    assert_eq!(id.trim_end(), image("app:1").id());
    for name in names(&info) {
        fs::read(info.join(&name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

/// A file in `M/info` shows its new content to the first reader after the change.
#[test]
fn fuse_facts_are_fresh() {
    let (sandbox, mount) = mounted(&["app:1"]);
    let df = || fs::read_to_string(mount.path("info/df")).expect("df");
    let mut seen = vec![df()];
    for name in ["b:1", "c:1", "d:1"] {
        sandbox.load(&image(name));
        let now = df();
        assert!(!seen.contains(&now), "stale after loading {name}: {now}");
        assert!(!now.contains('\0'), "padded: {now:?}");
        seen.push(now);
    }
    fs::remove_dir(mount.image("d/1")).expect("untag");
    let now = df();
    assert_ne!(Some(&now), seen.last(), "stale after the removal");
    assert!(!now.contains('\0'), "padded: {now:?}");
}

/// `du` with several arguments counts a file of a shared layer once, as in `du -sh M/images /dev/null`; mounted with `-o nlink=shared`, `du -sh M/images` does too.
#[test]
fn fuse_du_counts_shared_files_once() {
    let (sandbox, mount) = mounted(&["app:1"]);
    let shared = sandbox.mount_on(&sandbox.mkdir("shared"), &["-o", "nlink=shared"]);
    let du = |path: &Path, more: &str| -> u64 {
        let run = sandbox
            .sh(&format!("du -s -B1 {} {more}", path.display()))
            .ok()
            .stdout();
        run.split_whitespace()
            .next()
            .and_then(|n| n.parse().ok())
            .expect("a number")
    };
    let one = du(&mount.path("images"), "/dev/null");
    assert!((300_000..310_000).contains(&one), "{one}");
    sandbox.load(&image("app:2"));
    sandbox.load(&image("third:3"));
    for (mount, more) in [(&mount, "/dev/null"), (&shared, "")] {
        let three = du(&mount.path("images"), more);
        assert!((one + 1..one + 4096).contains(&three), "{one} {three}");
    }
    assert_eq!(
        hex(&image("third:3").diff_ids()[0]),
        hex(&image("app:1").diff_ids()[0])
    );
}
