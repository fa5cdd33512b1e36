//! One file or directory: made in the volume, with everything it has in the image.

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RawMode, ResolveFlags, SeekFrom, Stat, Timespec,
    Timestamps, Uid, XattrFlags, fchmod, fchown, flistxattr, fstat, ftruncate, futimens, mkdirat,
    openat, seek, statat,
};
use rustix::io::{Errno, pread};

use super::{Copy, Level, PIECE, names};
use crate::sys::pause::pause;
use crate::sys::{beneath, source};

/// Files up to this size are copied without a look for holes.
const SMALL: u64 = 64 << 10;
/// The largest extended attribute, and the largest list of names (limits.h).
const MAX_XATTR: usize = 64 << 10;

/// A file with several names that was copied.
pub(super) struct Linked {
    /// Its first name, below the volume's root.
    path: Vec<u8>,
    device: u64,
    inode: u64,
}

impl Copy<'_> {
    pub(super) fn make(
        &mut self,
        from: &OwnedFd,
        to: &OwnedFd,
        name: &CStr,
    ) -> Result<Option<Level>, Errno> {
        let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if !kind.is_dir() && stat.st_nlink > 1 && self.link(&stat, to, name) {
            return Ok(None);
        }
        match kind {
            FileType::Directory => return self.directory(from, to, name).map(Some),
            FileType::RegularFile => self.file(from, to, name)?,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(&target, to, name)?;
                self.made(name);
                let node = self.placed(to, name, FileType::Symlink)?;
                if rustix::fs::readlinkat(&node, c"", Vec::new())? != target {
                    return Err(Errno::STALE);
                }
                self.owner(&node, &stat)?;
                let now = times(&stat);
                rustix::fs::utimensat(&node, c"", &now, AtFlags::EMPTY_PATH)?;
            }
            FileType::Fifo => {
                let closed = Mode::from_raw_mode(0o600);
                rustix::fs::mknodat(to, name, FileType::Fifo, closed, 0)?;
                self.made(name);
                let node = self.placed(to, name, FileType::Fifo)?;
                self.owner(&node, &stat)?;
                self.host.chmod(&node, stat.st_mode & 0o7777)?;
                let now = times(&stat);
                rustix::fs::utimensat(&node, c"", &now, AtFlags::EMPTY_PATH)?;
            }
            // Devices could not be opened in a volume; docker copies them, an ordinary user cannot.
            _ => {}
        }
        Ok(None)
    }

    /// One more name for a file that has been copied; false if it has to be copied itself.
    fn link(&mut self, stat: &Stat, to: &OwnedFd, name: &CStr) -> bool {
        let Some(linked) = self.links.get(&(stat.st_dev, stat.st_ino)) else {
            return false;
        };
        let straight = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let first = source::open(
            self.root,
            linked.path.as_slice(),
            OFlags::NOFOLLOW,
            straight,
        );
        let same = |node: &OwnedFd| {
            let found = fstat(node);
            found.is_ok_and(|s| (s.st_dev, s.st_ino) == (linked.device, linked.inode))
        };
        // Where there can be no link, and where somebody has moved the first, there is a second file.
        let done = first
            .is_ok_and(|node| same(&node) && self.host.link(&node, to, name.to_bytes()).is_ok());
        if done {
            self.made(name);
        }
        done
    }

    fn directory(&mut self, from: &OwnedFd, to: &OwnedFd, name: &CStr) -> Result<Level, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let source = openat(from, name, flags, Mode::empty())?;
        mkdirat(to, name, Mode::from_raw_mode(0o700))?;
        self.made(name);
        pause("copy-up-directory");
        Ok(Level {
            stat: fstat(&source)?,
            left: names(&source)?,
            to: openat(to, name, flags, Mode::empty())?,
            from: source,
        })
    }

    fn file(&mut self, from: &OwnedFd, to: &OwnedFd, name: &CStr) -> Result<(), Errno> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let source = openat(from, name, flags, Mode::empty())?;
        let stat = fstat(&source)?;
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            return Err(Errno::STALE);
        }
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let target = openat(to, name, flags, Mode::from_raw_mode(0o600))?;
        self.made(name);
        if stat.st_nlink > 1 {
            let copied = fstat(&target)?;
            let mut path: Vec<u8> = Vec::new();
            for part in self.path.iter().map(CString::as_c_str).chain([name]) {
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend(part.to_bytes());
            }
            let linked = Linked {
                path,
                device: copied.st_dev,
                inode: copied.st_ino,
            };
            self.links.insert((stat.st_dev, stat.st_ino), linked);
        }
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        self.content(&source, &target, size)?;
        pause("copy-up-file");
        attributes(&source, &target, &stat, self.single_id, &mut self.buffer)
    }

    /// Copies what is there; holes stay holes.
    fn content(&mut self, from: &OwnedFd, to: &OwnedFd, size: u64) -> Result<(), Errno> {
        let mut at = 0;
        while at < size {
            let (begin, end) = match size <= SMALL {
                true => (at, size),
                false => match seek(from, SeekFrom::Data(at)) {
                    Ok(begin) => (begin, seek(from, SeekFrom::Hole(begin))?.min(size)),
                    // Nothing but a hole up to the end.
                    Err(Errno::NXIO) => break,
                    // Not told here.
                    Err(Errno::INVAL | Errno::OPNOTSUPP) => (at, size),
                    Err(errno) => return Err(errno),
                },
            };
            at = begin;
            while at < end {
                let room = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
                let piece = self.buffer.get_mut(..room).unwrap_or_default();
                let got = match pread(from, piece, at) {
                    Err(Errno::INTR) => continue,
                    other => other?,
                };
                if got == 0 {
                    break;
                }
                let read = u64::try_from(got).unwrap_or_default();
                self.bytes = self.bytes.saturating_add(read);
                if self.bytes > self.limits.bytes {
                    return Err(Errno::FBIG);
                }
                let piece = self.buffer.get(..got).unwrap_or_default();
                // Less than all: there is no more room, or a limit on files, which the next try tells.
                match u64::try_from(beneath::write(to, at, piece, false)?) {
                    Ok(0) | Err(_) => return Err(Errno::IO),
                    Ok(written) => at = at.saturating_add(written),
                }
            }
            if at < end {
                break;
            }
        }
        match at < size {
            true => ftruncate(to, size),
            false => Ok(()),
        }
    }

    fn made(&mut self, name: &CStr) {
        if self.path.is_empty() {
            self.top.push(name.to_owned());
        }
    }

    /// What was just made under a name, which somebody else can have given to something else by now.
    fn placed(&self, to: &OwnedFd, name: &CStr, kind: FileType) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let node = openat(to, name, flags, Mode::empty())?;
        let stat = fstat(&node)?;
        match FileType::from_raw_mode(stat.st_mode) == kind && stat.st_nlink == 1 {
            true => Ok(node),
            false => Err(Errno::STALE),
        }
    }

    fn owner(&self, node: &OwnedFd, stat: &Stat) -> Result<(), Errno> {
        match self.single_id {
            true => Ok(()),
            false => beneath::chown(node, Some(stat.st_uid), Some(stat.st_gid)),
        }
    }
}

