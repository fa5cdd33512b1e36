//! The lock of a store.
//!
//! Exclusive: changing names, removing anything. Shared: adding a lease or a layer to a lease, so that no
//! garbage collection is between marking and sweeping just then. Held for as long as that takes, never over
//! network I/O or while hashing. Not re-entrant: a thread that holds a [`StoreLock`] and begins an import
//! waits for itself.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;

use super::error::StoreError;
use super::layout::Layout;
use crate::sys::lock::{self, LockMode};

/// Proof that nobody else changes the store. Released on drop, and by the kernel when the holder dies.
#[derive(Debug)]
pub struct StoreLock {
    _file: File,
}

impl StoreLock {
    pub(super) fn exclusive(layout: &Layout, create: bool) -> Result<StoreLock, StoreError> {
        let file = open(layout, create)?;
        take(layout, &file, LockMode::Exclusive)?;
        Ok(StoreLock { _file: file })
    }

    /// The lock, unless somebody holds it.
    pub(super) fn try_exclusive(layout: &Layout) -> Result<Option<StoreLock>, StoreError> {
        let file = open(layout, false)?;
        let got = lock::try_lock(&file, LockMode::Exclusive)
            .map_err(StoreError::io("lock", &layout.lock_file()))?;
        Ok(got.then_some(StoreLock { _file: file }))
    }
}

/// Keeps garbage collection from running; taken for moments.
#[derive(Debug)]
pub(super) struct SharedLock {
    _file: File,
}

impl SharedLock {
    pub(super) fn take(layout: &Layout) -> Result<SharedLock, StoreError> {
        let file = open(layout, false)?;
        take(layout, &file, LockMode::Shared)?;
        Ok(SharedLock { _file: file })
    }
}

fn open(layout: &Layout, create: bool) -> Result<File, StoreError> {
    let path = layout.lock_file();
    let opened = File::options()
        .read(true)
        .write(true)
        .create(create)
        .truncate(false)
        .mode(super::privacy::FILE)
        .open(&path);
    opened.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            StoreError::ReadOnly {
                path: layout.root().to_owned(),
                reason: error.to_string(),
            }
        }
        _ => StoreError::io("open", &path)(error),
    })
}

fn take(layout: &Layout, file: &File, mode: LockMode) -> Result<(), StoreError> {
    lock::lock(file, mode).map_err(|error| {
        if lock::is_unsupported(&error) {
            StoreError::NoLocks {
                path: layout.root().to_owned(),
                source: error,
            }
        } else {
            StoreError::io("lock", &layout.lock_file())(error)
        }
    })
}
