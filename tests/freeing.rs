//! Who frees the bytes of a removed image, and who waits for them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::{Signal, kill_process};

use crate::common::image::ImageBuilder;
use crate::common::keeper::wait_until;
use crate::common::sandbox::{Mount, Sandbox};
use crate::common::tier;

/// An image of four megabytes.
fn image(name: &str) -> ImageBuilder {
    let content = name.bytes().cycle().take(4 << 20).collect::<Vec<u8>>();
    ImageBuilder::new(name).layer(|l| l.file("large", content))
}

/// A mount whose daemon frees nothing until it is let (`sys::pause`).
fn paused(sandbox: &Sandbox) -> (Mount, PathBuf) {
    let (point, directory) = (sandbox.mkdir("m"), sandbox.mkdir("pause"));
    for pipe in ["at", "go"].map(|pipe| directory.join(pipe)) {
        let kind = rustix::fs::FileType::Fifo;
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, mode, 0).unwrap();
    }
    let mut command = sandbox.command();
    command.arg("mount").arg(&point);
    command.env("MICA_PAUSE", format!("freeing={}", directory.display()));
    (sandbox.mount_by(&point, command), directory)
}

/// Lets the daemon free what it holds, once.
fn go(directory: &Path) {
    drop(File::open(directory.join("at")).unwrap());
    drop(
        File::options()
            .write(true)
            .open(directory.join("go"))
            .unwrap(),
    );
}

/// Removed blobs that the daemon has open.
fn held(mount: &Mount) -> usize {
    let daemon = mount.daemon().expect("the daemon").as_raw_nonzero();
    let files = fs::read_dir(format!("/proc/{daemon}/fd")).unwrap();
    let targets = files
        .flatten()
        .filter_map(|fd| fs::read_link(fd.path()).ok());
    let targets = targets.map(|target| target.to_string_lossy().into_owned());
    let gone = |target: &String| target.contains("/blobs/") && target.ends_with(" (deleted)");
    targets.filter(gone).count()
}

fn start(sandbox: &Sandbox, line: &str) -> Child {
    let mut command = sandbox.command();
    command.args(line.split(' '));
    command.stdout(std::process::Stdio::null()).spawn().unwrap()
}

/// Whether it goes on waiting.
fn waits(child: &mut Child) -> bool {
    thread::sleep(Duration::from_millis(300));
    child.try_wait().unwrap().is_none()
}

#[test]
fn fuse_a_daemon_frees_what_a_verb_has_removed_and_who_wants_the_space_waits() {
    let sandbox = Sandbox::new();
    let (mount, pause) = paused(&sandbox);
    for verb in ["gc", "image prune -f", "system df", "system prune -f"] {
        sandbox.load(&image("app:1"));
        // The kernel and the daemon know it, or do not.
        if verb != "gc" {
            fs::read(mount.image("app/1/large")).unwrap();
        }
        sandbox.mica(["rmi", "app:1"]).ok();
        assert!(!mount.image("app/1").exists());
        let blobs = fs::read_dir(sandbox.store().join("blobs/sha256")).unwrap();
        assert_eq!(blobs.count(), 0);
        // Read files are let go of when the kernel forgets them.
        wait_until("it holds what was removed only", || held(&mount) == 1);
        let mut child = start(&sandbox, verb);
        assert!(waits(&mut child), "{verb}");
        go(&pause);
        assert!(child.wait().unwrap().success(), "{verb}");
        let open = held(&mount);
        assert_eq!(open, 0, "{verb}");
    }
    // By the mount itself, too.
    sandbox.load(&image("app:1"));
    fs::remove_dir(mount.image("app/1")).unwrap();
    wait_until("it holds what was removed only", || held(&mount) == 1);
    let mut child = start(&sandbox, "gc");
    assert!(waits(&mut child));
    go(&pause);
    assert!(child.wait().unwrap().success());
    assert_eq!(held(&mount), 0);
}

/// The store on a file system with so much room.
fn small(sandbox: &Sandbox, size: &str) -> PathBuf {
    let store = sandbox.mkdir("store");
    let options = std::ffi::CString::new(format!("size={size},mode=700")).unwrap();
    let flags = MountFlags::empty();
    rustix::mount::mount("tmpfs", &store, "tmpfs", flags, options.as_c_str()).unwrap();
    store
}

#[test]
fn fuse_root_a_load_onto_a_full_disk_waits_for_what_is_being_freed() {
    tier::root();
    let sandbox = Sandbox::new();
    let store = small(&sandbox, "8m");
    let (mount, pause) = paused(&sandbox);
    sandbox.load(&image("app:1"));
    let archive = sandbox.path("next.tar");
    image("next:1").docker_archive(&archive);
    let load = format!("load -i {}", archive.display());
    assert!(!start(&sandbox, &load).wait().unwrap().success());
    sandbox.mica(["rmi", "app:1"]).ok();
    let mut child = start(&sandbox, &load);
    assert!(waits(&mut child));
    go(&pause);
    assert!(child.wait().unwrap().success());
    let large = fs::read(mount.image("next/1/large")).unwrap();
    assert_eq!(large.len(), 4 << 20);
    mount.unmount();
    sandbox.mica(["check"]).ok();
    rustix::mount::unmount(&store, UnmountFlags::DETACH).unwrap();
}

#[test]
fn fuse_root_a_daemon_that_is_killed_before_it_has_freed_loses_nothing() {
    tier::root();
    let sandbox = Sandbox::new();
    let store = small(&sandbox, "30m");
    let free = || rustix::fs::statvfs(&store).unwrap().f_bfree * 4096;
    let (mount, _pause) = paused(&sandbox);
    sandbox.load(&image("stays:1"));
    let before = free();
    sandbox.load(&image("app:1"));
    sandbox.mica(["rmi", "app:1"]).ok();
    assert_eq!(held(&mount), 1);
    assert!(free() + (4 << 20) <= before);
    kill_process(mount.daemon().unwrap(), Signal::KILL).unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while free() + (1 << 20) < before {
        assert!(Instant::now() < end, "the space has not come back");
        thread::sleep(Duration::from_millis(10));
    }
    // Nobody waits for the dead.
    sandbox.mica(["gc"]).ok();
    sandbox.mica(["check"]).ok();
    let point = mount.point.clone();
    mount.forget();
    let again = sandbox.mount_on(&point, &[]);
    assert_eq!(
        fs::read(again.image("stays/1/large")).unwrap().len(),
        4 << 20
    );
    again.unmount();
    rustix::mount::unmount(&store, UnmountFlags::DETACH).unwrap();
}
