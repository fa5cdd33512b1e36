//! Those who wait for a lock.
//!
//! Who wants the same of the same inode stands in one queue: only its first can be next. A thread of the queue's waits for it in the
//! kernel, whoever holds the lock, so waiting costs nothing. There are only so many of these threads, fewer still for one user:
//! the first of a queue without one is tried at each look.
//!
//! A look is for those who have a signal to take, which the kernel would tell with a request that the crate behind the edge refuses.
//! It is at a few of them at a time, so its cost does not grow with how many wait; one of a thousand is asked every few seconds.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;
use rustix::thread::Pid;

use super::{Answer, Call, LockRequest, State, VolumeError, caller, key, kind, range};
use crate::fs::InodeNo;
use crate::fs::volumes::files::OpenFile;
use crate::sys::beneath::{LockKind, Range};
use crate::sys::signal;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);
/// At so many, unless some of them had a signal: then at as many again.
const AT_ONCE: usize = 64;
/// So many of one user may wait.
const MOST: usize = 1000;
/// Threads, and those of one user.
const THREADS: (usize, usize) = (64, 16);

/// Somebody who has to wait.
pub(super) struct One {
    request: LockRequest,
    call: Call,
    file: Arc<OpenFile>,
    answer: Answer,
    /// He has a signal to take.
    interrupted: bool,
}

/// What all in a queue want: whom one of them has to wait for, the others have to.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Wanted {
    ino: InodeNo,
    call: Call,
    kind: LockKind,
    range: Range,
    /// Whose locks here are in nobody's way but his own.
    owner: Option<u64>,
}

#[derive(Default)]
struct Queue {
    numbers: VecDeque<u64>,
    /// Waits for the first of them.
    thread: Option<Thread>,
}

#[derive(Clone, Copy)]
struct Thread {
    user: u32,
    /// Once it runs.
    id: Option<Pid>,
}

#[derive(Default)]
struct Table {
    next: u64,
    all: BTreeMap<u64, (Wanted, One)>,
    queues: HashMap<Wanted, Queue>,
    /// Last number looked at.
    looked: u64,
}

pub(super) struct Waiting {
    state: Arc<State>,
    table: Mutex<Table>,
    some: Condvar,
}

impl One {
    pub(super) fn new(
        request: LockRequest,
        call: Call,
        file: Arc<OpenFile>,
        answer: Answer,
    ) -> One {
        One {
            request,
            call,
            file,
            answer,
            interrupted: false,
        }
    }
}

impl Waiting {
    pub(super) fn start(state: Arc<State>) -> io::Result<Arc<Waiting>> {
        signal::let_interrupt()?;
        let waiting = Arc::new(Waiting {
            state,
            table: Mutex::default(),
            some: Condvar::new(),
        });
        let looking = Arc::clone(&waiting);
        let thread = thread::Builder::new().name("mica-locks".to_owned());
        thread
            .stack_size(128 * 1024)
            .spawn(move || looking.look())?;
        Ok(waiting)
    }

    /// Grants the lock or queues for it.
    pub(super) fn lock(self: &Arc<Self>, one: One) {
        let wanted = match self.wanted(&one) {
            Ok(wanted) => wanted,
            Err(error) => return (one.answer)(Err(error)),
        };
        // Behind those who came before.
        if !self.table.lock().queues.contains_key(&wanted) {
            match self.state.attempt(&one.request, one.call, &one.file) {
                Err(VolumeError::Host(Errno::AGAIN | Errno::ACCESS)) => {}
                result => return (one.answer)(result),
            }
        }
        let user = one.request.user;
        let mut table = self.table.lock();
        if table.of_user(user) >= MOST {
            drop(table);
            return (one.answer)(Err(Errno::NOLCK.into()));
        }
        table.push(wanted, one);
        self.staff(&mut table, wanted);
        drop(table);
        self.some.notify_one();
    }

