//! The second connection of a mount: `M/volumes`, mounted inside the first and ended with it.
//!
//! Inside, or for ordinary users beside it: see [`side_mount`](super::side_mount).

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;

use super::MountPlan;
use super::mounted::{OwnMount, flags};
use super::side_mount::SideMount;
use crate::fs::KernelCache;
use crate::fs::volumes::{VolumeOptions, VolumeTree};
use crate::fuse::notify::NotifyQueue;
use crate::fuse::session::{self, Session, Settings, State};
use crate::fuse::stats::Stats;
use crate::mount_paths::VOLUMES;
use crate::ops::usage::keeping_busy;
use crate::ops::volume::activity::Activity;
use crate::store::{LeaseId, Store, VolumeId};
use crate::sys::mount::{self, FuseFlags, MountError, MountPoint};
use crate::sys::mountinfo::DeviceId;

/// The volumes of a mount, being served.
pub(super) struct Volumes {
    session: Session,
    mounted: OwnMount,
    shared: Shared,
    /// Dropped after the mount on it.
    _side: Option<SideMount>,
}

/// What control requests use.
#[derive(Clone)]
pub(super) struct Shared {
    tree: Arc<VolumeTree>,
    queue: Arc<NotifyQueue>,
    stats: Arc<Stats>,
}

impl Volumes {
    /// Mounts on `volumes` in the mount of device `outer` at `path`, which is being served.
    pub(super) fn mount(
        plan: &MountPlan,
        store: &Store,
        path: &Path,
        outer: DeviceId,
        lease: Option<LeaseId>,
        side: Option<SideMount>,
        activity: &Arc<Activity>,
    ) -> anyhow::Result<Self> {
        let queue = NotifyQueue::new();
        let options = VolumeOptions {
            read_only: plan.options.read_only,
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            keep: plan.options.volume_cache,
            lease,
        };
        let cache = Arc::clone(&queue) as Arc<dyn KernelCache>;
        let tree = VolumeTree::new(store.clone(), options, cache, Arc::clone(activity))
            .context("reading the volumes")?;
        let point = match &side {
            Some(side) => MountPoint::open(side.path()),
            None => MountPoint::open(&path.join(VOLUMES)),
        };
        let point = point.context("mounting the volumes")?;
        let source = plan.options.source.as_deref().unwrap_or(mount::SOURCE);
        // What containers and other users put there is not to gain power in everybody's tree.
        let flags = FuseFlags {
            suid: false,
            dev: false,
            ..flags(plan)
        };
        let (connection, mounted) =
            mount::mount(&point, &flags, source).context("mounting the volumes")?;
        drop(point);
        let device = mounted.device;
        let mounted = OwnMount::new(mounted);
        tree.exclude(outer);
        tree.exclude(device);
        let settings = Settings {
            threads: threads(),
            ..Settings::default()
        };
        let session = session::start_volumes(Arc::clone(&tree), connection, &settings, &queue)
            .context("starting the FUSE session of the volumes")?;
        // So that only what changes from now on is a change.
        if let Err(error) = tree.refresh() {
            // Images are served all the same; whoever looks at the volumes gets the error.
            log::error!("reading the volumes: {error}");
        }
        let stats = Arc::clone(session.stats());
        Ok(Volumes {
            session,
            mounted,
            shared: Shared { tree, queue, stats },
            _side: side,
        })
    }

    pub(super) fn shared(&self) -> Shared {
        self.shared.clone()
    }

    /// Readable when [`Volumes::ended`] may have changed.
    pub(super) fn event_fd(&self) -> BorrowedFd<'_> {
        self.session.event_fd()
    }

    /// Why they are no longer served, if so.
    pub(super) fn ended(&mut self) -> Option<String> {
        match self.session.state() {
            State::Running => None,
            State::Ended => {
                self.mounted.forget();
                Some("unmounted from outside".to_owned())
            }
            State::Broken(reason) => {
                if !self.session.connected() {
                    self.mounted.forget();
                }
                Some(reason)
            }
        }
    }

    /// Unmounts, whatever it takes, because of `reason`.
    pub(super) fn unmount(&mut self, reason: &str) {
        let shown = self.mounted.shown();
        match self.mounted.unmount_patiently() {
            Ok(()) | Err(MountError::NotMounted(_)) => self.mounted.forget(),
            Err(MountError::Busy(_)) => {
                log::warn!("{shown}: in use, detached because of {reason}; these get errors now:");
                let place = self.mounted.place();
                for user in place
                    .map(|(_, device)| keeping_busy(device))
                    .unwrap_or_default()
                {
                    log::warn!("{shown}: {user}");
                }
                // The guard detaches it.
            }
            Err(error) => log::error!("{error}"),
        }
    }
}

impl Shared {
    pub(super) fn refresh(&self) -> Result<(), String> {
        self.tree.refresh().map_err(|error| error.to_string())
    }

    /// Returns when the kernel has forgotten what it kept of a volume, and others may change it.
    pub(super) fn share(&self, volume: &VolumeId, timeout: Duration) -> Result<(), String> {
        let stopped = self.tree.stop_keeping(volume);
        if !stopped.map_err(|error| error.to_string())? {
            return Ok(());
        }
        if !self.queue.drain(timeout) {
            return Err("the kernel has not forgotten everything yet".to_owned());
        }
        let shared = self.tree.let_in(volume);
        shared.map_err(|error| error.to_string())
    }

    pub(super) fn drain(&self, timeout: Duration) -> bool {
        self.queue.drain(timeout)
    }

    /// Request counters, each with `volumes.` before its name.
    pub(super) fn stats(&self) -> String {
        let lines = self.stats.render();
        lines
            .lines()
            .map(|line| format!("volumes.{line}\n"))
            .collect()
    }
}

/// Requests wait for the host's disk, some of them long (fsync): more than there are processors.
fn threads() -> usize {
    let processors = thread::available_parallelism().map_or(2, usize::from);
    processors.saturating_mul(2).clamp(4, 16)
}
