//! The conditions of the privileged tests, checked loudly.

use std::cell::Cell;
use std::path::Path;

use rustix::mount::{MountPropagationFlags, mount_change};

thread_local! {
    static PRIVATE: Cell<bool> = const { Cell::new(false) };
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
