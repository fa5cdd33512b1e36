//! A host that does not keep still, and file systems that run out.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags};

use super::{USER, script, volume};
use crate::common::sandbox::Sandbox;
use crate::common::user::as_user;

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}

#[track_caller]
fn bind(sandbox: &Sandbox, source: &Path, target: &Path) {
    sandbox
        .sh(&format!("ln -s {} {}", source.display(), target.display()))
        .ok();
}

/// The host swaps a directory for a link to outside, as fast as it can, while files are made through the mount: none may end up
/// outside by the daemon's doing. The test writes through descriptors of the directory, so that the kernel never follows the link.
#[test]
fn fuse_a_directory_swapped_for_a_link_leads_nobody_outside() {
    let sandbox = Sandbox::new();
    // Names that the mount keeps are not looked for on the host.
    let mount = sandbox.mount_with(&["-o", "volume_cache=off"]);
    let (inside, host) = volume(&sandbox, &mount, "data");
    let outside = sandbox.mkdir("outside");
    fs::create_dir(host.join("d")).unwrap();
    fs::create_dir(host.join("d/sub")).unwrap();
    symlink(&outside, host.join("link")).unwrap();
    let stop = AtomicBool::new(false);
    let made = thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                let (a, b) = (host.join("d"), host.join("link"));
                rustix::fs::renameat_with(rustix::fs::CWD, a, rustix::fs::CWD, b, flags).unwrap();
            }
        });
        let end = Instant::now() + Duration::from_secs(3);
        let (mut made, mut number) = (0, 0);
        use rustix::fs::{Mode, OFlags, mkdirat, openat};
        let top = File::open(&inside).unwrap();
        while Instant::now() < end {
            number += 1;
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY;
            if let Ok(d) = openat(&top, "d", flags, Mode::empty()) {
                let create = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW;
                let name = format!("f{number}");
                let file = openat(&d, &name, create, Mode::from_raw_mode(0o600));
                made += i32::from(file.is_ok());
                let _ = mkdirat(&d, format!("d{number}"), Mode::from_raw_mode(0o700));
                let _ = rustix::fs::renameat(&d, &name, &d, format!("r{number}"));
            }
        }
        stop.store(true, Ordering::Relaxed);
        made
    });
    assert!(made > 10, "only {made} files were made");
    assert_eq!(
        fs::read_dir(&outside).unwrap().count(),
        0,
        "something got outside"
    );
}

#[test]
fn fuse_links_in_a_volume_are_data() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let (inside, host) = volume(&sandbox, &mount, "data");
    let secret = sandbox.path("secret");
    fs::write(&secret, "s").unwrap();
    symlink(&secret, host.join("link")).unwrap();
    symlink("../../../../../../../..", host.join("up")).unwrap();
    assert_eq!(fs::read_link(inside.join("link")).unwrap(), secret);
    assert!(inside.join("link").symlink_metadata().unwrap().is_symlink());
    // `..` of the volume is the mount's, not the host's.
    let up = fs::metadata(inside.join("..")).unwrap();
    assert_eq!(up.ino(), fs::metadata(mount.path("volumes")).unwrap().ino());
    // A bind is kept without links: one put in its way leads nowhere.
    let real = sandbox.mkdir("real");
    fs::write(real.join("f"), "real").unwrap();
    bind(&sandbox, &real, &mount.path("volumes/bound"));
    fs::rename(&real, sandbox.path("moved")).unwrap();
    symlink("/etc", &real).unwrap();
    assert_eq!(
        errno(fs::read_dir(mount.path("volumes/bound"))),
        libc::ENOENT
    );
    assert!(fs::read(mount.path("volumes/bound/passwd")).is_err());
}

