//! How often the kernel asks the daemon. Counts stand for time where time cannot be tested.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::common::image::ImageBuilder;
use crate::common::sandbox::{Mount, Sandbox};
use crate::common::walk;

const DIRECTORIES: usize = 20;
const LINKS: usize = 30;

fn image(name: &str) -> ImageBuilder {
    ImageBuilder::new(name)
        .layer(|mut l| {
            for dir in 0..DIRECTORIES {
                l = l
                    .dir(format!("d{dir}"), 0o755)
                    .file(format!("d{dir}/file"), format!("content {dir}"));
                for link in 0..LINKS {
                    l = l.symlink(format!("d{dir}/l{link}"), format!("target {dir} {link}"));
                }
            }
            l
        })
        .layer(|l| l.file("d0/above", "2"))
}

/// What `work` made the kernel ask, by kind; without what statistics and forgetting cost.
fn asked(mount: &Mount, work: impl FnOnce()) -> BTreeMap<String, u64> {
    let before = mount.requests();
    work();
    let mut after = mount.requests();
    for (kind, count) in &mut after {
        *count -= before.get(kind).copied().unwrap_or(0);
    }
    after.retain(|kind, count| *count > 0 && kind != "forget" && kind != "total");
    after
}

/// Lists a tree as `ls -lR` does: each directory to its end, then its links.
fn list(dir: &Path) {
    let entries: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    for path in entries {
        let stat = fs::symlink_metadata(&path).unwrap();
        if stat.is_symlink() {
            let target = fs::read_link(&path).unwrap();
            assert_eq!(target.as_os_str().len() as u64, stat.size(), "{path:?}");
            let place = path.to_str().unwrap().rsplit_once("/d").unwrap().1;
            let (dir, link) = place.split_once("/l").unwrap();
            assert_eq!(target, Path::new(&format!("target {dir} {link}")));
        } else if stat.is_dir() {
            list(&path);
        }
    }
}

#[test]
fn fuse_a_first_listing_asks_twice_per_directory_and_once_per_link() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("r:1"));
    let mount = sandbox.mount();
    let root = mount.image("r/1");
    fs::metadata(&root).unwrap();
    let asked = asked(&mount, || list(&root));
    let directories = DIRECTORIES as u64 + 1;
    let links = (DIRECTORIES * LINKS) as u64;
    let listings = asked.get("readdirplus").copied();
    assert_eq!(listings, Some(2 * directories), "{asked:?}");
    assert_eq!(asked.get("readlink"), Some(&links), "{asked:?}");
    // Whether OPENDIR is wanted, once per mount; and the root's time stamps, which say when it was tagged.
    let rest = asked.values().sum::<u64>() - 2 * directories - links;
    assert!(rest <= 2, "{asked:?}");
}

#[test]
fn fuse_a_second_walk_asks_nothing_inside_an_image() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("r:1"));
    let mount = sandbox.mount();
    let inside = mount.image("r/1").join("d5");
    let first = walk::walk(&inside).unwrap();
    // The kernel asks once more for attributes after the first read of each file and link, which may have set an access time.
    walk::walk(&inside).unwrap();
    let asked = asked(&mount, || {
        for _ in 0..3 {
            let again = walk::walk(&inside).unwrap();
            assert_eq!(walk::compare(&first, &again), [""; 0]);
        }
    });
    // Extended attributes are not cached by the kernel.
    let left: Vec<_> = asked
        .keys()
        .filter(|kind| !kind.contains("xattr"))
        .collect();
    assert_eq!(left, [""; 0], "{asked:?}");
}
