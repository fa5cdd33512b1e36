//! The third connection of a mount: `M/stores`, what container engines read; mounted inside the first and ended with it.
//!
//! A connection of its own for two reasons. It is the only one that lets itself be mounted with mapped ids
//! (`FUSE_ALLOW_IDMAP`, Linux 6.12): the kernel then sends no caller with requests that change something, and M needs to know
//! its callers. And it outlives M's own: an overlay that an engine has mounted on it is served until the engine is done. With
//! `survive=on` it outlives this process as M's own does.
//!
//! Only where it can be mounted inside (root, or root of a user namespace); elsewhere M has no `stores`.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use super::MountPlan;
use super::kept::{ConnectionBefore, Keeping, Part};
use super::mounted::{OwnMount, flags};
use crate::fs::{FileSystem as _, FsOptions, KernelCache, Lasting, RmPolicy, Shape, Superblock};
use crate::fuse::handshake::Link;
use crate::fuse::notify::NotifyQueue;
use crate::fuse::session::{self, Session, Settings, State};
use crate::fuse::stats::Stats;
use crate::mount_paths::STORES;
use crate::store::Store;
use crate::sys::mount::{self, FuseFlags, MountPoint};

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
    /// Mounts on `stores` in the mount at `path`, which is being served. To be kept, if `keeping`, which the keeper is not told of yet.
    pub(super) fn mount(
        plan: &MountPlan,
        store: &Store,
        path: &Path,
        keeping: Option<&Arc<Keeping>>,
    ) -> anyhow::Result<Stores> {
        let place = path.join(STORES);
        let (store, options) = (store.for_reading(), options(&place));
        let queue = NotifyQueue::new();
        let cache = Arc::clone(&queue) as Arc<dyn KernelCache>;
        let lasting = match keeping {
            Some(keeping) => Some(keeping.memory(Part::Stores, &queue)?),
            None => None,
        };
        let tree = match &lasting {
            Some(memory) => Superblock::lasting(store, options, cache, Arc::clone(memory))?,
            None => Superblock::new(store, options, cache)?,
        };
        let point = MountPoint::open(&place).context("mounting the stores")?;
        let source = plan.options.source.as_deref().unwrap_or(mount::SOURCE);
        let flags = FuseFlags {
            read_only: true,
            ..flags(plan)
        };
        let (connection, mounted) =
            mount::mount(&point, &flags, source).context("mounting the stores")?;
        drop(point);
        let link = match lasting {
            Some(_) => Link::First(connection),
            None => Link::Own(connection),
        };
        let memory = keeping.zip(lasting.as_ref());
        Stores::serve(tree, &queue, link, OwnMount::new(mounted), memory)
    }

    /// Goes on with what the server `before` has left.
    pub(super) fn inherit(
        store: &Store,
        before: ConnectionBefore,
        keeping: &Arc<Keeping>,
    ) -> anyhow::Result<Stores> {
        let (store, options) = (store.for_reading(), options(&before.mounted.path));
        let queue = NotifyQueue::new();
        let cache = Arc::clone(&queue) as Arc<dyn KernelCache>;
        let memory = keeping.inherit(Part::Stores, &queue, &before)?;
        let tree =
            Superblock::inherited(store, options, cache, Arc::clone(&memory), &before.names)?;
        let link = Link::Next(before.connection, before.agreement);
        let mounted = OwnMount::kept(before.mounted);
        Stores::serve(tree, &queue, link, mounted, Some((keeping, &memory)))
    }

    fn serve(
        tree: Superblock,
        queue: &Arc<NotifyQueue>,
        link: Link,
        mounted: OwnMount,
        kept: Option<(&Arc<Keeping>, &Arc<Lasting>)>,
    ) -> anyhow::Result<Stores> {
        let tree = Arc::new(tree);
        let (_, device) = mounted.place()?;
        tree.mounted(device);
        let settings = Settings {
            idmap: true,
            ..Settings::default()
        };
        let session = session::start(Arc::clone(&tree), link, &settings, queue)
            .context("starting the FUSE session of the stores")?;
        if let (Some((keeping, memory)), Some(mounted)) = (kept, mounted.get()) {
            keeping.add(Part::Stores, mounted, &session, memory)?;
        }
        let stats = Arc::clone(session.stats());
        let queue = Arc::clone(queue);
        Ok(Stores {
            session,
            mounted,
            shared: Shared { tree, queue, stats },
        })
    }

    /// They do not end with this process.
    pub(super) fn keep(&mut self) {
        self.mounted.keep();
    }

    pub(super) fn shared(&self) -> Shared {
        self.shared.clone()
    }

    /// Readable when [`Stores::state`] may have changed.
    pub(super) fn event_fd(&self) -> BorrowedFd<'_> {
        self.session.event_fd()
    }

    /// How their session stands.
    pub(super) fn state(&mut self) -> State {
        let state = self.session.state();
        if !matches!(state, State::Running) && !self.session.connected() {
            self.mounted.forget();
        }
        state
    }

    /// Whether the kernel still has the connection.
    pub(super) fn connected(&self) -> bool {
        self.session.connected()
    }

    /// Takes the mount away; what engines have mounted on it goes on.
    pub(super) fn unmount(&mut self) {
        if let Err(error) = self.mounted.unmount(true) {
            log::debug!("{}: {error}", self.mounted.shown());
        }
        self.mounted.forget();
    }
}

fn options(place: &Path) -> FsOptions {
    FsOptions {
        shape: Shape::Stores,
        stores: false,
        read_only: true,
        rm: RmPolicy::Off,
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        mount_point: place.to_owned(),
        squash: false,
        shift: None,
        shared_links: false,
        lease: None,
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
