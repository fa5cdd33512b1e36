//! Open files and directories of volumes.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use super::super::api::{Caller, FsError, Full, InodeNo};
use super::VolumeTree;
use super::attr::{Attr, VolumeError};
use super::keep::Use;
use super::nodes::Node;
use super::set_id;
use crate::sys::beneath::{self, Host, Keeps};
use crate::sys::mountinfo::DeviceId;

type Result<T> = std::result::Result<T, VolumeError>;

/// The number of an open file or directory.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct FileNo(pub u64);

/// A file that has been opened.
#[derive(Clone, Debug)]
pub struct Opened {
    /// To be named in what follows.
    pub file: FileNo,
    /// Its node.
    pub ino: InodeNo,
    /// The file system it lies on.
    pub device: DeviceId,
    /// Its writes are to come through here, where it is known who makes them: it has set-id bits to lose.
    pub by_caller: bool,
    open: Arc<OpenFile>,
}

impl AsFd for Opened {
    /// The host's file.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.open.descriptor.as_fd()
    }
}

/// How data comes to be written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Write {
    /// At the offset.
    At,
    /// At the end of the file, wherever the caller believes that to be.
    Append,
    /// Changed pages of a mapping, at the offset: no caller writes, and set-id bits stay as they do on the host.
    Mapped,
}

/// One entry of a listing.
#[derive(Clone, Copy, Debug)]
pub struct Listed<'a> {
    /// Where the listing goes on.
    pub next: u64,
    /// Its name.
    pub name: &'a [u8],
    /// Number.
    pub ino: InodeNo,
    /// Type.
    pub kind: FileType,
}

/// A volume in a listing.
pub(super) type Name = (Box<[u8]>, InodeNo, FileType);

#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) node: Arc<Node>,
    pub(super) descriptor: OwnedFd,
    pub(super) writes: bool,
    /// It can change without a request: through a mapping, or by losing set-id bits.
    unseen: bool,
    /// While it is open for writing.
    _in_use: Option<Use>,
}

#[derive(Debug)]
enum OpenDirectory {
    /// The directory of volumes, as it was when it was opened.
    Root(Vec<Name>),
    /// The host's. Whether the kernel keeps what is listed.
    Host(Arc<Node>, Mutex<Reading>, AtomicBool),
}

/// The host's directory, which has a position; opened when it is read. Of a listing that the kernel has kept it never is.
#[derive(Debug)]
struct Reading(Option<OwnedFd>);

impl Reading {
    fn open(&mut self, host: &Host, node: &Node) -> Result<&OwnedFd> {
        let descriptor = match self.0.take() {
            Some(descriptor) => descriptor,
            None => host.open(node.directory()?, OFlags::RDONLY | OFlags::DIRECTORY)?,
        };
        Ok(self.0.insert(descriptor))
    }
}

#[derive(Debug, Default)]
pub(super) struct Files {
    next: AtomicU64,
    files: RwLock<HashMap<u64, Arc<OpenFile>>>,
    directories: RwLock<HashMap<u64, Arc<OpenDirectory>>>,
}

impl Files {
    pub(super) fn get(&self, file: FileNo) -> Option<Arc<OpenFile>> {
        self.files.read().get(&file.0).cloned()
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Nodes of which a file is open.
    pub(super) fn nodes(&self) -> Vec<InodeNo> {
        self.files.read().values().map(|f| f.node.ino).collect()
    }
}

/// What of the caller's flags the host's file is opened with: appending and direct I/O are the request's business.
fn host_flags(flags: OFlags) -> OFlags {
    flags
        & (OFlags::RWMODE
            | OFlags::TRUNC
            | OFlags::SYNC
            | OFlags::DSYNC
            | OFlags::NOATIME
            | OFlags::LARGEFILE)
}

fn for_writing(flags: OFlags) -> bool {
    flags.intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC)
}

impl VolumeTree {
    fn file(&self, file: FileNo) -> Result<Arc<OpenFile>> {
        self.files.get(file).ok_or_else(|| Errno::BADF.into())
    }

    fn keep(
        &self,
        node: Arc<Node>,
        descriptor: OwnedFd,
        flags: OFlags,
        in_use: Option<Use>,
        by_caller: bool,
    ) -> Opened {
        let unseen = for_writing(flags) && (by_caller || flags.contains(OFlags::RDWR));
        if unseen {
            node.write_begins();
        }
        let file = self.files.number();
        let (ino, device) = (node.ino, node.device);
        self.activity.opened(&node.volume.id);
        let open = Arc::new(OpenFile {
            node,
            descriptor,
            writes: for_writing(flags),
            unseen,
            _in_use: in_use,
        });
        self.files.files.write().insert(file, Arc::clone(&open));
        Opened {
            file: FileNo(file),
            ino,
            device,
            by_caller,
            open,
        }
    }

