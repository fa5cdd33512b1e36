//! A new volume gets what the image has at its place, as docker does it.
//!
//! Others may have the volume mounted and change it meanwhile, with whatever ends they like, and this is root. So both sides
//! are descriptors: a name is one component of a directory that is open, no symbolic link is followed, and owner, mode,
//! attributes and times are set on what was made, not on what has its name by now. Nothing outside the volume can be changed
//! by any race, nothing outside the image's own file system be read.
//!
//! Starts of containers with the same volume come one after the other: the look whether it is empty and the copy are one step.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fmt::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RawMode, ResolveFlags, SeekFrom, Stat, Timespec,
    Timestamps, Uid, XattrFlags, fchmod, fchown, flistxattr, fstat, ftruncate, futimens, mkdirat,
    openat, seek, statat,
};
use rustix::io::{Errno, pread};

use crate::sys::beneath::{self, Host};
use crate::sys::lock::{LockMode, lock};
use crate::sys::pause::pause;
use crate::sys::{deep, source};

/// How much is copied at most.
#[derive(Clone, Copy, Debug)]
struct Limits {
    entries: u64,
    /// Of content; holes are none.
    bytes: u64,
    depth: usize,
}

const LIMITS: Limits = Limits {
    // More than any image has, and a minute's work.
    entries: 4 << 20,
    // As much as one layer can hold.
    bytes: 64 << 30,
    // Each level takes two descriptors, of 1,024 that a process has as a rule.
    depth: 256,
};

/// Files up to this size are copied without a look for holes.
const SMALL: u64 = 64 << 10;
/// So much is moved at once.
const PIECE: usize = 256 << 10;
/// The largest extended attribute, and the largest list of names (limits.h).
const MAX_XATTR: usize = 64 << 10;

/// Why a volume was not filled.
#[derive(Debug, thiserror::Error)]
pub(super) enum CopyError {
    #[error("{path}: {source}")]
    Entry { path: String, source: Errno },
    #[error("{0}: it was changed by somebody else meanwhile; try again")]
    Changed(String),
    #[error("more than {0} files and directories; mount it with :nocopy, and copy what is needed")]
    Entries(u64),
    #[error("more than {0} bytes; mount it with :nocopy, and copy what is needed")]
    Bytes(u64),
    #[error(
        "directories in directories, over {0} deep; mount it with :nocopy, and copy what is needed"
    )]
    Depth(usize),
}

