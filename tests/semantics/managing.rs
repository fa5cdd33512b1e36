use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::{errno, image, layers, mounted, names};
use crate::common::sandbox::Sandbox;

fn bind(sandbox: &Sandbox, tree: &Path, point: &Path) {
    let (tree, point) = (tree.display(), point.display());
    sandbox.sh(&format!("mount --bind {tree} {point}")).ok();
}

/// A pinned tag is neither untagged nor renamed nor moved to another image nor pruned, by any verb and whatever `-f` says; through M it is EPERM, and nothing is staged.
#[test]
fn fuse_pinned_tags_stay() {
    let (sandbox, mount) = mounted(&["app:1", "other:2"]);
    sandbox.mica(["pin", "app:1"]).ok();
    let tag = mount.image("app/1");
    let files = sandbox.store_files();
    assert_eq!(errno(fs::remove_dir(&tag)), Errno::PERM);
    assert_eq!(errno(fs::rename(&tag, mount.image("app/2"))), Errno::PERM);
    assert_eq!(
        errno(fs::rename(mount.image("app"), mount.image("web"))),
        Errno::PERM
    );
    assert_eq!(errno(fs::remove_file(mount.image("app:1"))), Errno::PERM);
    let run = sandbox.sh(&format!("rm -r {}", tag.display())).code(1);
    let lines = run.stderr();
    assert!(
        lines
            .lines()
            .all(|line| line.ends_with("Operation not permitted")),
        "{}",
        run.describe()
    );
    sandbox.mica(["rmi", "-f", "app:1"]).code(1);
    sandbox.mica(["tag", "other:2", "app:1"]).code(1);
    assert_eq!(sandbox.store_files(), files);
    sandbox.mica(["image", "prune", "-a", "-f"]).ok();
    assert_eq!(names(mount.path("images")), ["app"]);
    assert!(tag.join("etc/passwd").exists());
    sandbox.mica(["unpin", "app:1"]).ok();
    sandbox.sh(&format!("rm -r {}", tag.display())).ok();
}

/// `setfattr -n user.mica.pin` and, as root, `chattr +i` on a tag directory pin the tag; `setfattr -x` and `chattr -i` let it go, and `lsattr` and `user.mica.pin` show it.
#[test]
fn fuse_pins_through_the_tree() {
    let (sandbox, mount) = mounted(&["app:1"]);
    let tag = mount.image("app/1");
    let pinned = || sandbox.mica(["pin"]).ok().stdout() == "app:1\n";
    let get = || {
        let mut value = [0u8; 16];
        rustix::fs::getxattr(&tag, c"user.mica.pin", &mut value).map(|n| value[..n].to_vec())
    };
    assert_eq!(get(), Err(Errno::NODATA));
    rustix::fs::setxattr(&tag, c"user.mica.pin", b"", XattrFlags::empty()).expect("setxattr");
    assert!(pinned());
    assert_eq!(get(), Ok(b"1".to_vec()));
    rustix::fs::removexattr(&tag, c"user.mica.pin").expect("removexattr");
    assert!(!pinned());
    assert_eq!(
        rustix::fs::removexattr(&tag, c"user.mica.pin"),
        Err(Errno::NODATA)
    );
    sandbox.sh(&format!("chattr +i {}", tag.display())).ok();
    assert!(pinned());
    let flags = sandbox
        .sh(&format!("lsattr -d {}", tag.display()))
        .ok()
        .stdout();
    assert!(flags.starts_with("----i"), "{flags}");
    assert_eq!(errno(fs::remove_dir(&tag)), Errno::PERM);
    sandbox.sh(&format!("chattr -i {}", tag.display())).ok();
    assert!(!pinned());
    // No other attribute, no other flag, no other place.
    let set = rustix::fs::setxattr(&tag, c"user.mica.id", b"1", XattrFlags::empty());
    assert_eq!(set, Err(Errno::ROFS));
    for path in [tag.join("etc"), mount.image("app"), mount.path("images")] {
        let set = rustix::fs::setxattr(&path, c"user.mica.pin", b"", XattrFlags::empty());
        assert!(
            matches!(set, Err(Errno::ROFS | Errno::PERM)),
            "{}: {set:?}",
            path.display()
        );
        sandbox.sh(&format!("chattr +i {}", path.display())).code(1);
    }
    sandbox.sh(&format!("chattr +a {}", tag.display())).code(1);
    assert!(!pinned());
}

