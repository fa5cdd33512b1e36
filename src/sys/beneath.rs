//! The host's files below a root that has been opened once: everything a volume does to the file system behind it.
//!
//! - A node is an `O_PATH` descriptor. It stands for an inode, whatever becomes of its names: no path is ever walked again.
//! - A name is one component, looked up with `openat2(RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS, O_NOFOLLOW)`: a symbolic link is
//!   data. A mount on the way is only entered when it is not one of ours (the daemon would wait for itself).
//! - What has no call for `O_PATH` descriptors goes through `/proc/self/fd/N`, which leads to the inode and nothing else.
//!
//! Errors are the host's errno: they are what the caller of a volume is to get.

mod caller;
mod identity;
mod lock;

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd as _, OwnedFd};
use std::path::Path;

use parking_lot::RwLock;
use rustix::buffer::spare_capacity;
use rustix::fs::{
    Access, AtFlags, CWD, FallocateFlags, FileType, Gid, Mode, OFlags, RawDir, RenameFlags,
    ResolveFlags, SeekFrom, StatVfs, Statx, StatxFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;
use rustix::path::DecInt;

use super::mountinfo::DeviceId;

pub use caller::keeps;
pub use identity::{Creator, Keeps, Privileges};
pub use lock::{LockKind, Range, get_lock, set_flock, set_lock, wait_flock, wait_lock};

use crate::sys::fd;

/// The largest value of an extended attribute, and the largest list of names (limits.h).
const MAX_XATTR: usize = 65_536;
/// Entries are read from the host in pieces of this size.
const DIR_BUFFER: usize = 16 * 1024;
/// `st_dev`, `st_ino` and all else `stat` shows.
const STAT: StatxFlags = StatxFlags::BASIC_STATS;

/// The host's answer, or its errno.
pub type Result<T> = std::result::Result<T, Errno>;

/// A moment to set a time stamp to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SetTime {
    /// Leave it.
    Keep,
    /// The present.
    Now,
    /// Seconds since 1970 and nanoseconds, which count forwards.
    At(i64, u32),
}

impl SetTime {
    fn timespec(self) -> Timespec {
        let (tv_sec, tv_nsec) = match self {
            SetTime::Keep => (0, rustix::fs::UTIME_OMIT),
            SetTime::Now => (0, rustix::fs::UTIME_NOW),
            SetTime::At(sec, nsec) => (sec, nsec.into()),
        };
        Timespec { tv_sec, tv_nsec }
    }
}

/// One entry of a directory.
#[derive(Debug)]
pub struct Entry<'a> {
    /// Its name; `.` and `..` included.
    pub name: &'a CStr,
    /// The host's inode number.
    pub ino: u64,
    /// Type as far as the host's file system tells.
    pub kind: FileType,
    /// Where a listing goes on after it.
    pub next: u64,
}

/// Access to the host.
#[derive(Debug)]
pub struct Host {
    /// `/proc/self/fd` of this process.
    descriptors: OwnedFd,
    /// File systems that must not be entered.
    own: RwLock<Vec<DeviceId>>,
}

