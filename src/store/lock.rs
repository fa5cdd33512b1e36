//! The lock of a store.
//!
//! Exclusive: changing names, removing anything. Shared: adding a lease or a layer to a lease, so that no
//! garbage collection is between marking and sweeping just then. Held for as long as that takes, never over
//! network I/O or while hashing. Not re-entrant: a thread that holds a [`StoreLock`] and begins an import
//! waits for itself.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::error::StoreError;
use super::layout::Layout;
use crate::sys::lock::{self, LockMode};

/// After so long a wait it is said for whom.
const LONG: Duration = Duration::from_secs(2);
/// How often who does not wait for ever looks.
const LOOK: Duration = Duration::from_millis(20);

/// A locked file, unlocked when dropped even if a process that is just being started has a copy of the descriptor.
#[derive(Debug)]
struct Held(File);

impl Drop for Held {
    fn drop(&mut self) {
        // It fails for no file that was locked, and closing it comes next.
        let _ = lock::unlock(&self.0);
    }
}

/// Proof that nobody else changes the store. Released on drop, and by the kernel when the holder dies.
#[derive(Debug)]
pub struct StoreLock {
    _file: Held,
}

impl StoreLock {
    pub(super) fn exclusive(layout: &Layout, create: bool) -> Result<StoreLock, StoreError> {
        let file = open(layout, create)?;
        take(layout, &file, LockMode::Exclusive)?;
        Ok(StoreLock { _file: Held(file) })
    }

    /// The lock, unless somebody holds it.
    pub(super) fn try_exclusive(layout: &Layout) -> Result<Option<StoreLock>, StoreError> {
        let file = open(layout, false)?;
        let got = lock::try_lock(&file, LockMode::Exclusive)
            .map_err(StoreError::io("lock", &layout.lock_file()))?;
        Ok(got.then(|| StoreLock { _file: Held(file) }))
    }
}

/// Keeps garbage collection from running; taken for moments.
#[derive(Debug)]
pub(super) struct SharedLock {
    _file: Held,
}

impl SharedLock {
    pub(super) fn take(layout: &Layout) -> Result<SharedLock, StoreError> {
        let file = open(layout, false)?;
        take(layout, &file, LockMode::Shared)?;
        Ok(SharedLock { _file: Held(file) })
    }

    /// The same, unless somebody else has the lock for longer than `patience`.
    pub(super) fn take_within(
        layout: &Layout,
        patience: Duration,
    ) -> Result<Option<SharedLock>, StoreError> {
        let file = open(layout, false)?;
        let end = Instant::now() + patience;
        loop {
            let got = lock::try_lock(&file, LockMode::Shared);
            if got.map_err(StoreError::io("lock", &layout.lock_file()))? {
                return Ok(Some(SharedLock { _file: Held(file) }));
            }
            if Instant::now() >= end {
                return Ok(None);
            }
            thread::sleep(LOOK);
        }
    }
}

fn open(layout: &Layout, create: bool) -> Result<File, StoreError> {
    let path = layout.lock_file();
    let opened = File::options()
        .read(true)
        .write(true)
        .create(create)
        .truncate(false)
        .mode(super::files::FILE)
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
    let taken = match lock::try_lock(file, mode) {
        Ok(true) => return Ok(()),
        Ok(false) => {
            let _patience = Patience::begin(layout, file);
            lock::lock(file, mode)
        }
        Err(error) => Err(error),
    };
    taken.map_err(|error| {
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

/// Says for whom we wait, if it takes long. The thread sleeps, and is gone when this is dropped.
struct Patience {
    enough: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Patience {
    fn begin(layout: &Layout, file: &File) -> Patience {
        let (enough, over) = channel::<()>();
        let store = layout.root().to_owned();
        // Without a thread, or a second descriptor, nothing is said.
        let thread = file.try_clone().and_then(|file| {
            let builder = thread::Builder::new().name("mica-patience".to_owned());
            builder.stack_size(128 * 1024).spawn(move || {
                if over.recv_timeout(LONG) == Err(RecvTimeoutError::Timeout) {
                    say(&store, &file);
                }
            })
        });
        Patience {
            enough: Some(enough),
            thread: thread.ok(),
        }
    }
}

impl Drop for Patience {
    fn drop(&mut self) {
        drop(self.enough.take());
        if let Some(thread) = self.thread.take() {
            // It has panicked, and that has been printed.
            let _ = thread.join();
        }
    }
}

fn say(store: &Path, file: &File) {
    let who = match lock::holder(file) {
        Some(pid) => {
            let name = crate::sys::proc::name(pid).unwrap_or_else(|| "another program".to_owned());
            format!("{name} (process {pid})")
        }
        None => "another process".to_owned(),
    };
    log::warn!(
        "waiting for {who}, which is changing the store {}",
        store.display()
    );
}
