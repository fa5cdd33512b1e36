//! flock and fcntl locks of the mount's users, held on the host: they meet those of the host's processes.
//!
//! An owner (what fcntl means by a process, what flock means by an open file) has one open file description per inode, and
//! its locks are that description's. The kernel names owners, but not which of the two calls a request comes from; only a lock
//! of a whole file can be either, and then the caller, who waits in that very call, is asked (`/proc/TID/syscall`).
//!
//! Locks end when their owner closes a descriptor (FLUSH, RELEASE with an owner), and with the open file they were taken through:
//! for a lock that belongs to the open file itself (`F_OFD_SETLK`) the kernel says nothing else.
//!
//! A request that has to wait is tried again until it succeeds or its caller has a signal to take: the crate behind the edge
//! does not pass interruptions on.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use super::super::api::InodeNo;
use super::VolumeTree;
use super::attr::VolumeError;
use super::budget::{Budget, Share};
use super::files::{FileNo, OpenFile};
use crate::sys::beneath::{self, LockKind, Range};

/// Between two tries for a lock that somebody on the host holds.
const PAUSE: Duration = Duration::from_millis(10);
/// A round that takes long, because many wait, is made less often: the pause is so many times longer.
const LEISURE: u32 = 10;
/// So many of one user may wait.
const MOST_WAITING: usize = 1000;

/// What a caller asks for.
#[derive(Clone, Copy, Debug)]
pub struct LockRequest {
    /// The file.
    pub ino: InodeNo,
    /// As which it is open.
    pub file: FileNo,
    /// For whom.
    pub owner: u64,
    /// First and last byte.
    pub range: (u64, u64),
    /// `F_RDLCK`, `F_WRLCK`, `F_UNLCK`.
    pub kind: i32,
    /// Thread of the caller; 0 if it cannot be known.
    pub thread: u32,
    /// Its user.
    pub user: u32,
    /// Its process.
    pub pid: u32,
}

/// A lock that stands in the way: kind, first and last byte, process.
pub type Blocking = (i32, (u64, u64), u32);

/// Which call locks are made with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Call {
    Fcntl,
    Flock,
}

/// The locks of one owner on one inode.
#[derive(Debug)]
struct Holder {
    descriptor: OwnedFd,
    call: Call,
    pid: u32,
    /// Through which open file its first lock was taken.
    file: FileNo,
    _share: Share,
}

/// An owner on an inode.
type Key = (InodeNo, u64);

#[derive(Debug, Default)]
struct Holders {
    by_owner: HashMap<Key, Holder>,
    by_file: HashMap<FileNo, HashSet<Key>>,
}

impl Holders {
    fn insert(&mut self, key: Key, holder: Holder) -> Option<Holder> {
        let file = holder.file;
        let before = self.by_owner.insert(key, holder);
        if let Some(before) = &before {
            self.unname(before.file, key);
        }
        self.by_file.entry(file).or_default().insert(key);
        before
    }

    fn remove(&mut self, key: Key) -> Option<Holder> {
        let gone = self.by_owner.remove(&key)?;
        self.unname(gone.file, key);
        Some(gone)
    }

    fn unname(&mut self, file: FileNo, key: Key) {
        if let Some(keys) = self.by_file.get_mut(&file) {
            keys.remove(&key);
            if keys.is_empty() {
                self.by_file.remove(&file);
            }
        }
    }

    fn remove_file(&mut self, file: FileNo) -> Vec<Holder> {
        let keys = self.by_file.remove(&file).unwrap_or_default();
        let gone = keys.iter().filter_map(|key| self.by_owner.remove(key));
        gone.collect()
    }
}

type Answer = Box<dyn FnOnce(Result<(), VolumeError>) + Send>;

struct Waiting {
    request: LockRequest,
    file: Arc<OpenFile>,
    answer: Answer,
}

struct State {
    budget: Arc<Budget>,
    holders: Mutex<Holders>,
    /// Holders, so that closing a file without locks costs nothing.
    count: AtomicUsize,
    waiting: Mutex<Vec<Waiting>>,
    changed: Condvar,
}

/// All locks of a mount.
pub(super) struct Locks(Arc<State>);

