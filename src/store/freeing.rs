//! Giving back the space of what was removed, in somebody else's time.
//!
//! Unlinking a file is quick. What takes time (100 ms for 700 MB) is the end of the last reference to it, when the file system gives
//! back pages and blocks one by one. So a removal asks a daemon of the store to hold the large files for a moment, unlinks them and
//! is done; the daemon, which stays, lets go of them in a thread.
//!
//! Nothing depends on that thread. A file without a name is the kernel's to free as soon as nobody holds it: when the daemon is
//! killed, at once; after a power cut, the file system's own check. Where no daemon answers the removal takes its time itself.
//!
//! Who wants the space waits for it: [`Store::await_freed`].

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::fs::{Mode, OFlags};

use super::error::StoreError;
use super::gc::{self, GcPlan};
use super::layout::Layout;
use super::lease::LiveLease;
use super::lock::StoreLock;
use super::{Store, notify, reserve};
use crate::oci::Digest;
use crate::sys::pause::pause;

/// Smaller files are freed by whoever unlinks them.
const LARGE: u64 = 1 << 20;
/// So many files of one removal are held; the largest.
const MOST: usize = 256;
/// Of so many removals the files are held at once.
const MOST_REMOVALS: usize = 16;
/// How long a daemon may take to say that it holds them; unlinking takes less than a second itself.
const HOLD_PATIENCE: Duration = Duration::from_millis(500);
/// How long somebody waits for space.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a daemon holds and frees.
#[derive(Debug, Default)]
pub struct Freeing {
    /// Removals whose files are held or being freed.
    under_way: Mutex<usize>,
    over: Condvar,
}

/// Files held open for a removal; dropped, they are freed in a thread.
#[derive(Debug)]
pub struct HeldFiles(Option<Batch>);

/// The fields are dropped in this order.
#[derive(Debug)]
struct Batch {
    files: Vec<OwnedFd>,
    _counted: Counted,
}

#[derive(Debug)]
struct Counted(Arc<Freeing>);

impl Freeing {
    fn hold(self: &Arc<Self>, paths: impl Iterator<Item = PathBuf>) -> HeldFiles {
        *self.under_way.lock() += 1;
        let counted = Counted(Arc::clone(self));
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // What cannot be held is freed by who unlinks it.
        let open = |path: PathBuf| rustix::fs::open(&path, flags, Mode::empty()).ok();
        HeldFiles(Some(Batch {
            files: paths.filter_map(open).collect(),
            _counted: counted,
        }))
    }

    /// Holds the tars and indexes of these layers, or the documents.
    pub fn hold_blobs(self: &Arc<Self>, layout: &Layout, blobs: &[Digest]) -> HeldFiles {
        let paths = blobs.iter().take(MOST).flat_map(|digest| {
            let index = layout.layers().join(format!("{}.idx", digest.hex()));
            [layout.blob(digest), index]
        });
        self.hold(paths)
    }

    /// Waits until everything is freed that somebody has removed before; false if that takes too long.
    pub fn wait(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut under_way = self.under_way.lock();
        while *under_way > 0 {
            if self.over.wait_until(&mut under_way, until).timed_out() {
                return *under_way == 0;
            }
        }
        true
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        *self.0.under_way.lock() -= 1;
        self.0.over.notify_all();
    }
}

impl Drop for HeldFiles {
    fn drop(&mut self) {
        let Some(batch) = self.0.take().filter(|batch| !batch.files.is_empty()) else {
            return;
        };
        let thread = thread::Builder::new()
            .name("mica-free".to_owned())
            .stack_size(128 * 1024)
            .spawn(move || {
                pause("freeing");
                drop(batch);
            });
        if let Err(error) = thread {
            // Dropped with the closure: freed here and now.
            log::debug!("no thread to free files: {error}");
        }
    }
}

