//! One mount from its first check to its end; see [`super`] for the story.

mod start;

use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, getrlimit, setrlimit};

use super::answering::Answering;
use super::control::Control;
use super::ephemeral::Reaper;
use super::kept::{Before, Keeping, Part};
use super::mounted::OwnMount;
use super::readiness::Reporter;
use super::stores::{self, Stores};
use super::volumes::{Around, Volumes};
use super::watch::Watch;
use super::{MountPlan, mount_point, side_mount};
use crate::fuse::session::{Session, State};
use crate::mount_paths::{STORES, VOLUMES};
use crate::ops::usage::keeping_busy;
use crate::store::Lease;
use crate::sys::fork;
use crate::sys::mount::MountError;
use crate::sys::signal::SignalFd;

/// After the volumes were unmounted alone: whoever does that often goes on to unmount the rest.
const REMOUNT_PAUSE: Duration = Duration::from_millis(500);
/// How long the connection may take to end after its mount has gone.
const END_PATIENCE: Duration = Duration::from_secs(2);
/// Between two tries to read names that cannot be read.
const CATCH_UP_PAUSE: Duration = Duration::from_secs(1);

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
    if let Some(keeping) = &service.keeping {
        keeping.served()?;
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
        Some("is killed") => {
            let own = rustix::process::getpid();
            // It has not come to this if it goes on.
            let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
        }
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
    shared: Arc<Answering>,
    session: Session,
    mounted: OwnMount,
    /// M has gone, and engines still have mounts on its stores.
    lingering: bool,
    plan: MountPlan,
    volumes: Option<Volumes>,
    stores: Option<Stores>,
    /// When to mount the volumes and stores again, which somebody has unmounted.
    again: Option<Instant>,
    /// When to look whether verbs could find this mount by now, which took over when they could not.
    unannounced: Option<Instant>,
    /// Of a mount that goes on when this process dies.
    keeping: Option<Arc<Keeping>>,
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

impl Service {
    /// The event loop.
    fn serve(mut self) -> anyhow::Result<()> {
        loop {
            self.wait()?;
            if !self.lingering
                && let Some(signal) = self.signals.take().context("reading signals")?
            {
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
                    self.linger();
                }
                State::Broken(reason) => {
                    if !self.session.connected() {
                        self.mounted.forget();
                    }
                    let shown = self.mounted.shown();
                    if self.keeping.is_some() {
                        bail!("{shown}: {reason}; another server takes over");
                    }
                    // The guard detaches the mount.
                    bail!("{shown}: {reason}; the mount is taken away");
                }
            }
            self.keep_volumes()?;
            if self.lingering && self.stores.is_none() {
                self.end_keeper();
                return Ok(());
            }
            self.keep_keeper();
            if self.could_be_announced() {
                return self.hand_over();
            }
            self.catch_up();
            if let Some(control) = &self.control {
                control.accept(&self.shared);
            }
            Answering::empty_trash(&self.shared);
        }
    }

    /// Whether the next server would have the lease that this one could not have.
    fn could_be_announced(&mut self) -> bool {
        if self.keeping.is_none() || self.unannounced.is_none_or(|look| look > Instant::now()) {
            return false;
        }
        self.unannounced = Some(Instant::now() + start::ANNOUNCE_PAUSE);
        let place = self.mounted.place().map(|(path, _)| path);
        let place = place.unwrap_or_else(|_| self.plan.mount_point.clone());
        start::announce_again(&self.shared.store, &place, Duration::ZERO).is_ok()
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
    fn keep_volumes(&mut self) -> anyhow::Result<()> {
        if let Some(volumes) = &mut self.volumes
            && let Some(reason) = volumes.ended()
        {
            if volumes.connected() && self.keeping.as_ref().is_some_and(|k| k.keeps_volumes()) {
                let shown = self.mounted.shown();
                bail!("{shown}/volumes: {reason}; another server takes over");
            }
            log::info!("{}/volumes: {reason}", self.mounted.shown());
            self.drop_volumes();
            if let Some(keeping) = &self.keeping {
                keeping.tell()?;
            }
            self.again = Some(Instant::now() + REMOUNT_PAUSE);
        }
        self.keep_stores()?;
        if self.again.is_none_or(|again| Instant::now() < again) || !self.session.connected() {
            return Ok(());
        }
        self.again = None;
        self.mount_stores_again();
        if self.volumes.is_some() {
            return Ok(());
        }
        let lease = self.lease.as_ref().map(|lease| lease.id().clone());
        let mounted = self.mounted.place().and_then(|(path, device)| {
            mount_point::clear(&path.join(VOLUMES))?;
            let side = side_mount::prepare(&self.plan, &path)?;
            let activity = &self.shared.activity;
            Volumes::mount(
                &self.plan,
                &self.shared.store,
                &path,
                Around {
                    outer: device,
                    lease,
                    side,
                },
                activity,
                self.keeping.as_ref(),
            )
        });
        match mounted {
            Ok(mut volumes) => {
                if let Some(keeping) = &self.keeping {
                    keeping.tell()?;
                    if keeping.keeps_volumes() {
                        volumes.keep();
                    }
                }
                *self.shared.volumes.lock() = Some(volumes.shared());
                self.volumes = Some(volumes);
            }
            Err(error) => log::error!("mounting the volumes again: {error:#}"),
        }
        Ok(())
    }

    /// The same for the stores; those that cannot be served any more by this process are another's.
    fn keep_stores(&mut self) -> anyhow::Result<()> {
        let Some(stores) = &mut self.stores else {
            return Ok(());
        };
        let reason = match stores.state() {
            State::Running => return Ok(()),
            State::Ended => "unmounted from outside".to_owned(),
            State::Broken(reason) => reason,
        };
        let shown = self.mounted.shown();
        if self.keeping.is_some() && stores.connected() {
            bail!("{shown}/stores: {reason}; another server takes over");
        }
        log::info!("{shown}/stores: {reason}");
        *self.shared.stores.lock() = None;
        self.stores = None;
        self.again = Some(Instant::now() + REMOUNT_PAUSE);
        if let Some(keeping) = &self.keeping {
            keeping.drop_part(Part::Stores);
            keeping.tell()?;
        }
        Ok(())
    }

    fn mount_stores_again(&mut self) {
        if self.stores.is_some() || !stores::inside(&self.plan) {
            return;
        }
        let place = self.mounted.place();
        let mounted = place.and_then(|(path, _)| {
            mount_point::clear(&path.join(STORES))?;
            let stores =
                Stores::mount(&self.plan, &self.shared.store, &path, self.keeping.as_ref())?;
            if let Some(keeping) = &self.keeping {
                keeping.tell()?;
            }
            Ok(stores)
        });
        match mounted {
            Ok(mut stores) => {
                if self.keeping.is_some() {
                    stores.keep();
                }
                *self.shared.stores.lock() = Some(stores.shared());
                self.stores = Some(stores);
            }
            Err(error) => log::error!("mounting the stores again: {error:#}"),
        }
    }

    /// M is gone; engines may still have mounts on its stores, and are served until the last of them has ended.
    fn linger(&mut self) {
        if self.lingering {
            return;
        }
        log::info!("{}: unmounted from outside", self.mounted.shown());
        self.lingering = true;
        self.mounted.forget();
        self.drop_volumes();
        if let Some(stores) = &mut self.stores {
            stores.unmount();
        }
    }

    fn drop_volumes(&mut self) {
        *self.shared.volumes.lock() = None;
        if let Some(volumes) = &mut self.volumes {
            volumes.give_up();
        }
        self.volumes = None;
        if let Some(keeping) = &self.keeping {
            keeping.drop_part(Part::Volumes);
        }
    }

    fn wait(&self) -> anyhow::Result<()> {
        let stop = &self.shared.stop;
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.session.event_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN),
        ];
        if !self.lingering {
            let signals = self.signals.as_fd();
            fds.push(PollFd::from_borrowed_fd(signals, PollFlags::IN));
        }
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
        let keeper = self.keeping.as_ref().and_then(|keeping| keeping.watch());
        if let Some(keeper) = &keeper {
            fds.push(PollFd::new(keeper, PollFlags::IN));
        }
        let span = |left: Duration| Timespec::try_from(left).unwrap_or_default();
        let until = |end: Instant| span(end.saturating_duration_since(Instant::now()));
        let left = [
            self.again.map(until),
            self.behind.map(until),
            self.unannounced.map(until),
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
        if let Some(keeping) = &self.keeping {
            keeping.start()?;
            self.stays();
        }
        Ok(())
    }

    /// The mount does not end with this process.
    fn stays(&mut self) {
        self.mounted.keep();
        if let Some(stores) = &mut self.stores {
            stores.keep();
        }
        let kept = self
            .keeping
            .as_ref()
            .is_some_and(|keeping| keeping.keeps_volumes());
        if let (Some(volumes), true) = (&mut self.volumes, kept) {
            volumes.keep();
        }
    }

    /// A keeper that has died has a successor, as a server has.
    fn keep_keeper(&mut self) {
        if let Some(keeping) = &self.keeping
            && keeping.is_alone()
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
                self.keeping = None;
            }
        }
    }

    /// Ends without the mount, for the next server: as if killed, but that no one loses what is not in use.
    fn hand_over(mut self) -> anyhow::Result<()> {
        const REASON: &str = "another daemon takes over";
        let kept = self
            .keeping
            .as_ref()
            .is_some_and(|keeping| keeping.keeps_volumes());
        match &mut self.volumes {
            Some(volumes) if !kept => volumes.unmount(REASON),
            // What they have open is to be kept, and not closed.
            _ => std::mem::forget(self.volumes.take()),
        }
        log::info!("{}: {REASON}", self.mounted.shown());
        Ok(())
    }

    fn end_keeper(&self) {
        if let Some(keeping) = &self.keeping {
            keeping.end();
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
