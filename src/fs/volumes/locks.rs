//! flock and fcntl locks of the mount's users, held on the host: they meet those of the host's processes.
//!
//! An owner (what fcntl means by a process, what flock means by an open file) has one open file description per inode, and
//! its locks are that description's. The kernel names owners, but not which of the two calls a request comes from; only a lock
//! of a whole file can be either, and then the caller, who waits in that very call, is asked (`/proc/TID/syscall`).
//!
//! Locks end when their owner closes a descriptor (FLUSH, RELEASE with an owner), and with the open file they were taken through:
//! for a lock that belongs to the open file itself (`F_OFD_SETLK`) the kernel says nothing else.
//!
//! Who has to wait is `waiting`'s.

mod caller;
mod waiting;

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::super::api::InodeNo;
use super::VolumeTree;
use super::attr::{FileNo, VolumeError};
use super::budget::{Budget, Share};
use super::files::OpenFile;
use super::record::{Facts, Kind, Mark, Record};
use crate::sys::beneath::{self, LockKind, Range};

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
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Call {
    Fcntl,
    Flock,
}

/// The locks of one owner on one inode. None yet, if he waits for his first.
#[derive(Debug)]
struct Holder {
    _mark: Mark,
    /// Shared with whoever waits for a lock of it.
    descriptor: Arc<OwnedFd>,
    call: Call,
    pid: u32,
    /// Through which open file its first lock was taken.
    file: FileNo,
    _share: Share,
}

/// In the record: the locks are flock(2)'s.
const FLOCK: u8 = 1;

/// An owner on an inode.
type Key = (InodeNo, u64);

#[derive(Debug, Default)]
struct Holders {
    by_owner: HashMap<Key, Holder>,
    by_file: HashMap<FileNo, HashSet<Key>>,
}

impl Holders {
    /// For a key that is free.
    fn insert(&mut self, key: Key, holder: Holder) {
        self.by_file.entry(holder.file).or_default().insert(key);
        self.by_owner.insert(key, holder);
    }

