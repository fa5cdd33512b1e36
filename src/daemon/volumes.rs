//! The second connection of a mount: `M/volumes`, mounted inside the first and ended with it. With `survive=on` it outlives this process as
//! M's own does.
//!
//! Inside, or for ordinary users beside it: see [`side_mount`](super::side_mount).

use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;

use super::MountPlan;
use super::kept::{Keeping, VolumesBefore};
use super::mounted::{OwnMount, flags};
use super::side_mount::SideMount;
use crate::fs::KernelCache;
use crate::fs::volumes::{Before, Inherited, Record, VolumeOptions, VolumeTree};
use crate::fuse::handshake::Link;
use crate::fuse::notify::NotifyQueue;
use crate::fuse::session::{self, Session, Settings, State};
use crate::fuse::stats::Stats;
use crate::mount_paths::VOLUMES;
use crate::ops::usage::keeping_busy;
use crate::ops::volume::activity::Activity;
use crate::store::{LeaseId, Store, VolumeId};
use crate::sys::descriptor_holder;
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

/// What belongs to volumes of the mount that they are part of.
pub(super) struct Around {
    /// M's own.
    pub outer: DeviceId,
    pub lease: Option<LeaseId>,
    pub side: Option<SideMount>,
}

/// What control requests use.
#[derive(Clone)]
pub(super) struct Shared {
    tree: Arc<VolumeTree>,
    queue: Arc<NotifyQueue>,
    stats: Arc<Stats>,
}

impl Volumes {
    /// Mounts on `volumes` in the mount at `path`, which is being served.
    pub(super) fn mount(
        plan: &MountPlan,
        store: &Store,
        path: &Path,
        around: Around,
        activity: &Arc<Activity>,
        keeping: Option<&Arc<Keeping>>,
    ) -> anyhow::Result<Self> {
        let queue = NotifyQueue::new();
        let record = keeping.and_then(|keeping| keeping.record());
        if let Some(record) = &record {
            record.begin_connection();
        }
        let lasts = record.is_some();
        let tree = tree(plan, store, &around, activity, &queue, record)?;
        let point = match &around.side {
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
        let link = match lasts {
            true => Link::First(connection),
            false => Link::Own(connection),
        };
        let mounted = OwnMount::new(mounted);
        let volumes = Volumes::serve(tree, &queue, link, Vec::new(), mounted, around)?;
        let session = volumes.session.lasting();
        if let (Some(keeping), Some((connection, agreement)), Some(mounted)) =
            (keeping, session, volumes.mounted.get())
        {
            keeping.add_volumes(mounted, connection, agreement)?;
        }
        Ok(volumes)
    }

    /// Goes on with what the server `before` has left.
    pub(super) fn inherit(
        plan: &MountPlan,
        store: &Store,
        before: VolumesBefore,
        around: Around,
        activity: &Arc<Activity>,
        keeping: &Arc<Keeping>,
    ) -> anyhow::Result<Self> {
        let queue = NotifyQueue::new();
        let record = keeping.record().context("no holder for them")?;
        record.begin_connection();
        let tree = tree(plan, store, &around, activity, &queue, Some(record))?;
        let (mounted, agreement) = (before.mounted(), before.agreement());
        tree.exclude(around.outer);
        tree.exclude(mounted.device);
        let descriptors = descriptor_holder::take(before.holder.as_fd());
        let left = Before {
            record: before.record,
            descriptors: descriptors.context("asking the holder of descriptors")?,
        };
        let inherited = tree.inherit(left).context("what was open")?;
        // The server after this one begins with what this one knows, from the first request on.
        keeping.add_volumes(&mounted, &before.connection, &agreement)?;
        keeping.tell()?;
        // Ended already: then there is nothing to end.
        let _ = descriptor_holder::end(before.holder.as_fd());
        let link = Link::Next(before.connection, agreement);
        let mounted = OwnMount::kept(mounted);
        Volumes::serve(tree, &queue, link, inherited, mounted, around)
    }

    fn serve(
        tree: Arc<VolumeTree>,
        queue: &Arc<NotifyQueue>,
        link: Link,
        inherited: Vec<Inherited>,
        mounted: OwnMount,
        around: Around,
    ) -> anyhow::Result<Self> {
        let (_, device) = mounted.place()?;
        tree.exclude(around.outer);
        tree.exclude(device);
        let settings = Settings {
            threads: threads(),
            ..Settings::default()
        };
        let session = session::start_volumes(Arc::clone(&tree), link, inherited, &settings, queue)
            .context("starting the FUSE session of the volumes")?;
        let queue = Arc::clone(queue);
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
            _side: around.side,
        })
    }

    /// They do not end with this process.
    pub(super) fn keep(&mut self) {
        self.mounted.keep();
    }

    /// Whether the kernel still has the connection.
    pub(super) fn connected(&self) -> bool {
        self.session.connected()
    }

    /// They are over, whether or not somebody is in them.
    pub(super) fn give_up(&mut self) {
        self.mounted.give_up();
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
        self.give_up();
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

fn tree(
    plan: &MountPlan,
    store: &Store,
    around: &Around,
    activity: &Arc<Activity>,
    queue: &Arc<NotifyQueue>,
    record: Option<Arc<Record>>,
) -> anyhow::Result<Arc<VolumeTree>> {
    let options = VolumeOptions {
        read_only: plan.options.read_only,
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        keep: plan.options.volume_cache,
        lease: around.lease.clone(),
    };
    let cache = Arc::clone(queue) as Arc<dyn KernelCache>;
    let tree = VolumeTree::new(store.clone(), options, cache, Arc::clone(activity), record);
    tree.context("reading the volumes")
}

/// Requests wait for the host's disk, some of them long (fsync): more than there are processors.
fn threads() -> usize {
    let processors = thread::available_parallelism().map_or(2, usize::from);
    processors.saturating_mul(2).clamp(4, 16)
}
