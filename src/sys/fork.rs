//! Splitting a daemon off a command, and the C allocator's settings for one.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Which side of a fork this is.
#[derive(Debug)]
pub enum Fork {
    /// The process that forked, with the process id of the child.
    Parent(u32),
    /// The new process.
    Child,
}

/// Forks this process.
///
/// Refused while more than one thread exists: a lock that another thread holds (the allocator's, the logger's) would stay locked
/// in the child for ever.
pub fn fork() -> io::Result<Fork> {
    let threads = super::procfs::own_threads()?;
    if threads != 1 {
        return Err(io::Error::other(format!(
            "cannot fork: the process already has {threads} threads"
        )));
    }
    fork_single()
}

/// [`fork`] without the check, for where `/proc` is another's: only in a process that is a fresh fork itself.
#[allow(unsafe_code)]
pub fn fork_single() -> io::Result<Fork> {
    // SAFETY: this is the only thread (checked by the caller, and only a thread could start another), so the child's copy of all
    // memory and locks is consistent and it may do whatever the parent could.
    let pid = unsafe { libc::fork() };
    match u32::try_from(pid) {
        Ok(0) => Ok(Fork::Child),
        Ok(pid) => Ok(Fork::Parent(pid)),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Closes every descriptor above stderr but those to `keep`: what the starter happened to have open (a pipe that somebody waits for the
/// end of, a file on a disk to be unmounted) is none of a daemon's business.
///
/// For the child of [`fork`], before it opens anything: nothing else in the program may own a descriptor.
#[allow(unsafe_code)]
pub fn close_inherited(keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep
        .iter()
        .map(|fd| fd.as_raw_fd().unsigned_abs())
        .collect();
    keep.sort_unstable();
    let mut first = 3;
    for kept in keep.into_iter().chain([u32::MAX]) {
        if first < kept {
            // SAFETY: closes descriptors only; by this function's contract nobody owns any of them but those to keep, which are
            // spared. No descriptor has the largest number.
            let rc = unsafe { libc::syscall(libc::SYS_close_range, first, kept - 1, 0) };
            if rc != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        first = first.max(kept.saturating_add(1));
    }
    Ok(())
}

/// Keeps the idle daemon small: at most two allocator arenas for all threads together.
#[allow(unsafe_code)]
pub fn limit_allocator() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two integers and is called before any other thread exists.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// Gives freed memory back to the kernel; worth calling after work that allocated much and is over.
#[allow(unsafe_code)]
pub fn release_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim is thread-safe and invalidates no live allocation.
    unsafe {
        libc::malloc_trim(0);
    }
}
