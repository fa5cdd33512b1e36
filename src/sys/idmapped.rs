//! Trees with other owners: mounts whose ids are mapped by a user namespace (`mount_setattr`, Linux 5.12; of a FUSE file system
//! that allows it 6.12).

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};

use super::idmap::{IdMap, IdRange};

/// A user namespace with these ids that no process is in. For root. Other threads may run.
///
/// # Errors
/// The kernel does not take the ids (they overlap, or are too many), or makes no user namespaces.
#[allow(unsafe_code)]
pub fn namespace(map: &IdMap) -> io::Result<OwnedFd> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let flags = libc::c_long::from(libc::CLONE_NEWUSER | libc::SIGCHLD);
    // SAFETY: without CLONE_VM and with no stack given, clone is fork: the child runs on a copy of all memory. Other threads may
    // have held locks; the child takes none, it only makes the system calls below.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    let child = match u32::try_from(pid) {
        Ok(0) => {
            let mut byte = 0u8;
            // SAFETY: system calls on descriptors of this process's own table and a byte on its stack; `_exit` runs nothing of
            // the parent's. The end of the pipe comes when the parent is done with us, or is no more.
            unsafe {
                libc::close(write.as_raw_fd());
                while libc::read(read.as_raw_fd(), (&raw mut byte).cast(), 1) < 0 {}
                libc::_exit(0)
            }
        }
        Ok(child) => child,
        Err(_) => return Err(io::Error::last_os_error()),
    };
    let line = |range: &IdRange| format!("{} {} {}\n", range.inside, range.outside, range.count);
    let lines = |ranges: &[IdRange]| ranges.iter().map(line).collect::<String>();
    let made = fs::write(format!("/proc/{child}/gid_map"), lines(&map.gids))
        .and_then(|()| fs::write(format!("/proc/{child}/uid_map"), lines(&map.uids)))
        .and_then(|()| File::open(format!("/proc/{child}/ns/user")));
    let pid = super::proc::pid(child);
    if let Some(pid) = pid {
        // It is there until it is waited for. By a signal: another thread's child may have our end of the pipe too.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    while rustix::process::waitpid(pid, rustix::process::WaitOptions::empty())
        .is_err_and(|error| error == rustix::io::Errno::INTR)
    {}
    drop(write);
    Ok(made?.into())
}

/// A mount of its own, attached nowhere, of a directory: read-only, and what belongs to an id of the namespace belongs to the id of
/// the host that this is.
///
/// # Errors
/// `InvalidInput`: the file system, or the kernel, cannot.
#[allow(unsafe_code)]
pub fn shifted(tree: &Path, users: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let clone = open_tree(CWD, tree, flags)?;
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP | libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NODEV,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::try_from(users.as_raw_fd()).unwrap_or_default(),
    };
    // SAFETY: both descriptors are open, the path an empty C string, the structure alive and its size given.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            clone.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    match done {
        0 => Ok(clone),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Puts such a mount in a place.
///
/// # Errors
/// The place cannot be mounted on.
pub fn attach(mount: impl AsFd, place: &Path) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(move_mount(mount, c"", CWD, place, flags)?)
}

/// Takes away what is mounted on a place, at once: whoever uses it goes on. If nothing is, that is no error.
///
/// # Errors
/// It cannot be taken away.
pub fn detach(place: &Path) -> io::Result<()> {
    use rustix::io::Errno;
    match unmount(place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
