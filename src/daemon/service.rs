//! One mount from its first check to its end; see [`super`] for the story.

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail};
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::process::{Resource, getrlimit, setrlimit};

use super::control::{Control, Handler};
use super::ephemeral::Reaper;
use super::kept::{self, Before, Shown};
use super::readiness::Reporter;
use super::stores::{self, Stores};
use super::volumes::{self, Volumes};
use super::watch::Watch;
use super::{MountPlan, log_file, mount_point};
use crate::fs::{FileSystem, FsOptions, KernelCache, Lasting, Shape, Superblock};
use crate::fuse::handshake::Link;
use crate::fuse::notify::NotifyQueue;
use crate::fuse::session::{self, Session, Settings, State};
use crate::fuse::stats::Stats;
use crate::mount_paths::{STORES, VOLUMES};
use crate::oci::Digest;
use crate::ops::usage::{keeping_busy, mounted_on, standing_on};
use crate::ops::volume::activity::Activity;
use crate::store::freeing::{Freeing, HeldFiles};
use crate::store::{Lease, LeaseKind, OpenMode, Store, StoreError, VolumeId};
use crate::sys::fork;
use crate::sys::mount::{self, FuseFlags, MountError, Mounted};
use crate::sys::mountinfo::DeviceId;
use crate::sys::signal::SignalFd;

/// How long a `sync` waits for the kernel; less than verbs wait for the answer.
const SYNC_PATIENCE: Duration = Duration::from_secs(4);
/// After the volumes were unmounted alone: whoever does that often goes on to unmount the rest.
const REMOUNT_PAUSE: Duration = Duration::from_millis(500);
/// How long the connection may take to end after its mount has gone.
const END_PATIENCE: Duration = Duration::from_secs(2);
/// A stat or a shell's completion that happens to be inside passes: so often and so long the unmount is tried again.
const BUSY_TRIES: u32 = 5;
const BUSY_PAUSE: Duration = Duration::from_millis(50);
/// Between two tries to read names that cannot be read.
const CATCH_UP_PAUSE: Duration = Duration::from_secs(1);
/// At least and at most between two looks at what is over in the trash.
const TRASH_PAUSE: Duration = Duration::from_secs(1);
const TRASH_LOOK: Duration = Duration::from_secs(3600);
/// Readahead of the mount in KiB (root can set it; 128 otherwise): one request of the largest size.
const READ_AHEAD_KB: &str = "1024";

/// Mounts and serves, until the mount ends.
pub(super) fn run(plan: &MountPlan, reporter: Reporter) -> anyhow::Result<()> {
    fork::limit_allocator();
    raise_descriptor_limit();
    match Service::start(plan) {
        Ok(service) => {
            reporter.ready();
            fork::release_memory();
            service.serve()
        }
        Err(error) => reporter.failed(error),
    }
}

/// Serves on what another server has left, until the mount ends.
pub(super) fn run_kept(before: Before) -> anyhow::Result<()> {
    fork::limit_allocator();
    raise_descriptor_limit();
    provoked();
    let plan = before.plan.clone();
    let service = Service::begin(&plan, Some(before))?;
    if let Some(lasting) = &service.lasting {
        lasting.shown.served()?;
    }
    fork::release_memory();
    service.serve()
}

/// What tests ask a server to do that begins for another.
fn provoked() {
    let wanted = match cfg!(debug_assertions) {
        true => std::env::var("MICA_NEXT_SERVER").ok(),
        false => None,
    };
    match wanted.as_deref() {
        Some("crashes") => std::process::abort(),
        Some(wanted) if is_this(wanted.strip_suffix(" crashes")) => std::process::abort(),
        Some("hangs") => loop {
            std::thread::sleep(Duration::from_secs(60));
        },
        _ => {}
    }
}

/// Whether this process runs that program.
fn is_this(program: Option<&str>) -> bool {
    program
        .is_some_and(|program| std::env::current_exe().is_ok_and(|own| own == Path::new(program)))
}

