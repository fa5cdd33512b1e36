//! A tar into a directory.
//!
//! Every name is looked up component by component from the directory, which is open. On the host a symbolic link on the way is
//! refused, whoever has put it there; in a container, whose root this process has for its own, it leads to somewhere in there,
//! as docker's does. What is replaced is replaced as a whole.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, RenameFlags, XattrFlags, openat};
use rustix::io::Errno;

use super::ways::{Facts, Ways, Xattrs, way_of};
use super::{CopyError, MAX_DEPTH, Notes, at, shown};
use crate::layer::{EntryKind, TarEntry, TarReadError, TarReader};
use crate::sys::beneath::{self, Host, SetTime};

/// Written at once to a file.
const PIECE: usize = 256 << 10;

/// To whom the files belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// To who makes them.
    Caller,
    /// To whom the archive says.
    Archive,
    /// To this user and group.
    Fixed(u32, u32),
}

/// How to unpack.
#[derive(Debug, Clone, Copy)]
pub struct Unpacking<'a> {
    /// The process' way to its descriptors.
    pub host: &'a Host,
    /// Symbolic links on the way are followed: nothing but the container is within reach.
    pub inside: bool,
    /// Whose they are.
    pub owner: Owner,
    /// Set-id bits and capabilities have their place, and devices: what is unpacked is trusted that far.
    pub powers: bool,
}

/// Unpacks an archive, uncompressed, into a directory that is open.
pub fn unpack(
    unpacking: Unpacking<'_>,
    directory: &OwnedFd,
    archive: impl Read,
) -> Result<Notes, CopyError> {
    let mut reader = TarReader::new(archive);
    let top = directory.try_clone();
    let top = top.map_err(|error| at(b"/")(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
    let mut unpacker = Unpacker {
        unpacking,
        ways: Ways::new(unpacking.host, unpacking.inside, top),
        notes: Notes::default(),
        temporary: 0,
    };
    while let Some(entry) = reader.next_entry()? {
        unpacker.entry(&entry, &mut reader)?;
    }
    unpacker.finish()?;
    Ok(unpacker.notes)
}

struct Unpacker<'a> {
    unpacking: Unpacking<'a>,
    ways: Ways<'a>,
    notes: Notes,
    temporary: u64,
}

/// The components of a path below the root: Go's `filepath.Clean`.
fn components(path: &[u8]) -> Vec<&[u8]> {
    let mut kept = Vec::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => drop(kept.pop()),
            name => kept.push(name),
        }
    }
    kept
}

