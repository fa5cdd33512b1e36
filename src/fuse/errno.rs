//! The one table from [`FsError`] to what the caller sees and the log keeps.

use fuser::Errno;
use log::Level;

use crate::fs::FsError;

/// The errno a system call gets. Exhaustive on purpose: a new error has to be placed here.
pub(super) fn errno(error: &FsError) -> Errno {
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
pub(super) fn level(error: &FsError) -> Level {
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