impl Locks {
    /// Starts the thread that waits for others, for as long as the process lives.
    pub(super) fn start(budget: Arc<Budget>) -> io::Result<Locks> {
        let state = Arc::new(State {
            budget,
            holders: Mutex::default(),
            count: AtomicUsize::new(0),
            waiting: Mutex::default(),
            changed: Condvar::new(),
        });
        let waiter = Arc::clone(&state);
        thread::Builder::new()
            .name("mica-locks".to_owned())
            .stack_size(128 * 1024)
            .spawn(move || waiter.serve())?;
        Ok(Locks(state))
    }

    /// An owner has closed a descriptor of the file: its locks end.
    pub(super) fn owner_closed(&self, ino: InodeNo, owner: u64) {
        if self.0.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let gone = self.0.holders.lock().remove((ino, owner));
        self.ended(gone);
    }

    /// The last descriptor of an open file is closed: no lock that was taken through it is left.
    pub(super) fn file_closed(&self, file: FileNo) {
        if self.0.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let gone = self.0.holders.lock().remove_file(file);
        self.ended(gone);
    }

    fn ended(&self, gone: impl IntoIterator<Item = Holder>) {
        // Closing the descriptors may wait for the disk: without the lock.
        let count = gone.into_iter().count();
        if count > 0 {
            self.0.count.fetch_sub(count, Ordering::Release);
            self.0.changed.notify_all();
        }
    }
}

impl VolumeTree {
    /// Sets or removes a lock; `answer` is called now or, if `wait`, when it has been granted or given up.
    pub fn lock(
        &self,
        request: LockRequest,
        wait: bool,
        answer: impl FnOnce(Result<(), VolumeError>) + Send + 'static,
    ) {
        let file = match self.open_file(request.file) {
            Ok(file) => file,
            Err(error) => return answer(Err(error)),
        };
        if let Err(error) = Self::same(&file, request.ino) {
            return answer(Err(error));
        }
        match self.locks.0.attempt(&request, &file) {
            Err(VolumeError::Host(Errno::AGAIN | Errno::ACCESS)) if wait => {
                let mut waiting = self.locks.0.waiting.lock();
                let same = waiting
                    .iter()
                    .filter(|one| one.request.user == request.user);
                if same.count() >= MOST_WAITING {
                    drop(waiting);
                    return answer(Err(Errno::NOLCK.into()));
                }
                waiting.push(Waiting {
                    request,
                    file,
                    answer: Box::new(answer),
                });
                drop(waiting);
                self.locks.0.changed.notify_all();
            }
            result => {
                answer(result);
                self.locks.0.changed.notify_all();
            }
        }
    }

    /// The lock that stands in the way of `request`.
    pub fn blocking_lock(&self, request: &LockRequest) -> Result<Option<Blocking>, VolumeError> {
        let file = self.open_file(request.file)?;
        let kind = LockKind::from_raw(request.kind).ok_or(Errno::INVAL)?;
        let range = range(request);
        let holders = self.locks.0.holders.lock();
        let found = match holders.by_owner.get(&(request.ino, request.owner)) {
            Some(holder) => beneath::get_lock(&holder.descriptor, kind, &range)?,
            // The descriptor of the open file itself never holds a lock.
            None => beneath::get_lock(&file.descriptor, kind, &range)?,
        };
        let Some((kind, range, pid)) = found else {
            return Ok(None);
        };
        let pid = u32::try_from(pid).unwrap_or_else(|_| {
            // One of ours, or a description without a process: the owner that has a lock there.
            let mut others = holders.by_owner.iter().filter(|((ino, owner), holder)| {
                *ino == request.ino && *owner != request.owner && holder.call == Call::Fcntl
            });
            others.next().map_or(0, |(_, holder)| holder.pid)
        });
        Ok(Some((kind.raw(), (range.start, range.end), pid)))
    }
}

