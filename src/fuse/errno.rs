//! The one table from [`FsError`] and [`VolumeError`] to what the caller sees and the log keeps.

use std::fmt::Display;

use fuser::Errno;
use log::Level;
use rustix::io::Errno as HostErrno;

use crate::fs::FsError;
use crate::fs::volumes::VolumeError;

/// What a handler may fail with.
pub(super) trait Failure: Display {
    /// What the system call gets.
    fn errno(&self) -> Errno;
    /// How loud it is in the log.
    fn level(&self) -> Level;
}

impl Failure for FsError {
    fn errno(&self) -> Errno {
        errno(self)
    }

    fn level(&self) -> Level {
        level(self)
    }
}

impl Failure for VolumeError {
    fn errno(&self) -> Errno {
        match self {
            // To the kernel it would mean "never again" for the whole mount.
            VolumeError::Host(HostErrno::NOSYS) => Errno::EOPNOTSUPP,
            VolumeError::Host(host) => Errno::from_i32(host.raw_os_error()),
            VolumeError::Tree(error) => errno(error),
        }
    }

    fn level(&self) -> Level {
        match self {
            VolumeError::Host(HostErrno::IO) => Level::Error,
            VolumeError::Host(
                HostErrno::NOSPC | HostErrno::DQUOT | HostErrno::MFILE | HostErrno::NFILE,
            ) => Level::Warn,
            VolumeError::Host(_) => Level::Debug,
            // Who uses a volume is only said here.
            VolumeError::Tree(FsError::Busy(_)) => Level::Warn,
            VolumeError::Tree(error) => level(error),
        }
    }
}

/// The errno a system call gets. Exhaustive on purpose: a new error has to be placed here.
fn errno(error: &FsError) -> Errno {
    match error {
        FsError::NotFound => Errno::ENOENT,
        FsError::NotDirectory => Errno::ENOTDIR,
        FsError::IsDirectory => Errno::EISDIR,
        // readlink(2) on something that is no link.
        FsError::NotSymlink => Errno::EINVAL,
        // Not ENOENT: the name may well exist, the kernel has to look it up again.
        FsError::Stale(_) => Errno::ESTALE,
        FsError::NotPermitted => Errno::EPERM,
        FsError::Denied => Errno::EACCES,
        FsError::ReadOnly => Errno::EROFS,
        FsError::Busy(_) => Errno::EBUSY,
        FsError::Exists => Errno::EEXIST,
        FsError::NotEmpty => Errno::ENOTEMPTY,
        FsError::Invalid(_) => Errno::EINVAL,
        FsError::NameTooLong => Errno::ENAMETOOLONG,
        FsError::NoAttribute => Errno::NO_XATTR,
        // Never ENOSYS: the kernel would stop asking for the whole mount.
        FsError::Unsupported => Errno::EOPNOTSUPP,
        FsError::NoSpace(_) => Errno::ENOSPC,
        // Damage is EIO, never "not found".
        FsError::Corrupt { .. } => Errno::EIO,
        FsError::Store(_) => Errno::EIO,
        FsError::Io { .. } => Errno::EIO,
    }
}

/// How loud an error is in the log: what somebody has to repair is an error, what a user did is not.
fn level(error: &FsError) -> Level {
    match error {
        FsError::Corrupt { .. } | FsError::Store(_) | FsError::Io { .. } => Level::Error,
        FsError::NoSpace(_) => Level::Warn,
        FsError::Busy(_) | FsError::Stale(_) => Level::Info,
        FsError::NotFound
        | FsError::NotDirectory
        | FsError::IsDirectory
        | FsError::NotSymlink
        | FsError::NotPermitted
        | FsError::Denied
        | FsError::ReadOnly
        | FsError::Exists
        | FsError::NotEmpty
        | FsError::Invalid(_)
        | FsError::NameTooLong
        | FsError::NoAttribute
        | FsError::Unsupported => Level::Debug,
    }
}
