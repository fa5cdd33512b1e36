//! What has changed in an upper directory, one thing after the other.
//!
//! The walk goes down with an open descriptor for each directory on the way, names sorted; of a deep path the upper ones are
//! closed and found again, by `..` and their identity. A directory that is perhaps no change is held back until something
//! below it is one.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};

use super::attributes::{self, Notes, Pairs, Place};
use super::error::FromDirError;
use super::item::{Item, ItemKind, Source, at, stamp};
use crate::layer::diff::ChangeKind;
use crate::layer::error::IndexError;
use crate::layer::merged::{Image, MergedDir, MergedEntry};
use crate::layer::tar::EntryKind;
use crate::tree::whiteout;

/// So many directories on the way stay open: a process may have 1,024 files as a rule.
const OPEN: usize = 128;

/// A directory on the way.
struct Frame {
    /// `None`: closed, because the path is deep.
    directory: Option<OwnedFd>,
    /// Device and inode.
    identity: (u64, u64),
    /// The image's directory of this path.
    base: Option<MergedDir>,
    /// Names still to be looked at, the next one last.
    names: Vec<Box<[u8]>>,
    /// Length of its path.
    length: usize,
    /// The directory itself, while nothing shows that it is a change.
    held: Option<Box<Item>>,
}

/// Goes through the changes in order: a directory before what it holds, names of one directory sorted.
pub struct Walker<'a> {
    source: Source<'a>,
    made: BTreeSet<&'a [u8]>,
    stack: Vec<Frame>,
    path: Vec<u8>,
    /// Found, and not yet handed out; the next one last.
    ready: Vec<Item>,
}

