//! A disk that is really full.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use mica::store::{OpenMode, Store, check};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::helper::{self, files, tag};
use crate::common::tier;

/// Fills the file system below `dir` to the last byte.
fn fill(dir: &Path) {
    let mut file = File::create(dir.join("filler")).expect("a file");
    for chunk in [&[1u8; 1 << 16][..], &[1; 1]] {
        while file.write_all(chunk).is_ok() {}
    }
}

/// An import into a full disk fails and leaves nothing; a removal from one works, and then there is room again.
#[test]
fn root_a_full_disk_loses_nothing_and_can_be_emptied() {
    tier::root();
    let dir = tempfile::tempdir().expect("a directory");
    let options = c"size=6m";
    mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), options).expect("a small tmpfs");
    let path = dir.path().join("store");
    let store = Store::open(&path, OpenMode::Create).expect("a store");
    helper::import(&store, &[1, 2], &["a:1"]).expect("an import");
    helper::import(&store, &[2, 3], &["b:1"]).expect("an import");
    let before = files(&path);
    let names = store.names().expect("names");
    fill(dir.path());

    let error = helper::import(&store, &[4], &["c:1"]).expect_err("a full disk");
    assert_eq!(error.raw_os_error(), Some(28), "{error}");
    assert_eq!(files(&path), before);
    assert_eq!(store.names().expect("names"), names);

    helper::remove(&store, &["b:1"]).expect("a removal");
    assert!(!store.names().expect("names").tags.contains_key(&tag("b:1")));
    fs::remove_file(dir.path().join("filler")).expect("the filler");
    assert_eq!(check::run(&store, false).expect("a check"), []);
    helper::import(&store, &[4], &["c:1"]).expect("an import");
    assert!(path.join("reserve").exists());
    drop(store);
    unmount(dir.path(), UnmountFlags::DETACH).expect("unmounting");
}
