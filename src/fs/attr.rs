//! Attributes: what `stat` shows of each kind of node.

use std::time::{Duration, SystemTime};

use super::face::{FileAttr, FileKind, InodeNo, Timestamp};
use crate::tree::{Attributes, NodeKind};

impl Timestamp {
    /// This moment.
    pub(super) fn now() -> Self {
        SystemTime::now().into()
    }

    /// The earliest time after `self` that is not before this moment: a time stamp that has to move.
    pub(super) fn next(self) -> Self {
        let after = match self.nsec {
            999_999_999 => Timestamp {
                sec: self.sec.saturating_add(1),
                nsec: 0,
            },
            nsec => Timestamp {
                sec: self.sec,
                nsec: nsec.saturating_add(1),
            },
        };
        after.max(Timestamp::now())
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let seconds = |d: Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
        match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => Timestamp {
                sec: seconds(since),
                nsec: since.subsec_nanos(),
            },
            Err(before) => {
                let before = before.duration();
                match before.subsec_nanos() {
                    0 => Timestamp {
                        sec: seconds(before).saturating_neg(),
                        nsec: 0,
                    },
                    nsec => Timestamp {
                        sec: seconds(before).saturating_neg().saturating_sub(1),
                        nsec: 1_000_000_000u32.saturating_sub(nsec),
                    },
                }
            }
        }
    }
}

impl From<jiff::Timestamp> for Timestamp {
    fn from(time: jiff::Timestamp) -> Self {
        SystemTime::from(time).into()
    }
}

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
    fn times_before_1970_count_forwards() {
        let time = SystemTime::UNIX_EPOCH - Duration::new(4, 500_000_000);
        let expected = Timestamp {
            sec: -5,
            nsec: 500_000_000,
        };
        assert_eq!(Timestamp::from(time), expected);
        let whole = SystemTime::UNIX_EPOCH - Duration::from_secs(4);
        assert_eq!(Timestamp::from(whole), Timestamp { sec: -4, nsec: 0 });
    }

    #[test]
    fn the_next_time_is_later() {
        for (sec, nsec) in [(0, 5), (0, 999_999_999), (i64::from(u32::MAX), 7)] {
            let time = Timestamp { sec, nsec };
            assert!(time.next() > time);
        }
    }

    #[test]
    fn blocks_are_rounded_up() {
        assert_eq!([0, 1, 512, 513].map(blocks), [0, 1, 1, 2]);
    }
}
