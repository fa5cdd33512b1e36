//! The third connection of a mount: `M/stores`, what container engines read; mounted inside the first and ended with it.
//!
//! A connection of its own for two reasons. It is the only one that lets itself be mounted with mapped ids
//! (`FUSE_ALLOW_IDMAP`, Linux 6.12): the kernel then sends no caller with requests that change something, and M needs to know
//! its callers. And it outlives M's own: an overlay that an engine has mounted on it is served until the engine is done.
//!
//! Only where it can be mounted inside (root, or root of a user namespace); elsewhere M has no `stores`.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use super::MountPlan;
use super::mounted::{OwnMount, flags};
use crate::fs::{FileSystem as _, FsOptions, KernelCache, RmPolicy, Shape, Superblock};
use crate::fuse::handshake::Link;
use crate::fuse::notify::NotifyQueue;
use crate::fuse::session::{self, Session, Settings, State};
use crate::fuse::stats::Stats;
use crate::mount_paths::STORES;
use crate::store::{OpenMode, Store};
use crate::sys::mount::{self, FuseFlags, MountPoint};

/// How long one look for the end of the connection waits.
const LOOK: Duration = Duration::from_secs(3600);

/// Whether a mount has them.
pub(super) fn inside(plan: &MountPlan) -> bool {
    rustix::process::geteuid().is_root() && flags(plan).default_permissions
}

/// The stores of a mount, being served.
pub(super) struct Stores {
    session: Session,
    mounted: OwnMount,
    shared: Shared,
}

/// What control requests use.
#[derive(Clone)]
pub(super) struct Shared {
    tree: Arc<Superblock>,
    queue: Arc<NotifyQueue>,
    stats: Arc<Stats>,
}

impl Stores {
    /// Mounts on `stores` in the mount at `path`, which is being served.
    pub(super) fn mount(plan: &MountPlan, store: &Store, path: &Path) -> anyhow::Result<Stores> {
        // A handle of its own: the layers that M has open are M's, and each closes what it has opened.
        let store = Store::open(store.path(), OpenMode::ReadOnly)?;
        let queue = NotifyQueue::new();
        let place = path.join(STORES);
        let options = FsOptions {
            shape: Shape::Stores,
            stores: false,
            read_only: true,
            rm: RmPolicy::Off,
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            mount_point: place.clone(),
            squash: false,
            shift: None,
            shared_links: false,
            lease: None,
        };
        let cache = Arc::clone(&queue) as Arc<dyn KernelCache>;
        let tree = Arc::new(Superblock::new(store, options, cache)?);
        let point = MountPoint::open(&place).context("mounting the stores")?;
        let source = plan.options.source.as_deref().unwrap_or(mount::SOURCE);
        let flags = FuseFlags {
            read_only: true,
            ..flags(plan)
        };
        let (connection, mounted) =
            mount::mount(&point, &flags, source).context("mounting the stores")?;
        drop(point);
        tree.mounted(mounted.device);
        let mounted = OwnMount::new(mounted);
        let settings = Settings {
            idmap: true,
            ..Settings::default()
        };
        let session = session::start(Arc::clone(&tree), Link::Own(connection), &settings, &queue)
            .context("starting the FUSE session of the stores")?;
        let stats = Arc::clone(session.stats());
        Ok(Stores {
            session,
            mounted,
            shared: Shared { tree, queue, stats },
        })
    }

    pub(super) fn shared(&self) -> Shared {
        self.shared.clone()
    }

    /// Readable when [`Stores::ended`] may have changed.
    pub(super) fn event_fd(&self) -> BorrowedFd<'_> {
        self.session.event_fd()
    }

    /// Why they are no longer served, if so.
    pub(super) fn ended(&mut self) -> Option<String> {
        let reason = match self.session.state() {
            State::Running => return None,
            State::Ended => "unmounted from outside".to_owned(),
            State::Broken(reason) => reason,
        };
        if !self.session.connected() {
            self.mounted.forget();
        }
        Some(reason)
    }

    /// Takes the mount away; what engines have mounted on it goes on.
    pub(super) fn unmount(&mut self) {
        if let Err(error) = self.mounted.unmount(true) {
            log::debug!("{}: {error}", self.mounted.shown());
        }
        self.mounted.forget();
    }

    /// Serves those who still use it, after the mount has gone.
    pub(super) fn linger(&self) {
        while self.session.connected() && !self.session.wait(LOOK) {}
    }
}

impl Shared {
    pub(super) fn refresh(&self) -> Result<(), String> {
        self.tree.refresh().map_err(|error| error.to_string())
    }

    pub(super) fn drain(&self, timeout: Duration) -> bool {
        self.queue.drain(timeout)
    }

    /// Request counters, each with `stores.` before its name.
    pub(super) fn stats(&self) -> String {
        let lines = self.stats.render();
        let lines = lines.lines().map(|line| format!("stores.{line}\n"));
        lines.collect()
    }
}