#[test]
fn fuse_a_bound_file_follows_its_path() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let source = sandbox.path("config");
    fs::write(&source, "one").unwrap();
    let bound = mount.path("volumes/conf");
    bind(&sandbox, &source, &bound);
    assert!(fs::metadata(&bound).unwrap().is_file());
    assert_eq!(fs::read(&bound).unwrap(), b"one");
    for i in 0..50 {
        let new = sandbox.path("config.new");
        fs::write(&new, format!("{i}")).unwrap();
        fs::rename(&new, &source).unwrap();
        assert_eq!(fs::read_to_string(&bound).unwrap(), format!("{i}"));
        fs::write(&bound, format!("written {i}")).unwrap();
        assert_eq!(fs::read_to_string(&source).unwrap(), format!("written {i}"));
    }
    fs::remove_file(&source).unwrap();
    assert_eq!(errno(fs::read(&bound)), libc::ENOENT);
    assert_eq!(errno(fs::write(&bound, "never guessed")), libc::EPERM);
    assert!(!source.exists());
    fs::create_dir(&source).unwrap();
    assert_eq!(errno(fs::read_dir(&bound)), libc::ENOENT);
    fs::remove_dir(&source).unwrap();
    sandbox.sh(&format!("mkfifo {}", source.display())).ok();
    // It is there, of whatever kind; nobody has opened it.
    assert!(!fs::metadata(&bound).unwrap().is_dir());
    fs::remove_file(&source).unwrap();
    fs::write(&source, "back").unwrap();
    assert_eq!(fs::read(&bound).unwrap(), b"back");
    fs::remove_file(&bound).unwrap();
    assert_eq!(fs::read(&source).unwrap(), b"back");
    assert!(!bound.exists());
}

#[test]
fn fuse_a_source_that_vanishes_harms_nobody_else() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let source = sandbox.mkdir("source");
    fs::write(source.join("f"), "x").unwrap();
    let bound = mount.path("volumes/bound");
    bind(&sandbox, &source, &bound);
    let open = File::open(bound.join("f")).unwrap();
    fs::remove_dir_all(&source).unwrap();
    assert_eq!(errno(fs::read_dir(&bound)), libc::ENOENT);
    assert_eq!(std::io::read_to_string(&open).unwrap(), "x");
    assert!(mount.path("images").is_dir());
    volume(&sandbox, &mount, "other");
    fs::create_dir(&source).unwrap();
    assert_eq!(fs::read_dir(&bound).unwrap().count(), 0);
}

#[test]
fn fuse_a_bind_that_holds_the_mount_is_not_entered_twice() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let bound = mount.path("volumes/all");
    bind(&sandbox, sandbox.dir(), &bound);
    let name = mount.point.file_name().unwrap();
    assert_eq!(errno(fs::metadata(bound.join(name))), libc::ELOOP);
    // Listing and searching end.
    let run = sandbox.sh(&format!("find {} | wc -l", bound.display()));
    assert!(run.stdout().trim().parse::<u32>().unwrap() > 3);
    mount.unmount();
}

#[test]
fn fuse_a_full_file_system_says_so_and_loses_nothing() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let small = sandbox.mkdir("small");
    let options = std::ffi::CString::new("size=1m").unwrap();
    let flags = MountFlags::empty();
    rustix::mount::mount("small", &small, "tmpfs", flags, Some(&*options)).unwrap();
    let bound = mount.path("volumes/small");
    bind(&sandbox, &small, &bound);
    fs::write(bound.join("old"), "old").unwrap();
    let mut file = File::create(bound.join("new")).unwrap();
    let error = loop {
        if let Err(error) = file.write_all(&[1; 65_536]) {
            break error;
        }
    };
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    assert_eq!(fs::read(bound.join("old")).unwrap(), b"old");
    let written = fs::read(bound.join("new")).unwrap();
    assert!(written.len() > 500_000 && written.iter().all(|b| *b == 1));
    drop(file);
    fs::remove_file(bound.join("new")).unwrap();
    // The kernel tells of the last close without waiting for it.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while let Err(error) = fs::write(bound.join("after"), "there is room again") {
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
        assert!(std::time::Instant::now() < end, "no room again");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    mount.unmount();
    rustix::mount::unmount(&small, UnmountFlags::DETACH).unwrap();
}

