//! Open files and directories of volumes.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use super::super::api::{Caller, FsError, InodeNo};
use super::VolumeTree;
use super::again;
use super::attr::{Attr, FileNo, VolumeError};
use super::directories::OpenDirectory;
use super::keep::Use;
use super::nodes::Node;
use super::record::{Count, Facts, Kind, Mark, Record};
use super::set_id;
use crate::sys::beneath::{self, Keeps};
use crate::sys::mountinfo::DeviceId;

type Result<T> = std::result::Result<T, VolumeError>;

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

impl Opened {
    /// It is read and written through the kernel's backing file of that id.
    pub fn has_backing(&self, id: u32) {
        self.open.mark.backing(u64::from(id) + 1);
    }

    /// The kernel has been told of it.
    pub fn answered(&self) {
        self.open.mark.request(0);
    }
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

#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) mark: Mark,
    pub(super) node: Arc<Node>,
    pub(super) descriptor: OwnedFd,
    pub(super) writes: bool,
    /// It can change without a request: through a mapping, or by losing set-id bits.
    unseen: bool,
    /// While it is open for writing.
    _in_use: Option<Use>,
}

#[derive(Debug, Default)]
pub(super) struct Files {
    next: AtomicU64,
    /// For the next process.
    pub(super) record: Option<Arc<Record>>,
    files: RwLock<HashMap<u64, Arc<OpenFile>>>,
    pub(super) directories: RwLock<HashMap<u64, Arc<OpenDirectory>>>,
}

impl Files {
    pub(super) fn recorded(record: Option<Arc<Record>>) -> Files {
        Files {
            record,
            ..Files::default()
        }
    }

    pub(super) fn get(&self, file: FileNo) -> Option<Arc<OpenFile>> {
        self.files.read().get(&file.0).cloned()
    }

    pub(super) fn number(&self) -> u64 {
        // One that was given back may still be asked for by a request that is sent again: no process gives it twice.
        let next = self
            .record
            .as_ref()
            .and_then(|record| record.count(Count::NextFile));
        next.unwrap_or(&self.next).fetch_add(1, Ordering::Relaxed)
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

/// In the record of an open file.
const WRITES: u8 = 1;
const UNSEEN: u8 = 2;
const BY_CALLER: u8 = 4;

fn flag(set: bool, flag: u8) -> u8 {
    if set { flag } else { 0 }
}

/// Whether what is recorded is open for writing.
pub(super) fn writes(facts: &Facts) -> bool {
    facts.flags & WRITES != 0
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
        (by_caller, user): (bool, u32),
    ) -> Opened {
        let unseen = for_writing(flags) && (by_caller || flags.contains(OFlags::RDWR));
        let file = self.files.number();
        let facts = Facts {
            flags: flag(for_writing(flags), WRITES)
                | flag(unseen, UNSEEN)
                | flag(by_caller, BY_CALLER),
            ino: node.ino.0,
            number: file,
            user,
            volume: node.volume.number,
            request: again::request(),
            ..Facts::default()
        };
        self.keep_as(node, descriptor, facts, in_use)
    }

    /// A file with what is recorded of it.
    pub(super) fn keep_as(
        &self,
        node: Arc<Node>,
        descriptor: OwnedFd,
        facts: Facts,
        in_use: Option<Use>,
    ) -> Opened {
        let unseen = facts.flags & UNSEEN != 0;
        let by_caller = facts.flags & BY_CALLER != 0;
        if unseen {
            node.write_begins();
        }
        let file = facts.number;
        let (ino, device) = (node.ino, node.device);
        self.activity.opened(&node.volume.id);
        let mark = match &self.files.record {
            Some(record) => record.mark(&descriptor, Kind::File, &facts, None),
            None => Mark::default(),
        };
        let open = Arc::new(OpenFile {
            mark,
            node,
            descriptor,
            writes: facts.flags & WRITES != 0,
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
    pub(super) fn open_host(&self, caller: &Caller, ino: InodeNo, flags: u32) -> Result<Opened> {
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
        let opened = self.keep(node, descriptor, flags, in_use, (by_caller, caller.uid));
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
        // What the same request has made before is opened.
        let before = self.before();
        let own = before == Some([0, 0]);
        if flags.contains(OFlags::EXCL) {
            self.about_to(|| before.unwrap_or_else(|| self.what_is(&parent, name)));
        }
        let create = || self.host.create(&*parent, name, host_flags(flags), mode);
        match self.making(caller, mode, umask, create) {
            Ok(descriptor) => {
                let node = self.host.open(&descriptor, OFlags::PATH)?;
                let (node, attr) = self.entered(caller, &parent, name, node)?;
                let in_use = Some(self.using(&node.volume)?);
                let by = (false, caller.uid);
                Ok((attr, self.keep(node, descriptor, flags, in_use, by)))
            }
            Err(VolumeError::Host(Errno::EXIST)) if own || !flags.contains(OFlags::EXCL) => {
                let (node, attr) = self.found(caller, &parent, name)?;
                let opened = match node.kind {
                    FileType::RegularFile => self.host.open(&*node, host_flags(flags)),
                    // The kernel thought there was nothing: it is to look again.
                    _ => Err(Errno::STALE),
                };
                match opened {
                    Ok(descriptor) => {
                        let in_use = Some(self.using(&node.volume)?);
                        let by = (false, caller.uid);
                        Ok((attr, self.keep(node, descriptor, flags, in_use, by)))
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
        if append && self.has_appended(&file, data)? {
            return Ok(data.len());
        }
        let write = || beneath::write(&file.descriptor, offset, data, append);
        match way {
            Write::Mapped => self.changing_as(Keeps::All, &file.descriptor, write),
            Write::At | Write::Append => self.changing(caller, &file.descriptor, write),
        }
    }

    /// Whether the same request has appended before. Else it is about to.
    fn has_appended(&self, file: &OpenFile, data: &[u8]) -> Result<bool> {
        if self.files.record.is_none() {
            return Ok(false);
        }
        let size = beneath::stat(&file.descriptor)?.stx_size;
        if let Some([before, _]) = self.before()
            && size >= before.saturating_add(data.len() as u64)
        {
            let mut there = Vec::new();
            // It may be open for writing only.
            let readable = self.host.open(&*file.node, OFlags::RDONLY)?;
            beneath::read(&readable, before, data.len(), &mut there)?;
            if there == data {
                return Ok(true);
            }
        }
        self.about_to(|| [size, 0]);
        Ok(false)
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

    /// The last descriptor was closed. Locks go with the file: the kernel may have given their owner's number to another meanwhile.
    pub fn release(&self, file: FileNo) {
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
