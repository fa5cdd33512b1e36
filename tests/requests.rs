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

/// How often threads of that name have slept so far.
fn sleeps(mount: &Mount, name: &str) -> u64 {
    let daemon = mount.daemon().expect("a daemon").as_raw_nonzero();
    let tasks = fs::read_dir(format!("/proc/{daemon}/task")).expect("threads");
    let statuses = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("status")));
    let mut sum = None;
    for status in statuses.flatten() {
        let field = |wanted: &str| {
            let mut lines = status.lines().filter_map(|line| line.split_once(":\t"));
            lines.find_map(|(field, value)| (field == wanted).then(|| value.to_owned()))
        };
        if field("Name").as_deref() == Some(name) {
            let count: u64 = field("voluntary_ctxt_switches").unwrap().parse().unwrap();
            sum = Some(sum.unwrap_or(0) + count);
        }
    }
    sum.expect("the thread")
}

#[test]
fn fuse_regression_files_of_a_volume_wake_only_who_answers() {
    const FILES: usize = 200;
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let file = mount.path("volumes/data").join("file");
    fs::create_dir(file.parent().unwrap()).expect("a volume");
    fs::write(&file, "1").expect("write");
    let before = sleeps(&mount, "mica-ephemeral");
    let asked = asked(&mount, || {
        for _ in 0..FILES {
            assert_eq!(fs::read(&file).unwrap(), b"1");
        }
    });
    assert_eq!(
        asked.get("volumes.open"),
        Some(&(FILES as u64)),
        "{asked:?}"
    );
    let woken = sleeps(&mount, "mica-ephemeral") - before;
    // Twice per file once; what is left is the volume itself, which is new.
    assert!(woken <= 10, "{woken}");
}

/// How often `work` asked for extended attributes, and listed them.
fn xattrs_asked(mount: &Mount, work: impl FnOnce()) -> (u64, u64) {
    let asked = asked(mount, work);
    let count = |kind| asked.get(kind).copied().unwrap_or(0);
    (count("getxattr"), count("listxattr"))
}

#[test]
fn fuse_regression_a_long_listing_asks_once_whether_there_are_labels() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("r:1"));
    sandbox.load(&image("s:1").layer(|l| l.file("x", "x").xattr("user.x", "1")));
    let mount = sandbox.mount();
    let root = mount.image("r/1");
    let list = || {
        sandbox.sh(&format!("ls -lR {}", root.display())).ok();
    };
    list();
    let all = asked(&mount, list);
    // A label, an access list: each once, for the whole of a process.
    assert!(all.get("getxattr").copied().unwrap_or(0) <= 3, "{all:?}");
    // The root of a tag: its time stamps say when it was tagged, and whoever lists it has to come to us.
    let rest: u64 = all.values().sum::<u64>() - all["getxattr"];
    assert!(rest <= 3, "{all:?}");
    for command in ["git -C / status", "find %s -perm /6000", "find %s -newer /"] {
        let command = command.replace("%s", &root.display().to_string());
        let asked = xattrs_asked(&mount, || drop(sandbox.sh(&command)));
        assert_eq!(asked, (0, 0), "{command}");
    }
}

/// An access list as the kernel has it: version 2; owner, one user, group, mask, others.
fn access_list() -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in [
        (1u16, 6u16, u32::MAX),
        (2, 6, 1234),
        (4, 4, u32::MAX),
        (16, 6, u32::MAX),
        (32, 4, u32::MAX),
    ] {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&permissions.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

#[test]
fn fuse_regression_labels_and_access_lists_are_shown_whatever_was_asked_before() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("plain:1"));
    let mount = sandbox.mount();
    let plain = mount.image("plain/1/d0/file");
    let read = |path: &Path, name: &str| -> Result<Vec<u8>, i32> {
        let mut value = vec![0; 256];
        match rustix::fs::lgetxattr(path, name, &mut value) {
            Ok(length) => {
                value.truncate(length);
                Ok(value)
            }
            Err(error) => Err(error.raw_os_error()),
        }
    };
    const NAMES: [&str; 4] = [
        "security.selinux",
        "system.posix_acl_access",
        "system.posix_acl_default",
        "security.capability",
    ];
    for name in NAMES {
        assert_eq!(read(&plain, name), Err(libc::EOPNOTSUPP), "{name}");
        assert_eq!(
            read(&mount.path("images"), name),
            Err(libc::EOPNOTSUPP),
            "{name}"
        );
    }
    assert_eq!(read(&plain, "user.none"), Err(libc::ENODATA));
    sandbox.load(&ImageBuilder::new("rich:1").layer(|l| {
        let l = l.file("label", "1").xattr("security.selinux", "a:b:c:s0\0");
        l.file("list", "2")
            .xattr("system.posix_acl_access", access_list())
    }));
    let (label, list) = (mount.image("rich/1/label"), mount.image("rich/1/list"));
    assert_eq!(read(&label, NAMES[0]).expect("label"), b"a:b:c:s0\0");
    assert_eq!(read(&list, NAMES[1]).expect("list"), access_list());
    for (path, name, expected) in [
        (&plain, NAMES[0], libc::ENODATA),
        (&list, NAMES[0], libc::ENODATA),
        (&plain, NAMES[1], libc::ENODATA),
        (&plain, NAMES[2], libc::EOPNOTSUPP),
        (&label, NAMES[3], libc::EOPNOTSUPP),
    ] {
        assert_eq!(read(path, name), Err(expected), "{path:?} {name}");
    }
    let (plain, label, list) = (plain.display(), label.display(), list.display());
    for order in [
        format!("{plain} {label} {list}"),
        format!("{list} {label} {plain}"),
    ] {
        let listed = sandbox.sh(&format!("ls -l {order}")).ok().stdout();
        let mark = |name: &str| {
            let line = listed.lines().find(|line| line.ends_with(name));
            line.and_then(|line| line.chars().nth(10))
        };
        assert_eq!(mark("/list"), Some('+'), "{listed}");
        assert_eq!(mark("/label"), Some('.'), "{listed}");
        assert_eq!(mark("/file"), Some(' '), "{listed}");
        let copy = sandbox.mkdir("copy");
        sandbox
            .sh(&format!("cp -a {order} {}", copy.display()))
            .ok();
        let copied = read(&copy.join("list"), NAMES[1]).expect("the access list");
        assert_eq!(copied, access_list());
        fs::remove_dir_all(copy).expect("remove");
    }
    // Gone with the image.
    sandbox.mica(["rmi", "rich:1"]).ok();
    let plain = mount.image("plain/1/d0/file");
    assert_eq!(read(&plain, NAMES[0]), Err(libc::EOPNOTSUPP));
}
