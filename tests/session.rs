//! Mounts and sessions with the tiny file system: the FUSE edge without store and images.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mica::fs::{InodeNo, KernelCache};
use mica::fuse::handshake::Link;
use mica::fuse::notify::NotifyQueue;
use mica::fuse::session::{self, Session, Settings, State};
use mica::fuse::stats::Op;
use mica::sys::holders::{self, Depth, Held, How, Question};
use mica::sys::mount::{self, FuseFlags, MountError, MountPoint, Mounted};
use rustix::io::Errno;

use crate::common::tier;
use crate::tiny::{FILE, Tiny};

struct World {
    path: PathBuf,
    tree: Arc<Tiny>,
    session: Session,
    mounted: Mounted,
    queue: Arc<NotifyQueue>,
    _dir: tempfile::TempDir,
}

fn world(strict: bool) -> World {
    tier::root();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap().join("a mount");
    fs::create_dir(&path).unwrap();
    let point = MountPoint::open(&path).unwrap();
    let flags = FuseFlags {
        allow_other: true,
        default_permissions: true,
        ..FuseFlags::default()
    };
    let (connection, mounted): (OwnedFd, Mounted) = mount::mount(&point, &flags, "mica").unwrap();
    let queue = NotifyQueue::new();
    let tree = Arc::new(Tiny::new(Arc::clone(&queue) as Arc<dyn KernelCache>));
    let settings = Settings {
        strict,
        ..Settings::default()
    };
    let session =
        session::start(Arc::clone(&tree), Link::Own(connection), &settings, &queue).unwrap();
    World {
        path,
        tree,
        session,
        mounted,
        queue,
        _dir: dir,
    }
}

impl World {
    fn count(&self, op: Op) -> u64 {
        self.session.stats().requests(op)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // A test that has unmounted already gets NotMounted here.
        let _ = self.mounted.unmount(true);
    }
}

fn errno(error: io::Error) -> Option<Errno> {
    Errno::from_io_error(&error)
}

#[test]
fn fuse_session_shows_what_the_tree_says() {
    let w = world(false);
    let root = fs::metadata(&w.path).unwrap();
    assert_eq!(
        (root.uid(), root.gid(), root.mode() & 0o7777),
        (7, 8, 0o755)
    );
    assert_eq!((root.mtime(), root.mtime_nsec()), (-5, 123_456_789));
    assert_eq!(fs::read(w.path.join("file")).unwrap(), b"hello\n");
    assert_eq!(fs::read(w.path.join("link")).unwrap(), b"hello\n");
    let mut names: Vec<_> = fs::read_dir(&w.path)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["dir", "file", "link"]);
    let statfs = rustix::fs::statfs(&w.path).unwrap();
    assert_eq!(
        (statfs.f_blocks, statfs.f_bfree, statfs.f_bavail),
        (1000, 10, 5)
    );
    let mut small = [0u8; 2];
    let mut value = [0u8; 16];
    let file = w.path.join("file");
    assert_eq!(
        rustix::fs::getxattr(&file, "user.a", &mut value).unwrap(),
        5
    );
    assert_eq!(
        rustix::fs::getxattr(&file, "user.a", &mut small),
        Err(Errno::RANGE)
    );
    assert_eq!(
        rustix::fs::getxattr(&file, "user.b", &mut value),
        Err(Errno::NODATA)
    );
    // An access time at the end of the representable range must not hurt anybody.
    let times = rustix::fs::Timestamps {
        last_access: rustix::fs::Timespec {
            tv_sec: i64::MIN,
            tv_nsec: 0,
        },
        last_modification: rustix::fs::Timespec {
            tv_sec: i64::MAX,
            tv_nsec: 0,
        },
    };
    let flags = rustix::fs::AtFlags::empty();
    let set = rustix::fs::utimensat(rustix::fs::CWD, &file, &times, flags);
    assert_eq!(set, Err(Errno::ROFS));
    assert_eq!(w.session.stats().panics(), 0);
    assert!(matches!(w.session.state(), State::Running));
}

#[test]
fn fuse_session_kernel_answers_alone_after_the_first_touch() {
    let w = world(false);
    let touch = || {
        fs::read(w.path.join("file")).unwrap();
        fs::read_link(w.path.join("link")).unwrap();
        assert!(fs::metadata(w.path.join("absent")).is_err());
        assert_eq!(fs::read_dir(&w.path).unwrap().count(), 3);
    };
    touch();
    touch();
    let before = w.session.stats().render();
    touch();
    assert_eq!(w.session.stats().render(), before);
    // One question each, at most, whether it wants to hear of opens.
    assert!(w.count(Op::Open) <= 1 && w.count(Op::OpenDir) <= 1);
    assert_eq!(w.count(Op::Release) + w.count(Op::ReleaseDir), 0);
}

