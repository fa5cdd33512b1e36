//! Telling the kernel what to forget.
//!
//! The kernel takes a directory's lock to drop an entry of it, and a request that changes the directory holds that lock until we
//! have answered it: an invalidation sent from a handler can wait for that very handler. So everything is queued, and a thread
//! of its own sends it. The queue exists before the session does; what was queued until then is sent first.
//!
//! That thread is the one of the daemon that a kill may not end: it waits for a lock whose holder waits for an answer. So it has no
//! descriptor but one of the connection that nobody reads from ([`crate::sys::own_files`]): the others are closed by the kill,
//! which ends the requests that were read from them, and whoever waits for the daemon's end sees it.
//!
//! Dropping a directory's name takes as long as there is much below it: a second for a million names. So the name of a tree
//! expires first, which is all that the next look needs and all that anybody waits for; it is dropped when nothing else waits,
//! unless it was asked about meanwhile: then the kernel has dropped what was there, and the name may stand for something new.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use fuser::INodeNo;
use log::Level;
use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;

use crate::fs::{InodeNo, KernelCache};
use crate::sys::own_files;

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
    /// What the thread that sends has to say: it has no descriptor to log to.
    trouble: Option<(Level, String)>,
}

impl State {
    fn say(&mut self) {
        if let Some((level, text)) = self.trouble.take() {
            log::log!(level, "{text}");
        }
    }
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
    /// For what an answer is wanted to.
    asking: OnceLock<OwnedFd>,
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
        state.say();
        let target = state.queued;
        while state.done < target {
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                return state.done >= target;
            }
        }
        true
    }

    /// Starts the thread that sends, for as long as the process lives. `notifier` is for those who do not wait for it.
    pub(super) fn serve(
        self: &Arc<Self>,
        notifier: fuser::Notifier,
        connection: OwnedFd,
        asking: OwnedFd,
    ) -> io::Result<()> {
        let queue = Arc::clone(self);
        // A queue has one session.
        let _ = self.notifier.set(notifier);
        let _ = self.asking.set(asking);
        let thread = thread::Builder::new()
            .name("mica-notify".to_owned())
            .stack_size(128 * 1024);
        own_files::spawn(thread, connection, move |connection| {
            loop {
                let (item, awaited) = queue.next();
                queue.send(&connection, &item);
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
        })
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

    /// An ended connection needs nothing any more. A shortage passes: the kernel would keep showing what is gone.
    fn send(&self, connection: &OwnedFd, item: &Item) {
        let mut pause = SHORTAGE_PAUSE;
        while let Err(error) = send_once(connection, item) {
            let errno = error.raw_os_error().map(Errno::from_raw_os_error);
            let text = format!("invalidation {item:?}: {error}");
            if !matches!(
                errno,
                Some(Errno::NOMEM | Errno::INTR | Errno::AGAIN | Errno::NOBUFS)
            ) {
                self.state.lock().trouble = Some((Level::Debug, text));
                return;
            }
            if pause == SHORTAGE_PAUSE {
                let text = format!("{text}: trying until it works");
                self.state.lock().trouble = Some((Level::Warn, text));
            }
            thread::sleep(pause);
            pause = (pause * 2).min(SHORTAGE_PAUSE_MOST);
        }
    }

    fn count(&self, state: &State) {
        self.dropping.store(state.expired.len(), Ordering::Release);
    }

    fn push(&self, item: Item) {
        let mut state = self.state.lock();
        state.say();
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

    fn knows(&self, ino: InodeNo) -> bool {
        let item = Item::Inode {
            ino,
            attrs_only: true,
        };
        let asked = self
            .asking
            .get()
            .map(|connection| write_once(connection, &item));
        !matches!(asked, Some(Err(error)) if error.raw_os_error() == Some(libc::ENOENT))
    }

    fn invalidate_attributes_now(&self, ino: InodeNo) {
        if let Some(notifier) = self.notifier.get()
            && let Err(error) = notifier.inval_inode(INodeNo(ino.0), -1, 0)
        {
            log::debug!("attributes of {ino:?}: {error}");
        }
    }
}

/// Written here and not by fuser, whose descriptor the thread does not have. An entry that expires (`FUSE_EXPIRE_ONLY`, kernel 6.2; an
/// older one drops the name) is asked about again, but not dropped: whoever has the directory as his working directory, or
/// something mounted on it, does not notice.
fn send_once(connection: &OwnedFd, item: &Item) -> io::Result<()> {
    match write_once(connection, item) {
        // What it does not know it need not forget.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        written => written,
    }
}

fn write_once(connection: &OwnedFd, item: &Item) -> io::Result<()> {
    const INVAL_INODE: u32 = 2;
    const INVAL_ENTRY: u32 = 3;
    const DROP: u32 = 0;
    const EXPIRE_ONLY: u32 = 1;
    let entry = |parent: &InodeNo, name: &[u8], flags: u32| {
        // `fuse_notify_inval_entry_out`, the name and a NUL.
        let length = u32::try_from(name.len()).ok()?;
        let head = [
            &parent.0.to_ne_bytes()[..],
            &length.to_ne_bytes(),
            &flags.to_ne_bytes(),
        ];
        Some((INVAL_ENTRY, [&head.concat()[..], name, b"\0"].concat()))
    };
    let message = match item {
        Item::Entry { parent, name } => entry(parent, name, DROP),
        Item::Expired { parent, name } | Item::Tree { parent, name } => {
            entry(parent, name, EXPIRE_ONLY)
        }
        Item::Inode { ino, attrs_only } => {
            // `fuse_notify_inval_inode_out`. A negative offset: attributes only. Length 0: to the end.
            let offset: i64 = if *attrs_only { -1 } else { 0 };
            let fields = [
                ino.0.to_ne_bytes(),
                offset.to_ne_bytes(),
                0i64.to_ne_bytes(),
            ];
            Some((INVAL_INODE, fields.concat()))
        }
    };
    let (code, body) = message.ok_or(io::ErrorKind::InvalidInput)?;
    // `fuse_out_header`, 16 bytes: a notification answers no request.
    let total = u32::try_from(body.len() + 16).map_err(|_| io::ErrorKind::InvalidInput)?;
    let head = [
        &total.to_ne_bytes()[..],
        &code.to_ne_bytes(),
        &0u64.to_ne_bytes(),
    ];
    rustix::io::write(connection, &[&head.concat()[..], &body].concat())?;
    Ok(())
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
