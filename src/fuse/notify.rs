//! Telling the kernel what to forget.
//!
//! The kernel takes a directory's lock to drop an entry of it, and a request that changes the directory holds that lock until we
//! have answered it: an invalidation sent from a handler can wait for that very handler. So everything is queued, and a thread
//! of its own sends it. The queue exists before the session does; what was queued until then is sent first.
//!
//! Dropping a directory's name takes as long as there is much below it: a second for a million names. So the name of a tree
//! expires first, which is all that the next look needs and all that anybody waits for; it is dropped when nothing else waits,
//! unless it was asked about meanwhile: then the kernel has dropped what was there, and the name may stand for something new.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use fuser::INodeNo;
use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;

use crate::fs::{InodeNo, KernelCache};

/// How long who queues a lot waits for the kernel; a request that holds a directory's lock can keep it waiting.
const SETTLE: Duration = Duration::from_secs(5);
/// Trees are dropped when nothing was queued for so long: what belongs to the same change, and who asks whether it is done, is quicker.
const QUIET: Duration = Duration::from_millis(100);
/// Before an invalidation is sent again for which the kernel had no memory: at first, and at most.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(5);
const SHORTAGE_PAUSE_MOST: Duration = Duration::from_secs(1);

#[derive(Debug, Eq, PartialEq)]
enum Item {
    Entry { parent: InodeNo, name: Vec<u8> },
    Expired { parent: InodeNo, name: Vec<u8> },
    Tree { parent: InodeNo, name: Vec<u8> },
    Inode { ino: InodeNo, attrs_only: bool },
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Item>,
    /// Names of trees that have expired and are to be dropped; nobody waits for these.
    expired: VecDeque<Item>,
    /// When something was queued last.
    last: Option<Instant>,
    /// Items ever queued, and of those the ones that have taken effect.
    queued: u64,
    done: u64,
}

/// The queue of one mount.
#[derive(Debug, Default)]
pub struct NotifyQueue {
    state: Mutex<State>,
    changed: Condvar,
    /// As many as there are in `expired`: most requests need no lock to know that there are none.
    dropping: AtomicUsize,
    /// Once the session is there.
    notifier: OnceLock<fuser::Notifier>,
}

impl NotifyQueue {
    /// An empty queue that nobody serves yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Waits until everything queued before this call has taken effect; false if it has not after `timeout`.
    ///
    /// Never call it in a request handler.
    pub fn drain(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut state = self.state.lock();
        let target = state.queued;
        while state.done < target {
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                return state.done >= target;
            }
        }
        true
    }

    /// Starts the thread that sends, for as long as the process lives.
    pub(super) fn serve(
        self: &Arc<Self>,
        notifier: fuser::Notifier,
        connection: OwnedFd,
    ) -> io::Result<()> {
        let queue = Arc::clone(self);
        // A queue has one session.
        let _ = self.notifier.set(notifier.clone());
        thread::Builder::new()
            .name("mica-notify".to_owned())
            .stack_size(128 * 1024)
            .spawn(move || {
                loop {
                    let (item, awaited) = queue.next();
                    send(&notifier, &connection, &item);
                    if !awaited {
                        continue;
                    }
                    let mut state = queue.state.lock();
                    if let Item::Tree { parent, name } = item {
                        state.expired.push_back(Item::Entry { parent, name });
                        queue.count(&state);
                    }
                    state.done += 1;
                    queue.changed.notify_all();
                }
            })?;
        Ok(())
    }

    /// What is to be sent next, and whether somebody may wait for it.
    fn next(&self) -> (Item, bool) {
        let mut state = self.state.lock();
        loop {
            if let Some(item) = state.waiting.pop_front() {
                return (item, true);
            }
            let quiet = state.last.map(|last| last + QUIET);
            match quiet.filter(|_| !state.expired.is_empty()) {
                Some(quiet) if Instant::now() < quiet => {
                    // Woken or not: the loop looks at both.
                    let _ = self.changed.wait_until(&mut state, quiet);
                }
                _ => match state.expired.pop_front() {
                    Some(item) => {
                        self.count(&state);
                        return (item, false);
                    }
                    None => self.changed.wait(&mut state),
                },
            }
        }
    }

    fn count(&self, state: &State) {
        self.dropping.store(state.expired.len(), Ordering::Release);
    }

    fn push(&self, item: Item) {
        let mut state = self.state.lock();
        // The same thing twice in a row needs doing once: the one that still waits will be sent after both changes.
        if state.waiting.back() != Some(&item) {
            state.waiting.push_back(item);
            state.queued += 1;
            state.last = Some(Instant::now());
            self.changed.notify_all();
        }
    }
}

impl KernelCache for NotifyQueue {
    fn invalidate_entry(&self, parent: InodeNo, name: &[u8]) {
        self.push(Item::Entry {
            parent,
            name: name.to_owned(),
        });
    }

    fn invalidate_tree(&self, parent: InodeNo, name: &[u8]) {
        self.push(Item::Tree {
            parent,
            name: name.to_owned(),
        });
    }

