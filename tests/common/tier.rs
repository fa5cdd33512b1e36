//! The conditions of the privileged tests, checked loudly.

use std::cell::Cell;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change};

thread_local! {
    static PRIVATE: Cell<bool> = const { Cell::new(false) };
    static BOUND_PASSWD: Cell<bool> = const { Cell::new(false) };
}

/// Everything that this test mounts from now on is seen by this thread and by the processes and threads that it starts,
/// and by nobody else. Panics where that cannot be: a tier that cannot run has failed.
pub fn root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test needs root: run `make test` as root"
    );
    assert!(
        Path::new("/dev/fuse").exists(),
        "this test needs /dev/fuse: load the fuse module or pass the device into the container"
    );
    if PRIVATE.get() {
        return;
    }
    // SAFETY: of what unshare can take apart only the mount namespace and, implied, the current directory, root and umask
    // become this thread's own; no memory and no file descriptor is concerned.
    #[allow(unsafe_code)]
    let unshared = unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) };
    unshared.expect("this test needs CAP_SYS_ADMIN for a private mount namespace");
    mount_change(
        "/",
        MountPropagationFlags::REC | MountPropagationFlags::PRIVATE,
    )
    .expect("making the mount namespace private");
    PRIVATE.set(true);
}

/// Lets ordinary users open `/dev/fuse`, as every distribution does; where this machine does not, a node of our own is bound
/// over it in the private mount namespace.
pub fn fuse_for_users() {
    root();
    let mode = std::fs::metadata("/dev/fuse").expect("/dev/fuse");
    if std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o006 == 0o006 {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory").keep();
    let node = dir.join("fuse");
    let rw_all = Mode::from_raw_mode(0o666);
    let device = rustix::fs::makedev(10, 229);
    rustix::fs::mknodat(CWD, &node, FileType::CharacterDevice, rw_all, device).expect("mknod");
    rustix::fs::chmod(&node, rw_all).expect("chmod");
    rustix::mount::mount_bind(&node, "/dev/fuse").expect("binding /dev/fuse");
    std::fs::remove_file(&node).expect("unlink");
    std::fs::remove_dir(dir).expect("rmdir");
}

/// Gives the user id a name, which fusermount3 wants, in a copy of `/etc/passwd` that only this test sees.
pub fn named_user(uid: u32) {
    root();
    let passwd = std::fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let id = uid.to_string();
    if passwd
        .lines()
        .any(|line| line.split(':').nth(2) == Some(id.as_str()))
    {
        return;
    }
    let copy = tempfile::NamedTempFile::new().expect("a file");
    let line = format!("mica-test-{uid}:x:{uid}:{uid}::/nonexistent:/bin/sh\n");
    std::fs::write(copy.path(), passwd + &line).expect("writing a copy of /etc/passwd");
    rustix::fs::chmod(copy.path(), Mode::from_raw_mode(0o644)).expect("chmod");
    // Nothing can be mounted on the copy that is there, which has lost its name.
    if BOUND_PASSWD.replace(true) {
        rustix::mount::unmount("/etc/passwd", UnmountFlags::DETACH).expect("the earlier copy");
    }
    rustix::mount::mount_bind(copy.path(), "/etc/passwd").expect("binding /etc/passwd");
}

/// Gives the user subordinate ids, 65,536 from 200,000 on, in `/etc/subuid` and `/etc/subgid` that only this test sees.
pub fn subordinate_ids(uid: u32) {
    subordinate_ids_by(format!("{uid}:200000:65536\n"));
}

/// The same by the text of the files.
pub fn subordinate_ids_by(text: impl AsRef<[u8]>) {
    root();
    for path in ["/etc/subuid", "/etc/subgid"] {
        assert!(
            Path::new(path).exists(),
            "this test needs {path}: install uidmap (and passwd)"
        );
        let copy = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(copy.path(), text.as_ref()).expect("writing");
        rustix::fs::chmod(copy.path(), Mode::from_raw_mode(0o644)).expect("chmod");
        // An earlier copy, which has lost its name; there may be none.
        let _ = rustix::mount::unmount(path, UnmountFlags::DETACH);
        rustix::mount::mount_bind(copy.path(), path).expect("binding it");
    }
}