impl Host {
    /// Must be called in the process that uses it, after any fork.
    pub fn new() -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Host {
            descriptors: rustix::fs::openat(CWD, c"/proc/self/fd", flags, Mode::empty())?,
            own: RwLock::default(),
        })
    }

    /// From now on this file system is never entered: `ELOOP`.
    pub fn exclude(&self, device: DeviceId) {
        self.own.write().push(device);
    }

    /// The file or directory at `path`, absolute and without symbolic links.
    pub fn root(&self, path: &Path) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let found = rustix::fs::openat2(CWD, path, flags, Mode::empty(), resolve)?;
        self.not_ours(found)
    }

    /// What `name` in the directory `parent` is.
    pub fn child(&self, parent: impl AsFd, name: &[u8]) -> Result<OwnedFd> {
        component(name)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let inside = beneath | ResolveFlags::NO_XDEV;
        match rustix::fs::openat2(&parent, name, flags, Mode::empty(), inside) {
            Err(Errno::XDEV) => {
                let found = rustix::fs::openat2(&parent, name, flags, Mode::empty(), beneath)?;
                self.not_ours(found)
            }
            found => found,
        }
    }

    /// Asked without a request to the file system.
    fn not_ours(&self, node: OwnedFd) -> Result<OwnedFd> {
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let stat = rustix::fs::statx(&node, c"", flags, StatxFlags::INO)?;
        if self.own.read().contains(&device(&stat)) {
            return Err(Errno::LOOP);
        }
        Ok(node)
    }

    /// Opens a node. Only for regular files and directories: others could block or act.
    pub fn open(&self, node: impl AsFd, flags: OFlags) -> Result<OwnedFd> {
        let flags = flags.difference(OFlags::NOFOLLOW | OFlags::CREATE | OFlags::EXCL);
        let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY;
        rustix::fs::openat(
            &self.descriptors,
            DecInt::from_fd(node),
            flags,
            Mode::empty(),
        )
    }

    /// Where the kernel says that a node is, seen from the root of this process.
    pub fn path_of(&self, node: impl AsFd) -> Result<Vec<u8>> {
        let name = DecInt::from_fd(node);
        let path = rustix::fs::readlinkat(&self.descriptors, name, Vec::with_capacity(256))?;
        Ok(path.into_bytes())
    }

    /// A new regular file, opened; `EEXIST` if the name is taken.
    pub fn create(
        &self,
        parent: impl AsFd,
        name: &[u8],
        flags: OFlags,
        mode: u32,
    ) -> Result<OwnedFd> {
        component(name)?;
        let flags = flags.difference(OFlags::TRUNC)
            | OFlags::CREATE
            | OFlags::EXCL
            | OFlags::NOFOLLOW
            | OFlags::CLOEXEC;
        rustix::fs::openat(parent, name, flags, permissions(mode))
    }

    /// Permission bits, set-id and sticky bits.
    pub fn chmod(&self, node: impl AsFd, mode: u32) -> Result<()> {
        let name = DecInt::from_fd(node);
        rustix::fs::chmodat(&self.descriptors, name, permissions(mode), AtFlags::empty())
    }

    /// Sets the times of the last access and of the last change of content.
    pub fn set_times(&self, node: impl AsFd, access: SetTime, change: SetTime) -> Result<()> {
        let times = Timestamps {
            last_access: access.timespec(),
            last_modification: change.timespec(),
        };
        let name = DecInt::from_fd(node);
        rustix::fs::utimensat(&self.descriptors, name, &times, AtFlags::empty())
    }

    /// One more name for a node that is no directory.
    pub fn link(&self, node: impl AsFd, parent: impl AsFd, name: &[u8]) -> Result<()> {
        component(name)?;
        let from = DecInt::from_fd(node);
        let follow = AtFlags::SYMLINK_FOLLOW;
        rustix::fs::linkat(&self.descriptors, from, parent, name, follow)
    }

    /// access(2) as the daemon.
    pub fn access(&self, node: impl AsFd, wanted: Access) -> Result<()> {
        let name = DecInt::from_fd(node);
        rustix::fs::accessat(&self.descriptors, name, wanted, AtFlags::empty())
    }

    /// The value of an extended attribute.
    pub fn get_xattr(&self, node: impl AsFd, name: &[u8]) -> Result<Vec<u8>> {
        let mut value = Vec::with_capacity(256);
        match rustix::fs::getxattr(fd::path(&node), name, spare_capacity(&mut value)) {
            Err(Errno::RANGE) => {
                value.reserve_exact(MAX_XATTR);
                rustix::fs::getxattr(fd::path(&node), name, spare_capacity(&mut value))?;
            }
            done => {
                done?;
            }
        }
        Ok(value)
    }

    /// The names of the extended attributes, each followed by NUL.
    pub fn list_xattr(&self, node: impl AsFd) -> Result<Vec<u8>> {
        let mut names: Vec<u8> = Vec::with_capacity(256);
        match rustix::fs::listxattr(fd::path(&node), spare_capacity(&mut names)) {
            Err(Errno::RANGE) => {
                names.reserve_exact(MAX_XATTR);
                rustix::fs::listxattr(fd::path(&node), spare_capacity(&mut names))?;
            }
            done => {
                done?;
            }
        }
        Ok(names)
    }

    /// Sets an extended attribute; `flags` as setxattr(2) has them.
    pub fn set_xattr(&self, node: impl AsFd, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
        let flags = XattrFlags::from_bits(flags).ok_or(Errno::INVAL)?;
        rustix::fs::setxattr(fd::path(&node), name, value, flags)
    }

    /// Removes an extended attribute.
    pub fn remove_xattr(&self, node: impl AsFd, name: &[u8]) -> Result<()> {
        rustix::fs::removexattr(fd::path(&node), name)
    }
}