/// Who holds the files of a removal of this process.
#[derive(Debug)]
pub(super) enum Holder {
    Here(#[allow(dead_code)] HeldFiles),
    /// Lets go when the connection ends.
    Daemon(#[allow(dead_code)] UnixStream),
}

impl Store {
    /// From now on this process, which stays, frees files itself: a daemon.
    pub fn free_here(&self) -> Arc<Freeing> {
        let freeing = self.0.freeing.get_or_init(Arc::default);
        Arc::clone(freeing)
    }

    /// As [`Store::collect`]; a daemon frees the large files once they have been let go of ([`Store::notify_mounts`] does that, or
    /// [`Store::let_go`], or the end of the process).
    pub fn collect_soon(&self, lock: &StoreLock) -> Result<GcPlan, StoreError> {
        let plan = gc::plan(self, &*self.names()?, lock)?;
        let holder = self.hold_large(&plan);
        let held = holder.is_some();
        self.0.held.lock().extend(holder);
        self.carry_out_held(&plan, lock, held)?;
        Ok(plan)
    }

    fn hold_large(&self, plan: &GcPlan) -> Option<Holder> {
        if plan.bytes < LARGE {
            return None;
        }
        let mut large: Vec<(u64, Digest)> = Vec::new();
        for blob in plan.blobs.iter().copied() {
            let index = self.layout().layers().join(format!("{}.idx", blob.hex()));
            let size = |path| gc::allocated(path).unwrap_or(0);
            let bytes = size(&self.layout().blob(&blob)).saturating_add(size(&index));
            large.push((bytes, blob));
        }
        large.retain(|(bytes, _)| *bytes >= LARGE);
        large.sort_unstable_by(|a, b| b.cmp(a));
        large.truncate(MOST);
        let large: Vec<Digest> = large.into_iter().map(|(_, blob)| blob).collect();
        if large.is_empty() {
            return None;
        }
        if self.0.held.lock().len() >= MOST_REMOVALS {
            self.let_go();
        }
        if let Some(freeing) = self.0.freeing.get() {
            return Some(Holder::Here(freeing.hold_blobs(self.layout(), &large)));
        }
        let until = Instant::now() + HOLD_PATIENCE;
        self.daemons().into_iter().find_map(|daemon| {
            let held = notify::hold(&daemon, &large, until);
            let held = held.map_err(|error| log::debug!("{}: {error}", daemon.id.as_str()));
            held.ok().map(Holder::Daemon)
        })
    }

    /// What was removed through this handle may be freed.
    pub fn let_go(&self) {
        let held = std::mem::take(&mut *self.0.held.lock());
        drop(held);
    }

    /// Waits until the daemons of the store have freed what was removed before; whether there is a daemon at all.
    pub fn await_freed(&self) -> bool {
        self.let_go();
        if let Some(freeing) = self.0.freeing.get() {
            return freeing.wait(PATIENCE);
        }
        let until = Instant::now() + PATIENCE;
        let mut any = false;
        for daemon in self.daemons() {
            match notify::freed(&daemon, until) {
                Ok(()) => any = true,
                Err(error) => log::debug!("{}: {error}", daemon.id.as_str()),
            }
        }
        any
    }

    /// Whether `error` is that of a full disk, and there may be room by now: tries again.
    pub(super) fn is_room_by_now(&self, error: &io::Error) -> bool {
        reserve::is_full(error) && self.await_freed()
    }

    fn daemons(&self) -> Vec<LiveLease> {
        let leases = super::lease::live(self.layout()).unwrap_or_default();
        leases.into_iter().filter(LiveLease::is_daemon).collect()
    }
}

/// Writes to a file; on a full disk it waits once for space that is being freed.
pub(super) struct Patient<'a> {
    pub(super) store: &'a Store,
    pub(super) file: &'a File,
}

impl Write for Patient<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.file.write(bytes) {
            Err(error) if self.store.is_room_by_now(&error) => self.file.write(bytes),
            done => done,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