/// Each layer in use is an open file, and the usual limit of 1024 is meant for programs that call select(2): as many as allowed.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    // Each inode of a volume that the kernel knows is one, too: root takes what the kernel has.
    let most = std::fs::read_to_string("/proc/sys/fs/nr_open").ok();
    let most = most
        .and_then(|most| most.trim().parse().ok())
        .max(limit.maximum);
    let all = rustix::process::Rlimit {
        current: most,
        maximum: most,
    };
    if setrlimit(Resource::Nofile, all).is_ok() {
        return;
    }
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        log::debug!("raising the limit of open files: {error}");
    }
}

/// A mount that works.
struct Service {
    shared: Arc<Shared>,
    session: Session,
    mounted: Guard,
    plan: MountPlan,
    volumes: Option<Volumes>,
    stores: Option<Stores>,
    /// When to mount the volumes and stores again, which somebody has unmounted.
    again: Option<Instant>,
    /// Of a mount that goes on when this process dies.
    lasting: Option<LastingTree>,
    signals: SignalFd,
    control: Option<Control>,
    watch: Watch,
    /// When to read the names again, which could not be read.
    behind: Option<Instant>,
    /// Ends ephemeral volumes; none on a store that cannot be written to.
    _reaper: Option<Reaper>,
    /// Kept until the end: it says that this mount lives.
    lease: Option<Lease>,
}

/// The memory of a tree that goes on when this process dies.
struct LastingTree {
    memory: Arc<Lasting>,
    shown: Arc<Shown>,
}

impl LastingTree {
    fn new(queue: &Arc<NotifyQueue>) -> anyhow::Result<LastingTree> {
        let memory = Lasting::new().context("making a memory for the tree")?;
        Ok(LastingTree::of(memory, queue))
    }

    fn inherit(queue: &Arc<NotifyQueue>, before: &mut Before) -> anyhow::Result<LastingTree> {
        let tree = LastingTree::of(Arc::clone(&before.lasting), queue);
        if let Some(keeper) = before.keeper.take() {
            tree.shown.inherit(&before.names, keeper)?;
        }
        Ok(tree)
    }

    fn of(memory: Arc<Lasting>, queue: &Arc<NotifyQueue>) -> LastingTree {
        let shown = Shown::new(Arc::clone(queue));
        let follower = Arc::clone(&shown);
        memory.follow(move |file| follower.add(file));
        LastingTree { memory, shown }
    }
}

/// What control requests use.
struct Shared {
    tree: Arc<Superblock>,
    queue: Arc<NotifyQueue>,
    stats: Arc<Stats>,
    volumes: Mutex<Option<volumes::Shared>>,
    stores: Mutex<Option<stores::Shared>>,
    /// What is known of the use of the volumes, through whichever of their connections.
    activity: Arc<Activity>,
    refreshing: Mutex<()>,
    store: Store,
    /// What verbs have removed and this process frees.
    freeing: Arc<Freeing>,
    /// Whether a thread removes what is over in the trash.
    emptying: AtomicBool,
    /// Of a mount that goes on when this process ends.
    shown: Option<Arc<Shown>>,
    /// Another version is to go on.
    replacing: AtomicBool,
    /// Where the volumes and the stores are mounted.
    inner: [PathBuf; 2],
    stop: OwnedFd,
}

impl Service {
    fn start(plan: &MountPlan) -> anyhow::Result<Self> {
        Service::begin(plan, None)
    }