/// `stat` of a node.
pub fn stat(node: impl AsFd) -> Result<Statx> {
    rustix::fs::statx(node, c"", AtFlags::EMPTY_PATH, STAT)
}

/// `st_dev`.
pub fn device(stat: &Statx) -> DeviceId {
    DeviceId {
        major: stat.stx_dev_major,
        minor: stat.stx_dev_minor,
    }
}

/// Type of a file.
pub fn kind(stat: &Statx) -> FileType {
    FileType::from_raw_mode(stat.stx_mode.into())
}

/// Where a symbolic link leads.
pub fn read_link(node: impl AsFd) -> Result<Vec<u8>> {
    Ok(rustix::fs::readlinkat(node, c"", Vec::with_capacity(256))?.into_bytes())
}

/// A new directory.
pub fn mkdir(parent: impl AsFd, name: &[u8], mode: u32) -> Result<()> {
    component(name)?;
    rustix::fs::mkdirat(parent, name, permissions(mode))
}

/// A new file of any kind; `mode` with the type, `device` as the kernel's 32-bit number.
pub fn mknod(parent: impl AsFd, name: &[u8], mode: u32, device: u32) -> Result<()> {
    component(name)?;
    let kind = FileType::from_raw_mode(mode);
    // new_encode_dev: 8 low bits of the minor, 12 of the major, 12 high bits of the minor.
    let (major, minor) = (
        (device >> 8) & 0xfff,
        (device & 0xff) | ((device >> 12) & 0xf_ff00),
    );
    let device = rustix::fs::makedev(major, minor);
    rustix::fs::mknodat(parent, name, kind, permissions(mode), device)
}

/// A new symbolic link.
pub fn symlink(target: &[u8], parent: impl AsFd, name: &[u8]) -> Result<()> {
    component(name)?;
    rustix::fs::symlinkat(target, parent, name)
}

/// Removes a name that is no directory's.
pub fn unlink(parent: impl AsFd, name: &[u8]) -> Result<()> {
    component(name)?;
    rustix::fs::unlinkat(parent, name, AtFlags::empty())
}