/// While the trash is on, what is removed by `rmi` or through M can be brought back by `mica restore`, with all its names, until its time is over; then a running daemon, or the next verb that changes the store, frees its layers.
#[test]
fn fuse_removed_names_come_back() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1").tag("app:2"));
    sandbox.mica(["trash", "--keep", "1h"]).ok();
    let mount = sandbox.mount();
    sandbox
        .sh(&format!("rm -r {}", mount.image("app").display()))
        .ok();
    assert!(names(mount.path("images")).is_empty());
    assert!(names(mount.path("by-id")).is_empty());
    assert_eq!(layers(&sandbox), 2);
    sandbox.mica(["restore", "app"]).ok();
    assert_eq!(names(mount.image("app")), ["1", "2"]);
    assert_eq!(
        fs::read(mount.image("app/2/own")).expect("the file"),
        b"app:1"
    );
    mount.unmount();
    let point = sandbox.mkdir("short");
    let mount = sandbox.mount_on(&point, &["--trash", "1s"]);
    sandbox
        .sh(&format!("rm -r {}", mount.image("app").display()))
        .ok();
    assert_eq!(layers(&sandbox), 2);
    let start = Instant::now();
    while layers(&sandbox) > 0 {
        assert!(start.elapsed() < Duration::from_secs(30), "still there");
        std::thread::sleep(Duration::from_millis(100));
    }
    sandbox.mica(["restore", "app"]).code(1);
}

/// The atime of a tag directory is when its image was last used, to the hour: looked into, mounted, saved, pushed, loaded again; `--filter used=` and `--max-size` go by it.
#[test]
fn fuse_last_use_is_the_atime() {
    let (sandbox, mount) = mounted(&["app:1", "other:2"]);
    let stat = |tag: &str| fs::metadata(mount.image(tag)).expect("stat");
    let now = i64::try_from(
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .expect("after 1970")
            .as_secs(),
    )
    .expect("seconds");
    // Loaded just now.
    assert!((now - stat("app/1").atime()).abs() < 100);
    assert!(stat("app/1").atime() != stat("app/1").mtime());
    let used = |filter: &str| {
        let args = ["images", "-q", "--filter", filter];
        sandbox.mica(args).ok().stdout().lines().count()
    };
    assert_eq!(used("used=1h"), 0);
    assert_eq!(used("used=-1m"), 2);
}

/// `M/info/events` shows every change of names, whoever made it, as `mica events` prints it; of one made through M also who asked for it.
#[test]
fn fuse_events_of_all() {
    let (sandbox, mount) = mounted(&["app:1"]);
    let id = image("app:1").id();
    sandbox.mica(["tag", "app:1", "app:2"]).ok();
    fs::remove_dir(mount.image("app/2")).expect("rmdir");
    let text = fs::read_to_string(mount.path("info/events")).expect("the events");
    let last: Vec<&str> = text.lines().rev().take(2).collect();
    let pid = std::process::id();
    assert!(
        last[1].ends_with(&format!(" image tag {id} (name=app:2)")),
        "{text}"
    );
    assert!(
        last[0].ends_with(&format!(" image untag {id} (name=app:2, pid={pid}, uid=0)")),
        "{text}"
    );
    let printed = sandbox
        .mica(["events", "--since", "1h", "--until", "0s"])
        .ok();
    // The time zone is the reader's.
    let words = |text: &str| -> Vec<String> {
        let lines = text.lines();
        lines
            .map(|l| l.split_once(' ').unwrap_or_default().1.to_owned())
            .collect()
    };
    assert_eq!(words(&printed.stdout()), words(&text));
}

