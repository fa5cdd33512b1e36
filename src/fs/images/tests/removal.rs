use std::process::{Child, Command};
use std::time::{Duration, Instant};

use super::*;

/// Another process than this one.
struct Other(Child);

impl Other {
    fn new() -> Other {
        Other(Command::new("sleep").arg("600").spawn().unwrap())
    }

    fn caller(&self) -> Caller {
        Caller {
            uid: 1000,
            gid: 100,
            pid: self.0.id(),
        }
    }

    fn end(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// All that `rm -r` does to a directory, the last rmdir left out.
fn empty(f: &Fixture, caller: &Caller, dir: InodeNo) {
    for (name, attr) in f.list_by(caller, dir, 4, true) {
        if name == "." || name == ".." {
            continue;
        }
        match attr.kind {
            FileKind::Directory => {
                empty(f, caller, attr.ino);
                f.sb.rmdir(caller, dir, name.as_bytes()).unwrap();
            }
            _ => f.sb.unlink(caller, dir, name.as_bytes()).unwrap(),
        }
    }
}

#[test]
fn rmdir_removes_the_tag_and_frees_what_nothing_needs() {
    let f = Fixture::new();
    let a = f.load(&[base(), own("a")], &["app:1"]);
    f.load(&[base(), own("b")], &["other:2"]);
    assert_eq!(f.names("layers").len(), 3);
    f.rmdir("images/app/1").unwrap();
    assert_eq!(f.tags(), ["other:2"]);
    assert!(!f.exists("images/app/1"));
    assert!(!f.exists(&format!("by-id/{}", a.hex())));
    assert_eq!(f.names("layers").len(), 2);
    assert!(!f.store.blob_path(&diff_id(&own("a").bytes).0).exists());
    assert_eq!(f.text("images/other/2/own"), "b");
    // Emptied through the mount, so it stays until it is removed.
    assert_eq!(f.names("images"), ["app", "other"]);
    f.rmdir("images/app").unwrap();
    assert_eq!(f.names("images"), ["other"]);
    let events = f.text("info/events");
    assert!(
        events.contains(&format!(" image untag {a} (name=app:1, pid=")),
        "{events}"
    );
    assert!(
        events.contains(&format!(" image delete {a} (freed=")),
        "{events}"
    );
}

#[test]
fn nested_repositories_stay_until_removed() {
    let f = Fixture::new();
    f.load(&[base()], &["org/team/app:1"]);
    f.rmdir("images/org/team/app/1").unwrap();
    for path in ["images/org/team/app", "images/org/team", "images/org"] {
        f.rmdir(path).unwrap();
    }
    assert_eq!(f.names("images"), [""; 0]);
}

#[test]
fn an_alias_is_one_unlink() {
    let f = Fixture::new();
    f.load(&[base()], &["app:1", "app:2", "foo:bar", "foo/bar:1"]);
    f.unlink("images/app:1").unwrap();
    f.unlink("images/foo:bar").unwrap();
    assert_eq!(f.tags(), ["foo/bar:1", "app:2"]);
    assert_eq!(f.names("layers").len(), 1);
}

#[test]
fn images_without_tags_go_by_id_and_from_dangling() {
    let f = Fixture::new();
    let a = f.load(&[base(), own("a")], &[]);
    let b = f.load(&[base(), own("b")], &[]);
    f.load(&[base(), own("c")], &["c:1"]);
    f.rmdir(&format!("by-id/{}", a.hex())).unwrap();
    assert_eq!(f.names("images/.dangling"), [b.short()]);
    f.rmdir(&format!("images/.dangling/{}", b.short())).unwrap();
    assert_eq!(f.names("images"), ["c"]);
    assert_eq!(f.names("by-id").len(), 1);
    assert_eq!(f.names("layers").len(), 2);
}

#[test]
fn only_who_has_listed_the_root_may_stage() {
    let f = Fixture::new();
    f.load(&[base()], &["app:1"]);
    let (root, etc) = (f.at("images/app/1"), f.at("images/app/1/etc"));
    let other = Other::new();
    // Nobody has listed anything.
    assert_eq!(kind(f.unlink("images/app/1/etc/passwd")), "EROFS");
    // A directory below is not the root.
    f.list_by(&f.caller, etc, 9, true);
    assert_eq!(kind(f.unlink("images/app/1/etc/passwd")), "EROFS");
    f.list_by(&f.caller, root, 9, true);
    assert_eq!(kind(f.unlink("images/app/1/etc/passwd")), "ok");
    assert_eq!(kind(f.unlink("images/app/1/etc/nothing")), "ENOENT");
    assert_eq!(kind(f.unlink("images/app/1/etc")), "EISDIR");
    assert_eq!(kind(f.rmdir("images/app/1/etc/passwd")), "ENOTDIR");
    // Another process has not.
    assert_eq!(kind(f.sb.unlink(&other.caller(), etc, b"passwd")), "EROFS");
    // Nor has one of a foreign pid namespace, whatever it lists.
    let foreign = Caller { pid: 0, ..f.caller };
    f.list_by(&foreign, root, 9, true);
    assert_eq!(kind(f.sb.unlink(&foreign, etc, b"passwd")), "EROFS");
    // Nothing is hidden from anybody.
    assert_eq!(f.names("images/app/1/etc"), ["hosts", "passwd"]);
    assert_eq!(f.text("images/app/1/etc/passwd"), "root\n");
    assert_eq!(f.tags(), ["app:1"]);
}

#[test]
fn a_thread_belongs_to_its_process() {
    let f = Fixture::new();
    f.load(&[base()], &["app:1"]);
    let root = f.at("images/app/1");
    f.list_by(&f.caller, root, 9, true);
    let result = std::thread::scope(|scope| {
        let in_thread = || {
            let tid = rustix::thread::gettid().as_raw_nonzero().get();
            let caller = Caller {
                pid: u32::try_from(tid).unwrap(),
                ..f.caller
            };
            f.sb.unlink(&caller, f.at("images/app/1/etc"), b"passwd")
        };
        scope.spawn(in_thread).join().unwrap()
    });
    assert_eq!(kind(result), "ok");
}

#[test]
fn a_staged_removal_is_committed_by_the_last_rmdir() {
    let f = Fixture::new();
    f.load(&[base(), own("a")], &["app:1"]);
    f.load(&[base(), own("b")], &["other:1"]);
    let big = f.at("images/app/1/usr/big");
    let root = f.at("images/app/1");
    empty(&f, &f.caller, root);
    assert_eq!(f.tags(), ["app:1", "other:1"]);
    assert_eq!(f.sb.stages.open_stages(), 1);
    f.told();
    f.rmdir("images/app/1").unwrap();
    assert_eq!(f.tags(), ["other:1"]);
    assert_eq!(f.sb.stages.open_stages(), 0);
    // The kernel has lowered the link count of a file that other/1 has too: it must ask again.
    assert!(f.told().contains(&Told::Inode(big, true)));
    // What was listed is forgotten with the tag: the same image tagged again is not half removed.
    let again = f.load(&[base(), own("a")], &["app:1"]);
    assert_ne!(f.at("images/app/1"), root);
    assert_eq!(kind(f.unlink("images/app/1/etc/passwd")), "EROFS");
    assert_eq!(f.text("info/images/app/1/id"), format!("{again}\n"));
}

#[test]
fn a_removed_directory_gets_a_new_number_at_once() {
    let f = Fixture::new();
    f.load(&[base()], &["app:1"]);
    let (root, etc) = (f.at("images/app/1"), f.at("images/app/1/etc"));
    f.list_by(&f.caller, root, 9, true);
    f.rmdir("images/app/1/etc").unwrap();
    let new = f.at("images/app/1/etc");
    assert_ne!(new, etc);
    assert_eq!(f.names("images/app/1/etc"), ["hosts", "passwd"]);
    let listed = f.list_by(&f.caller, root, 9, true);
    assert!(
        listed
            .iter()
            .any(|(name, attr)| name == "etc" && attr.ino == new)
    );
    f.rmdir("images/app/1/etc").unwrap();
    assert_ne!(f.at("images/app/1/etc"), new);
    // Other tags of the image have their own directories and lose none.
    assert_eq!(f.at("images/app/1/usr"), f.at("images/app/1/usr"));
}

#[test]
fn a_process_that_ends_drops_its_stage() {
    let f = Fixture::new();
    f.load(&[base(), own("a")], &["app:1"]);
    let mut other = Other::new();
    let caller = other.caller();
    let root = f.at("images/app/1");
    let passwd = f.at("images/app/1/etc/passwd");
    empty(&f, &caller, root);
    assert_eq!(f.sb.stages.open_stages(), 1);
    f.told();
    other.end();
    wait_until("the stage is dropped", || f.sb.stages.open_stages() == 0);
    wait_until("the kernel is told", || {
        f.kernel.0.lock().contains(&Told::Inode(passwd, true))
    });
    assert_eq!(f.tags(), ["app:1"]);
    assert_eq!(f.names("images/app/1"), ["etc", "own", "usr"]);
    // A new process with that pid would have to list first.
    assert_eq!(
        kind(f.sb.unlink(&caller, f.at("images/app/1/etc"), b"passwd")),
        "EROFS"
    );
}

#[test]
fn two_processes_have_two_stages() {
    let f = Fixture::new();
    f.load(&[base(), own("a")], &["app:1"]);
    let mut other = Other::new();
    let root = f.at("images/app/1");
    empty(&f, &other.caller(), root);
    empty(&f, &f.caller, root);
    assert_eq!(f.sb.stages.open_stages(), 2);
    other.end();
    wait_until("one stage is dropped", || f.sb.stages.open_stages() == 1);
    f.rmdir("images/app/1").unwrap();
    assert_eq!(f.sb.stages.open_stages(), 0);
    assert!(f.tags().is_empty());
}

#[test]
fn a_layer_in_use_stays_readable_until_it_is_forgotten() {
    let f = Fixture::new();
    f.load(&[base(), own("a")], &["app:1"]);
    // The kernel knows this file only: its directories went with their entries.
    let file = f.at("images/app/1/usr/big");
    let dirs = ["images/app/1", "images/app/1/usr"].map(|path| f.at(path));
    for dir in dirs {
        f.sb.forget(dir, u64::MAX);
    }
    f.rmdir("images/app/1").unwrap();
    assert!(!f.store.blob_path(&diff_id(&base().bytes).0).exists());
    assert_eq!(f.read(file).unwrap(), [7; 100_000]);
    assert_eq!(f.sb.slots.open_count(), 1);
    let held = f.text("info/df");
    let line = held
        .lines()
        .find(|line| line.starts_with("Removed, still open"))
        .unwrap();
    assert!(line.contains("   1   "), "{line}");
    f.sb.forget(file, u64::MAX);
    assert_eq!(f.sb.slots.open_count(), 0);
    assert!(matches!(
        f.sb.getattr(&f.caller, file),
        Err(FsError::NotFound | FsError::Stale(_))
    ));
}

#[test]
fn a_tag_that_was_moved_meanwhile_is_not_removed() {
    let f = Fixture::new();
    f.load(&[base(), own("a")], &["app:1"]);
    f.at("images/app/1");
    let second = Fixture {
        sb: Superblock::new(f.store.clone(), options(RmPolicy::Own), f.kernel.clone()).unwrap(),
        store: f.store.clone(),
        kernel: f.kernel.clone(),
        caller: f.caller,
        _dir: tempfile::tempdir().unwrap(),
    };
    // Loaded behind the back of `f`.
    let new = second.load(&[base(), own("b")], &["app:1"]);
    assert_eq!(kind(f.rmdir("images/app/1")), "ENOENT");
    f.sb.refresh().unwrap();
    assert_eq!(f.text("info/images/app/1/id"), format!("{new}\n"));
}

#[test]
fn names_in_directories_that_somebody_keeps_are_taken_away() {
    let f = Fixture::new();
    f.load(&[base(), own("a")], &["app:1"]);
    let usr = f.at("images/app/1/usr");
    f.at("images/app/1/usr/big");
    f.rmdir("images/app/1").unwrap();
    wait_until("the kernel is told", || {
        let told = f.kernel.0.lock();
        ["big", "link", "twin"]
            .iter()
            .all(|name| told.contains(&Told::Entry(usr, name.to_string())))
    });
}
