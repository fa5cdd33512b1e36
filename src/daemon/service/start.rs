//! From a plan to a mount that works: its own, or what the server before has left.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};

use super::Service;
use crate::daemon::answering::Answering;
use crate::daemon::control::{Control, Handler as _};
use crate::daemon::ephemeral::Reaper;
use crate::daemon::kept::{Before, ConnectionBefore, Keeping, Part};
use crate::daemon::mounted::{OwnMount, flags, read_ahead};
use crate::daemon::side_mount::SideMount;
use crate::daemon::stores::{self, Stores};
use crate::daemon::volumes::{Around, Volumes};
use crate::daemon::watch::Watch;
use crate::daemon::{MountPlan, log_file, mount_point, side_mount};
use crate::fs::volumes::Record;
use crate::fs::{FileSystem as _, FsOptions, KernelCache, Shape, Superblock};
use crate::fuse::handshake::Link;
use crate::fuse::notify::NotifyQueue;
use crate::fuse::session::{self, Settings};
use crate::mount_paths::VOLUMES;
use crate::ops::volume::activity::Activity;
use crate::store::{Lease, LeaseKind, OpenMode, Store, StoreError};
use crate::sys::atomic;
use crate::sys::descriptor_holder::DescriptorHolder;
use crate::sys::idmap::Shift;
use crate::sys::mount::{self, MountPoint};
use crate::sys::signal::SignalFd;
use crate::sys::userns;

/// How long a daemon that takes over waits for the store's lock before it serves without a lease.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks whether it could have one.
pub(super) const ANNOUNCE_PAUSE: Duration = Duration::from_secs(1);

impl Service {
    pub(super) fn start(plan: &MountPlan) -> anyhow::Result<Self> {
        Service::begin(plan, None)
    }