/// Owner, extended attributes, mode and times, on descriptors that are open for more than a look.
pub(super) fn attributes(
    from: &OwnedFd,
    to: &OwnedFd,
    stat: &Stat,
    single_id: bool,
    buffer: &mut [u8],
) -> Result<(), Errno> {
    if !single_id {
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        fchown(to, Some(uid), Some(gid))?;
    }
    copy_xattrs(from, to, buffer)?;
    fchmod(
        to,
        Mode::from_raw_mode(RawMode::from(stat.st_mode) & 0o7777),
    )?;
    futimens(to, &times(stat))
}

fn times(stat: &Stat) -> Timestamps {
    let time = |tv_sec, nsec: u64| Timespec {
        tv_sec,
        tv_nsec: i64::try_from(nsec).unwrap_or_default(),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// What the file system behind the volume takes.
fn copy_xattrs(from: &OwnedFd, to: &OwnedFd, buffer: &mut [u8]) -> Result<(), Errno> {
    // As long as the buffer for content: both halves are large enough for any name list and any value.
    let (list, value) = buffer.split_at_mut(MAX_XATTR);
    let Ok(length) = flistxattr(from, &mut *list) else {
        return Ok(());
    };
    let names = list.get(..length).unwrap_or_default();
    for name in names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let length = rustix::fs::fgetxattr(from, name, &mut *value)?;
        let value = value.get(..length).unwrap_or_default();
        match rustix::fs::fsetxattr(to, name, value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