impl<'a> Walker<'a> {
    /// Opens the directory.
    pub fn new(source: &Source<'a>) -> Result<Walker<'a>, FromDirError> {
        let root = |error: rustix::io::Errno| FromDirError::Root {
            path: source.directory.to_owned(),
            source: error.into(),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory =
            rustix::fs::openat(CWD, source.directory, flags, Mode::empty()).map_err(root)?;
        let stat = rustix::fs::fstat(&directory).map_err(root)?;
        let base = source.base.map(Image::root).transpose()?;
        let mut walker = Walker {
            source: *source,
            made: source
                .made
                .iter()
                .map(|path| path.trim_matches('/').as_bytes())
                .collect(),
            stack: Vec::new(),
            path: Vec::new(),
            ready: Vec::new(),
        };
        let place = Place::open(&directory);
        let (xattrs, notes) = walker.attributes(&place)?;
        let item = walker.item(&stat, EntryKind::Directory, xattrs, ChangeKind::Changed)?;
        // On an image the root itself is left out, as docker leaves it out: it is what the container's maker made of it.
        if source.base.is_none() {
            walker.ready.push(item);
        }
        walker.enter(directory, base, notes.opaque, None)?;
        Ok(walker)
    }

    /// The next change.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Item>, FromDirError> {
        loop {
            if let Some(item) = self.ready.pop() {
                return Ok(Some(item));
            }
            let Some(frame) = self.stack.last_mut() else {
                return Ok(None);
            };
            self.path.truncate(frame.length);
            match frame.names.pop() {
                Some(name) => self.visit(&name)?,
                None => self.leave()?,
            }
        }
    }

    /// Goes back to the directory above, which may have to be opened again.
    fn leave(&mut self) -> Result<(), FromDirError> {
        let left = self.stack.pop().and_then(|frame| frame.directory);
        let Some(frame) = self.stack.last_mut() else {
            return Ok(());
        };
        if frame.directory.is_none() {
            let path = self.path.get(..frame.length).unwrap_or_default();
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let changed = || FromDirError::Changed(path.to_vec());
            let left = left.ok_or_else(changed)?;
            let above = rustix::fs::openat(&left, "..", flags, Mode::empty())
                .map_err(|error| at("open", path)(error.into()))?;
            let stat = rustix::fs::fstat(&above).map_err(|error| at("stat", path)(error.into()))?;
            if (stat.st_dev, stat.st_ino) != frame.identity {
                return Err(changed());
            }
            frame.directory = Some(above);
        }
        Ok(())
    }

    /// The directory that the walk is in.
    fn here(&self) -> Result<&OwnedFd, FromDirError> {
        let directory = self.stack.last().and_then(|frame| frame.directory.as_ref());
        directory.ok_or_else(|| self.changed())
    }

    fn visit(&mut self, name: &[u8]) -> Result<(), FromDirError> {
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
        let Some(frame) = self.stack.last() else {
            return Ok(());
        };
        let here = OsStr::from_bytes(name);
        let directory = self.here()?;
        let stat = match rustix::fs::statat(directory, here, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(rustix::io::Errno::NOENT) => return Err(self.changed()),
            Err(error) => return Err(at("stat", &self.path)(error.into())),
        };
        let below = match (self.source.base, &frame.base) {
            (Some(image), Some(dir)) => image.lookup(dir, name)?,
            _ => None,
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::CharacterDevice && stat.st_rdev == 0 {
            return self.whiteout(&stat, below.as_ref());
        }
        if whiteout::classify(name).is_some() {
            return Err(FromDirError::Name(self.path.clone()));
        }
        let change = match &below {
            Some(_) => ChangeKind::Changed,
            None => ChangeKind::Added,
        };
        match kind {
            FileType::Directory => self.directory(name, &stat, below, change),
            FileType::RegularFile => self.regular(name, &stat, below.as_ref(), change),
            FileType::Socket => {
                let mut item = self.item(&stat, EntryKind::Fifo, Vec::new(), change)?;
                item.kind = ItemKind::Socket;
                self.found(item);
                Ok(())
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(directory, here, Vec::new())
                    .map_err(|error| at("read", &self.path)(error.into()))?;
                let mut item = self.special(name, &stat, EntryKind::Symlink, change)?;
                item.target = target.into_bytes();
                self.found(item);
                Ok(())
            }
            FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo => {
                let kind = match kind {
                    FileType::CharacterDevice => EntryKind::CharDevice,
                    FileType::BlockDevice => EntryKind::BlockDevice,
                    _ => EntryKind::Fifo,
                };
                let item = self.special(name, &stat, kind, change)?;
                self.found(item);
                Ok(())
            }
            FileType::Unknown => Err(at("read", &self.path)(io::ErrorKind::InvalidData.into())),
        }
    }

    fn whiteout(&mut self, stat: &Stat, below: Option<&MergedEntry>) -> Result<(), FromDirError> {
        // Nothing is there to hide.
        if self.source.base.is_some() && below.is_none() {
            return Ok(());
        }
        let mut item = self.item(stat, EntryKind::Regular, Vec::new(), ChangeKind::Deleted)?;
        item.kind = ItemKind::Whiteout;
        self.found(item);
        Ok(())
    }

    fn directory(
        &mut self,
        name: &[u8],
        stat: &Stat,
        below: Option<MergedEntry>,
        change: ChangeKind,
    ) -> Result<(), FromDirError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = self.open(name, flags, stat)?;
        let (xattrs, notes) = self.attributes(&Place::open(&directory))?;
        let item = self.item(stat, EntryKind::Directory, xattrs, change)?;
        let same = self.same_directory(&item, below.as_ref())?;
        let made = below.is_none() && self.made.contains(self.path.as_slice());
        let base = match below {
            Some(MergedEntry::Dir(dir)) => Some(dir),
            _ => None,
        };
        let held = if (same && !notes.opaque) || made {
            Some(Box::new(item))
        } else {
            self.found(item);
            None
        };
        self.enter(directory, base, notes.opaque, held)
    }

    /// Lists a directory that the path leads to, and goes on in it.
    fn enter(
        &mut self,
        directory: OwnedFd,
        base: Option<MergedDir>,
        opaque: bool,
        held: Option<Box<Item>>,
    ) -> Result<(), FromDirError> {
        let failed = at("list", &self.path);
        let mut names: Vec<Box<[u8]>> = Vec::new();
        let listing =
            rustix::fs::Dir::read_from(&directory).map_err(|error| failed(error.into()))?;
        for entry in listing {
            let entry = entry.map_err(|error| failed(error.into()))?;
            match entry.file_name().to_bytes() {
                b"." | b".." => {}
                name => names.push(name.into()),
            }
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        let hides = self.source.base.is_none() || base.is_some();
        let stat = rustix::fs::fstat(&directory).map_err(|error| failed(error.into()))?;
        if opaque && hides {
            let mut item = self.item(&stat, EntryKind::Regular, Vec::new(), ChangeKind::Changed)?;
            item.kind = ItemKind::Opaque;
            // Behind the directory, which is to be handed out next.
            self.ready.insert(0, item);
        }
        let deep = self.stack.len().checked_sub(OPEN);
        if let Some(frame) = deep.and_then(|deep| self.stack.get_mut(deep)) {
            frame.directory = None;
        }
        self.stack.push(Frame {
            directory: Some(directory),
            identity: (stat.st_dev, stat.st_ino),
            // In an opaque directory nothing of the image shows through: all that is in it counts.
            base: base.filter(|_| !opaque),
            names,
            length: self.path.len(),
            held,
        });
        Ok(())
    }

    fn regular(
        &mut self,
        name: &[u8],
        stat: &Stat,
        below: Option<&MergedEntry>,
        change: ChangeKind,
    ) -> Result<(), FromDirError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(self.open(name, flags, stat)?);
        let (xattrs, notes) = self.attributes(&Place::open(&file))?;
        if notes.whiteout && stat.st_size == 0 {
            return self.whiteout(stat, below);
        }
        if stat.st_size == 0 && below.is_none() && self.made.contains(self.path.as_slice()) {
            return Ok(());
        }
        let mut item = self.item(stat, EntryKind::Regular, xattrs, change)?;
        item.file = Some(file);
        self.found(item);
        Ok(())
    }

    /// A node that cannot be opened.
    fn special(
        &self,
        name: &[u8],
        stat: &Stat,
        kind: EntryKind,
        change: ChangeKind,
    ) -> Result<Item, FromDirError> {
        let xattrs = self.attributes(&Place::name(self.here()?, name))?.0;
        self.item(stat, kind, xattrs, change)
    }

    /// Opens what `stat` was asked of.
    fn open(&self, name: &[u8], flags: OFlags, stat: &Stat) -> Result<OwnedFd, FromDirError> {
        use rustix::io::Errno;
        let here = OsStr::from_bytes(name);
        let file = match rustix::fs::openat(self.here()?, here, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::LOOP | Errno::NOTDIR | Errno::NOENT | Errno::NXIO) => {
                return Err(self.changed());
            }
            Err(error) => return Err(at("open", &self.path)(error.into())),
        };
        let opened =
            rustix::fs::fstat(&file).map_err(|error| at("stat", &self.path)(error.into()))?;
        let identity = |stat: &Stat| (stat.st_dev, stat.st_ino, stat.st_mode);
        if identity(&opened) != identity(stat) || stamp(&opened) != stamp(stat) {
            return Err(self.changed());
        }
        Ok(file)
    }

