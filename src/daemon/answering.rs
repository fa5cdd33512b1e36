//! What the control socket is asked for, and how the answer comes about: a mount as its requests see it.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::control::Handler;
use super::kept::Keeping;
use super::{stores, volumes};
use crate::fs::{FileSystem as _, Superblock};
use crate::fuse::notify::NotifyQueue;
use crate::fuse::stats::Stats;
use crate::oci::Digest;
use crate::ops::usage::{mounted_on, standing_on};
use crate::ops::volume::activity::Activity;
use crate::store::freeing::{Freeing, HeldFiles};
use crate::store::{Store, VolumeId};

/// How long a `sync` waits for the kernel; less than verbs wait for the answer.
const SYNC_PATIENCE: Duration = Duration::from_secs(4);
/// At least and at most between two looks at what is over in the trash.
const TRASH_PAUSE: Duration = Duration::from_secs(1);
const TRASH_LOOK: Duration = Duration::from_secs(3600);

/// What control requests use, in threads of their own.
pub(super) struct Answering {
    pub(super) tree: Arc<Superblock>,
    pub(super) queue: Arc<NotifyQueue>,
    pub(super) stats: Arc<Stats>,
    pub(super) volumes: Mutex<Option<volumes::Shared>>,
    pub(super) stores: Mutex<Option<stores::Shared>>,
    /// What is known of the use of the volumes, through whichever of their connections.
    pub(super) activity: Arc<Activity>,
    pub(super) refreshing: Mutex<()>,
    pub(super) store: Store,
    /// What verbs have removed and this process frees.
    pub(super) freeing: Arc<Freeing>,
    /// Whether a thread removes what is over in the trash.
    pub(super) emptying: AtomicBool,
    /// Of a mount that goes on when this process ends.
    pub(super) keeping: Option<Arc<Keeping>>,
    /// Another version is to go on.
    pub(super) replacing: AtomicBool,
    /// Where the volumes are mounted.
    pub(super) volumes_at: PathBuf,
    pub(super) stop: OwnedFd,
}

impl Answering {
    pub(super) fn refresh(&self) -> Result<(), String> {
        let _one_at_a_time = self.refreshing.lock();
        self.activity.wake();
        let names = self.tree.refresh().map_err(|error| error.to_string());
        let volumes = self.volumes.lock().clone();
        let refreshed = volumes.map_or(Ok(()), |volumes| volumes.refresh());
        let stores = self.stores.lock().clone();
        let stores = stores.map_or(Ok(()), |stores| stores.refresh());
        names.and(refreshed).and(stores)
    }

    /// How long until something in the trash is over.
    pub(super) fn until_trash_ends(&self) -> Option<Timespec> {
        let end = self.store.names().ok()?.trash.next_end()?;
        if self.store.read_only().is_some() {
            return None;
        }
        let left = end.duration_since(SystemTime::now()).unwrap_or_default();
        // Not at once again if it could not be removed; and now and then, for a clock that is set.
        let left = left.clamp(TRASH_PAUSE, TRASH_LOOK);
        Timespec::try_from(left).ok()
    }

    /// Frees what is over in the trash, in a thread: it may have to wait for the store.
    pub(super) fn empty_trash(this: &Arc<Answering>) {
        let names = this.store.names();
        let end = names.ok().and_then(|names| names.trash.next_end());
        if end.is_none_or(|end| end > SystemTime::now()) || this.store.read_only().is_some() {
            return;
        }
        let emptying = this.emptying.swap(true, Ordering::Relaxed);
        if emptying {
            return;
        }
        let shared = Arc::clone(this);
        let thread = std::thread::Builder::new()
            .name("mica-trash".to_owned())
            .stack_size(512 * 1024)
            .spawn(move || {
                // Taking the lock removes it.
                if let Err(error) = shared.store.lock() {
                    log::warn!("emptying the trash: {error}");
                }
                shared.emptying.store(false, Ordering::Relaxed);
            });
        if let Err(error) = thread {
            log::warn!("emptying the trash: {error}");
            this.emptying.store(false, Ordering::Relaxed);
        }
    }

    pub(super) fn stop_requested(&self) -> bool {
        let mut fds = [PollFd::new(&self.stop, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).is_ok_and(|n| n > 0)
    }
}

impl Handler for Answering {
    fn sync(&self) -> Result<(), String> {
        self.refresh()?;
        let volumes = self.volumes.lock().clone();
        let volumes = volumes.is_none_or(|volumes| volumes.drain(SYNC_PATIENCE));
        let stores = self.stores.lock().clone();
        let stores = stores.is_none_or(|stores| stores.drain(SYNC_PATIENCE));
        if self.queue.drain(SYNC_PATIENCE) && volumes && stores {
            Ok(())
        } else {
            Err("the kernel has not taken all changes yet".to_owned())
        }
    }

    fn stats(&self) -> String {
        let mut text = self.stats.render();
        if let Some(volumes) = &*self.volumes.lock() {
            text.push_str(&volumes.stats());
        }
        if let Some(stores) = &*self.stores.lock() {
            text.push_str(&stores.stats());
        }
        text
    }

    fn users(&self) -> String {
        self.tree.users_report()
    }

    fn share(&self, volume: &VolumeId) -> Result<(), String> {
        let volumes = self.volumes.lock().clone();
        volumes.map_or(Ok(()), |volumes| volumes.share(volume, SYNC_PATIENCE))
    }

    fn hold(&self, blobs: &[Digest]) -> HeldFiles {
        self.freeing.hold_blobs(self.store.layout(), blobs)
    }

    fn freed(&self) -> bool {
        self.freeing.wait(SYNC_PATIENCE)
    }

    fn replace(&self, program: &Path) -> Result<(), String> {
        let Some(keeping) = &self.keeping else {
            return Err("it was mounted without survive=on: unmount, and mount anew".to_owned());
        };
        if !keeping.keeps_volumes() {
            let place = &self.volumes_at;
            let device = mounted_on(place).map_err(|error| error.to_string())?;
            let users = device.map_or(Vec::new(), |device| standing_on(device, place));
            if let Some(user) = users.first() {
                return Err(format!("{} would lose its users: {user}", place.display()));
            }
        }
        keeping.try_program(program.to_owned())?;
        self.replacing.store(true, Ordering::Release);
        self.stop();
        Ok(())
    }

    fn stop(&self) {
        // Only fails when the counter is full, and then it is readable already.
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
    }
}
