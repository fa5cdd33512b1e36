//! What there is to be read, and one thing that has changed in it.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::Stat;

use super::attributes::{OverlayAttributes, Owners};
use super::error::FromDirError;
use crate::layer::diff::ChangeKind;
use crate::layer::merged::Image;
use crate::layer::tar::EntryKind;

/// A directory to be read as a layer.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The upper directory.
    pub directory: &'a Path,
    /// What it lies on; `None`: nothing, everything in it counts.
    pub base: Option<&'a Image>,
    /// Whose notes count.
    pub overlay: OverlayAttributes,
    /// Whose files they are.
    pub owners: Owners<'a>,
    /// Mount points that were made for the container, absolute: no change while they are empty.
    pub made: &'a [String],
    /// No time of the layer is behind this one, in seconds.
    pub latest: Option<i64>,
}

/// One thing that has changed.
#[derive(Debug)]
pub struct Item {
    /// Without leading `/`; empty for the root.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: ItemKind,
    /// What that is to the image below.
    pub change: ChangeKind,
    /// Permission bits.
    pub mode: u32,
    /// Owner, as the layer names it.
    pub uid: u32,
    /// Group, as the layer names it.
    pub gid: u32,
    /// Modification time: seconds, and nanoseconds to add.
    pub mtime: (i64, u32),
    /// Bytes, of a regular file.
    pub size: u64,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Target of a symbolic link.
    pub target: Vec<u8>,
    /// Sorted by name, without those of overlayfs.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// How many names its inode has.
    pub nlink: u64,
    /// Device and inode.
    pub inode: (u64, u64),
    /// The open file, if it is regular.
    pub(super) file: Option<File>,
    pub(super) stamp: Stamp,
}

/// What an [`Item`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemKind {
    /// Something of the tree.
    Node(EntryKind),
    /// The image's name is gone.
    Whiteout,
    /// Everything the image has in this directory is gone. Comes behind the directory itself.
    Opaque,
    /// A socket, which no layer can hold.
    Socket,
}

/// What changes when a file does.
pub(super) type Stamp = (i64, i64, u64, i64, u64);

pub(super) fn stamp(stat: &Stat) -> Stamp {
    (
        stat.st_size,
        stat.st_mtime,
        stat.st_mtime_nsec,
        stat.st_ctime,
        stat.st_ctime_nsec,
    )
}

impl Item {
    /// Whether `file`, of which this item was made, is as it was then.
    pub(super) fn is_unchanged(&self, file: &File) -> Result<bool, FromDirError> {
        let stat = rustix::fs::fstat(file).map_err(|error| self.io("stat", error.into()))?;
        Ok(stamp(&stat) == self.stamp)
    }

    pub(super) fn changed(&self) -> FromDirError {
        FromDirError::Changed(self.path.clone())
    }

    pub(super) fn io(&self, action: &'static str, source: io::Error) -> FromDirError {
        at(action, &self.path)(source)
    }
}

/// The error of `action` on a path.
pub(super) fn at(action: &'static str, path: &[u8]) -> impl Fn(io::Error) -> FromDirError {
    let path = path.to_vec();
    move |source| FromDirError::Io {
        action,
        path: path.clone(),
        source,
    }
}
