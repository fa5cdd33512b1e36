//! Locks on the host's files for others: each owner has an open file description of its own, whose locks meet those of every
//! process of the host and end with its descriptor.

use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::Result;

/// Kind of a lock.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum LockKind {
    /// Shared.
    Read,
    /// Exclusive.
    Write,
    /// None.
    Unlock,
}

impl LockKind {
    /// From `F_RDLCK` and its like.
    pub fn from_raw(kind: i32) -> Option<Self> {
        match kind {
            _ if kind == i32::from(F_RDLCK) => Some(LockKind::Read),
            _ if kind == i32::from(F_WRLCK) => Some(LockKind::Write),
            _ if kind == i32::from(F_UNLCK) => Some(LockKind::Unlock),
            _ => None,
        }
    }

    /// As `F_RDLCK` and its like.
    pub fn raw(self) -> i32 {
        i32::from(self.short())
    }

    fn short(self) -> libc::c_short {
        match self {
            LockKind::Read => F_RDLCK,
            LockKind::Write => F_WRLCK,
            LockKind::Unlock => F_UNLCK,
        }
    }
}

// libc declares them as int on some platforms; the field of struct flock is short on all.
#[allow(clippy::cast_possible_truncation)]
const F_RDLCK: libc::c_short = libc::F_RDLCK as libc::c_short;
#[allow(clippy::cast_possible_truncation)]
const F_WRLCK: libc::c_short = libc::F_WRLCK as libc::c_short;
#[allow(clippy::cast_possible_truncation)]
const F_UNLCK: libc::c_short = libc::F_UNLCK as libc::c_short;

/// First and last byte.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Range {
    /// First byte.
    pub start: u64,
    /// Last byte; `i64::MAX` and more: to the end, wherever that is.
    pub end: u64,
}

impl Range {
    /// Whether it is the whole file.
    pub fn is_whole(&self) -> bool {
        self.start == 0 && i64::try_from(self.end).is_ok_and(|end| end == i64::MAX)
    }

    fn flock(&self, kind: LockKind) -> Result<libc::flock> {
        let start = i64::try_from(self.start).map_err(|_| Errno::INVAL)?;
        let length = match i64::try_from(self.end) {
            Ok(end) if end < i64::MAX => end
                .checked_sub(start)
                .and_then(|n| n.checked_add(1))
                .filter(|n| *n > 0)
                .ok_or(Errno::INVAL)?,
            _ => 0,
        };
        Ok(libc::flock {
            l_type: kind.short(),
            l_whence: 0,
            l_start: start,
            l_len: length,
            l_pid: 0,
        })
    }
}

/// Sets or removes a record lock of `file`'s description, without waiting: `EAGAIN`.
pub fn set_lock(file: impl AsFd, kind: LockKind, range: &Range) -> Result<()> {
    fcntl(file, libc::F_OFD_SETLK, &mut range.flock(kind)?)
}

/// Sets a record lock of `file`'s description once nobody is in the way; a signal ends the waiting: `EINTR`.
pub fn wait_lock(file: impl AsFd, kind: LockKind, range: &Range) -> Result<()> {
    fcntl(file, libc::F_OFD_SETLKW, &mut range.flock(kind)?)
}

/// The first lock that stands in the way: its kind, range and process (-1: another description).
pub fn get_lock(
    file: impl AsFd,
    kind: LockKind,
    range: &Range,
) -> Result<Option<(LockKind, Range, i32)>> {
    let mut lock = range.flock(kind)?;
    fcntl(file, libc::F_OFD_GETLK, &mut lock)?;
    let found = LockKind::from_raw(lock.l_type.into()).filter(|kind| *kind != LockKind::Unlock);
    let Some(found) = found else {
        return Ok(None);
    };
    let start = u64::try_from(lock.l_start).unwrap_or(0);
    let end = match u64::try_from(lock.l_len) {
        Ok(0) | Err(_) => u64::try_from(i64::MAX).unwrap_or(u64::MAX),
        Ok(length) => start.saturating_add(length - 1),
    };
    Ok(Some((found, Range { start, end }, lock.l_pid)))
}

/// flock(2) without waiting: `EAGAIN`.
pub fn set_flock(file: impl AsFd, kind: LockKind) -> Result<()> {
    rustix::fs::flock(
        file,
        match kind {
            LockKind::Read => FlockOperation::NonBlockingLockShared,
            LockKind::Write => FlockOperation::NonBlockingLockExclusive,
            LockKind::Unlock => FlockOperation::Unlock,
        },
    )
}

/// flock(2) that waits; a signal ends that: `EINTR`.
pub fn wait_flock(file: impl AsFd, kind: LockKind) -> Result<()> {
    rustix::fs::flock(
        file,
        match kind {
            LockKind::Read => FlockOperation::LockShared,
            LockKind::Write => FlockOperation::LockExclusive,
            LockKind::Unlock => FlockOperation::Unlock,
        },
    )
}

#[allow(unsafe_code)]
fn fcntl(file: impl AsFd, command: libc::c_int, lock: &mut libc::flock) -> Result<()> {
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open while it is borrowed, and these commands read and write one `struct flock`.
    let result = unsafe { libc::fcntl(fd, command, std::ptr::from_mut(lock)) };
    if result == -1 {
        let code = std::io::Error::last_os_error().raw_os_error();
        return Err(code.map_or(Errno::IO, Errno::from_raw_os_error));
    }
    Ok(())
}