impl Unpacker<'_> {
    fn entry(
        &mut self,
        entry: &TarEntry,
        reader: &mut TarReader<impl Read>,
    ) -> Result<(), CopyError> {
        let mut way = components(&entry.path);
        if way.len() > MAX_DEPTH {
            return Err(at(&entry.path)(Errno::NAMETOOLONG));
        }
        let Some(name) = way.pop() else {
            // The directory itself, which is as it is.
            return Ok(());
        };
        let failed = at(&entry.path);
        let parent = self.ways.open(&way, &entry.path)?;
        let there = match self.unpacking.host.child(&parent, name) {
            Ok(node) => Some(beneath::stat(&node).map_err(&failed)?),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(failed(error)),
        };
        let kind = there.as_ref().map(beneath::kind);
        let is_directory = entry.kind == EntryKind::Directory;
        match (kind, is_directory) {
            (Some(FileType::Directory), false) => {
                let name = shown(&entry.path);
                return Err(CopyError::Refused(format!(
                    "cannot overwrite directory \"{name}\" with non-directory"
                )));
            }
            (Some(FileType::Directory), true) => {}
            (Some(_), true) => {
                let name = shown(&entry.path);
                return Err(CopyError::Refused(format!(
                    "cannot overwrite non-directory \"{name}\" with directory"
                )));
            }
            (None, true) => beneath::mkdir(&parent, name, 0o700).map_err(&failed)?,
            (_, false) => return self.make(&parent, name, entry, reader),
        }
        let mut facts = facts(entry);
        if !self.unpacking.inside {
            // Kept, those of very many directories were more than there is memory.
            let xattrs = std::mem::take(&mut facts.xattrs);
            let opened = self.directory(&parent, name).map_err(&failed)?;
            self.attribute(&opened, &xattrs).map_err(&failed)?;
        }
        self.ways.list(name, facts);
        Ok(())
    }

    /// A directory that was there a moment ago.
    fn directory(&self, parent: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
        let host = self.unpacking.host;
        let node = host.child(parent, name)?;
        if beneath::kind(&beneath::stat(&node)?) != FileType::Directory {
            // Somebody has replaced it.
            return Err(Errno::NOTDIR);
        }
        host.open(&node, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// Anything but a directory.
    fn make(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        entry: &TarEntry,
        reader: &mut TarReader<impl Read>,
    ) -> Result<(), CopyError> {
        let failed = at(&entry.path);
        self.temporary += 1;
        let number = rustix::process::getpid().as_raw_nonzero();
        let temporary = format!(".mica-{number}-{}", self.temporary).into_bytes();
        let made = match entry.kind {
            EntryKind::Regular => self.regular(parent, &temporary, entry, reader),
            EntryKind::HardLink => self.hard_link(parent, &temporary, entry),
            _ => self.special(parent, &temporary, entry),
        };
        let placed = match made {
            Ok(false) => return Ok(()),
            Ok(true) => {
                let (from, to) = ((parent, temporary.as_slice()), (parent, name));
                beneath::rename(from, to, RenameFlags::empty()).map_err(|error| match error {
                    Errno::BUSY => CopyError::Refused(format!(
                        "{} is mounted for itself and cannot be replaced: write to it in the container",
                        shown(&entry.path)
                    )),
                    error => failed(error),
                })
            }
            Err(error) => Err(error),
        };
        if placed.is_err() || entry.kind == EntryKind::HardLink {
            // It is there, or not; of two names of one file a rename leaves both.
            let _ = beneath::unlink(parent, &temporary);
        }
        placed
    }

    fn regular(
        &mut self,
        parent: &OwnedFd,
        temporary: &[u8],
        entry: &TarEntry,
        reader: &mut TarReader<impl Read>,
    ) -> Result<bool, CopyError> {
        let failed = at(&entry.path);
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let own = Mode::RUSR | Mode::WUSR;
        // Without a name it goes by itself if this process is killed.
        let (file, named) = match openat(parent, c".", flags | OFlags::TMPFILE, own) {
            Ok(file) => (file, false),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                let host = self.unpacking.host;
                let made = host.create(parent, temporary, OFlags::WRONLY, 0o600);
                (made.map_err(&failed)?, true)
            }
            Err(error) => return Err(failed(error)),
        };
        let filled = fill(&file, entry, reader)
            .and_then(|()| self.settle(&file, &facts(entry)).map_err(&failed));
        match filled {
            Ok(()) if named => Ok(true),
            Ok(()) => {
                let host = self.unpacking.host;
                host.link(&file, parent, temporary).map_err(&failed)?;
                Ok(true)
            }
            Err(error) => {
                if named {
                    // What is told is why it could not be written.
                    let _ = beneath::unlink(parent, temporary);
                }
                Err(error)
            }
        }
    }

    fn hard_link(
        &mut self,
        parent: &OwnedFd,
        temporary: &[u8],
        entry: &TarEntry,
    ) -> Result<bool, CopyError> {
        let failed = at(&entry.path);
        let mut way = components(&entry.link);
        let name = way.pop().ok_or(Errno::INVAL).map_err(&failed)?;
        let directory = self.ways.open(&way, &entry.link)?;
        let node = self.unpacking.host.child(&directory, name);
        let node = node.map_err(at(&entry.link))?;
        let kind = beneath::kind(&beneath::stat(&node).map_err(&failed)?);
        if kind == FileType::Directory {
            return Err(failed(Errno::ISDIR));
        }
        if kind == FileType::Symlink {
            // `link` of the descriptor would follow it.
            let target = beneath::read_link(&node).map_err(&failed)?;
            beneath::symlink(&target, parent, temporary).map_err(&failed)?;
        } else {
            let host = self.unpacking.host;
            host.link(&node, parent, temporary).map_err(&failed)?;
        }
        Ok(true)
    }

    /// False: it was left out.
    fn special(
        &mut self,
        parent: &OwnedFd,
        temporary: &[u8],
        entry: &TarEntry,
    ) -> Result<bool, CopyError> {
        let failed = at(&entry.path);
        let (major, minor) = (entry.rdev_major, entry.rdev_minor);
        let device = (minor & 0xff) | (major << 8) | ((minor & 0xf_ff00) << 12);
        let kind = match entry.kind {
            EntryKind::Symlink => {
                beneath::symlink(&entry.link, parent, temporary).map_err(&failed)?;
                let node = self.unpacking.host.child(parent, temporary);
                let node = node.map_err(&failed)?;
                self.own(&node, &facts(entry)).map_err(&failed)?;
                // The time of a link is nobody's concern where it cannot be set.
                let _ = set_time(parent, temporary, entry);
                return Ok(true);
            }
            EntryKind::CharDevice => FileType::CharacterDevice,
            EntryKind::BlockDevice => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        let is_device = kind != FileType::Fifo;
        if is_device && !self.unpacking.powers {
            self.notes.devices += 1;
            return Ok(false);
        }
        match beneath::mknod(parent, temporary, kind.as_raw_mode() | 0o600, device) {
            Err(Errno::PERM) if is_device => {
                self.notes.devices += 1;
                return Ok(false);
            }
            made => made.map_err(&failed)?,
        }
        let node = self.unpacking.host.child(parent, temporary);
        let node = node.map_err(&failed)?;
        self.own(&node, &facts(entry)).map_err(&failed)?;
        let host = self.unpacking.host;
        host.chmod(&node, self.mode(entry.mode)).map_err(&failed)?;
        let time = SetTime::At(entry.mtime_sec, entry.mtime_nsec);
        host.set_times(&node, SetTime::Keep, time)
            .map_err(&failed)?;
        Ok(true)
    }

    /// Owner, mode, attributes and time of what is open.
    fn settle(&mut self, file: &OwnedFd, facts: &Facts) -> Result<(), Errno> {
        self.own(file, facts)?;
        rustix::fs::fchmod(file, Mode::from_raw_mode(self.mode(facts.mode)))?;
        self.attribute(file, &facts.xattrs)?;
        let (seconds, nanoseconds) = facts.time;
        let time = SetTime::At(seconds, nanoseconds);
        self.unpacking.host.set_times(file, SetTime::Keep, time)
    }

    fn attribute(&self, file: &OwnedFd, xattrs: &Xattrs) -> Result<(), Errno> {
        for (name, value) in xattrs {
            if !name.starts_with(b"user.") && !self.unpacking.powers {
                continue;
            }
            match rustix::fs::fsetxattr(file, name.as_slice(), value, XattrFlags::empty()) {
                // Not every file system has them, nor every user the right to each.
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM | Errno::INVAL) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn mode(&self, mode: u16) -> u32 {
        match self.unpacking.powers {
            true => u32::from(mode),
            false => u32::from(mode) & 0o1777,
        }
    }

    fn own(&mut self, node: impl AsFd, facts: &Facts) -> Result<(), Errno> {
        let (uid, gid) = match self.unpacking.owner {
            Owner::Caller => return Ok(()),
            Owner::Archive => facts.owner,
            Owner::Fixed(uid, gid) => (uid, gid),
        };
        match beneath::chown(node, Some(uid), Some(gid)) {
            Ok(()) => Ok(()),
            // There is no such user here, or none but the caller.
            Err(Errno::INVAL | Errno::PERM) => {
                self.notes.owners += 1;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// What a directory is, when all is in it: the innermost first.
    fn finish(&mut self) -> Result<(), CopyError> {
        let listed = self.ways.take();
        for (number, directory) in listed.iter().enumerate().rev() {
            let Some(facts) = &directory.facts else {
                continue;
            };
            let mut way = way_of(&listed, number);
            let path = way.join(&b'/');
            let Some(name) = way.pop() else { continue };
            let parent = self.ways.open(&way, &path)?;
            let opened = self.directory(&parent, name).map_err(at(&path))?;
            self.settle(&opened, facts).map_err(at(&path))?;
        }
        Ok(())
    }
}

fn facts(entry: &TarEntry) -> Facts {
    Facts {
        mode: entry.mode,
        owner: (entry.uid, entry.gid),
        time: (entry.mtime_sec, entry.mtime_nsec),
        xattrs: entry.xattrs.clone(),
    }
}

fn set_time(parent: &OwnedFd, name: &[u8], entry: &TarEntry) -> Result<(), Errno> {
    let time = rustix::fs::Timestamps {
        last_access: rustix::fs::Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_OMIT,
        },
        last_modification: rustix::fs::Timespec {
            tv_sec: entry.mtime_sec,
            tv_nsec: entry.mtime_nsec.into(),
        },
    };
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::utimensat(parent, name, &time, flags)
}

/// Writes the content of an entry, its holes left out.
fn fill(
    file: &OwnedFd,
    entry: &TarEntry,
    reader: &mut TarReader<impl Read>,
) -> Result<(), CopyError> {
    let failed = at(&entry.path);
    let whole = [crate::layer::Segment {
        offset: 0,
        length: entry.stored,
    }];
    let mut buffer = vec![0; PIECE];
    for segment in entry.segments.as_deref().unwrap_or(&whole) {
        let (mut offset, mut left) = (segment.offset, segment.length);
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let room = buffer.get_mut(..most).unwrap_or_default();
            let got = reader.content(room).map_err(TarReadError::from)?;
            let data = room.get(..got).unwrap_or_default();
            let written = beneath::write(file, offset, data, false).map_err(&failed)?;
            if written < got {
                return Err(failed(Errno::NOSPC));
            }
            offset = offset.saturating_add(got as u64);
            left -= got as u64;
        }
    }
    // A hole at the end.
    beneath::truncate(file, entry.size).map_err(&failed)
}