    /// Mounts, or goes on with what the server `before` has left.
    fn begin(plan: &MountPlan, mut before: Option<Before>) -> anyhow::Result<Self> {
        // Before any thread exists: all of them are to leave signals to the event loop.
        let signals = SignalFd::block().context("blocking signals")?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC).context("making an eventfd")?;
        let point = match &before {
            Some(_) => None,
            None => Some(mount_point::prepare(&plan.mount_point, &plan.store)?),
        };
        let mounted_at = match (&before, &point) {
            (Some(before), _) => before.mounted.path.clone(),
            (None, Some(point)) => point.path().to_owned(),
            (None, None) => plan.mount_point.clone(),
        };
        let store = Store::open(&plan.store, OpenMode::Create)?;
        if let Some(time) = plan.options.trash {
            store.use_trash(time);
        }
        let (lease, control) = announce(&store, &mounted_at)?;
        // From here on a change of names is noticed; the tree reads them afterwards.
        let watch = Watch::new(store.path());
        let activity = Arc::new(Activity::default());
        let queue = NotifyQueue::new();
        let options = FsOptions {
            shape: Shape::Images,
            stores: super::stores::inside(plan),
            read_only: plan.options.read_only,
            rm: plan.options.rm,
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            mount_point: mounted_at.clone(),
            squash: false,
            shared_links: plan.options.shared_links,
            lease: lease.as_ref().map(|lease| lease.id().clone()),
        };
        let cache = Arc::clone(&queue) as Arc<dyn KernelCache>;
        let lasting = match &mut before {
            Some(before) => Some(LastingTree::inherit(&queue, before)?),
            None if plan.options.survive => Some(LastingTree::new(&queue)?),
            None => None,
        };
        let tree = match (&lasting, &before) {
            (Some(lasting), Some(before)) => {
                let memory = Arc::clone(&lasting.memory);
                Superblock::inherited(store.clone(), options, cache, memory, &before.names)?
            }
            (Some(lasting), None) => {
                let memory = Arc::clone(&lasting.memory);
                Superblock::lasting(store.clone(), options, cache, memory)?
            }
            (None, _) => Superblock::new(store.clone(), options, cache)?,
        };
        let tree = Arc::new(tree);
        let store_path = store.path().to_owned();

