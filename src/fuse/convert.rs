//! From the tree's types to fuser's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::INodeNo;

use crate::fs::{FileAttr, FileKind, Timestamp, Ttl};

/// "For ever" for the kernel, which counts in jiffies: a hundred years.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

pub(super) fn ttl(ttl: Ttl) -> Duration {
    match ttl {
        Ttl::Zero => Duration::ZERO,
        Ttl::Forever => FOREVER,
    }
}

pub(super) fn kind(kind: FileKind) -> fuser::FileType {
    match kind {
        FileKind::Directory => fuser::FileType::Directory,
        FileKind::Regular => fuser::FileType::RegularFile,
        FileKind::Symlink => fuser::FileType::Symlink,
        FileKind::CharDevice => fuser::FileType::CharDevice,
        FileKind::BlockDevice => fuser::FileType::BlockDevice,
        FileKind::Fifo => fuser::FileType::NamedPipe,
    }
}

pub(super) fn attr(attr: &FileAttr) -> fuser::FileAttr {
    fuser::FileAttr {
        ino: INodeNo(attr.ino.0),
        size: attr.size,
        blocks: attr.blocks,
        atime: time(attr.atime),
        mtime: time(attr.mtime),
        ctime: time(attr.ctime),
        crtime: UNIX_EPOCH,
        kind: kind(attr.kind),
        perm: u16::try_from(attr.mode & 0o7777).unwrap_or(0),
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: device(attr.rdev_major, attr.rdev_minor),
        blksize: 4096,
        flags: 0,
    }
}

/// The attributes that stand for "no such name": inode number 0, with the entry's timeout, is a negative entry.
pub(super) fn absent() -> fuser::FileAttr {
    fuser::FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: fuser::FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

/// Every `Timestamp` has a `SystemTime` on 64-bit Linux; one whose nanoseconds are out of range is cut to the second.
fn time(time: Timestamp) -> SystemTime {
    let seconds = Duration::from_secs(time.sec.unsigned_abs());
    let whole = if time.sec < 0 {
        UNIX_EPOCH.checked_sub(seconds)
    } else {
        UNIX_EPOCH.checked_add(seconds)
    };
    let whole = whole.unwrap_or(UNIX_EPOCH);
    let nanoseconds = Duration::from_nanos(u64::from(time.nsec.min(999_999_999)));
    whole.checked_add(nanoseconds).unwrap_or(whole)
}

/// The kernel's 32-bit device number (`new_encode_dev`): 12 bits of major, 20 of minor; what does not fit has no device
/// driver on Linux and is cut.
fn device(major: u32, minor: u32) -> u32 {
    let (major, minor) = (major & 0xfff, minor & 0xf_ffff);
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_all_sizes() {
        for (sec, nsec) in [
            (0, 0),
            (-1, 999_999_999),
            (i64::MAX, 999_999_999),
            (i64::MIN, 1),
        ] {
            let time = time(Timestamp { sec, nsec });
            let back = match time.duration_since(UNIX_EPOCH) {
                Ok(d) => i128::from(d.as_secs()) * 1_000_000_000 + i128::from(d.subsec_nanos()),
                Err(e) => {
                    let d = e.duration();
                    -(i128::from(d.as_secs()) * 1_000_000_000 + i128::from(d.subsec_nanos()))
                }
            };
            assert_eq!(back, i128::from(sec) * 1_000_000_000 + i128::from(nsec));
        }
    }

    #[test]
    fn device_numbers_are_the_kernels() {
        assert_eq!(device(1, 3), 0x103);
        assert_eq!(device(0xfff, 0xf_ffff), 0xffff_ffff);
        assert_eq!(device(8, 0x100), 0x0010_0800);
    }
}
