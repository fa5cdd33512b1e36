//! Directories that are open, and what is listed of them.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use super::super::api::{Full, InodeNo};
use super::VolumeTree;
use super::attr::{FileNo, Name, VolumeError};
use super::nodes::Node;
use super::record::{Facts, Kind, Mark, Record};
use crate::sys::beneath::{self, Host};

type Result<T> = std::result::Result<T, VolumeError>;

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

#[derive(Debug)]
pub(super) enum OpenDirectory {
    /// The directory of volumes, as it was when it was opened.
    Root(Vec<Name>),
    /// The host's. Whether the kernel keeps what is listed.
    Host(Arc<Node>, Mutex<Reading>, AtomicBool),
}

/// The host's directory, which has a position; opened when it is read. Of a listing that the kernel has kept it never is.
#[derive(Debug)]
pub(super) struct Reading {
    file: u64,
    user: u32,
    /// For the next process.
    record: Option<Arc<Record>>,
    open: Option<(Mark, OwnedFd)>,
}

impl Reading {
    fn open(&mut self, host: &Host, node: &Node) -> Result<&OwnedFd> {
        let open = match self.open.take() {
            Some(open) => open,
            None => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                self.marked(node, host.open(node.directory()?, flags)?)
            }
        };
        Ok(&self.open.insert(open).1)
    }

    fn marked(&self, node: &Node, descriptor: OwnedFd) -> (Mark, OwnedFd) {
        let facts = Facts {
            ino: node.ino.0,
            number: self.file,
            user: self.user,
            volume: node.volume.number,
            ..Facts::default()
        };
        let mark = match &self.record {
            Some(record) => record.mark(&descriptor, Kind::Directory, &facts, None),
            None => Mark::default(),
        };
        (mark, descriptor)
    }
}

impl VolumeTree {
    /// Opens a directory for listing.
    pub(super) fn open_directory_host(&self, user: u32, ino: InodeNo) -> Result<FileNo> {
        let file = self.files.number();
        let directory = if Self::is_root(ino) {
            OpenDirectory::Root(self.root_listing()?)
        } else {
            let node = self.nodes.get(ino)?;
            node.directory()?;
            let mut reading = self.reading(file, user);
            if !self.many_users() {
                // Nobody else checks whether it may be read.
                reading.open(&self.host, &node)?;
            }
            OpenDirectory::Host(node, Mutex::new(reading), AtomicBool::new(false))
        };
        let mut directories = self.files.directories.write();
        directories.insert(file, Arc::new(directory));
        Ok(FileNo(file))
    }

    fn reading(&self, file: u64, user: u32) -> Reading {
        Reading {
            file,
            user,
            record: self.files.record.clone(),
            open: None,
        }
    }

    /// A directory that an earlier process has begun to list.
    pub(super) fn restore_directory(&self, node: Arc<Node>, descriptor: OwnedFd, facts: &Facts) {
        let mut reading = self.reading(facts.number, facts.user);
        reading.open = Some(reading.marked(&node, descriptor));
        self.insert_directory(FileNo(facts.number), node, reading);
    }

    /// Whether the kernel keeps what is listed is not known: it is made to forget.
    fn insert_directory(&self, file: FileNo, node: Arc<Node>, reading: Reading) {
        let kept = AtomicBool::new(node.is_kept());
        let directory = OpenDirectory::Host(node, Mutex::new(reading), kept);
        let mut directories = self.files.directories.write();
        directories.entry(file.0).or_insert(Arc::new(directory));
    }

    fn directory(&self, file: FileNo) -> Result<Arc<OpenDirectory>> {
        let directories = self.files.directories.read();
        let found = directories.get(&file.0).cloned();
        found.ok_or_else(|| Errno::BADF.into())
    }

    /// Where an earlier process has opened it and listed nothing of it, it is opened now.
    fn directory_at(&self, ino: InodeNo, file: FileNo, offset: u64) -> Result<Arc<OpenDirectory>> {
        let found = self.directory(file);
        if found.is_ok() || !self.inherits() {
            return found;
        }
        if Self::is_root(ino) {
            // The names that it had then are gone.
            if offset > 0 {
                return Err(Errno::STALE.into());
            }
            let names = Arc::new(OpenDirectory::Root(self.root_listing()?));
            self.files.directories.write().insert(file.0, names);
        } else {
            let node = self.nodes.get(ino)?;
            node.directory()?;
            self.insert_directory(file, node, self.reading(file.0, 0));
        }
        self.directory(file)
    }

    /// Lists from `offset` until `add` says that it is full.
    pub fn list(
        &self,
        (ino, file): (InodeNo, FileNo),
        offset: u64,
        add: &mut dyn FnMut(&Listed<'_>) -> Full,
    ) -> Result<()> {
        match &*self.directory_at(ino, file, offset)? {
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
    pub fn sync_directory(&self, ino: InodeNo, file: FileNo, data_only: bool) -> Result<()> {
        match &*self.directory_at(ino, file, 0)? {
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
}
