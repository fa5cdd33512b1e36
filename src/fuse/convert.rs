//! From the tree's types to fuser's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::INodeNo;

use crate::fs::volumes::Attr;
use crate::fs::{FileAttr, FileKind, Timestamp, Ttl};

/// "For ever" for the kernel, which counts in jiffies: a hundred years.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

pub(super) fn ttl(ttl: Ttl) -> Duration {
    match ttl {
        Ttl::Zero => Duration::ZERO,
        Ttl::Hour => Duration::from_secs(3600),
        Ttl::Forever => FOREVER,
    }
}

/// FS_IOC_GETFLAGS and FS_IOC_SETFLAGS of ioctl_iflags(2): `_IOR('f', 1, long)` and `_IOW('f', 2, long)`, though what is passed
/// is an int.
const GET_FLAGS: u32 = ioctl_number(2, size_of::<libc::c_long>(), b'f', 1);
const SET_FLAGS: u32 = ioctl_number(1, size_of::<libc::c_long>(), b'f', 2);
/// FS_IOC_FSGETXATTR of ioctl_xfs_fsgetxattr(2): the kernel asks for it before it sets flags.
const GET_EXTENDED: u32 = ioctl_number(2, EXTENDED, b'X', 31);
/// The size of `struct fsxattr`; its first word has the flags.
const EXTENDED: usize = 28;
/// FS_IMMUTABLE_FL, and the same there.
const IMMUTABLE: u32 = 0x10;
const EXTENDED_IMMUTABLE: u32 = 0x8;

#[expect(
    clippy::cast_possible_truncation,
    reason = "sizes of C types; in a constant nothing else can convert them"
)]
const fn ioctl_number(direction: u32, size: usize, letter: u8, number: u32) -> u32 {
    (direction << 30) | ((size as u32) << 16) | ((letter as u32) << 8) | number
}

/// The ioctls that are served.
pub(super) enum Ioctl {
    GetFlags,
    GetExtended,
    SetFlags(u32),
}

pub(super) fn ioctl(command: u32, data: &[u8]) -> Option<Ioctl> {
    match command {
        GET_FLAGS => Some(Ioctl::GetFlags),
        GET_EXTENDED => Some(Ioctl::GetExtended),
        SET_FLAGS => {
            let flags = data.first_chunk::<4>()?;
            Some(Ioctl::SetFlags(u32::from_ne_bytes(*flags)))
        }
        _ => None,
    }
}

/// `struct fsxattr` for some flags.
pub(super) fn extended(flags: u32) -> Vec<u8> {
    let word = match flags & IMMUTABLE {
        0 => 0,
        _ => EXTENDED_IMMUTABLE,
    };
    let mut bytes = word.to_ne_bytes().to_vec();
    bytes.resize(EXTENDED, 0);
    bytes
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

/// The host's type; one it does not tell is shown as a regular file, which nobody may rely on in a listing.
pub(super) fn host_kind(kind: rustix::fs::FileType) -> fuser::FileType {
    use rustix::fs::FileType;
    match kind {
        FileType::Directory => fuser::FileType::Directory,
        FileType::RegularFile | FileType::Unknown => fuser::FileType::RegularFile,
        FileType::Symlink => fuser::FileType::Symlink,
        FileType::CharacterDevice => fuser::FileType::CharDevice,
        FileType::BlockDevice => fuser::FileType::BlockDevice,
        FileType::Fifo => fuser::FileType::NamedPipe,
        FileType::Socket => fuser::FileType::Socket,
    }
}

pub(super) fn volume_attr(attr: &Attr) -> fuser::FileAttr {
    fuser::FileAttr {
        ino: INodeNo(attr.ino.0),
        size: attr.size,
        blocks: attr.blocks,
        atime: time(attr.atime),
        mtime: time(attr.mtime),
        ctime: time(attr.ctime),
        crtime: UNIX_EPOCH,
        kind: host_kind(attr.kind),
        perm: u16::try_from(attr.mode & 0o7777).unwrap_or(0),
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: device(attr.device.0, attr.device.1),
        blksize: attr.block_size,
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
