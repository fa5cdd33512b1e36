//! What the kernel keeps of a volume in the store while one mount alone uses it, and that it forgets before anybody else changes it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Signal, kill_process};

use super::{USER, kernel_has_passthrough, posix, script, volume};
use crate::common::mount::Mount;
use crate::common::sandbox::Sandbox;

/// What `work` made the kernel ask of the volumes, without what counting costs.
fn asked(mount: &Mount, work: impl FnOnce()) -> BTreeMap<String, u64> {
    let before = mount.requests();
    work();
    let mut after = mount.requests();
    for (kind, count) in &mut after {
        *count -= before.get(kind).copied().unwrap_or(0);
    }
    after.retain(|kind, count| *count > 0 && kind.starts_with("volumes."));
    after.retain(|kind, _| !kind.ends_with("forget") && !kind.ends_with("total"));
    after
}

fn fill(volume: &Path) {
    for dir in 0..10 {
        let dir = volume.join(format!("d{dir}"));
        fs::create_dir(&dir).unwrap();
        for file in 0..20 {
            fs::write(dir.join(format!("f{file}")), "x").unwrap();
        }
        std::os::unix::fs::symlink("nowhere", dir.join("link")).unwrap();
    }
}

/// Looks at everything, as `ls -lR` does, and for what is not there.
fn look(dir: &Path) -> usize {
    let mut seen = 0;
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let stat = fs::symlink_metadata(&path).unwrap();
        assert_eq!(
            absent(&path.with_extension("none")),
            Some(Errno::NOENT.raw_os_error())
        );
        seen += 1;
        if stat.is_dir() {
            seen += look(&path);
        } else if stat.is_symlink() {
            fs::read_link(&path).unwrap();
        }
    }
    seen
}

fn absent(path: &Path) -> Option<i32> {
    fs::symlink_metadata(path).err()?.raw_os_error()
}

/// What is asked of names and attributes.
fn questions(asked: &BTreeMap<String, u64>) -> u64 {
    let kinds = ["lookup", "getattr", "readdir", "readlink", "getxattr"];
    let count = |kind: &&str| asked.get(&format!("volumes.{kind}")).copied();
    kinds.iter().filter_map(count).sum()
}

/// Whether a second look asks (nearly) nothing.
fn is_kept(mount: &Mount, inside: &Path) -> bool {
    look(inside);
    look(inside);
    // The directory of volumes itself is asked about each time.
    questions(&asked(mount, || assert!(look(inside) > 0))) <= 5
}

fn soon(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn fuse_a_second_look_at_a_volume_asks_nothing() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let (inside, _) = volume(&sandbox, &mount, "data");
    fill(&inside);
    assert!(
        is_kept(&mount, &inside),
        "{:?}",
        asked(&mount, || assert!(look(&inside) > 0))
    );
    let list = || drop(sandbox.sh(&format!("ls -lR {}", inside.display())).ok());
    // ACLs are asked for once, and so are access times after a look inside.
    list();
    list();
    let labels = asked(&mount, list);
    assert!(questions(&labels) < 50, "{labels:?}");
}

#[test]
fn fuse_an_ordinary_users_volume_is_kept() {
    let sandbox = Sandbox::as_user(USER);
    let mount = sandbox.mount();
    sandbox.mica(["volume", "create", "data"]).ok();
    let inside = mount.path("volumes/data");
    let walk = format!(
        "set -e; cd {0}; mkdir d; touch d/f d/g; ls -lR {0}; ls -lR {0}",
        inside.display()
    );
    let sh = |text: &str| {
        let mut command = crate::common::user::as_user(USER, "sh");
        command.arg("-c").arg(text);
        sandbox.run(command).ok();
    };
    sh(&walk);
    let again = asked(&mount, || sh(&format!("ls -lR {}", inside.display())));
    // But for the directory of volumes itself, on each path.
    assert!(questions(&again) <= 20, "{again:?}");
    let names = ["lookup", "readdir"].map(|kind| again.get(&format!("volumes.{kind}")));
    assert_eq!(names, [None, None], "{again:?}");
}