/// Copies the directory `image`, with its own attributes, to the directory `volume`, if that is empty.
pub(super) fn fill(image: &OwnedFd, volume: &OwnedFd, single_id: bool) -> Result<(), CopyError> {
    let at = |errno| error(".", errno);
    // Containers see the volume's root, and could hold a lock on it for ever.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let beside = openat(volume, c"..", flags, Mode::empty()).map_err(at)?;
    let beside = std::fs::File::from(beside);
    lock(&beside, LockMode::Exclusive)
        .map_err(|error| at(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
    fill_within(image, volume, single_id, LIMITS)
}

fn fill_within(
    image: &OwnedFd,
    volume: &OwnedFd,
    single_id: bool,
    limits: Limits,
) -> Result<(), CopyError> {
    let at = |errno| error(".", errno);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let from = openat(image, c".", flags, Mode::empty()).map_err(at)?;
    let to = openat(volume, c".", flags, Mode::empty()).map_err(at)?;
    if !names(&to).map_err(at)?.is_empty() {
        return Ok(());
    }
    pause("copy-up");
    let mut copy = Copy {
        host: Host::new().map_err(at)?,
        root: &to,
        single_id,
        limits,
        entries: 0,
        bytes: 0,
        path: Vec::new(),
        links: HashMap::new(),
        buffer: vec![0; PIECE],
        top: Vec::new(),
    };
    let done = copy.tree(&from, &to);
    if done.is_err() {
        // A part of it would be taken for the whole the next time.
        for name in &copy.top {
            if let Err(error) = deep::remove_at(&to, name) {
                log::warn!(
                    "taking back what was copied: {}: {error}",
                    name.to_string_lossy()
                );
            }
        }
    }
    done
}

fn error(path: &str, source: Errno) -> CopyError {
    CopyError::Entry {
        path: path.to_owned(),
        source,
    }
}

/// What a directory has in it.
fn names(directory: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let mut found = Vec::new();
    beneath::list(directory.as_fd(), 0, &mut |entry| {
        if entry.name != c"." && entry.name != c".." {
            found.push(entry.name.to_owned());
        }
        true
    })?;
    Ok(found)
}

/// A file with several names that was copied.
struct Linked {
    /// Its first name, below the volume's root.
    path: Vec<u8>,
    device: u64,
    inode: u64,
}

struct Copy<'v> {
    host: Host,
    root: &'v OwnedFd,
    single_id: bool,
    limits: Limits,
    entries: u64,
    bytes: u64,
    /// The names that lead to what is in hand.
    path: Vec<CString>,
    /// By device and inode of the image.
    links: HashMap<(u64, u64), Linked>,
    buffer: Vec<u8>,
    /// What was made in the volume's root.
    top: Vec<CString>,
}

/// A directory of which something is still to be copied.
struct Level {
    from: OwnedFd,
    to: OwnedFd,
    stat: Stat,
    left: Vec<CString>,
}

impl Copy<'_> {
    fn shown(&self, name: Option<&CStr>) -> String {
        let mut text = String::new();
        for part in self.path.iter().map(CString::as_c_str).chain(name) {
            // Writing to a string does not fail.
            let _ = write!(text, "/{}", part.to_string_lossy().escape_debug());
        }
        text
    }

    fn at<'a>(&'a self, name: Option<&'a CStr>) -> impl Fn(Errno) -> CopyError + 'a {
        move |errno| error(&self.shown(name), errno)
    }

    fn tree(&mut self, from: &OwnedFd, to: &OwnedFd) -> Result<(), CopyError> {
        let again = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 3);
        let at = |errno| error(".", errno);
        let top = Level {
            stat: fstat(from).map_err(at)?,
            left: names(from).map_err(at)?,
            from: again(from).map_err(at)?,
            to: again(to).map_err(at)?,
        };
        let mut levels = vec![top];
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.left.pop() else {
                attributes(
                    &level.from,
                    &level.to,
                    &level.stat,
                    self.single_id,
                    &mut self.buffer,
                )
                .map_err(self.at(None))?;
                levels.pop();
                self.path.pop();
                continue;
            };
            self.entries = self.entries.saturating_add(1);
            if self.entries > self.limits.entries {
                return Err(CopyError::Entries(self.limits.entries));
            }
            if let Some(below) = self.one(&level.from, &level.to, &name)? {
                if levels.len() >= self.limits.depth {
                    return Err(CopyError::Depth(self.limits.depth));
                }
                levels.push(below);
                self.path.push(name);
            }
        }
        Ok(())
    }

    /// Copies what has that name; of a directory only itself.
    fn one(
        &mut self,
        from: &OwnedFd,
        to: &OwnedFd,
        name: &CStr,
    ) -> Result<Option<Level>, CopyError> {
        let made = self.make(from, to, name);
        match made {
            Ok(made) => Ok(made),
            // Somebody else was faster, and it is his.
            Err(Errno::EXIST) => Ok(None),
            Err(Errno::DQUOT | Errno::FBIG | Errno::NOSPC) if self.bytes > self.limits.bytes => {
                Err(CopyError::Bytes(self.limits.bytes))
            }
            Err(Errno::STALE | Errno::LOOP | Errno::NOTDIR | Errno::NOENT) => {
                Err(CopyError::Changed(self.shown(Some(name))))
            }
            Err(errno) => Err(self.at(Some(name))(errno)),
        }
    }

    fn make(&mut self, from: &OwnedFd, to: &OwnedFd, name: &CStr) -> Result<Option<Level>, Errno> {
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
fn attributes(
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

#[cfg(test)]
mod tests;
