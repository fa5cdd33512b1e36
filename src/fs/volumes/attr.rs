//! What `stat` shows of a file of a volume, what a caller may change of it, and what can go wrong.

use std::io;

use rustix::fs::{FileType, Statx};
use rustix::io::Errno;

use super::super::api::{FsError, InodeNo, Timestamp};
use crate::ops::volume as volumes;
use crate::store::StoreError;
use crate::sys::beneath::{self, SetTime};

/// What `stat` shows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Attr {
    /// Number, which is also the node's identity.
    pub ino: InodeNo,
    /// The kernel did not know it before.
    pub fresh: bool,
    /// Type.
    pub kind: FileType,
    /// Permission, set-id and sticky bits.
    pub mode: u32,
    /// Number of links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Bytes.
    pub size: u64,
    /// Space in units of 512 bytes.
    pub blocks: u64,
    /// Best size of a request.
    pub block_size: u32,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
}

impl Attr {
    pub(super) fn new(ino: InodeNo, stat: &Statx) -> Attr {
        let time = |t: &rustix::fs::StatxTimestamp| Timestamp {
            sec: t.tv_sec,
            nsec: t.tv_nsec,
        };
        Attr {
            ino,
            fresh: false,
            kind: beneath::kind(stat),
            mode: u32::from(stat.stx_mode) & 0o7777,
            nlink: stat.stx_nlink,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            device: (stat.stx_rdev_major, stat.stx_rdev_minor),
            size: stat.stx_size,
            blocks: stat.stx_blocks,
            block_size: stat.stx_blksize,
            atime: time(&stat.stx_atime),
            mtime: time(&stat.stx_mtime),
            ctime: time(&stat.stx_ctime),
        }
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.kind == FileType::Directory
    }
}

/// The attributes a caller wants to change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Change {
    /// chmod.
    pub mode: Option<u32>,
    /// chown.
    pub uid: Option<u32>,
    /// chgrp.
    pub gid: Option<u32>,
    /// truncate.
    pub size: Option<u64>,
    /// Time of the last access.
    pub atime: SetTime,
    /// Time of the last change of content.
    pub mtime: SetTime,
}

/// The number of an open file or directory.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct FileNo(pub u64);

/// A volume in a listing of all.
pub(super) type Name = (Box<[u8]>, InodeNo, FileType);

/// Why an operation on a volume was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// What the host said: the caller gets the same.
    #[error("{0}")]
    Host(#[from] Errno),
    /// A decision of ours; the edge has the table of errnos.
    #[error("{0}")]
    Tree(#[from] FsError),
}

impl VolumeError {
    /// Whether it says that there is nothing of that name.
    pub fn is_absence(&self) -> bool {
        matches!(self, VolumeError::Host(Errno::NOENT))
    }
}

impl From<StoreError> for VolumeError {
    fn from(error: StoreError) -> Self {
        VolumeError::Tree(error.into())
    }
}

impl From<volumes::VolumeError> for VolumeError {
    fn from(error: volumes::VolumeError) -> Self {
        VolumeError::Tree(error.into())
    }
}

pub(super) fn io_error(error: io::Error) -> VolumeError {
    let code = error.raw_os_error();
    VolumeError::Host(code.map_or(Errno::IO, Errno::from_raw_os_error))
}