/// Removes an empty directory.
pub fn rmdir(parent: impl AsFd, name: &[u8]) -> Result<()> {
    component(name)?;
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// renameat2(2).
pub fn rename(from: (impl AsFd, &[u8]), to: (impl AsFd, &[u8]), flags: RenameFlags) -> Result<()> {
    component(from.1)?;
    component(to.1)?;
    rustix::fs::renameat_with(from.0, from.1, to.0, to.1, flags)
}

/// chown of the node itself.
pub fn chown(node: impl AsFd, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    // -1 means "leave it" to the kernel, and is nobody's number.
    let valid = |id: &u32| *id != u32::MAX;
    let (uid, gid) = (uid.filter(valid), gid.filter(valid));
    let flags = AtFlags::EMPTY_PATH;
    rustix::fs::chownat(
        node,
        c"",
        uid.map(Uid::from_raw),
        gid.map(Gid::from_raw),
        flags,
    )
}

/// The file system behind.
pub fn statvfs(node: impl AsFd) -> Result<StatVfs> {
    rustix::fs::fstatvfs(node)
}

/// Fills `into` (given empty) with up to `size` bytes at `offset`; fewer at the end of the file.
pub fn read(file: impl AsFd, offset: u64, size: usize, into: &mut Vec<u8>) -> Result<()> {
    into.reserve(size);
    while into.len() < size {
        let at = offset.saturating_add(into.len().try_into().unwrap_or(u64::MAX));
        let (begun, left) = (!into.is_empty(), size - into.len());
        let room = into.spare_capacity_mut();
        let room = room.get_mut(..left).ok_or(Errno::NOMEM)?;
        let got = match rustix::io::pread(&file, room, at) {
            Ok((filled, _)) => filled.len(),
            Err(Errno::INTR) => continue,
            // What has been read is an answer.
            Err(_) if begun => return Ok(()),
            Err(error) => return Err(error),
        };
        if got == 0 {
            break;
        }
        commit(into, got);
    }
    Ok(())
}

/// Makes the `count` bytes after the end, which the kernel has just written, part of the vector.
#[allow(unsafe_code)]
fn commit(into: &mut Vec<u8>, count: usize) {
    let length = into.len().saturating_add(count);
    assert!(length <= into.capacity());
    // SAFETY: the capacity was checked, and `pread` has initialised the first `count` bytes of the spare capacity.
    unsafe { into.set_len(length) }
}

/// Writes `data` at `offset`, or at the end of the file; how much was written.
pub fn write(file: impl AsFd, offset: u64, data: &[u8], append: bool) -> Result<usize> {
    let flags = if append {
        rustix::io::ReadWriteFlags::APPEND
    } else {
        rustix::io::ReadWriteFlags::empty()
    };
    let mut written = 0usize;
    while let Some(rest) = data.get(written..).filter(|rest| !rest.is_empty()) {
        let at = offset.saturating_add(written.try_into().unwrap_or(u64::MAX));
        let result = if append {
            rustix::io::pwritev2(&file, &[std::io::IoSlice::new(rest)], at, flags)
        } else {
            rustix::io::pwrite(&file, rest, at)
        };
        match result {
            Ok(0) => break,
            Ok(count) => written += count,
            Err(Errno::INTR) => {}
            Err(_) if written > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

/// ftruncate(2).
pub fn truncate(file: impl AsFd, size: u64) -> Result<()> {
    rustix::fs::ftruncate(file, size)
}

/// fallocate(2); `mode` as that has it.
pub fn allocate(file: impl AsFd, mode: u32, offset: u64, length: u64) -> Result<()> {
    rustix::fs::fallocate(file, FallocateFlags::from_bits_retain(mode), offset, length)
}

/// `SEEK_DATA` and `SEEK_HOLE`.
pub fn seek(file: impl AsFd, offset: u64, hole: bool) -> Result<u64> {
    let to = if hole {
        SeekFrom::Hole(offset)
    } else {
        SeekFrom::Data(offset)
    };
    rustix::fs::seek(file, to)
}

/// copy_file_range(2).
pub fn copy(from: (impl AsFd, u64), to: (impl AsFd, u64), length: usize) -> Result<usize> {
    let (mut source, mut target) = (from.1, to.1);
    rustix::fs::copy_file_range(from.0, Some(&mut source), to.0, Some(&mut target), length)
}

/// fsync(2) or fdatasync(2).
pub fn sync(file: impl AsFd, data_only: bool) -> Result<()> {
    if data_only {
        rustix::fs::fdatasync(file)
    } else {
        rustix::fs::fsync(file)
    }
}

/// Closes a copy of the descriptor, and says what close(2) does: some file systems report lost writes there.
#[allow(unsafe_code)]
pub fn close_copy(file: impl AsFd) -> Result<()> {
    let copy = rustix::io::fcntl_dupfd_cloexec(file, 0)?.into_raw_fd();
    // SAFETY: the descriptor was made just now and is nobody else's; it is closed once, whatever the answer.
    if unsafe { libc::close(copy) } == 0 {
        return Ok(());
    }
    let code = std::io::Error::last_os_error().raw_os_error();
    Err(code.map_or(Errno::IO, Errno::from_raw_os_error))
}

/// Lists an opened directory from `offset` until `add` says false. The position of the descriptor is used up: one caller at a time.
pub fn list(
    directory: BorrowedFd<'_>,
    offset: u64,
    add: &mut dyn FnMut(&Entry<'_>) -> bool,
) -> Result<()> {
    rustix::fs::seek(directory, SeekFrom::Start(offset))?;
    let mut buffer = Vec::with_capacity(DIR_BUFFER);
    let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let found = Entry {
            name: entry.file_name(),
            ino: entry.ino(),
            kind: entry.file_type(),
            next: entry.next_entry_cookie(),
        };
        if !add(&found) {
            break;
        }
    }
    Ok(())
}

/// One component, and not a way up: the kernel sends nothing else, but it costs nothing to know.
fn component(name: &[u8]) -> Result<()> {
    match name {
        b"" | b"." => Err(Errno::INVAL),
        b".." => Err(Errno::XDEV),
        name if name.contains(&b'/') || name.contains(&0) => Err(Errno::INVAL),
        name if name.len() > 255 => Err(Errno::NAMETOOLONG),
        _ => Ok(()),
    }
}

fn permissions(mode: u32) -> Mode {
    Mode::from_raw_mode(mode & 0o7777)
}

#[cfg(test)]
mod tests;