#[test]
fn fuse_session_invalidation_is_exact() {
    let w = world(false);
    let file = w.path.join("file");
    // The first read moves the access time, which the kernel asks for once more.
    assert_eq!(fs::read(&file).unwrap(), b"hello\n");
    assert_eq!(fs::read(&file).unwrap(), b"hello\n");
    *w.tree.content.lock() = b"a longer hello\n".to_vec();
    assert_eq!(fs::read(&file).unwrap(), b"hello\n");
    w.queue.invalidate_inode(FILE, false);
    assert!(w.queue.drain(Duration::from_secs(5)));
    assert_eq!(fs::read(&file).unwrap(), b"a longer hello\n");

    assert!(fs::metadata(w.path.join("new")).is_err());
    w.tree.present.lock().push((b"new", FILE));
    assert!(
        fs::metadata(w.path.join("new")).is_err(),
        "absence is remembered"
    );
    w.queue.invalidate_entry(InodeNo::ROOT, b"new");
    w.queue.invalidate_inode(InodeNo::ROOT, false);
    assert!(w.queue.drain(Duration::from_secs(5)));
    fs::metadata(w.path.join("new")).unwrap();
    assert_eq!(fs::read_dir(&w.path).unwrap().count(), 4);
}

#[test]
fn fuse_session_invalidation_inside_a_request_does_not_hang() {
    let w = world(false);
    let start = Instant::now();
    fs::remove_dir(w.path.join("dir")).unwrap();
    assert!(w.queue.drain(Duration::from_secs(5)));
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(!w.path.join("dir").exists());
    assert_eq!(fs::read_dir(&w.path).unwrap().count(), 2);
}

#[test]
fn fuse_session_panic_in_a_handler_is_eio_and_nobody_is_missing() {
    let w = world(false);
    for _ in 0..10 {
        let error = fs::metadata(w.path.join("boom")).unwrap_err();
        assert_eq!(errno(error), Some(Errno::IO));
    }
    // The caller has its EIO before the panic is counted.
    let end = Instant::now() + Duration::from_secs(10);
    while w.session.stats().panics() < 10 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(w.session.stats().panics(), 10);
    assert!(matches!(w.session.state(), State::Running));
    assert_eq!(fs::read(w.path.join("file")).unwrap(), b"hello\n");
}

#[test]
fn fuse_session_a_lost_thread_is_reported() {
    let w = world(false);
    let error = fs::metadata(w.path.join("bomb")).unwrap_err();
    assert_eq!(errno(error), Some(Errno::IO));
    assert!(w.session.wait(Duration::from_secs(5)));
    assert!(matches!(w.session.state(), State::Broken(_)));
    w.mounted.unmount(true).unwrap();
}

#[test]
fn fuse_session_writing_is_refused_at_the_write_or_when_strict_at_open() {
    let w = world(false);
    let path = w.path.join("file");
    let mut file = File::options().read(true).write(true).open(&path).unwrap();
    assert_eq!(errno(file.write(b"x").unwrap_err()), Some(Errno::ROFS));
    let truncating = File::options().write(true).truncate(true).open(&path);
    assert_eq!(errno(truncating.unwrap_err()), Some(Errno::ROFS));
    assert_eq!(
        errno(File::create(w.path.join("n")).unwrap_err()),
        Some(Errno::PERM)
    );
    assert_eq!(fs::read(&path).unwrap(), b"hello\n");

    let strict = world(true);
    let path = strict.path.join("file");
    let refused = File::options().write(true).open(&path);
    assert_eq!(errno(refused.unwrap_err()), Some(Errno::ROFS));
    assert_eq!(fs::read(&path).unwrap(), b"hello\n");
    assert!(strict.count(Op::Open) >= 2);
}

/// A shared writable mapping does not leave changed pages behind.
#[test]
fn fuse_session_changed_pages_do_not_stay() {
    let w = world(false);
    let path = w.path.join("file");
    let file = File::options().read(true).write(true).open(&path).unwrap();
    // SAFETY: nothing else changes the file while it is mapped.
    #[allow(unsafe_code)]
    let mut map = unsafe { memmap2::MmapMut::map_mut(&file).unwrap() };
    map[0] = b'J';
    assert_eq!(map.flush().map_err(errno), Err(Some(Errno::ROFS)));
    drop(map);
    assert!(w.queue.drain(Duration::from_secs(5)));
    let mut byte = [0u8];
    file.read_exact_at(&mut byte, 0).unwrap();
    assert_eq!(byte, *b"h");
}