    fn wanted(&self, one: &One) -> Result<Wanted, VolumeError> {
        let request = &one.request;
        let known = self.state.holders.lock().call(key(request)).is_some();
        Ok(Wanted {
            ino: request.ino,
            call: one.call,
            kind: kind(request)?,
            range: range(request),
            owner: known.then_some(request.owner),
        })
    }

    /// Gives the queue a thread, if there is one to be had.
    fn staff(self: &Arc<Self>, table: &mut Table, wanted: Wanted) {
        let Some(user) = table.unattended(&wanted) else {
            return;
        };
        let threads = table.queues.values().filter_map(|queue| queue.thread);
        let (all, own) = threads.fold((0, 0), |(all, own), thread| {
            (all + 1, own + usize::from(thread.user == user))
        });
        let (most, most_of_user) = THREADS;
        if all >= most || own >= most_of_user {
            return;
        }
        let waiting = Arc::clone(self);
        let thread = thread::Builder::new().name("mica-lock".to_owned());
        let started = thread
            .stack_size(128 * 1024)
            .spawn(move || waiting.attend(wanted));
        if let (Ok(_), Some(queue)) = (started, table.queues.get_mut(&wanted)) {
            queue.thread = Some(Thread { user, id: None });
        }
    }

    /// Waits for each of a queue in turn.
    fn attend(self: &Arc<Self>, wanted: Wanted) {
        signal::allow_interrupt();
        let mut table = self.table.lock();
        while let Some(number) = table.begin(&wanted) {
            let Some((_, one)) = table.all.get(&number) else {
                break;
            };
            let (request, call, file) = (one.request, one.call, Arc::clone(&one.file));
            drop(table);
            let result = loop {
                match self.state.wait(&request, call, &file) {
                    // Whoever interrupts has said so before.
                    Err(VolumeError::Host(Errno::INTR)) if !self.is_interrupted(number) => {}
                    result => break result,
                }
            };
            let done = self.table.lock().take(number);
            if let Some(one) = done {
                (one.answer)(result);
            }
            table = self.table.lock();
        }
        // A queue that has had to do without gets a thread now.
        if let Some(next) = table.next_unattended() {
            self.staff(&mut table, next);
        }
    }

    fn is_interrupted(&self, number: u64) -> bool {
        let table = self.table.lock();
        table
            .all
            .get(&number)
            .is_none_or(|(_, one)| one.interrupted)
    }

    fn look(&self) {
        loop {
            let mut table = self.table.lock();
            while table.all.is_empty() {
                self.some.wait(&mut table);
            }
            let _ = self.some.wait_for(&mut table, LOOK);
            // Those who had not begun to wait in the kernel when they were told.
            table.interrupt();
            drop(table);
            while self.look_at_some() {}
        }
    }

    /// Whether some of them had a signal, and there are others.
    fn look_at_some(&self) -> bool {
        let (some, more) = self.table.lock().some();
        let mut found = false;
        for (number, request) in &some {
            if caller::has_signal(request.thread) {
                found |= self.interrupt(*number);
            } else {
                self.attempt(*number);
            }
        }
        more && found
    }

    /// Whether it was not known before that he has a signal.
    fn interrupt(&self, number: u64) -> bool {
        let mut table = self.table.lock();
        if table.is_attended(number) {
            let one = table.all.get_mut(&number);
            let known = one.is_none_or(|(_, one)| std::mem::replace(&mut one.interrupted, true));
            table.interrupt();
            return !known;
        }
        let one = table.take(number);
        drop(table);
        let Some(one) = one else {
            return false;
        };
        (one.answer)(Err(Errno::INTR.into()));
        true
    }