    fn call(&self, key: Key) -> Option<Call> {
        self.by_owner.get(&key).map(|holder| holder.call)
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

struct State {
    /// For the next process.
    record: Option<Arc<Record>>,
    budget: Arc<Budget>,
    holders: Mutex<Holders>,
    /// Holders, so that closing a file without locks costs nothing.
    count: AtomicUsize,
}

/// All locks of a mount.
pub(super) struct Locks {
    state: Arc<State>,
    waiting: Arc<waiting::Waiting>,
}

impl Locks {
    /// Starts the thread that looks after those who wait, for as long as the process lives.
    pub(super) fn start(budget: Arc<Budget>, record: Option<Arc<Record>>) -> io::Result<Locks> {
        let state = Arc::new(State {
            record,
            budget,
            holders: Mutex::default(),
            count: AtomicUsize::new(0),
        });
        let waiting = waiting::Waiting::start(Arc::clone(&state))?;
        Ok(Locks { state, waiting })
    }

    /// The locks of an owner that an earlier process has held for him.
    pub(super) fn restore(&self, descriptor: OwnedFd, facts: &Facts) -> Result<(), VolumeError> {
        let share = self.state.budget.take(facts.user)?;
        let mark = self.state.mark(&descriptor, facts);
        let holder = Holder {
            _mark: mark,
            descriptor: Arc::new(descriptor),
            call: match facts.flags & FLOCK {
                0 => Call::Fcntl,
                _ => Call::Flock,
            },
            pid: u32::try_from(facts.count).unwrap_or(0),
            file: FileNo(facts.of),
            _share: share,
        };
        let mut holders = self.state.holders.lock();
        holders.insert((facts.inode(), facts.number), holder);
        self.state.count.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// An owner has closed a descriptor of the file: its locks end.
    pub(super) fn owner_closed(&self, ino: InodeNo, owner: u64) {
        if self.state.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let gone = self.state.holders.lock().remove((ino, owner));
        self.state.ended(gone);
    }

    /// The last descriptor of an open file is closed: no lock that was taken through it is left.
    pub(super) fn file_closed(&self, file: FileNo) {
        if self.state.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let gone = self.state.holders.lock().remove_file(file);
        self.state.ended(gone);
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
        let call = match self.locks.state.call_of(&request) {
            Ok(call) => call,
            Err(error) => return answer(Err(error)),
        };
        if wait {
            let one = waiting::One::new(request, call, file, Box::new(answer));
            return self.locks.waiting.lock(one);
        }
        answer(self.locks.state.attempt(&request, call, &file));
    }

    /// The lock that stands in the way of `request`.
    pub fn blocking_lock(&self, request: &LockRequest) -> Result<Option<Blocking>, VolumeError> {
        let file = self.open_file(request.file)?;
        let kind = LockKind::from_raw(request.kind).ok_or(Errno::INVAL)?;
        let range = range(request);
        let holders = self.locks.state.holders.lock();
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
    /// The call that a request comes from.
    fn call_of(&self, request: &LockRequest) -> Result<Call, VolumeError> {
        let kind = kind(request)?;
        let known = self.holders.lock().call(key(request));
        Ok(match known {
            Some(call) => call,
            None if kind != LockKind::Unlock && range(request).is_whole() => {
                caller::call(request.thread)
            }
            None => Call::Fcntl,
        })
    }

    /// Sets or removes a lock without waiting: `EAGAIN`.
    fn attempt(
        &self,
        request: &LockRequest,
        call: Call,
        file: &OpenFile,
    ) -> Result<(), VolumeError> {
        let (kind, range, key) = (kind(request)?, range(request), key(request));
        let set = |descriptor: &OwnedFd| match call {
            Call::Fcntl => beneath::set_lock(descriptor, kind, &range),
            Call::Flock => beneath::set_flock(descriptor, kind),
        };
        self.drop_of_another_file(request);
        loop {
            if let Some(holder) = self.holders.lock().by_owner.get(&key) {
                return Ok(set(&holder.descriptor)?);
            }
            if kind == LockKind::Unlock {
                return Ok(());
            }
            let holder = self.describe(request, call, file)?;
            set(&holder.descriptor)?;
            let mut holders = self.holders.lock();
            // Somebody else of the same owner was faster: one owner has one description.
            if !holders.by_owner.contains_key(&key) {
                holders.insert(key, holder);
                self.count.fetch_add(1, Ordering::Release);
                return Ok(());
            }
        }
    }

    /// Waits for a lock, until it is granted or a signal arrives: `EINTR`.
    fn wait(&self, request: &LockRequest, call: Call, file: &OpenFile) -> Result<(), VolumeError> {
        let (kind, range, key) = (kind(request)?, range(request), key(request));
        self.drop_of_another_file(request);
        loop {
            let known = |holders: &Holders| {
                let holder = holders.by_owner.get(&key)?;
                Some(Arc::clone(&holder.descriptor))
            };
            let found = known(&self.holders.lock());
            let descriptor = match found {
                Some(descriptor) => descriptor,
                None => {
                    // Known before it has a lock: what the same owner takes meanwhile is the same description's.
                    let holder = self.describe(request, call, file)?;
                    let mut holders = self.holders.lock();
                    if !holders.by_owner.contains_key(&key) {
                        holders.insert(key, holder);
                        self.count.fetch_add(1, Ordering::Release);
                    }
                    continue;
                }
            };
            match call {
                Call::Fcntl => beneath::wait_lock(&*descriptor, kind, &range)?,
                Call::Flock => beneath::wait_flock(&*descriptor, kind)?,
            }
            let now = known(&self.holders.lock());
            if now.is_some_and(|now| Arc::ptr_eq(&now, &descriptor)) {
                return Ok(());
            }
            // The owner has closed a descriptor of the file meanwhile, which ends the locks he had, not his waiting.
        }
    }

    /// What flock means by an owner is one open file, and the kernel names the next one like one that it has closed. The request that says
    /// so may come after those of the next.
    fn drop_of_another_file(&self, request: &LockRequest) {
        let mut holders = self.holders.lock();
        let holder = holders.by_owner.get(&key(request));
        if holder.is_some_and(|holder| holder.call == Call::Flock && holder.file != request.file) {
            let gone = holders.remove(key(request));
            drop(holders);
            self.ended(gone);
        }
    }

    fn describe(
        &self,
        request: &LockRequest,
        call: Call,
        file: &OpenFile,
    ) -> Result<Holder, VolumeError> {
        let share = self.budget.take(request.user)?;
        let descriptor = reopen(file)?;
        let facts = Facts {
            flags: if call == Call::Flock { FLOCK } else { 0 },
            ino: request.ino.0,
            number: request.owner,
            count: u64::from(request.pid),
            user: request.user,
            volume: file.node.volume.number,
            of: request.file.0,
            ..Facts::default()
        };
        Ok(Holder {
            _mark: self.mark(&descriptor, &facts),
            descriptor: Arc::new(descriptor),
            call,
            pid: request.pid,
            file: request.file,
            _share: share,
        })
    }

    fn mark(&self, descriptor: &OwnedFd, facts: &Facts) -> Mark {
        match &self.record {
            Some(record) => record.mark(descriptor, Kind::Lock, facts, None),
            None => Mark::default(),
        }
    }

    fn ended(&self, gone: impl IntoIterator<Item = Holder>) {
        let mut count = 0;
        // Closing the descriptors may wait for the disk: without the lock.
        for holder in gone {
            count += 1;
            if Arc::strong_count(&holder.descriptor) > 1 {
                // Somebody waits with it. Neither call fails for a descriptor that is open.
                let all = Range {
                    start: 0,
                    end: u64::MAX,
                };
                let _ = beneath::set_lock(&*holder.descriptor, LockKind::Unlock, &all);
                let _ = beneath::set_flock(&*holder.descriptor, LockKind::Unlock);
            }
        }
        if count > 0 {
            self.count.fetch_sub(count, Ordering::Release);
        }
    }
}

fn key(request: &LockRequest) -> Key {
    (request.ino, request.owner)
}

fn kind(request: &LockRequest) -> Result<LockKind, VolumeError> {
    Ok(LockKind::from_raw(request.kind).ok_or(Errno::INVAL)?)
}

fn range(request: &LockRequest) -> Range {
    Range {
        start: request.range.0,
        end: request.range.1,
    }
}

/// A description of its own for an owner, with all rights there are: a later lock may need more than the first.
fn reopen(file: &OpenFile) -> Result<OwnedFd, VolumeError> {
    let path = crate::sys::fd::path(&file.descriptor);
    let open = |flags| rustix::fs::open(&*path, flags | OFlags::CLOEXEC, rustix::fs::Mode::empty());
    let wanted = if file.node.volume.read_only {
        OFlags::RDONLY
    } else {
        OFlags::RDWR
    };
    let own = rustix::fs::fcntl_getfl(&file.descriptor)? & OFlags::RWMODE;
    Ok(open(wanted).or_else(|_| open(own))?)
}

/// Whether the calls of other processes can be seen.
pub(super) fn can_tell() -> bool {
    caller::can_be_seen()
}