#[test]
fn fuse_mount_is_named_fuse_mica_and_mounted_nosuid_nodev() {
    let w = world(false);
    let info = w.mounted.find().unwrap().unwrap();
    assert_eq!(info.fs_type, "fuse.mica");
    assert_eq!(info.source, "mica");
    assert!(info.options.contains("nosuid") && info.options.contains("nodev"));
    assert_eq!(info.mount_point, w.path);
    let stat = fs::metadata(&w.path).unwrap();
    assert_eq!(rustix::fs::minor(stat.dev()), w.mounted.device.minor);
    let findmnt = std::process::Command::new("findmnt")
        .args(["-n", "-o", "FSTYPE,SOURCE"])
        .arg(&w.path)
        .output()
        .unwrap();
    let words = String::from_utf8(findmnt.stdout).unwrap();
    assert_eq!(
        words.split_whitespace().collect::<Vec<_>>(),
        ["fuse.mica", "mica"]
    );
}

fn users_of(w: &World) -> Vec<Held> {
    let question = Question {
        whole: &[w.mounted.device],
        depth: Depth::Mapped,
        own: true,
        ..Question::default()
    };
    holders::holders(&question).unwrap().held
}

#[test]
fn fuse_unmount_ends_the_session_and_busy_says_so() {
    let w = world(false);
    let mut file = File::open(w.path.join("file")).unwrap();
    assert!(matches!(w.mounted.unmount(false), Err(MountError::Busy(_))));
    let users = users_of(&w);
    let me = std::process::id();
    let open = users
        .iter()
        .find(|u| u.pid == me && u.how == How::Open)
        .unwrap();
    assert_eq!(open.inode, Some(FILE.0));
    assert_eq!(open.shown, w.path.join("file"));

    // Lazily: gone from the tree, and alive for the one who has it open.
    w.mounted.unmount(true).unwrap();
    assert!(!w.path.join("file").exists());
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello\n");
    assert!(!w.session.wait(Duration::from_millis(50)));
    drop(file);
    assert!(w.session.wait(Duration::from_secs(5)));
    assert!(matches!(w.session.state(), State::Ended));
}

#[test]
fn fuse_users_are_found_without_a_request() {
    let w = world(false);
    let mut child = std::process::Command::new("sleep")
        .arg("60")
        .current_dir(w.path.join("dir"))
        .spawn()
        .unwrap();
    let before = w.session.stats().render();
    let users = users_of(&w);
    assert_eq!(w.session.stats().render(), before);
    child.kill().unwrap();
    child.wait().unwrap();
    let cwd = users
        .iter()
        .find(|u| u.pid == child.id() && u.how == How::Cwd)
        .unwrap();
    assert_eq!(cwd.inode, Some(4));
}

#[test]
fn fuse_foreign_mount_at_the_same_place_is_never_touched() {
    let w = world(false);
    // Covered: refuse, whatever the way.
    tmpfs(&w.path);
    fs::write(w.path.join("foreign"), "x").unwrap();
    for lazy in [false, true] {
        assert!(matches!(
            w.mounted.unmount(lazy),
            Err(MountError::Covered { .. })
        ));
    }
    assert!(w.path.join("foreign").exists());
    rustix::mount::unmount(&w.path, rustix::mount::UnmountFlags::empty()).unwrap();

    // Unmounted from outside, and replaced.
    rustix::mount::unmount(&w.path, rustix::mount::UnmountFlags::empty()).unwrap();
    assert!(w.session.wait(Duration::from_secs(5)));
    tmpfs(&w.path);
    fs::write(w.path.join("foreign"), "x").unwrap();
    for lazy in [false, true] {
        assert!(matches!(
            w.mounted.unmount(lazy),
            Err(MountError::NotMounted(_))
        ));
    }
    assert!(w.path.join("foreign").exists());
    rustix::mount::unmount(&w.path, rustix::mount::UnmountFlags::DETACH).unwrap();
}

fn tmpfs(path: &Path) {
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("other", path, "tmpfs", flags, None).unwrap();
}

#[test]
fn fuse_moved_mount_is_found() {
    let w = world(false);
    let elsewhere = w.path.parent().unwrap().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    rustix::mount::mount_move(&w.path, &elsewhere).unwrap();
    assert_eq!(w.mounted.find().unwrap().unwrap().mount_point, elsewhere);
    w.mounted.unmount(false).unwrap();
    assert!(w.session.wait(Duration::from_secs(5)));
}

#[test]
fn fuse_mount_and_unmount_while_busy_with_requests() {
    for _ in 0..5 {
        let w = world(false);
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let path = w.path.clone();
                std::thread::spawn(move || {
                    for i in 0..200 {
                        // Refused or not found once the mount is gone: all the same here.
                        let _ = fs::metadata(path.join(format!("n{i}")));
                        let _ = fs::read(path.join("file"));
                    }
                })
            })
            .collect();
        w.mounted.unmount(true).unwrap();
        for thread in threads {
            thread.join().unwrap();
        }
        assert!(w.session.wait(Duration::from_secs(5)));
        assert!(matches!(w.session.state(), State::Ended));
    }
}
