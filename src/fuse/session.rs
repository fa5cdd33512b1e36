//! A running connection: threads, their supervision, and its end.
//!
//! fuser ends a thread whose request makes fuser itself panic or fail, and serves on with the others: requests would be lost one
//! by one. Every thread therefore carries a mark in thread-local storage whose destructor reports its end; an end before
//! that of the connection is [`State::Broken`], upon which the owner takes the mount down.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::adapter::Adapter;
use super::connection::RequestContext;
use super::events::Events;
use super::handler::Handler;
use super::handshake::{self, Agreement, Link};
use super::images::Images;
use super::notify::NotifyQueue;
use super::stats::Stats;
use super::volumes::Volumes;
use crate::fs::FileSystem;
use crate::fs::volumes::{Inherited, VolumeTree};
use crate::sys::fuse_device;

/// How a connection is served.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Answer OPEN, so that opening for writing is refused at once.
    pub strict: bool,
    /// Threads that take requests.
    pub threads: usize,
    /// Let the kernel choose between READDIR and READDIRPLUS; else always READDIRPLUS.
    pub readdirplus_auto: bool,
    /// Let it be mounted with mapped ids, where the kernel can. Requests that change something then have no caller.
    pub idmap: bool,
}

impl Default for Settings {
    /// As many threads as processors, within 2 (one may wait for the disk) and 4 (more only wake each other).
    fn default() -> Self {
        let processors = thread::available_parallelism().map_or(2, usize::from);
        Settings {
            strict: false,
            threads: processors.clamp(2, 4),
            readdirplus_auto: false,
            idmap: false,
        }
    }
}

/// How a session stands.
#[derive(Debug)]
pub enum State {
    /// All threads serve.
    Running,
    /// The connection has ended (unmounted, or aborted), and with it all threads.
    Ended,
    /// A thread has ended and the connection has not, or serving failed.
    Broken(String),
}

/// A connection being served in background threads, until it ends.
#[derive(Debug)]
pub struct Session {
    events: Arc<Events>,
    stats: Arc<Stats>,
    /// To ask whether the connection still stands.
    connection: OwnedFd,
    /// What the next server of the connection needs; none if it ends with this one.
    lasting: Option<(OwnedFd, Agreement)>,
}

/// Serves `tree` on the connection of `link`, and sends what `queue` collects.
///
/// Returns when the kernel has been answered its first question (INIT), so requests can come.
pub fn start<T: FileSystem>(
    tree: Arc<T>,
    link: Link,
    settings: &Settings,
    queue: &Arc<NotifyQueue>,
) -> io::Result<Session> {
    serve(link, settings, queue, |_, stats, events| Images {
        tree,
        context: RequestContext { stats, events },
        strict: settings.strict,
        readdirplus_auto: settings.readdirplus_auto,
        idmap: settings.idmap,
    })
}

/// Serves the volumes of a mount on a connection of their own; as [`start`] otherwise.
pub fn start_volumes(
    tree: Arc<VolumeTree>,
    link: Link,
    inherited: Vec<Inherited>,
    settings: &Settings,
    queue: &Arc<NotifyQueue>,
) -> io::Result<Session> {
    serve(link, settings, queue, |connection, stats, events| {
        let context = RequestContext { stats, events };
        Volumes::new(tree, context, connection, inherited)
    })
}

fn serve<H: Handler>(
    link: Link,
    settings: &Settings,
    queue: &Arc<NotifyQueue>,
    handler: impl FnOnce(OwnedFd, Arc<Stats>, Arc<Events>) -> H,
) -> io::Result<Session> {
    let events = Arc::new(Events {
        signal: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        thread_ended: AtomicBool::new(false),
        outcome: Mutex::new(None),
    });
    let stats = Arc::new(Stats::default());
    let (connection, again) = match &link {
        Link::Own(connection) | Link::First(connection) => (connection, false),
        Link::Next(connection, _) => (connection, true),
    };
    let probe = connection.try_clone()?;
    let adapter = Adapter(handler(
        probe.try_clone()?,
        Arc::clone(&stats),
        Arc::clone(&events),
    ));

    let mut config = fuser::Config::default();
    config.n_threads = Some(settings.threads.max(1));
    // A descriptor per thread spares them a lock; whoever mounts through the helper may not be allowed to open one.
    config.clone_fd = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .is_ok();
    let may_clone = config.clone_fd;
    let linked = handshake::link(adapter, link, config)?;
    let session = linked.session;
    if let (true, Some((connection, agreement))) = (again, &linked.lasting) {
        handshake::ask_again(connection, agreement)?;
    }
    // Nobody reads from that one.
    let notifying = match may_clone {
        true => fuse_device::clone_connection(probe.as_fd())?,
        false => probe.try_clone()?,
    };
    queue.serve(session.notifier(), notifying, probe.try_clone()?)?;

    let end = Arc::clone(&events);
    thread::Builder::new()
        .name("mica-session".to_owned())
        .stack_size(128 * 1024)
        .spawn(move || {
            let outcome = session.run();
            *end.outcome.lock() = Some(outcome);
            end.raise();
        })?;
    Ok(Session {
        events,
        stats,
        connection: probe,
        lasting: linked.lasting,
    })
}

impl Session {
    /// Readable when [`Session::state`] may have changed.
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.events.signal.as_fd()
    }

    /// What the next server of the connection needs, if it does not end with this one.
    pub fn lasting(&self) -> Option<&(OwnedFd, Agreement)> {
        self.lasting.as_ref()
    }

    /// The request counters.
    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    /// How the session stands. Clears the event.
    pub fn state(&self) -> State {
        let mut counter = [0u8; 8];
        // Nothing to read is no news.
        let _ = rustix::io::read(&self.events.signal, &mut counter);
        let ended = self.events.thread_ended.load(Ordering::Acquire);
        if let Some(outcome) = self.events.outcome.lock().as_ref() {
            return match outcome {
                Ok(()) => State::Ended,
                // An aborted connection ends some reads with other errors than an unmounted one.
                Err(_) if !self.connected() => State::Ended,
                Err(error) => State::Broken(format!("serving the mount failed: {error}")),
            };
        }
        if ended && self.connected() {
            return State::Broken("a thread that serves the mount has ended".to_owned());
        }
        State::Running
    }

    /// Waits for the end of the connection, at most `timeout`; true if it has ended.
    pub fn wait(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        loop {
            if !matches!(self.state(), State::Running) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let timeout = Timespec {
                tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            let mut fds = [PollFd::new(&self.events.signal, PollFlags::IN)];
            // Interrupted or not: the state is looked at again.
            let _ = poll(&mut fds, Some(&timeout));
        }
    }

    /// Whether the kernel still has the connection, and with it the device number; asks without waiting.
    pub fn connected(&self) -> bool {
        is_connected(&self.connection)
    }
}

/// Whether the kernel still has a connection.
pub fn is_connected(connection: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(connection, PollFlags::empty())];
    let asked = poll(&mut fds, Some(&Timespec::default()));
    asked.is_ok() && fds.iter().all(|fd| !fd.revents().contains(PollFlags::ERR))
}