impl State {
    fn serve(&self) {
        let mut waiting = self.waiting.lock();
        let mut pause = PAUSE;
        loop {
            if waiting.is_empty() {
                self.changed.wait(&mut waiting);
            } else {
                // Woken at once by a lock that ends here; those of the host's processes end unseen.
                let _ = self.changed.wait_for(&mut waiting, pause);
            }
            let began = Instant::now();
            let mut ready = Vec::new();
            let mut still = Vec::new();
            for one in waiting.drain(..) {
                match self.attempt(&one.request, &one.file) {
                    Err(VolumeError::Host(Errno::AGAIN | Errno::ACCESS)) => {
                        if signalled(one.request.thread) {
                            ready.push((one.answer, Err(Errno::INTR.into())));
                        } else {
                            still.push(one);
                        }
                    }
                    result => ready.push((one.answer, result)),
                }
            }
            *waiting = still;
            pause = PAUSE.max(began.elapsed().saturating_mul(LEISURE));
            parking_lot::MutexGuard::unlocked(&mut waiting, || {
                for (answer, result) in ready {
                    answer(result);
                }
            });
        }
    }

    fn attempt(&self, request: &LockRequest, file: &OpenFile) -> Result<(), VolumeError> {
        let kind = LockKind::from_raw(request.kind).ok_or(Errno::INVAL)?;
        let range = range(request);
        let key = (request.ino, request.owner);
        let known = self
            .holders
            .lock()
            .by_owner
            .get(&key)
            .map(|holder| holder.call);
        let call = match known {
            Some(call) => call,
            None if kind == LockKind::Unlock => return Ok(()),
            None if range.is_whole() => calling(request.thread),
            None => Call::Fcntl,
        };
        let set = |descriptor: &OwnedFd| match call {
            Call::Fcntl => beneath::set_lock(descriptor, kind, &range),
            Call::Flock => beneath::set_flock(descriptor, kind),
        };
        if known.is_some() {
            let holders = self.holders.lock();
            if let Some(holder) = holders.by_owner.get(&key) {
                return Ok(set(&holder.descriptor)?);
            }
        }
        let share = self.budget.take(request.user)?;
        let descriptor = reopen(file)?;
        set(&descriptor)?;
        let holder = Holder {
            descriptor,
            call,
            pid: request.pid,
            file: request.file,
            _share: share,
        };
        if self.holders.lock().insert(key, holder).is_none() {
            self.count.fetch_add(1, Ordering::Release);
        }
        Ok(())
    }
}

fn range(request: &LockRequest) -> Range {
    Range {
        start: request.range.0,
        end: request.range.1,
    }
}

/// A description of its own for an owner, with all rights there are: a later lock may need more than the first.
fn reopen(file: &OpenFile) -> Result<OwnedFd, VolumeError> {
    use std::os::fd::AsRawFd as _;
    let path = format!("/proc/self/fd/{}", file.descriptor.as_raw_fd());
    let open = |flags| rustix::fs::open(&*path, flags | OFlags::CLOEXEC, rustix::fs::Mode::empty());
    let wanted = if file.node.volume.read_only {
        OFlags::RDONLY
    } else {
        OFlags::RDWR
    };
    let own = rustix::fs::fcntl_getfl(&file.descriptor)? & OFlags::RWMODE;
    Ok(open(wanted).or_else(|_| open(own))?)
}

/// The call in which `thread` waits.
fn calling(thread: u32) -> Call {
    /// flock(2) for 32-bit programs on x86.
    const COMPAT_FLOCK: libc::c_long = 143;
    let text = fs::read_to_string(format!("/proc/{thread}/syscall")).unwrap_or_default();
    let number = text.split_ascii_whitespace().next();
    match number.and_then(|number| number.parse::<libc::c_long>().ok()) {
        Some(libc::SYS_flock | COMPAT_FLOCK) => Call::Flock,
        _ => Call::Fcntl,
    }
}

/// Whether a thread has a signal to take, or is gone.
fn signalled(thread: u32) -> bool {
    if thread == 0 {
        return false;
    }
    let Ok(status) = fs::read_to_string(format!("/proc/{thread}/status")) else {
        return true;
    };
    let mask = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .unwrap_or(0)
    };
    let pending = mask("SigPnd:") | mask("ShdPnd:");
    // Blocked and ignored ones do not interrupt.
    pending & !mask("SigBlk:") & !mask("SigIgn:") != 0
}

/// Whether the calls of other processes can be seen, without which flock and fcntl cannot be told apart: by privilege, or those
/// of the same user where Yama does not forbid it.
pub(super) fn can_tell() -> bool {
    let all = rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_PTRACE));
    let yama = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
    let own = yama.map_or(true, |scope| scope.trim() == "0");
    (all || own) && fs::metadata("/proc/self/syscall").is_ok()
}
