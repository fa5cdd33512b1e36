//! Descriptors that another program has opened for this one, by number.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

/// Takes over a descriptor that was handed down at `exec`; programs that we start do not get it.
///
/// # Errors
/// There is none of that number.
#[allow(unsafe_code)]
pub fn take(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: asks about a number.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, as the call above has shown, and whoever handed it down by number meant it for this process to own.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