        let lease_id = lease.as_ref().map(|lease| lease.id().clone());
        let beside = volumes::beside(plan, &mounted_at)?;
        let volumes_at = match &beside {
            Some(place) => place.path().to_owned(),
            None => mounted_at.join(VOLUMES),
        };
        if let Some(place) = &beside {
            tree.link_volumes(place.path().to_owned());
        }
        let source = plan.options.source.as_deref().unwrap_or(mount::SOURCE);
        let is_next = before.is_some();
        let (link, mounted) = match (before, point) {
            (Some(before), _) => (
                Link::Next(before.connection, before.agreement),
                Guard::kept(before.mounted),
            ),
            (None, Some(point)) => {
                // The descriptor of the directory below would keep that one busy: dropped here.
                let (connection, mounted) = mount::mount(&point, &flags(plan), source)?;
                let link = match lasting {
                    Some(_) => Link::First(connection),
                    None => Link::Own(connection),
                };
                (link, Guard::new(mounted))
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

        let (volumes, stores) = match is_next {
            false => {
                let stat =
                    std::fs::metadata(&path).with_context(|| format!("stat {}", path.display()))?;
                if rustix::fs::minor(stat.dev()) != device.minor {
                    bail!("{}: something else was mounted over it", path.display());
                }
                let volumes =
                    Volumes::mount(plan, &store, &path, device, lease_id, beside, &activity)?;
                let stores = match stores::inside(plan) {
                    true => Some(Stores::mount(plan, &store, &path)?),
                    false => None,
                };
                (Some(volumes), stores)
            }
            // They have ended with the server before, and come back as after an unmount.
            true => (None, None),
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
        let shared = Arc::new(Shared {
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
            shown: lasting.as_ref().map(|lasting| Arc::clone(&lasting.shown)),
            replacing: AtomicBool::new(false),
            inner: [volumes_at, path.join(STORES)],
            stop,
        });
        let reaper = match &lease {
            Some(lease) => Some(reap(plan, &store, lease, &shared)?),
            None => None,
        };
        let mut service = Service {
            shared,
            session,
            mounted,
            plan: plan.clone(),
            volumes,
            stores,
            again: is_next.then(Instant::now),
            lasting,
            signals,
            control,
            watch,
            behind: None,
            _reaper: reaper,
            lease,
        };
        match is_next {
            true => service.keep_volumes(),
            false => service.start_keeper()?,
        }
        Ok(service)
    }

    /// The event loop.
    fn serve(mut self) -> anyhow::Result<()> {
        loop {
            self.wait()?;
            if let Some(signal) = self.signals.take().context("reading signals")? {
                return self.end(signal);
            }
            if self.shared.stop_requested() {
                if self.shared.replacing.load(Ordering::Acquire) {
                    return self.hand_over();
                }
                return self.end("a stop request");
            }
            match self.session.state() {
                State::Running => {}
                State::Ended => {
                    log::info!("{}: unmounted from outside", self.mounted.shown());
                    self.mounted.forget();
                    self.drop_volumes();
                    self.end_keeper();
                    self.serve_engines();
                    return Ok(());
                }
                State::Broken(reason) => {
                    if !self.session.connected() {
                        self.mounted.forget();
                    }
                    let shown = self.mounted.shown();
                    if self.lasting.is_some() {
                        bail!("{shown}: {reason}; another server takes over");
                    }
                    // The guard detaches the mount.
                    bail!("{shown}: {reason}; the mount is taken away");
                }
            }
            self.keep_volumes();
            self.keep_keeper();
            self.catch_up();
            if let Some(control) = &self.control {
                control.accept(&self.shared);
            }
            Shared::empty_trash(&self.shared);
        }
    }

    /// Shows what has changed in the store. What fails now is tried until it succeeds: whoever asked for it has gone on.
    fn catch_up(&mut self) {
        let due = self.behind.is_some_and(|behind| behind <= Instant::now());
        if !self.watch.index_changed() && !due {
            return;
        }
        match self.shared.refresh() {
            Ok(()) => self.behind = None,
            Err(error) => {
                if self.behind.is_none() {
                    log::error!("reading the store's names again: {error}: trying until it works");
                }
                self.behind = Some(Instant::now() + CATCH_UP_PAUSE);
            }
        }
    }

    /// Somebody may unmount the volumes alone: they belong to the mount, and come back while that stands.
    fn keep_volumes(&mut self) {
        if let Some(volumes) = &mut self.volumes
            && let Some(reason) = volumes.ended()
        {
            log::info!("{}/volumes: {reason}", self.mounted.shown());
            self.drop_volumes();
            self.again = Some(Instant::now() + REMOUNT_PAUSE);
        }
        if let Some(stores) = &mut self.stores
            && let Some(reason) = stores.ended()
        {
            log::info!("{}/stores: {reason}", self.mounted.shown());
            *self.shared.stores.lock() = None;
            self.stores = None;
            self.again = Some(Instant::now() + REMOUNT_PAUSE);
        }
        if self.again.is_none_or(|again| Instant::now() < again) || !self.session.connected() {
            return;
        }
        self.again = None;
        self.mount_stores_again();
        if self.volumes.is_some() {
            return;
        }
        let lease = self.lease.as_ref().map(|lease| lease.id().clone());
        let mounted = self.mounted.place().and_then(|(path, device)| {
            mount_point::clear(&path.join(VOLUMES))?;
            let beside = volumes::beside(&self.plan, &path)?;
            let activity = &self.shared.activity;
            Volumes::mount(
                &self.plan,
                &self.shared.store,
                &path,
                device,
                lease,
                beside,
                activity,
            )
        });
        match mounted {
            Ok(volumes) => {
                *self.shared.volumes.lock() = Some(volumes.shared());
                self.volumes = Some(volumes);
            }
            Err(error) => log::error!("mounting the volumes again: {error:#}"),
        }
    }

    fn mount_stores_again(&mut self) {
        if self.stores.is_some() || !stores::inside(&self.plan) {
            return;
        }
        let place = self.mounted.place();
        let mounted = place.and_then(|(path, _)| {
            mount_point::clear(&path.join(STORES))?;
            Stores::mount(&self.plan, &self.shared.store, &path)
        });
        match mounted {
            Ok(stores) => {
                *self.shared.stores.lock() = Some(stores.shared());
                self.stores = Some(stores);
            }
            Err(error) => log::error!("mounting the stores again: {error:#}"),
        }
    }

    /// M is gone; engines may still have mounts on its stores.
    fn serve_engines(&mut self) {
        if let Some(stores) = &mut self.stores {
            stores.unmount();
            stores.linger();
        }
    }

    fn drop_volumes(&mut self) {
        *self.shared.volumes.lock() = None;
        self.volumes = None;
    }

    fn wait(&self) -> anyhow::Result<()> {
        let stop = &self.shared.stop;
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.session.event_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN),
        ];
        let watch = self.watch.event_fd();
        let control = self.control.as_ref().map(Control::as_fd);
        fds.extend(
            watch
                .into_iter()
                .chain(control)
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)),
        );
        if let Some(volumes) = &self.volumes {
            fds.push(PollFd::from_borrowed_fd(volumes.event_fd(), PollFlags::IN));
        }
        if let Some(stores) = &self.stores {
            fds.push(PollFd::from_borrowed_fd(stores.event_fd(), PollFlags::IN));
        }
        let keeper = self
            .lasting
            .as_ref()
            .and_then(|lasting| lasting.shown.watch());
        if let Some(keeper) = &keeper {
            fds.push(PollFd::new(keeper, PollFlags::IN));
        }
        let span = |left: Duration| Timespec::try_from(left).unwrap_or_default();
        let until = |end: Instant| span(end.saturating_duration_since(Instant::now()));
        let left = [
            self.again.map(until),
            self.behind.map(until),
            self.watch.look_after().map(span),
            self.shared.until_trash_ends(),
        ];
        let left = left.into_iter().flatten();
        let left = left.min_by_key(|left| (left.tv_sec, left.tv_nsec));
        match poll(&mut fds, left.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error).context("waiting for events"),
        }
    }

    /// Has the mount kept, if it is to be.
    fn start_keeper(&mut self) -> anyhow::Result<()> {
        let Some(lasting) = &self.lasting else {
            return Ok(());
        };
        let (connection, agreement) = self.session.lasting().context("not a lasting connection")?;
        let mounted = self.mounted.get().context("not mounted")?;
        let connection = (connection.as_fd(), agreement);
        let (memory, shown) = (&lasting.memory, &lasting.shown);
        let store = self.shared.store.path();
        kept::start_keeper(&self.plan, store, mounted, connection, memory, shown)?;
        // From now on the mount does not end with this process.
        self.mounted.keep();
        Ok(())
    }

    /// A keeper that has died has a successor, as a server has.
    fn keep_keeper(&mut self) {
        if let Some(lasting) = &self.lasting
            && lasting.shown.is_alone()
        {
            log::warn!(
                "{}: its keeper has died: starting another",
                self.mounted.shown()
            );
            if let Err(error) = self.start_keeper() {
                log::error!(
                    "{}: ends with this process: {error:#}",
                    self.mounted.shown()
                );
                self.lasting = None;
            }
        }
    }

    /// Ends without the mount, for the next server: as if killed, but that nobody loses what he does not use.
    fn hand_over(mut self) -> anyhow::Result<()> {
        const REASON: &str = "another version's taking over";
        if let Some(volumes) = &mut self.volumes {
            volumes.unmount(REASON);
        }
        if let Some(stores) = &mut self.stores {
            stores.unmount();
        }
        log::info!("{}: {REASON}", self.mounted.shown());
        Ok(())
    }

    fn end_keeper(&self) {
        if let Some(lasting) = &self.lasting {
            lasting.shown.end();
        }
    }

    /// Unmounts, whatever it takes, because of `reason`.
    fn end(mut self, reason: &str) -> anyhow::Result<()> {
        let ended = self.take_away(reason);
        self.end_keeper();
        ended
    }

    fn take_away(&mut self, reason: &str) -> anyhow::Result<()> {
        let shown = self.mounted.shown();
        log::info!("{shown}: {reason}: unmounting");
        if !self.session.connected() {
            // Unmounted at the same moment: what stands there now is somebody else's.
            self.mounted.forget();
            self.drop_volumes();
            return Ok(());
        }
        if let Some(volumes) = &mut self.volumes {
            volumes.unmount(reason);
        }
        if let Some(stores) = &mut self.stores {
            stores.unmount();
        }
        match self.mounted.unmount_patiently() {
            Ok(()) => {
                if !self.session.wait(END_PATIENCE) {
                    log::warn!("{shown}: still mounted elsewhere; what uses that gets errors now");
                }
            }
            Err(MountError::Busy(_)) => {
                log::warn!("{shown}: in use, detached because of {reason}; these get errors now:");
                let users = self.mounted.place().map(|(_, device)| keeping_busy(device));
                for user in users.unwrap_or_default() {
                    log::warn!("{shown}: {}", user.detail());
                }
                self.mounted.unmount(true)?;
            }
            // Somebody was faster.
            Err(MountError::NotMounted(_)) => {}
            Err(error) => {
                self.mounted.forget();
                return Err(error.into());
            }
        }
        self.mounted.forget();
        Ok(())
    }
}