#[test]
fn fuse_a_volume_for_reading_refuses_every_change() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let source = sandbox.mkdir("source");
    fs::write(source.join("f"), "x").unwrap();
    let mut create = sandbox.command();
    let source_ro = format!("{}:ro", source.display());
    create.args(["volume", "create", "--bind", &source_ro, "fixed"]);
    sandbox.run(create).ok();
    let v = mount.path("volumes/fixed");
    assert_eq!(fs::read(v.join("f")).unwrap(), b"x");
    for result in [
        fs::write(v.join("f"), "y"),
        fs::write(v.join("new"), "y"),
        fs::create_dir(v.join("d")),
        fs::remove_file(v.join("f")),
        fs::rename(v.join("f"), v.join("g")),
        fs::hard_link(v.join("f"), v.join("g")),
        symlink("x", v.join("l")),
        std::os::unix::fs::chown(v.join("f"), Some(1), None),
    ] {
        assert_eq!(errno(result), libc::EROFS);
    }
    fs::write(source.join("f"), "from the host").unwrap();
    assert_eq!(fs::read(v.join("f")).unwrap(), b"from the host");
}

#[test]
fn fuse_descriptors_that_run_out_give_errors_and_come_back() {
    let sandbox = Sandbox::new();
    let point = sandbox.mkdir("m");
    let mica = env!("CARGO_BIN_EXE_mica");
    crate::common::tier::root();
    let m = point.display();
    sandbox
        .sh(&format!(
            "ulimit -n 256; {mica} mount {m}; mkdir {m}/volumes/data"
        ))
        .ok();
    let data = point.join("volumes/data");
    for i in 0..600 {
        // Each name the kernel knows is a descriptor of the daemon.
        let _ = fs::write(data.join(format!("f{i}")), "x");
    }
    // Those the kernel does not need are given back before long.
    let end = Instant::now() + Duration::from_secs(20);
    while fs::write(data.join("again"), "y").is_err() {
        assert!(Instant::now() < end, "the descriptors did not come back");
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(fs::read(data.join("again")).unwrap(), b"y");
    assert!(point.join("images").is_dir());
    sandbox.sh(&format!("{mica} umount {m}")).ok();
}

#[test]
fn fuse_many_at_once_and_a_directory_that_changes_while_it_is_read() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let (inside, host) = volume(&sandbox, &mount, "data");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for worker in 0..3 {
            let (side, stop) = (if worker == 0 { &host } else { &inside }, &stop);
            scope.spawn(move || {
                let mut i = 0u32;
                while !stop.load(Ordering::Relaxed) {
                    i += 1;
                    let (a, b) = (
                        side.join(format!("{worker}-a{}", i % 40)),
                        side.join(format!("{worker}-b{}", i % 40)),
                    );
                    fs::write(&a, format!("{worker}")).unwrap();
                    fs::rename(&a, &b).unwrap();
                    let file = File::open(&b).unwrap();
                    fs::remove_file(&b).unwrap();
                    let mut byte = [0];
                    file.read_exact_at(&mut byte, 0).unwrap();
                    assert_eq!(byte[0], b'0' + worker);
                }
            });
        }
        let end = Instant::now() + Duration::from_secs(4);
        while Instant::now() < end {
            for entry in fs::read_dir(&inside).unwrap() {
                let name = entry.unwrap().file_name();
                assert!(name.to_str().unwrap().contains('-'));
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(fs::read_dir(&host).unwrap().count(), 0);
    mount.unmount();
}

/// Without passthrough as well, and with the daemon an ordinary user.
#[test]
fn fuse_an_ordinary_users_volume_agrees_with_the_model() {
    let sandbox = Sandbox::as_user(USER);
    let mount = sandbox.mount();
    let host = sandbox.mkdir("host");
    let mut create = sandbox.command();
    create
        .args(["volume", "create", "--bind"])
        .arg(&host)
        .arg("bound");
    sandbox.run(create).ok();
    let cases = sandbox.path("twosides.py");
    fs::copy(script("twosides.py"), &cases).unwrap();
    let mut both = as_user(USER, "/usr/bin/python3");
    both.arg(&cases).arg(&host).arg(mount.path("volumes/bound"));
    both.args(["1500", "5"]).env("MAPPED", "0");
    sandbox.run(both).ok();
    mount.unmount();
}