/// File managers find no place for a trash of theirs: `.Trash` and `.Trash-<uid>` cannot be made anywhere in M.
#[test]
fn fuse_no_trash_directories() {
    let (_sandbox, mount) = mounted(&["app:1"]);
    for dir in [
        "",
        "images",
        "images/app",
        "images/app/1",
        "by-id",
        "layers",
        "info",
    ] {
        for name in [".Trash", ".Trash-0", ".Trash-1000"] {
            let path = mount.path(dir).join(name);
            let made = errno(fs::create_dir(&path));
            let refused = [Errno::PERM, Errno::INVAL, Errno::ROFS];
            assert!(refused.contains(&made), "{}: {made}", path.display());
        }
    }
}

/// A tag that is itself mounted somewhere is refused to `rmdir` and `rm -r` also when its image has another tag; `mica rmi` and `rm M/images/<name>:<tag>` take the name then, and the mount goes on working.
#[test]
fn fuse_a_mounted_name_of_two() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1").tag("app:2").tag("app:3"));
    let mount = sandbox.mount();
    let point = sandbox.mkdir("bound");
    bind(&sandbox, &mount.image("app/1"), &point);
    assert_eq!(errno(fs::remove_dir(mount.image("app/1"))), Errno::BUSY);
    sandbox
        .sh(&format!("rm -r {}", mount.image("app/1").display()))
        .code(1);
    fs::remove_dir(mount.image("app/2")).expect("not mounted");
    sandbox.mica(["rmi", "app:1"]).ok();
    assert_eq!(names(&point), ["etc", "own", "usr"]);
    assert_eq!(fs::read(point.join("own")).expect("the file"), b"app:1");
    // The last name is refused: somebody uses the image.
    assert_eq!(errno(fs::remove_dir(mount.image("app/3"))), Errno::BUSY);
    sandbox.mica(["rmi", "app:3"]).code(1);
    sandbox.umount(&point);
    fs::remove_dir(mount.image("app/3")).expect("not used");
}

/// A verb sees who uses an image also when the mount is in another mount namespace than its own.
#[test]
fn fuse_users_in_another_namespace() {
    let (sandbox, mount) = mounted(&["app:1"]);
    let point = sandbox.mkdir("bound");
    bind(&sandbox, &mount.image("app/1"), &point);
    // In a namespace in which there is no such mount.
    let away = |args: &str| {
        let script = format!(
            "umount -l {} && umount -l {} && exec \"$0\" {args}",
            point.display(),
            mount.path("").display()
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-ec", &script]);
        command
            .arg(env!("CARGO_BIN_EXE_mica"))
            .env("MICA_STORE", sandbox.store());
        sandbox.run(command)
    };
    let run = away("rmi app:1").code(1);
    assert!(
        run.stderr()
            .contains(&format!("mount {} is using", point.display())),
        "{}",
        run.describe()
    );
    let run = away("image prune -a -f").ok();
    assert_eq!(run.stdout(), "Total reclaimed space: 0B\n");
    let run = away("images -l").ok();
    assert!(
        run.stdout().trim_end().ends_with(" 1"),
        "{}",
        run.describe()
    );
    sandbox.umount(&point);
}

/// `M/layers` is for the owner of the mount: what an upper layer deletes is nobody else's to read.
#[test]
fn fuse_layers_are_the_owners() {
    let (sandbox, mount) = mounted(&["app:1"]);
    let look = |path: &str| {
        let mut command = Command::new("ls");
        command.arg(mount.path(path)).uid(1000).gid(1000);
        sandbox.run(command)
    };
    look("images/app/1/etc").ok();
    let run = look("layers");
    assert!(
        run.status.code() != Some(0) && run.stderr().contains("Permission denied"),
        "{}",
        run.describe()
    );
    assert!(!names(mount.path("layers")).is_empty());
}
