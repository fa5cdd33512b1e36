//! The second connection lives and ends with the first.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::mount::UnmountFlags;
use rustix::process::{Signal, kill_process};

use super::volume;
use crate::common::mount::runs;
use crate::common::sandbox::Sandbox;

#[track_caller]
fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn fuse_volumes_are_a_file_system_of_their_own_and_end_with_the_mount() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let point = mount.point.clone();
    let (outer, inner) = (
        fs::metadata(&point).unwrap(),
        fs::metadata(point.join("volumes")).unwrap(),
    );
    assert_ne!(outer.dev(), inner.dev());
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let place = format!(" {}/volumes ", point.display());
    assert!(
        table
            .lines()
            .any(|l| l.contains(&place) && l.contains("fuse.mica"))
    );
    mount.unmount();
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    assert!(!table.contains(point.to_str().unwrap()));
}

#[test]
fn fuse_volumes_unmounted_alone_come_back() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let (inside, host) = volume(&sandbox, &mount, "data");
    fs::write(host.join("f"), "x").unwrap();
    for _ in 0..2 {
        rustix::mount::unmount(mount.path("volumes"), UnmountFlags::empty()).unwrap();
        wait_until("the volumes are back", || {
            fs::read(inside.join("f")).is_ok()
        });
    }
    mount.unmount();
}

#[test]
fn fuse_a_used_volume_keeps_the_mount_and_both_stay() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let (inside, _) = volume(&sandbox, &mount, "data");
    fs::write(inside.join("f"), "x").unwrap();
    let mut user = Command::new("sleep")
        .arg("60")
        .current_dir(&inside)
        .spawn()
        .unwrap();
    let mut command = sandbox.command();
    command.arg("umount").arg(&mount.point);
    let run = sandbox.run(command).fails();
    assert!(run.stderr().contains("busy"), "{}", run.stderr());
    assert!(
        run.stderr().contains(&user.id().to_string()),
        "{}",
        run.stderr()
    );
    assert_eq!(fs::read(inside.join("f")).unwrap(), b"x");
    assert!(mount.path("images").is_dir());
    user.kill().unwrap();
    user.wait().unwrap();

    // The same with a user of the rest of the mount.
    let mut user = Command::new("sleep")
        .arg("60")
        .current_dir(&mount.point)
        .spawn()
        .unwrap();
    let mut command = sandbox.command();
    command.arg("umount").arg(&mount.point);
    sandbox.run(command).fails();
    assert_eq!(fs::read(inside.join("f")).unwrap(), b"x");
    user.kill().unwrap();
    user.wait().unwrap();
    mount.unmount();
}

#[test]
fn fuse_a_killed_daemon_loses_nothing_of_a_volume() {
    let sandbox = Sandbox::new();
    let mut mount = sandbox.mount();
    let (inside, _) = volume(&sandbox, &mount, "data");
    for i in 0..3 {
        fs::write(inside.join(format!("f{i}")), "written").unwrap();
        let open = fs::File::open(inside.join("f0")).unwrap();
        let pid = mount.daemon().unwrap();
        kill_process(pid, Signal::KILL).unwrap();
        wait_until("the daemon is gone", || !runs(pid));
        assert!(fs::read_dir(&inside).is_err());
        drop(open);
        let point = mount.point.clone();
        mount.forget();
        mount = sandbox.mount_on(&point, &[]);
        for k in 0..=i {
            assert_eq!(fs::read(inside.join(format!("f{k}"))).unwrap(), b"written");
        }
    }
    mount.unmount();
}

#[test]
fn fuse_what_the_host_removes_does_not_keep_its_space() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let (inside, host) = volume(&sandbox, &mount, "data");
    fs::write(inside.join("large"), vec![7u8; 1 << 20]).unwrap();
    let there = fs::metadata(inside.join("large")).unwrap();
    assert_eq!(there.len(), 1 << 20);
    let held = || {
        let pid = mount.daemon().unwrap().as_raw_nonzero();
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let mut targets = descriptors.flatten().map(|d| fs::read_link(d.path()));
        targets.any(|t| t.is_ok_and(|t| t.to_string_lossy().contains("large (deleted)")))
    };
    fs::remove_file(host.join("large")).unwrap();
    wait_until("the daemon lets go", || !held());
    // One that is open stays readable.
    fs::write(inside.join("large"), "open").unwrap();
    let open = fs::File::open(inside.join("large")).unwrap();
    fs::remove_file(host.join("large")).unwrap();
    thread::sleep(Duration::from_secs(5));
    assert_eq!(std::io::read_to_string(&open).unwrap(), "open");
    assert_eq!(rustix::fs::fstat(open.as_fd()).unwrap().st_nlink, 0);
}

#[test]
fn fuse_the_root_of_the_volumes_takes_volumes_only() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let v = mount.path("volumes");
    volume(&sandbox, &mount, "data");
    let errno = |result: std::io::Result<()>| result.unwrap_err().raw_os_error().unwrap();
    assert_eq!(errno(fs::write(v.join("file"), "")), libc::EPERM);
    assert_eq!(errno(fs::create_dir(v.join("x"))), libc::EINVAL);
    assert_eq!(errno(fs::create_dir(v.join(".hidden"))), libc::EINVAL);
    assert_eq!(errno(fs::create_dir(v.join("a b"))), libc::EINVAL);
    assert_eq!(errno(fs::create_dir(v.join("data"))), libc::EEXIST);
    let ln = |to: &str, name: &str| std::os::unix::fs::symlink(to, v.join(name));
    assert_eq!(errno(ln("relative", "bound")), libc::EINVAL);
    assert_eq!(errno(ln("/no/such/thing", "bound")), libc::ENOENT);
    assert_eq!(
        errno(ln(mount.point.to_str().unwrap(), "bound")),
        libc::EINVAL
    );
    assert_eq!(
        errno(ln(sandbox.store().to_str().unwrap(), "bound")),
        libc::EINVAL
    );
    fs::write(v.join("data/f"), "x").unwrap();
    assert_eq!(errno(fs::remove_dir(v.join("data"))), libc::ENOTEMPTY);
    assert_eq!(
        errno(fs::rename(v.join("data/f"), v.join("ff"))),
        libc::EXDEV
    );
    volume(&sandbox, &mount, "other");
    assert_eq!(
        errno(fs::rename(v.join("data"), v.join("other"))),
        libc::EEXIST
    );
    assert_eq!(
        errno(fs::hard_link(v.join("data/f"), v.join("other/f"))),
        libc::EXDEV
    );
    sandbox
        .sh(&format!("rm -r {0}/data; rmdir {0}/other", v.display()))
        .ok();
    assert_eq!(fs::read_dir(&v).unwrap().count(), 0);
}
