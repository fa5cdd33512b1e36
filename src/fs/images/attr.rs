//! Attributes: what `stat` shows of each kind of node.

use crate::fs::api::{FileAttr, FileKind, InodeNo, Timestamp};
use crate::tree::{Attributes, NodeKind};

/// Blocks of 512 bytes.
fn blocks(size: u64) -> u64 {
    size.div_ceil(512)
}

/// Everything but a directory in an image or a layer.
pub(super) fn of_leaf(ino: InodeNo, a: &Attributes) -> FileAttr {
    let kind = match a.kind {
        // Not given for a leaf; a damaged index could.
        NodeKind::Directory => FileKind::Directory,
        NodeKind::Regular => FileKind::Regular,
        NodeKind::Symlink => FileKind::Symlink,
        NodeKind::CharDevice => FileKind::CharDevice,
        NodeKind::BlockDevice => FileKind::BlockDevice,
        NodeKind::Fifo => FileKind::Fifo,
    };
    let mtime = Timestamp {
        sec: a.mtime_sec,
        nsec: a.mtime_nsec,
    };
    FileAttr {
        ino,
        kind,
        mode: a.mode,
        nlink: a.nlink,
        uid: a.uid,
        gid: a.gid,
        rdev_major: a.rdev_major,
        rdev_minor: a.rdev_minor,
        size: a.size,
        blocks: match a.kind {
            NodeKind::Regular => blocks(a.size),
            _ => 0,
        },
        atime: mtime,
        mtime,
        ctime: mtime,
    }
}

/// A directory of an image or a layer.
pub(super) fn of_directory(ino: InodeNo, a: &Attributes) -> FileAttr {
    FileAttr {
        kind: FileKind::Directory,
        nlink: 1,
        size: 0,
        blocks: 0,
        ..of_leaf(ino, a)
    }
}

/// A node of the tree's own; `owner` is (uid, gid).
pub(super) fn own(
    ino: InodeNo,
    kind: FileKind,
    mode: u32,
    owner: (u32, u32),
    size: u64,
    mtime: Timestamp,
) -> FileAttr {
    FileAttr {
        ino,
        kind,
        mode,
        nlink: 1,
        uid: owner.0,
        gid: owner.1,
        rdev_major: 0,
        rdev_minor: 0,
        size,
        blocks: match kind {
            FileKind::Regular => blocks(size),
            _ => 0,
        },
        atime: mtime,
        mtime,
        ctime: mtime,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_rounded_up() {
        assert_eq!([0, 1, 512, 513].map(blocks), [0, 1, 1, 2]);
    }
}