impl Shared {
    fn refresh(&self) -> Result<(), String> {
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
    fn until_trash_ends(&self) -> Option<Timespec> {
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
    fn empty_trash(this: &Arc<Shared>) {
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

    fn stop_requested(&self) -> bool {
        let mut fds = [PollFd::new(&self.stop, PollFlags::IN)];
        poll(&mut fds, Some(&rustix::event::Timespec::default())).is_ok_and(|n| n > 0)
    }
}

impl Handler for Shared {
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
        let Some(shown) = &self.shown else {
            return Err("it was mounted without survive=on: unmount, and mount anew".to_owned());
        };
        for place in &self.inner {
            let device = mounted_on(place).map_err(|error| error.to_string())?;
            let users = device.map_or(Vec::new(), |device| standing_on(device, place));
            if let Some(user) = users.first() {
                return Err(format!("{} would lose its users: {user}", place.display()));
            }
        }
        shown.try_program(program.to_owned())?;
        self.replacing.store(true, Ordering::Release);
        self.stop();
        Ok(())
    }

    fn stop(&self) {
        // Only fails when the counter is full, and then it is readable already.
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
    }
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

/// Watches over ephemeral volumes.
fn reap(
    plan: &MountPlan,
    store: &Store,
    lease: &Lease,
    shared: &Arc<Shared>,
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

/// Root lets everybody in and has the kernel check modes; an ordinary user has the mount to himself.
pub(super) fn flags(plan: &MountPlan) -> FuseFlags {
    let root = rustix::process::geteuid().is_root();
    let allow_other = plan.options.allow_other.unwrap_or(root);
    FuseFlags {
        read_only: plan.options.read_only,
        allow_other,
        default_permissions: allow_other,
        suid: plan.options.suid,
        dev: plan.options.dev,
    }
}

/// Only root may, and it only costs speed.
fn read_ahead(device: DeviceId) {
    let path = format!("/sys/class/bdi/{device}/read_ahead_kb");
    if let Err(error) = std::fs::write(&path, READ_AHEAD_KB) {
        log::debug!("{path}: {error}");
    }
}

/// Our mount; detached if it is still there when this is dropped.
pub(super) struct Guard {
    mounted: Option<Mounted>,
    /// It does not end with this process.
    kept: bool,
}

impl Guard {
    pub(super) fn new(mounted: Mounted) -> Self {
        Guard {
            mounted: Some(mounted),
            kept: false,
        }
    }

    /// One that does not end with this process.
    fn kept(mounted: Mounted) -> Self {
        Guard {
            mounted: Some(mounted),
            kept: true,
        }
    }

    fn keep(&mut self) {
        self.kept = true;
    }

    fn get(&self) -> Option<&Mounted> {
        self.mounted.as_ref()
    }

    /// Unmounts; one that is busy again, some times.
    pub(super) fn unmount_patiently(&self) -> Result<(), MountError> {
        let mut result = self.unmount(false);
        for _ in 1..BUSY_TRIES {
            if !matches!(result, Err(MountError::Busy(_))) {
                break;
            }
            std::thread::sleep(BUSY_PAUSE);
            result = self.unmount(false);
        }
        result
    }

    pub(super) fn place(&self) -> anyhow::Result<(std::path::PathBuf, DeviceId)> {
        let mounted = self.get().context("not mounted")?;
        Ok((mounted.path.clone(), mounted.device))
    }

    pub(super) fn shown(&self) -> String {
        let mounted = self.get();
        mounted.map_or_else(String::new, |m| m.path.display().to_string())
    }

    pub(super) fn unmount(&self, lazy: bool) -> Result<(), MountError> {
        match self.get() {
            Some(mounted) => mounted.unmount(lazy),
            None => Ok(()),
        }
    }

    pub(super) fn forget(&mut self) {
        self.mounted = None;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        match self.unmount(true) {
            Ok(()) | Err(MountError::NotMounted(_)) => {}
            Err(error) => log::error!("{error}"),
        }
    }
}