    /// Tries for somebody for whom no thread waits, if it is his turn.
    fn attempt(&self, number: u64) {
        let mut table = self.table.lock();
        if table.is_attended(number) {
            return;
        }
        let Some((wanted, one)) = table.all.get(&number) else {
            return;
        };
        let is_first = (table.queues.get(wanted))
            .is_some_and(|queue| queue.thread.is_none() && queue.numbers.front() == Some(&number));
        // Since he came he has got another lock, which may be what the first of the queue waits for.
        let holds = || {
            let holders = self.state.holders.lock();
            wanted.owner.is_none() && holders.call(key(&one.request)).is_some()
        };
        if !is_first && !holds() {
            return;
        }
        match self.state.attempt(&one.request, one.call, &one.file) {
            Err(VolumeError::Host(Errno::AGAIN | Errno::ACCESS)) => {}
            result => {
                let one = table.take(number);
                drop(table);
                if let Some(one) = one {
                    (one.answer)(result);
                }
            }
        }
    }
}

impl Table {
    fn push(&mut self, wanted: Wanted, one: One) {
        self.next += 1;
        self.all.insert(self.next, (wanted, one));
        let queue = self.queues.entry(wanted).or_default();
        queue.numbers.push_back(self.next);
    }

    fn take(&mut self, number: u64) -> Option<One> {
        let (wanted, one) = self.all.remove(&number)?;
        if let Some(queue) = self.queues.get_mut(&wanted) {
            queue.numbers.retain(|other| *other != number);
            if queue.numbers.is_empty() && queue.thread.is_none() {
                self.queues.remove(&wanted);
            }
        }
        Some(one)
    }

    fn of_user(&self, user: u32) -> usize {
        let all = self.all.values();
        all.filter(|(_, one)| one.request.user == user).count()
    }

    /// The user of the first in a queue that has no thread.
    fn unattended(&self, wanted: &Wanted) -> Option<u32> {
        let queue = self.queues.get(wanted)?;
        let first = queue.numbers.front().filter(|_| queue.thread.is_none())?;
        self.all.get(first).map(|(_, one)| one.request.user)
    }

    fn next_unattended(&self) -> Option<Wanted> {
        let mut queues = self.queues.keys();
        queues
            .find(|wanted| self.unattended(wanted).is_some())
            .copied()
    }

    /// The first of a queue, for its thread; the queue and the thread's place end with the last.
    fn begin(&mut self, wanted: &Wanted) -> Option<u64> {
        let queue = self.queues.get_mut(wanted)?;
        let Some(number) = queue.numbers.front() else {
            self.queues.remove(wanted);
            return None;
        };
        if let Some(thread) = &mut queue.thread {
            thread.id = Some(rustix::thread::gettid());
        }
        Some(*number)
    }

    /// Whether a thread waits for this one.
    fn is_attended(&self, number: u64) -> bool {
        let queue = (self.all.get(&number)).and_then(|(wanted, _)| self.queues.get(wanted));
        queue.is_some_and(|queue| queue.thread.is_some() && queue.numbers.front() == Some(&number))
    }

    /// Tells the threads whose one has a signal to take.
    fn interrupt(&self) {
        for queue in self.queues.values() {
            let (Some(thread), Some(first)) = (queue.thread, queue.numbers.front()) else {
                continue;
            };
            if let (Some(id), Some((_, one))) = (thread.id, self.all.get(first))
                && one.interrupted
            {
                signal::interrupt(id);
            }
        }
    }

    /// The next to look at, and whether there are others.
    fn some(&mut self) -> (Vec<(u64, LockRequest)>, bool) {
        let after = (Bound::Excluded(self.looked), Bound::Unbounded);
        let up_to = (Bound::Unbounded, Bound::Included(self.looked));
        let order = self.all.range(after).chain(self.all.range(up_to));
        let some: Vec<_> = order
            .take(AT_ONCE)
            .map(|(number, (_, one))| (*number, one.request))
            .collect();
        self.looked = some.last().map_or(self.looked, |(number, _)| *number);
        let more = self.all.len() > some.len();
        (some, more)
    }
}