    fn asked(&self, parent: InodeNo, name: &[u8]) {
        if self.dropping.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut state = self.state.lock();
        state.expired.retain(|item| {
            !matches!(item, Item::Entry { parent: p, name: n } if (*p, &**n) == (parent, name))
        });
        self.count(&state);
    }

    fn expire_entry(&self, parent: InodeNo, name: &[u8]) {
        self.push(Item::Expired {
            parent,
            name: name.to_owned(),
        });
    }

    fn invalidate_inode(&self, ino: InodeNo, attrs_only: bool) {
        self.push(Item::Inode { ino, attrs_only });
    }

    fn settle(&self) {
        self.drain(SETTLE);
    }

    fn invalidate_attributes_now(&self, ino: InodeNo) {
        if let Some(notifier) = self.notifier.get()
            && let Err(error) = notifier.inval_inode(INodeNo(ino.0), -1, 0)
        {
            log::debug!("attributes of {ino:?}: {error}");
        }
    }
}

/// What the kernel does not know it need not forget (ENOENT, which fuser drops); an ended connection needs nothing any more. A
/// shortage passes: the kernel would keep showing what is gone.
fn send(notifier: &fuser::Notifier, connection: &OwnedFd, item: &Item) {
    let mut pause = SHORTAGE_PAUSE;
    loop {
        let Err(error) = send_once(notifier, connection, item) else {
            return;
        };
        let errno = error.raw_os_error().map(Errno::from_raw_os_error);
        if !matches!(
            errno,
            Some(Errno::NOMEM | Errno::INTR | Errno::AGAIN | Errno::NOBUFS)
        ) {
            log::debug!("invalidation {item:?}: {error}");
            return;
        }
        if pause == SHORTAGE_PAUSE {
            log::warn!("invalidation {item:?}: {error}: trying until it works");
        }
        thread::sleep(pause);
        pause = (pause * 2).min(SHORTAGE_PAUSE_MOST);
    }
}

fn send_once(notifier: &fuser::Notifier, connection: &OwnedFd, item: &Item) -> io::Result<()> {
    match item {
        Item::Entry { parent, name } => {
            notifier.inval_entry(INodeNo(parent.0), OsStr::from_bytes(name))
        }
        Item::Expired { parent, name } | Item::Tree { parent, name } => {
            expire(connection, *parent, name)
        }
        // A negative offset: attributes only. Length 0: to the end.
        Item::Inode { ino, attrs_only } => {
            notifier.inval_inode(INodeNo(ino.0), if *attrs_only { -1 } else { 0 }, 0)
        }
    }
}

/// What fuser has no call for: `FUSE_NOTIFY_INVAL_ENTRY` with `FUSE_EXPIRE_ONLY` (kernel 6.2; an older one drops the name). The name is asked about again, but not
/// dropped: whoever has the directory as working directory, or something mounted on it, does not notice.
fn expire(connection: &OwnedFd, parent: InodeNo, name: &[u8]) -> io::Result<()> {
    const INVAL_ENTRY: u32 = 3;
    const EXPIRE_ONLY: u32 = 1;
    /// `fuse_out_header` and `fuse_notify_inval_entry_out`, 16 bytes each, and the NUL after the name.
    const REST: usize = 33;
    let too_long = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let total = u32::try_from(name.len() + REST).map_err(too_long)?;
    let length = u32::try_from(name.len()).map_err(too_long)?;
    let mut message = Vec::with_capacity(name.len() + REST);
    message.extend(total.to_ne_bytes());
    message.extend(INVAL_ENTRY.to_ne_bytes());
    message.extend(0u64.to_ne_bytes());
    message.extend(parent.0.to_ne_bytes());
    message.extend(length.to_ne_bytes());
    message.extend(EXPIRE_ONLY.to_ne_bytes());
    message.extend(name);
    message.push(0);
    match rustix::io::write(connection, &message) {
        // What it does not know it need not forget.
        Ok(_) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_was_asked_about_again_is_not_dropped_later() {
        let queue = NotifyQueue::new();
        for name in [&b"gone"[..], b"new", b"gone too"] {
            queue.state.lock().expired.push_back(Item::Entry {
                parent: InodeNo(7),
                name: name.to_owned(),
            });
        }
        queue.count(&queue.state.lock());
        queue.asked(InodeNo(8), b"gone");
        queue.asked(InodeNo(7), b"new");
        queue.invalidate_inode(InodeNo(9), true);
        let inode = Item::Inode {
            ino: InodeNo(9),
            attrs_only: true,
        };
        assert_eq!(queue.next(), (inode, true));
        for name in [&b"gone"[..], b"gone too"] {
            let (parent, name) = (InodeNo(7), name.to_owned());
            assert_eq!(queue.next(), (Item::Entry { parent, name }, false));
        }
        assert_eq!(queue.dropping.load(Ordering::Acquire), 0);
    }
}
