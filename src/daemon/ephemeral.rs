//! The thread that ends ephemeral volumes.
//!
//! It sleeps while there are none: whatever changes the volumes wakes it, and the first use of one that waits for it. While there
//! are some it looks at the processes about twice a second, less often where that takes long.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::ops::volume::activity::Activity;
use crate::ops::volume::ephemeral::{Times, Watcher};
use crate::store::{LeaseId, Store};

/// The thread; it ends after this has been dropped, when it has finished what it is at.
#[derive(Debug)]
pub(super) struct Reaper {
    activity: Arc<Activity>,
    stop: Arc<AtomicBool>,
}

impl Reaper {
    /// Begins. `refresh` makes the daemon's own mount show the volumes as they are, `own` is its lease.
    pub(super) fn start(
        store: Store,
        times: Times,
        activity: Arc<Activity>,
        own: LeaseId,
        refresh: impl Fn() + Send + 'static,
    ) -> io::Result<Reaper> {
        let stop = Arc::new(AtomicBool::new(false));
        let reaper = Reaper {
            activity: Arc::clone(&activity),
            stop: Arc::clone(&stop),
        };
        thread::Builder::new()
            .name("mica-ephemeral".to_owned())
            .spawn(move || {
                if let Err(error) = store.delete_removed_volumes() {
                    log::warn!("deleting what removed volumes have left: {error}");
                }
                let tell = || {
                    refresh();
                    store.notify_other_mounts(&own);
                };
                let mut watcher = Watcher::new(&store, times, &activity);
                while !stop.load(Ordering::Relaxed) {
                    let pause = watcher.look(&tell);
                    activity.wait(pause);
                }
            })?;
        Ok(reaper)
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.activity.wake();
    }
}
