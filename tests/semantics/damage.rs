use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::Signal;

use super::{errno, hex, image, mounted, names};
use crate::common::image::ImageBuilder;
use crate::common::sandbox::Sandbox;
use crate::common::walk;

/// A damaged blob is EIO for the reader and a line in the log that names it: never wrong bytes, never ENOENT.
#[test]
fn fuse_damaged_blobs() {
    let content: Vec<u8> = (0..2_000_000u32).map(|i| (i % 241) as u8).collect();
    for damage in ["flip", "truncate", "empty"] {
        let sandbox = Sandbox::new();
        let image =
            ImageBuilder::new("app:1").layer(|l| l.file("large", &content).file("small", "s"));
        sandbox.load(&image);
        let blob = sandbox
            .store()
            .join("blobs/sha256")
            .join(hex(&image.diff_ids()[0]));
        let mut permissions = fs::metadata(&blob).expect("the blob").permissions();
        #[allow(clippy::permissions_set_readonly_false)]
        permissions.set_readonly(false);
        fs::set_permissions(&blob, permissions).expect("chmod");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .open(&blob)
            .expect("the blob");
        match damage {
            "flip" => {
                file.seek(SeekFrom::Start(1_000_000)).expect("seek");
                file.write_all(b"\xff\xfe\xfd").expect("write");
            }
            "truncate" => file.set_len(1_000_000).expect("truncate"),
            _ => file.set_len(0).expect("truncate"),
        }
        drop(file);
        let mount = sandbox.mount();
        let read = fs::read(mount.image("app/1/large"));
        assert_eq!(errno(read), Errno::IO, "{damage}");
        let log = log_of(&sandbox);
        assert!(
            log.contains(&hex(&image.diff_ids()[0])[..12]),
            "{damage}: {log}"
        );
        let check = sandbox.mica(["check"]).fails();
        let said = check.stdout() + &check.stderr();
        assert!(
            said.contains(&hex(&image.diff_ids()[0])[..12]),
            "{damage}: {said}"
        );
    }
}

/// What the daemons of this store have logged.
fn log_of(sandbox: &Sandbox) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(sandbox.store()).expect("the store").flatten() {
        if entry.path().extension().is_some_and(|e| e == "log") {
            text += &fs::read_to_string(entry.path()).expect("a log");
        }
    }
    text
}

/// A failed verb changes nothing that can be seen, and leaves nothing in the store after the next one, but for a download that can be gone on with.
#[test]
fn fuse_failed_verbs() {
    let (sandbox, mount) = mounted(&["app:1"]);
    let before = (sandbox.store_files().len(), names(mount.path("images")));
    let good = image("new:1");
    let archive = sandbox.path("good.tar");
    good.docker_archive(&archive);
    let bytes = fs::read(&archive).expect("the archive");
    let broken = sandbox.path("broken.tar");
    fs::write(&broken, &bytes[..bytes.len() / 2]).expect("half an archive");
    sandbox.load_file(&broken).fails();
    let liar =
        image("new:1").config(|c| c["rootfs"]["diff_ids"][1] = c["rootfs"]["diff_ids"][0].clone());
    liar.docker_archive(&broken);
    sandbox.load_file(&broken).fails();
    sandbox.mica(["rmi", "nothing:1"]).fails();
    sandbox.mica(["tag", "nothing:1", "x:1"]).fails();
    sandbox.mica(["tag", "app:1", "Bad:1"]).fails();
    assert_eq!(names(mount.path("images")), before.1);
    sandbox.mica(["gc"]).ok();
    assert_eq!(sandbox.store_files().len(), before.0);
    sandbox.mica(["check"]).ok();
}

/// A verb killed at any moment leaves every tag as it was or as it was to be.
#[test]
fn fuse_killed_verbs() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    let archive = sandbox.path("new.tar");
    image("new:1").docker_archive(&archive);
    let baseline = sandbox.store_files().len();
    let ids = |run: &str| -> bool { run.lines().any(|line| line.starts_with("new ")) };
    let mut finished = false;
    for step in 0..40u32 {
        let mut command = Command::new("timeout");
        command
            .args(["-s", "KILL", &format!("0.{:03}", step * 3 + 1)])
            .arg(env!("CARGO_BIN_EXE_mica"))
            .args(["--store"])
            .arg(sandbox.store())
            .args(["load", "-i"])
            .arg(&archive);
        let run = sandbox.run(command);
        let listed = ids(&sandbox.mica(["images"]).ok().stdout());
        if run.status.success() {
            assert!(listed);
            finished = true;
        }
        sandbox.mica(["check"]).ok();
        if listed {
            sandbox.mica(["rmi", "new:1"]).ok();
        }
        sandbox.mica(["gc"]).ok();
        assert_eq!(
            sandbox.store_files().len(),
            baseline,
            "after {}",
            run.describe()
        );
    }
    assert!(finished, "no run was given enough time");
    let mount = sandbox.mount();
    assert_eq!(names(mount.path("images")), ["app"]);
}

/// After the daemon was killed, `mica mount` on the dead mount point serves the same trees again.
#[test]
fn fuse_recovery_after_kill() {
    let (sandbox, mount) = mounted(&["app:1"]);
    let before = walk::walk(&mount.image("app/1")).expect("the tree");
    let pid = mount.daemon().expect("the daemon's pid");
    rustix::process::kill_process(pid, Signal::KILL).expect("kill");
    // What the kernel has cached it still answers alone; a name it has not seen must reach the daemon.
    let unseen = mount.path("images/unseen");
    wait_until("the mount is dead", || {
        let error = fs::metadata(&unseen).expect_err("no such image");
        error.raw_os_error() == Some(Errno::NOTCONN.raw_os_error())
    });
    let point = mount.point.clone();
    mount.forget();
    let again = sandbox.mount_on(&point, &[]);
    let after = walk::walk(&again.image("app/1")).expect("the tree");
    assert!(walk::compare(&before, &after).is_empty());
}

/// SIGTERM and SIGINT unmount and end the daemon.
#[test]
fn fuse_signals() {
    for signal in [Signal::TERM, Signal::INT] {
        let (_sandbox, mount) = mounted(&["app:1"]);
        let pid = mount.daemon().expect("the daemon's pid");
        rustix::process::kill_process(pid, signal).expect("kill");
        wait_until("the mount goes", || !mount.is_mounted());
        wait_until("the daemon ends", || {
            !Path::new(&format!("/proc/{}", pid.as_raw_nonzero())).exists()
        });
    }
}

#[track_caller]
fn wait_until(what: &str, done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(10));
    }
}