#[test]
fn fuse_a_bind_is_not_kept() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let inside = mount.path("volumes/bound");
    std::os::unix::fs::symlink(sandbox.mkdir("host"), &inside).unwrap();
    fill(&inside);
    assert!(!is_kept(&mount, &inside));
}

/// Who only looks takes nothing from the one who works; who changes something does, and gives it back.
#[test]
fn fuse_a_volume_is_kept_again_when_the_other_mount_is_done() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let (inside, _) = volume(&sandbox, &mount, "data");
    fill(&inside);
    assert!(is_kept(&mount, &inside));
    let other = sandbox.mount();
    let there = other.path("volumes/data");
    look(&there);
    assert!(is_kept(&mount, &inside), "after a look by the other");
    fs::write(there.join("d1/new"), "x").unwrap();
    assert!(!is_kept(&mount, &inside), "the other changes it");
    soon("the volume is kept again", || is_kept(&mount, &inside));
    other.unmount();
    mount.unmount();
}

#[test]
fn fuse_two_mounts_of_a_volume_pass_every_case() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let (inside, _) = volume(&sandbox, &mount, "data");
    fill(&inside);
    let other = sandbox.mount();
    let there = other.path("volumes/data");
    posix(&sandbox, &there, &inside, None, kernel_has_passthrough());
    let mut both = Command::new("/usr/bin/python3");
    both.arg(script("twosides.py")).args([&there, &inside]);
    both.args(["1500", "5"]);
    both.env("MAPPED", if kernel_has_passthrough() { "1" } else { "0" });
    sandbox.run(both).ok();
}

/// Everything the first mount has in its kernel, in use or not, at the moment when the second one changes it.
#[test]
fn fuse_the_first_change_by_another_mount_is_seen_at_once() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let other = sandbox.mount();
    for round in 0..6 {
        let name = format!("v{round}");
        let (inside, _) = volume(&sandbox, &mount, &name);
        fill(&inside);
        assert!(is_kept(&mount, &inside));
        let there = other.path("volumes").join(&name);
        let watch = r#"
import os, sys
here, there, turn = sys.argv[1], sys.argv[2], int(sys.argv[3])
os.chdir(here + "/d1")
listing = os.open(".", os.O_RDONLY)
assert "new" not in os.listdir(listing)
opened = open("f1")
os.mkdir("sub"); os.link("f2", "second"); os.rename("f3", "moved")
def gone(name):
    try: os.lstat(name)
    except FileNotFoundError: return True
assert gone("absent") and os.stat("f4").st_size == 1 and os.listdir("sub") == []
assert os.stat("second").st_nlink == 2
acts = [
    lambda: open(there + "/d1/new", "w").close(),
    lambda: open(there + "/d1/absent", "w").close(),
    lambda: os.truncate(there + "/d1/f4", 77),
    lambda: os.unlink(there + "/d1/f1"),
    lambda: os.unlink(there + "/d1/f2"),
    lambda: os.rename(there + "/d1/moved", there + "/d1/f3"),
    lambda: os.mkdir(there + "/d1/sub/deep"),
    lambda: os.chmod(there + "/d1/f5", 0o600),
    lambda: os.rename(there + "/d2", there + "/d1/d2"),
]
for act in acts[turn:] + acts[:turn]: act()
names = os.listdir(listing)
assert "new" in names and "absent" in names and "f1" not in names and "moved" not in names, names
assert not gone("absent") and os.stat("f4").st_size == 77 and gone("f1") and gone("f2") and gone("moved")
assert os.stat("second").st_nlink == 1 and os.stat("f3").st_size == 1
assert os.listdir("sub") == ["deep"] and os.stat("sub").st_nlink == 3
assert os.stat("f5").st_mode & 0o777 == 0o600
assert gone(here + "/d2") and len(os.listdir("d2")) == 21
assert os.getcwd() == here + "/d1" and os.fstat(opened.fileno()).st_nlink == 0
os.unlink(there + "/d1/new")
assert gone("new") and "new" not in os.listdir(listing)
"#;
        let mut python = Command::new("/usr/bin/python3");
        python.arg("-c").arg(watch).args([&inside, &there]);
        python.arg((round + 2).to_string());
        sandbox.run(python).ok();
    }
}