    /// Mounts, or goes on with what the server `before` has left.
    pub(super) fn begin(plan: &MountPlan, before: Option<Before>) -> anyhow::Result<Self> {
        // Before any thread exists: all of them are to leave signals to the event loop.
        let signals = SignalFd::block().context("blocking signals")?;
        let holder = match plan.options.survive {
            true => holder(),
            false => None,
        };
        let stop = eventfd(0, EventfdFlags::CLOEXEC).context("making an eventfd")?;
        let point = match &before {
            Some(_) => None,
            None => Some(mount_point::prepare(&plan.mount_point, &plan.store)?),
        };
        let mounted_at = match (&before, &point) {
            (Some(before), _) => before.images.mounted.path.clone(),
            (None, Some(point)) => point.path().to_owned(),
            (None, None) => plan.mount_point.clone(),
        };
        let store = Store::open(&plan.store, OpenMode::Create)?;
        if let Some(time) = plan.options.trash {
            store.use_trash(time);
        }
        let announced = match &before {
            Some(_) => announce_again(&store, &mounted_at, LOCK_PATIENCE),
            None => Ok(announce(&store, &mounted_at)?),
        };
        let is_announced = announced.is_ok();
        if let Err(why) = &announced {
            log::warn!("{why}: serving without a lease until there can be one");
        }
        let (lease, control) = announced.unwrap_or_default();
        // From here on a change of names is noticed; the tree reads them afterwards.
        let watch = Watch::new(store.path());
        let activity = Arc::new(Activity::default());
        let queue = NotifyQueue::new();
        let options = FsOptions {
            shape: Shape::Images,
            stores: stores::inside(plan),
            read_only: plan.options.read_only,
            rm: plan.options.rm,
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            mount_point: mounted_at.clone(),
            squash: false,
            shift: shift(plan)?,
            shared_links: plan.options.shared_links,
            lease: lease.as_ref().map(|lease| lease.id().clone()),
        };
        let cache = Arc::clone(&queue) as Arc<dyn KernelCache>;
        let (before, stores_before, volumes_before, keeping) = match before {
            Some(before) => {
                let keeping = Keeping::inherited(plan, store.path(), before.keeper, holder)?;
                let volumes = before.volumes;
                // Nobody else can have unmounted them, or they are to be mounted anew.
                let volumes = volumes.filter(|one| session::is_connected(&one.connection));
                (Some(before.images), before.stores, volumes, Some(keeping))
            }
            None if plan.options.survive => {
                let keeping = Keeping::new(plan, store.path(), holder)?;
                (None, None, None, Some(keeping))
            }
            None => (None, None, None, None),
        };
        let memory = match (&keeping, &before) {
            (Some(keeping), Some(before)) => Some(keeping.inherit(Part::Images, &queue, before)?),
            (Some(keeping), None) => Some(keeping.memory(Part::Images, &queue)?),
            (None, _) => None,
        };
        let tree = match (memory.clone(), &before) {
            (Some(memory), Some(before)) => {
                Superblock::inherited(store.clone(), options, cache, memory, &before.names)?
            }
            (Some(memory), None) => Superblock::lasting(store.clone(), options, cache, memory)?,
            (None, _) => Superblock::new(store.clone(), options, cache)?,
        };
        let tree = Arc::new(tree);
        let store_path = store.path().to_owned();

        let lease_id = lease.as_ref().map(|lease| lease.id().clone());
        let side = match volumes_before.as_ref().map(|before| before.mounted().path) {
            Some(path) if path == mounted_at.join(VOLUMES) => None,
            Some(path) => Some(SideMount::inherited(path)),
            None => side_mount::prepare(plan, &mounted_at)?,
        };
        let volumes_at = match &side {
            Some(place) => place.path().to_owned(),
            None => mounted_at.join(VOLUMES),
        };
        if let Some(place) = &side {
            tree.link_volumes(place.path().to_owned());
        }
        let source = plan.options.source.as_deref().unwrap_or(mount::SOURCE);
        let is_next = before.is_some();
        let (link, mounted) = match (before, point) {
            (Some(before), _) => (
                Link::Next(before.connection, before.agreement),
                OwnMount::kept(before.mounted),
            ),
            (None, Some(point)) => {
                hold_the_place(&store, &point);
                // The descriptor of the directory below would keep that one busy: dropped here.
                let (connection, mounted) = mount::mount(&point, &flags(plan), source)?;
                let link = match memory {
                    Some(_) => Link::First(connection),
                    None => Link::Own(connection),
                };
                (link, OwnMount::new(mounted))
            }
            (None, None) => bail!("{}: nothing to mount on", mounted_at.display()),
        };
        let (path, device) = mounted.place()?;
        tree.mounted(device);
        let settings = Settings {
            strict: plan.options.strict,
            ..Settings::default()
        };
        let session = session::start(Arc::clone(&tree), link, &settings, &queue)
            .context("starting the FUSE session")?;
        read_ahead(device);
        if let (Some(keeping), Some(memory), Some(mounted)) = (&keeping, &memory, mounted.get()) {
            keeping.add(Part::Images, mounted, &session, memory)?;
        }

        let around = Around {
            outer: device,
            lease: lease_id,
            side,
        };
        let (volumes, stores) = match is_next {
            false => {
                let stat =
                    std::fs::metadata(&path).with_context(|| format!("stat {}", path.display()))?;
                if rustix::fs::minor(stat.dev()) != device.minor {
                    bail!("{}: something else was mounted over it", path.display());
                }
                let volumes =
                    Volumes::mount(plan, &store, &path, around, &activity, keeping.as_ref())?;
                let stores = match stores::inside(plan) {
                    true => Some(Stores::mount(plan, &store, &path, keeping.as_ref())?),
                    false => None,
                };
                (Some(volumes), stores)
            }
            true => {
                let stores = stores_again(&store, stores_before, keeping.as_ref())?;
                let volumes = match (volumes_before, &keeping) {
                    (Some(before), Some(keeping)) => {
                        let inherited =
                            Volumes::inherit(plan, &store, before, around, &activity, keeping);
                        match inherited {
                            Ok(volumes) => Some(volumes),
                            Err(error) => {
                                log::error!("the volumes end with the server before: {error:#}");
                                keeping.drop_part(Part::Volumes);
                                keeping.tell()?;
                                None
                            }
                        }
                    }
                    _ => None,
                };
                // Those that have ended with the server before come back as after an unmount.
                (volumes, stores)
            }
        };
        rustix::process::chdir("/").context("leaving the working directory")?;
        if !plan.foreground {
            log_file::redirect(&store_path)?;
        }
        log::info!(
            "{}: mounted, serving {}",
            path.display(),
            store_path.display()
        );
        let stats = Arc::clone(session.stats());
        let shared = Arc::new(Answering {
            tree,
            queue,
            stats,
            volumes: Mutex::new(volumes.as_ref().map(Volumes::shared)),
            stores: Mutex::new(stores.as_ref().map(Stores::shared)),
            activity,
            refreshing: Mutex::new(()),
            freeing: store.free_here(),
            store: store.clone(),
            emptying: AtomicBool::new(false),
            keeping: keeping.clone(),
            replacing: AtomicBool::new(false),
            volumes_at,
            stop,
        });
        let reaper = match &lease {
            Some(lease) => Some(reap(plan, &store, lease, &shared)?),
            None => None,
        };
        let no_volumes = volumes.is_none() || stores::inside(plan) && stores.is_none();
        let mut service = Service {
            shared,
            session,
            mounted,
            lingering: false,
            plan: plan.clone(),
            volumes,
            stores,
            // What is not announced is not asked who uses a volume.
            again: (is_next && is_announced && no_volumes).then(Instant::now),
            unannounced: (!is_announced).then(|| Instant::now() + ANNOUNCE_PAUSE),
            keeping,
            signals,
            control,
            watch,
            behind: None,
            _reaper: reaper,
            lease,
        };
        match is_next {
            true => service.keep_volumes()?,
            false => service.start_keeper()?,
        }
        Ok(service)
    }
}