    fn attributes(&self, place: &Place<'_>) -> Result<(Pairs, Notes), FromDirError> {
        let failed = at("read the attributes of", &self.path);
        let names = place.list().map_err(&failed)?;
        let (overlay, owners) = (self.source.overlay, self.source.owners);
        let (pairs, notes) =
            attributes::sort(&names, overlay, owners, |name| place.get(name)).map_err(&failed)?;
        match notes.refers {
            Some(attribute) => Err(FromDirError::Overlay {
                path: self.path.clone(),
                attribute,
            }),
            None => Ok((pairs, notes)),
        }
    }

    fn item(
        &self,
        stat: &Stat,
        kind: EntryKind,
        xattrs: Pairs,
        change: ChangeKind,
    ) -> Result<Item, FromDirError> {
        let owners = self.source.owners.inside(stat.st_uid, stat.st_gid);
        let (uid, gid) = owners.map_err(|(what, id)| FromDirError::Owner {
            path: self.path.clone(),
            what,
            id,
        })?;
        let device = match kind {
            EntryKind::CharDevice | EntryKind::BlockDevice => (
                rustix::fs::major(stat.st_rdev),
                rustix::fs::minor(stat.st_rdev),
            ),
            _ => (0, 0),
        };
        let size = match kind {
            EntryKind::Regular => u64::try_from(stat.st_size).unwrap_or(0),
            _ => 0,
        };
        Ok(Item {
            path: self.path.clone(),
            kind: ItemKind::Node(kind),
            change,
            mode: match kind {
                EntryKind::Symlink => 0o777,
                _ => stat.st_mode & 0o7777,
            },
            uid,
            gid,
            mtime: (
                stat.st_mtime,
                u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
            ),
            size,
            device,
            target: Vec::new(),
            xattrs,
            nlink: stat.st_nlink,
            inode: (stat.st_dev, stat.st_ino),
            file: None,
            stamp: stamp(stat),
        })
    }

    /// Whether a directory is the image's but for its time.
    fn same_directory(&self, item: &Item, below: Option<&MergedEntry>) -> Result<bool, IndexError> {
        let (Some(image), Some(MergedEntry::Dir(dir))) = (self.source.base, below) else {
            return Ok(false);
        };
        let has = image.attributes_of_dir(dir)?;
        if (has.mode, has.uid, has.gid) != (item.mode, item.uid, item.gid) {
            return Ok(false);
        }
        let xattrs = match image.described_part(dir)? {
            Some(part) => image.xattrs(part)?.collect::<Result<Vec<_>, _>>()?,
            None => Vec::new(),
        };
        let own = item
            .xattrs
            .iter()
            .map(|(k, v)| (k.as_slice(), v.as_slice()));
        // Attributes that a layer may hold and this walk does not read say nothing.
        let known = |(name, _): &(&[u8], &[u8])| attributes::belongs(name);
        Ok(own.eq(xattrs.into_iter().filter(known)))
    }

    /// A change: first the directories on the way that were held back, then `item`.
    fn found(&mut self, item: Item) {
        self.ready.push(item);
        for frame in self.stack.iter_mut().rev() {
            if let Some(held) = frame.held.take() {
                self.ready.push(*held);
            }
        }
    }

    fn changed(&self) -> FromDirError {
        FromDirError::Changed(self.path.clone())
    }
}

impl std::fmt::Debug for Walker<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Walker")
            .field("directory", &self.source.directory)
            .finish_non_exhaustive()
    }
}