/// A mapping changes a file without a request: both sides see size and time when it is closed, and while it is open.
#[test]
fn fuse_the_times_of_a_mapped_file_are_the_hosts() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let (inside, host) = volume(&sandbox, &mount, "data");
    fill(&inside);
    let map = r#"
import mmap, os, sys, time
path, host = sys.argv[1] + "/d1/f1", sys.argv[2] + "/d1/f1"
same = lambda: os.stat(path).st_mtime_ns == os.stat(host).st_mtime_ns
for _ in range(5):
    os.truncate(path, 4096); os.stat(path); os.stat(path)
    fd = os.open(path, os.O_RDWR)
    view = mmap.mmap(fd, 4096)
    os.close(fd)
    before = os.stat(path).st_mtime_ns
    time.sleep(0.02)
    view[0] = 7
    view.flush()
    assert same() and os.stat(path).st_mtime_ns > before
    time.sleep(0.02)
    view[0] = 8
    view.flush()
    view.close()
    assert same()
    time.sleep(0.02)
    assert same()
"#;
    let mut python = Command::new("/usr/bin/python3");
    python.arg("-c").arg(map).args([&inside, &host]);
    sandbox.run(python).ok();
}

#[test]
fn fuse_a_daemon_that_does_not_answer_keeps_others_out() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let (inside, _) = volume(&sandbox, &mount, "data");
    fill(&inside);
    let other = sandbox.mount();
    let there: PathBuf = other.path("volumes/data");
    look(&there);
    let daemon = mount.daemon().unwrap();
    kill_process(daemon, Signal::STOP).unwrap();
    let refused = fs::write(there.join("d1/new"), "x");
    kill_process(daemon, Signal::CONT).unwrap();
    let refused = refused.expect_err("kept").raw_os_error();
    assert_eq!(refused, Some(Errno::BUSY.raw_os_error()));
    fs::write(there.join("d1/new"), "x").unwrap();
    assert_eq!(fs::metadata(inside.join("d1/new")).unwrap().size(), 1);
    // A daemon that is gone keeps nobody out.
    soon("it is kept again", || is_kept(&mount, &inside));
    kill_process(daemon, Signal::KILL).unwrap();
    let begun = Instant::now();
    soon("the daemon is gone", || !crate::common::mount::runs(daemon));
    fs::write(there.join("d1/newer"), "x").unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(fs::read(inside.join("d1/newer")).is_err());
}

/// The ways of an older kernel: nothing kept, no passthrough.
#[test]
fn fuse_an_older_kernel_serves_volumes_too() {
    let sandbox = Sandbox::new();
    let point = sandbox.mkdir("old");
    let mut command = sandbox.command();
    command.env("MICA_KERNEL", "6.1").arg("mount").arg(&point);
    let mount = sandbox.mount_by(&point, command);
    let (inside, host) = volume(&sandbox, &mount, "data");
    fill(&inside);
    assert!(!is_kept(&mount, &inside));
    let mut both = Command::new("/usr/bin/python3");
    both.arg(script("twosides.py")).args([&host, &inside]);
    both.args(["800", "7"]).env("MAPPED", "0");
    sandbox.run(both).ok();
    mount.unmount();
}

/// A program that makes more files at once than the daemon may have descriptors goes on: the kernel is made to forget in time.
#[test]
fn fuse_regression_many_files_at_once_do_not_use_up_the_descriptors() {
    let sandbox = Sandbox::new();
    let point = sandbox.mkdir("m");
    let mut mount = Command::new("prlimit");
    mount
        .args(["--nofile=5000:5000", env!("CARGO_BIN_EXE_mica"), "--store"])
        .arg(sandbox.store())
        .arg("mount")
        .arg(&point);
    let mount = sandbox.mount_by(&point, mount);
    let (inside, _) = volume(&sandbox, &mount, "data");
    for dir in 0..100 {
        let dir = inside.join(format!("d{dir}"));
        fs::create_dir(&dir).unwrap();
        for file in 0..70 {
            fs::write(dir.join(format!("f{file}")), "x").unwrap();
        }
    }
}