    /// Opens a file with the flags of open(2).
    pub(super) fn open_host(&self, ino: InodeNo, flags: u32) -> Result<Opened> {
        let flags = OFlags::from_bits_retain(flags);
        let node = self.nodes.get(ino)?;
        node.regular()?;
        let in_use = match for_writing(flags) {
            true => {
                node.writable()?;
                Some(self.using(&node.volume)?)
            }
            false => None,
        };
        let descriptor = self.host.open(&*node, host_flags(flags))?;
        let by_caller = for_writing(flags)
            && self.many_users()
            && set_id::has_set_id(&beneath::stat(&descriptor)?);
        let opened = self.keep(node, descriptor, flags, in_use, by_caller);
        if opened.open.unseen && opened.open.node.is_kept() {
            // Before the caller can change it.
            self.cache.invalidate_attributes_now(opened.ino);
        }
        Ok(opened)
    }

    /// Makes a file and opens it; opens the one that somebody else has made meanwhile, unless `O_EXCL`.
    pub(super) fn create_host(
        &self,
        caller: &Caller,
        parent: InodeNo,
        name: &[u8],
        (mode, umask): (u32, u32),
        flags: u32,
    ) -> Result<(Attr, Opened)> {
        let flags = OFlags::from_bits_retain(flags);
        let parent = self.changeable(parent)?;
        let create = || self.host.create(&*parent, name, host_flags(flags), mode);
        match self.making(caller, mode, umask, create) {
            Ok(descriptor) => {
                let node = self.host.open(&descriptor, OFlags::PATH)?;
                let (node, attr) = self.entered(caller, &parent, name, node)?;
                let in_use = Some(self.using(&node.volume)?);
                Ok((attr, self.keep(node, descriptor, flags, in_use, false)))
            }
            Err(VolumeError::Host(Errno::EXIST)) if !flags.contains(OFlags::EXCL) => {
                let (node, attr) = self.found(caller, &parent, name)?;
                let opened = match node.kind {
                    FileType::RegularFile => self.host.open(&*node, host_flags(flags)),
                    // The kernel thought there was nothing: it is to look again.
                    _ => Err(Errno::STALE),
                };
                match opened {
                    Ok(descriptor) => {
                        let in_use = Some(self.using(&node.volume)?);
                        Ok((attr, self.keep(node, descriptor, flags, in_use, false)))
                    }
                    Err(error) => {
                        self.nodes.forget(attr.ino, 1);
                        Err(error.into())
                    }
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Reads up to `size` bytes into `into` (given empty).
    pub fn read(&self, file: FileNo, offset: u64, size: u32, into: &mut Vec<u8>) -> Result<()> {
        let file = self.file(file)?;
        let size = usize::try_from(size).map_err(|_| Errno::INVAL)?;
        Ok(beneath::read(&file.descriptor, offset, size, into)?)
    }

    /// Writes; how much was written.
    pub fn write(
        &self,
        caller: &Caller,
        file: FileNo,
        offset: u64,
        data: &[u8],
        way: Write,
    ) -> Result<usize> {
        let file = self.file(file)?;
        let append = way == Write::Append;
        let write = || beneath::write(&file.descriptor, offset, data, append);
        match way {
            Write::Mapped => self.changing_as(Keeps::All, &file.descriptor, write),
            Write::At | Write::Append => self.changing(caller, &file.descriptor, write),
        }
    }

    /// A descriptor of the file was closed. File systems of the network write back then, and the answer says how that went.
    pub fn flush(&self, ino: InodeNo, file: FileNo, owner: u64) -> Result<()> {
        self.locks.owner_closed(ino, owner);
        let file = self.file(file)?;
        if file.writes {
            beneath::close_copy(&file.descriptor)?;
        }
        Ok(())
    }

    /// The last descriptor was closed; `owner` held flock locks.
    pub fn release(&self, ino: InodeNo, file: FileNo, owner: Option<u64>) {
        if let Some(owner) = owner {
            self.locks.owner_closed(ino, owner);
        }
        self.locks.file_closed(file);
        let gone = self.files.files.write().remove(&file.0);
        self.budget.closed(file);
        if let Some(gone) = gone {
            self.activity.closed(&gone.node.volume.id);
            if gone.unseen && gone.node.write_ends() && gone.node.is_kept() {
                // What is on its way to the kernel may be from before the last change.
                self.cache.invalidate_attributes_now(gone.node.ino);
            }
        }
    }

    /// fsync(2), fdatasync(2).
    pub fn fsync(&self, file: FileNo, data_only: bool) -> Result<()> {
        Ok(beneath::sync(&self.file(file)?.descriptor, data_only)?)
    }

    /// fallocate(2).
    pub fn allocate(
        &self,
        caller: &Caller,
        file: FileNo,
        mode: u32,
        offset: u64,
        length: u64,
    ) -> Result<()> {
        let file = self.file(file)?;
        let allocate = || beneath::allocate(&file.descriptor, mode, offset, length);
        self.changing(caller, &file.descriptor, allocate)
    }

    /// `SEEK_DATA` or `SEEK_HOLE`.
    pub fn seek(&self, file: FileNo, offset: u64, hole: bool) -> Result<u64> {
        Ok(beneath::seek(&self.file(file)?.descriptor, offset, hole)?)
    }

    /// copy_file_range(2).
    pub fn copy(
        &self,
        caller: &Caller,
        from: (FileNo, u64),
        to: (FileNo, u64),
        length: u64,
    ) -> Result<usize> {
        let (source, target) = (self.file(from.0)?, self.file(to.0)?);
        // The answer has 32 bits.
        let length = usize::try_from(length.min(1 << 30)).map_err(|_| Errno::INVAL)?;
        self.changing(caller, &target.descriptor, || {
            beneath::copy(
                (&source.descriptor, from.1),
                (&target.descriptor, to.1),
                length,
            )
        })
    }

    /// Opens a directory for listing.
    pub(super) fn open_directory_host(&self, ino: InodeNo) -> Result<FileNo> {
        let directory = if Self::is_root(ino) {
            OpenDirectory::Root(self.root_listing()?)
        } else {
            let node = self.nodes.get(ino)?;
            node.directory()?;
            let mut reading = Reading(None);
            if !self.many_users() {
                // Nobody else checks whether it may be read.
                reading.open(&self.host, &node)?;
            }
            OpenDirectory::Host(node, Mutex::new(reading), AtomicBool::new(false))
        };
        let file = self.files.number();
        let mut directories = self.files.directories.write();
        directories.insert(file, Arc::new(directory));
        Ok(FileNo(file))
    }

    fn directory(&self, file: FileNo) -> Result<Arc<OpenDirectory>> {
        let directories = self.files.directories.read();
        let found = directories.get(&file.0).cloned();
        found.ok_or_else(|| Errno::BADF.into())
    }

    /// Lists from `offset` until `add` says that it is full.
    pub fn list(
        &self,
        file: FileNo,
        offset: u64,
        add: &mut dyn FnMut(&Listed<'_>) -> Full,
    ) -> Result<()> {
        match &*self.directory(file)? {
            OpenDirectory::Root(entries) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX);
                for ((name, ino, kind), next) in entries.iter().zip(1..).skip(from) {
                    let listed = Listed {
                        next,
                        name,
                        ino: *ino,
                        kind: *kind,
                    };
                    if add(&listed) == Full::Yes {
                        break;
                    }
                }
                Ok(())
            }
            OpenDirectory::Host(node, reading, _) => {
                let mut reading = reading.lock();
                let descriptor = reading.open(&self.host, node)?;
                let volume = node.volume.number;
                beneath::list(descriptor.as_fd(), offset, &mut |entry| {
                    let name = entry.name.to_bytes();
                    let ino = match name {
                        b"." => node.ino,
                        b".." if node.top => InodeNo::ROOT,
                        _ => self.nodes.shown(volume, node.device, entry.ino),
                    };
                    let listed = Listed {
                        next: entry.next,
                        name,
                        ino,
                        kind: self.kind_of(node, entry),
                    };
                    add(&listed) == Full::No
                })?;
                Ok(())
            }
        }
    }

    /// The kernel is told to keep what is listed through this handle.
    pub fn keeps_listing(&self, file: FileNo) {
        if let Ok(directory) = self.directory(file)
            && let OpenDirectory::Host(_, _, kept) = &*directory
        {
            kept.store(true, Ordering::Release);
        }
    }

    /// A part of a listing was sent. A handle from before others were let in goes on keeping: it is made to forget each time.
    pub fn listed(&self, file: FileNo) {
        if let Ok(directory) = self.directory(file)
            && let OpenDirectory::Host(node, _, kept) = &*directory
            && kept.load(Ordering::Acquire)
        {
            self.forget_listing(node);
        }
    }

    /// The type of an entry, asked for where the host's listing does not tell.
    fn kind_of(&self, directory: &Node, entry: &beneath::Entry<'_>) -> FileType {
        if entry.kind != FileType::Unknown {
            return entry.kind;
        }
        let child = self.host.child(directory, entry.name.to_bytes());
        let stat = child.and_then(beneath::stat);
        stat.map_or(FileType::Unknown, |stat| beneath::kind(&stat))
    }

    /// fsync(2) of a directory.
    pub fn sync_directory(&self, file: FileNo, data_only: bool) -> Result<()> {
        match &*self.directory(file)? {
            // Every change of the names is durable when it is acknowledged.
            OpenDirectory::Root(_) => Ok(()),
            OpenDirectory::Host(node, reading, _) => {
                let mut reading = reading.lock();
                Ok(beneath::sync(reading.open(&self.host, node)?, data_only)?)
            }
        }
    }

    /// A directory was closed.
    pub fn release_directory(&self, file: FileNo) {
        self.files.directories.write().remove(&file.0);
        self.budget.closed(file);
    }

    pub(super) fn open_file(&self, file: FileNo) -> Result<Arc<OpenFile>> {
        self.file(file)
    }

    /// Stale rather than wrong: what the kernel asks about must be what it has open.
    pub(super) fn same(file: &OpenFile, ino: InodeNo) -> Result<()> {
        if file.node.ino == ino {
            Ok(())
        } else {
            Err(FsError::Stale(ino.0).into())
        }
    }
}
