//! Files in volumes; `tests/volume_files*` has all the operations.

use std::fs;
use std::path::PathBuf;

use rustix::io::Errno;

use super::errno;
use crate::common::mount::Mount;
use crate::common::sandbox::Sandbox;

/// A bind of a directory of the sandbox: on the host, in the mount.
fn bound(sandbox: &Sandbox, mount: &Mount) -> (PathBuf, PathBuf) {
    let (host, inside) = (sandbox.mkdir("host"), mount.path("volumes/bound"));
    std::os::unix::fs::symlink(&host, &inside).expect("ln -s");
    (host, inside)
}

/// What is written, renamed or removed on the host or through the mount is seen by both at once: names, attributes and content.
#[test]
fn fuse_volume_files_are_the_hosts_at_every_moment() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let (host, inside) = bound(&sandbox, &mount);
    for round in 0..50 {
        let (one, other) = match round % 2 {
            0 => (&host, &inside),
            _ => (&inside, &host),
        };
        fs::write(one.join("f"), "x".repeat(round)).expect("write");
        assert_eq!(fs::read(other.join("f")).expect("read").len(), round);
        fs::rename(one.join("f"), one.join("g")).expect("rename");
        assert_eq!(errno(fs::metadata(other.join("f"))), Errno::NOENT);
        assert_eq!(
            fs::metadata(other.join("g")).expect("stat").len(),
            round as u64
        );
        fs::remove_file(other.join("g")).expect("unlink");
        assert!(!one.join("g").exists());
    }
}

/// A symbolic link in a volume is data, and a directory that the host swaps for a link leads nobody outside.
#[test]
fn fuse_volume_links_are_data() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let (host, inside) = bound(&sandbox, &mount);
    std::os::unix::fs::symlink("/no/such/place", host.join("link")).expect("ln -s");
    let target = fs::read_link(inside.join("link")).expect("readlink");
    assert_eq!(target, PathBuf::from("/no/such/place"));
    // The source of a bind itself.
    fs::rename(&host, sandbox.path("moved")).expect("mv");
    std::os::unix::fs::symlink("/etc", &host).expect("ln -s");
    assert_eq!(errno(fs::metadata(inside.join("passwd"))), Errno::NOENT);
}

/// Between volumes `mv` copies and `ln` fails with EXDEV, as between mounts.
#[test]
fn fuse_volumes_are_apart() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let (_, inside) = bound(&sandbox, &mount);
    let other = mount.path("volumes/other");
    fs::create_dir(&other).expect("mkdir");
    fs::write(inside.join("f"), "x").expect("write");
    assert_eq!(
        errno(fs::hard_link(inside.join("f"), other.join("f"))),
        Errno::XDEV
    );
    assert_eq!(
        errno(fs::rename(inside.join("f"), other.join("f"))),
        Errno::XDEV
    );
    sandbox
        .sh(&format!("mv {}/f {}/f", inside.display(), other.display()))
        .ok();
    assert_eq!(fs::read(other.join("f")).expect("read"), b"x");
}
