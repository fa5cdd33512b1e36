//! FUSE passthrough: reads, writes and mappings go from the kernel straight to the host's file.
//!
//! - Offered by the kernel (6.9) or not; then the first refusal for lack of privilege ends it for the mount, and a refusal of a
//!   file system (a stacked one, `ELOOP`) for that file system.
//! - A file with set-id bits that is opened for writing goes without: the kernel would write in our name, and whether a write
//!   takes the bits away depends on the caller.
//! - All opens of an inode must be of one kind and name one backing id, for as long as any of them lasts: the id is kept weakly
//!   by inode and strongly by open file, and an inode that has been opened without stays so until its last close.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use fuser::{BackingId, FopenFlags};
use parking_lot::Mutex;

use crate::fs::InodeNo;
use crate::fs::volumes::{FileNo, Opened};
use crate::sys::mountinfo::DeviceId;

/// How a file is opened without passthrough: nothing is cached, so both sides always see the same.
pub(super) const UNCACHED: FopenFlags =
    FopenFlags::FOPEN_DIRECT_IO.union(FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES);

/// How the opens of an inode are.
#[derive(Debug)]
enum Mode {
    Passthrough(Weak<BackingId>),
    /// So many opens without.
    Uncached(usize),
}

#[derive(Debug, Default)]
struct Table {
    inodes: HashMap<InodeNo, Mode>,
    files: HashMap<FileNo, Arc<BackingId>>,
    refusing: HashSet<DeviceId>,
}

#[derive(Debug, Default)]
pub(super) struct Passthrough {
    usable: AtomicBool,
    table: Mutex<Table>,
}

impl Passthrough {
    /// Whether the kernel has it.
    pub(super) fn offer(&self, offered: bool) {
        self.usable.store(offered, Ordering::Relaxed);
    }

    /// The backing id for a file that has been opened; `None`: without. `register` makes one.
    pub(super) fn enter(
        &self,
        opened: &Opened,
        register: impl FnOnce(BorrowedFd<'_>) -> io::Result<BackingId>,
    ) -> Option<Arc<BackingId>> {
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
            false => self.register(table, opened, register),
        };
        match id {
            Some(id) => {
                let id = Arc::new(id);
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

    fn register(
        &self,
        table: &mut Table,
        opened: &Opened,
        register: impl FnOnce(BorrowedFd<'_>) -> io::Result<BackingId>,
    ) -> Option<BackingId> {
        if !self.usable.load(Ordering::Relaxed) || table.refusing.contains(&opened.device) {
            return None;
        }
        match register(opened.as_fd()) {
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
