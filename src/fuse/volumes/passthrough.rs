//! FUSE passthrough: reads, writes and mappings go from the kernel straight to the host's file.
//!
//! - Offered by the kernel (6.9) or not; then the first refusal for lack of privilege ends it for the mount, and a refusal of a
//!   file system (a stacked one, `ELOOP`) for that file system.
//! - A file with set-id bits that is opened for writing goes without: the kernel would write in our name, and whether a write
//!   takes the bits away depends on the caller.
//! - All opens of an inode must be of one kind and name one backing id, for as long as any of them lasts: the id is kept weakly
//!   by inode and strongly by open file, and an inode that has been opened without stays so until its last close.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use fuser::{BackingId, FopenFlags};
use parking_lot::Mutex;

use crate::fs::InodeNo;
use crate::fs::volumes::{FileNo, Inherited, Opened};
use crate::sys::fuse_device::close_backing;
use crate::sys::mountinfo::DeviceId;

/// How a file is opened without passthrough: nothing is cached, so both sides always see the same.
pub(super) const UNCACHED: FopenFlags =
    FopenFlags::FOPEN_DIRECT_IO.union(FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES);

/// A backing id, which belongs to the connection and not to this process; closed when dropped.
#[derive(Debug)]
pub(super) struct Backing {
    id: u32,
    connection: Arc<OwnedFd>,
}

impl Backing {
    pub(super) fn id(&self) -> u32 {
        self.id
    }
}

impl Drop for Backing {
    fn drop(&mut self) {
        if let Err(error) = close_backing(self.connection.as_fd(), self.id) {
            log::debug!("closing backing id {}: {error}", self.id);
        }
    }
}

/// How the opens of an inode are.
#[derive(Debug)]
enum Mode {
    Passthrough(Weak<Backing>),
    /// So many opens without.
    Uncached(usize),
}

#[derive(Debug, Default)]
struct Table {
    inodes: HashMap<InodeNo, Mode>,
    files: HashMap<FileNo, Arc<Backing>>,
    refusing: HashSet<DeviceId>,
}

#[derive(Debug)]
pub(super) struct Passthrough {
    connection: Arc<OwnedFd>,
    usable: AtomicBool,
    table: Mutex<Table>,
}

impl Passthrough {
    /// With the files that an earlier process has left open.
    pub(super) fn new(connection: OwnedFd, inherited: Vec<Inherited>) -> Passthrough {
        let connection = Arc::new(connection);
        let mut table = Table::default();
        let mut backings: HashMap<InodeNo, Arc<Backing>> = HashMap::new();
        for open in &inherited {
            if let Some(id) = open.backing {
                let connection = || Arc::clone(&connection);
                let backing = backings.entry(open.ino).or_insert_with(|| {
                    Arc::new(Backing {
                        id,
                        connection: connection(),
                    })
                });
                let mode = Mode::Passthrough(Arc::downgrade(backing));
                table.inodes.insert(open.ino, mode);
                table.files.insert(open.file, Arc::clone(backing));
            }
        }
        for open in inherited.iter().filter(|open| open.backing.is_none()) {
            let mode = table.inodes.entry(open.ino).or_insert(Mode::Uncached(0));
            if let Mode::Uncached(opens) = mode {
                *opens = opens.saturating_add(1);
            }
        }
        Passthrough {
            connection,
            usable: AtomicBool::new(false),
            table: Mutex::new(table),
        }
    }

    /// Whether the kernel has it.
    pub(super) fn offer(&self, offered: bool) {
        self.usable.store(offered, Ordering::Relaxed);
    }

    /// The backing id for a file that has been opened; `None`: without.
    pub(super) fn enter(&self, opened: &Opened) -> Option<Arc<Backing>> {
        let backing = self.choose(opened);
        if let Some(backing) = &backing {
            opened.has_backing(backing.id);
        }
        backing
    }

    fn choose(&self, opened: &Opened) -> Option<Arc<Backing>> {
        let mut table = self.table.lock();
        let table = &mut *table;
        match table.inodes.get_mut(&opened.ino) {
            Some(Mode::Uncached(opens)) => {
                *opens = opens.saturating_add(1);
                return None;
            }
            Some(Mode::Passthrough(id)) => {
                if let Some(id) = id.upgrade() {
                    table.files.insert(opened.file, Arc::clone(&id));
                    return Some(id);
                }
            }
            None => {}
        }
        let id = match opened.by_caller {
            true => None,
            false => self.register(table, opened),
        };
        match id {
            Some(id) => {
                let connection = Arc::clone(&self.connection);
                let id = Arc::new(Backing { id, connection });
                let mode = Mode::Passthrough(Arc::downgrade(&id));
                table.inodes.insert(opened.ino, mode);
                table.files.insert(opened.file, Arc::clone(&id));
                Some(id)
            }
            None => {
                table.inodes.insert(opened.ino, Mode::Uncached(1));
                None
            }
        }
    }

    fn register(&self, table: &mut Table, opened: &Opened) -> Option<u32> {
        if !self.usable.load(Ordering::Relaxed) || table.refusing.contains(&opened.device) {
            return None;
        }
        match BackingId::create_raw(&*self.connection, opened) {
            Ok(id) => Some(id),
            Err(error) => {
                let errno = error.raw_os_error();
                if errno == Some(libc::EPERM) || errno == Some(libc::ENOTTY) {
                    log::info!("volumes: no passthrough: {error}");
                    self.usable.store(false, Ordering::Relaxed);
                } else if errno == Some(libc::ELOOP) {
                    log::info!(
                        "volumes: no passthrough to device {}: {error}",
                        opened.device
                    );
                    table.refusing.insert(opened.device);
                } else {
                    log::warn!("volumes: no passthrough for one file: {error}");
                }
                None
            }
        }
    }

    /// The last descriptor of an open file is gone.
    pub(super) fn leave(&self, ino: InodeNo, file: FileNo) {
        let mut table = self.table.lock();
        let table = &mut *table;
        let id = table.files.remove(&file);
        let last = match table.inodes.get_mut(&ino) {
            Some(Mode::Uncached(opens)) => {
                *opens = opens.saturating_sub(1);
                *opens == 0
            }
            Some(Mode::Passthrough(weak)) => {
                drop(id);
                weak.strong_count() == 0
            }
            None => false,
        };
        if last {
            table.inodes.remove(&ino);
        }
    }
}