/// Who is to hold descriptors of volumes when this process dies, and what they are.
fn holder() -> Option<(Arc<Record>, DescriptorHolder)> {
    let start = || {
        let record = Record::new()?;
        let kept = Arc::clone(&record);
        let holder = DescriptorHolder::start(move |number| kept.keeps(number))?;
        std::io::Result::Ok((record, holder))
    };
    let started = start();
    started
        .map_err(|error| log::warn!("volumes end with this process: {error}"))
        .ok()
}

/// The stores that the server before has served, if they still are there.
fn stores_again(
    store: &Store,
    before: Option<ConnectionBefore>,
    keeping: Option<&Arc<Keeping>>,
) -> anyhow::Result<Option<Stores>> {
    let (Some(before), Some(keeping)) = (before, keeping) else {
        return Ok(None);
    };
    if !session::is_connected(&before.connection) {
        keeping.tell()?;
        return Ok(None);
    }
    Stores::inherit(store, before, keeping).map(Some)
}

/// Takes the lease and listens on its socket, so that verbs find this mount. A store that cannot be written to has no verbs.
fn announce(store: &Store, mount_point: &Path) -> anyhow::Result<(Option<Lease>, Option<Control>)> {
    let kind = LeaseKind::Daemon {
        mountpoint: mount_point.to_owned(),
    };
    let lease = match store.lease(kind) {
        Ok(lease) => lease,
        Err(error @ StoreError::ReadOnly { .. }) => {
            log::warn!("{error}: serving it all the same");
            return Ok((None, None));
        }
        Err(error) => return Err(error.into()),
    };
    let socket = lease.socket_path();
    let control =
        Control::listen(&socket).with_context(|| format!("listening on {}", socket.display()))?;
    Ok((Some(lease), Some(control)))
}

/// The same for a daemon that others depend on already: what is in the way (a full disk, somebody who has the store's lock) does not
/// end their mount. Why not now, if so.
pub(super) fn announce_again(
    store: &Store,
    mount_point: &Path,
    patience: Duration,
) -> Result<(Option<Lease>, Option<Control>), String> {
    let kind = LeaseKind::Daemon {
        mountpoint: mount_point.to_owned(),
    };
    let lease = match store.lease_within(kind.clone(), patience) {
        Ok(Some(lease)) => lease,
        Ok(None) => return Err("somebody has the lock of the store".to_owned()),
        Err(error @ StoreError::ReadOnly { .. }) => {
            log::warn!("{error}: serving it all the same");
            return Ok((None, None));
        }
        // Without one, removals would not see who uses the mount.
        Err(error) => match store.lease_left(&kind, patience) {
            Ok(Some(lease)) => {
                atomic::discard(&lease.socket_path());
                lease
            }
            Ok(None) | Err(_) => return Err(error.to_string()),
        },
    };
    match Control::listen(&lease.socket_path()) {
        Ok(control) => Ok((Some(lease), Some(control))),
        Err(error) => Err(format!("{}: {error}", lease.socket_path().display())),
    }
}

/// Watches over ephemeral volumes.
fn reap(
    plan: &MountPlan,
    store: &Store,
    lease: &Lease,
    shared: &Arc<Answering>,
) -> anyhow::Result<Reaper> {
    let activity = Arc::clone(&shared.activity);
    let shared = Arc::clone(shared);
    let refresh = move || {
        if let Err(error) = shared.sync() {
            log::warn!("showing that volumes have ended: {error}");
        }
    };
    let times = plan.options.times;
    Reaper::start(store.clone(), times, activity, lease.id().clone(), refresh)
        .context("starting the thread for ephemeral volumes")
}

/// How owners are shown.
fn shift(plan: &MountPlan) -> anyhow::Result<Option<Shift>> {
    if !plan.options.shift_owners {
        return Ok(None);
    }
    let shift = userns::plan_of_podman().and_then(Shift::new);
    let shift = shift.map_err(|why| anyhow!("mount option idmap=subid: {why}"))?;
    Ok(Some(shift))
}

/// Has connected engines go on while nothing is mounted.
fn hold_the_place(store: &Store, point: &MountPoint) {
    let connected = store.live_leases().is_ok_and(|leases| {
        let mut kinds = leases.iter().map(|lease| &lease.record.kind);
        kinds.any(|kind| matches!(kind, LeaseKind::Engine { .. }))
    });
    if connected && let Err(error) = point.make_placeholder() {
        log::warn!(
            "{}: making a place for engines: {error}",
            point.path().display()
        );
    }
}
