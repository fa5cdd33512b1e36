//! What can be done with a descriptor of `/dev/fuse` besides reading and writing.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::{CWD, Mode, OFlags, openat};

/// `FUSE_DEV_IOC_CLONE`, `_IOR(229, 0, uint32_t)`.
const CLONE: libc::c_ulong = 0x8004_e500;
/// `FUSE_DEV_IOC_BACKING_CLOSE`, `_IOW(229, 2, uint32_t)`.
const BACKING_CLOSE: libc::c_ulong = 0x4004_e502;

/// Another descriptor of the same connection. The requests that were read from one end with an error when its last holder is gone;
/// the connection ends with the last of all.
#[allow(unsafe_code)]
pub fn clone_connection(connection: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let new = openat(CWD, "/dev/fuse", flags, Mode::empty())?;
    let of = connection.as_raw_fd().unsigned_abs();
    // SAFETY: the kernel reads one 32-bit number, which lives through the call.
    match unsafe { libc::ioctl(new.as_raw_fd(), CLONE as _, &raw const of) } {
        0 => Ok(new),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes the descriptor `number`, whoever owns it, one of `connection`; what it was before is closed.
///
/// Its owner goes on to own it, and finds another file behind it: for the library that is to be given a connection which has been
/// answered its first question already.
#[allow(unsafe_code)]
pub fn put_in_place(connection: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    // SAFETY: both are open descriptors; which file one is of is no matter of memory safety, and it stays open.
    match unsafe { libc::dup3(connection.as_raw_fd(), number, libc::O_CLOEXEC) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Gives a backing id of a connection back, which belongs to the connection and not to the process that got it.
#[allow(unsafe_code)]
pub fn close_backing(connection: BorrowedFd<'_>, id: u32) -> io::Result<()> {
    // SAFETY: the kernel reads one 32-bit number, which lives through the call.
    match unsafe { libc::ioctl(connection.as_raw_fd(), BACKING_CLOSE as _, &raw const id) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Has the library name a backing id in a reply, by its function for that.
#[allow(unsafe_code)]
pub fn wrap_backing<R, B>(wrap: unsafe fn(&R, u32) -> B, reply: &R, id: u32) -> B {
    // SAFETY: which id is named is no matter of memory safety: the kernel checks it.
    unsafe { wrap(reply, id) }
}
