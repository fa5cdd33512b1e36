//! What the threads of a connection report to the owner of its session: that one has ended, and that all have.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

/// What the threads report to the owner.
#[derive(Debug)]
pub(super) struct Events {
    /// Readable when something has happened.
    pub(super) signal: OwnedFd,
    pub(super) thread_ended: AtomicBool,
    /// Set when all threads have ended.
    pub(super) outcome: Mutex<Option<io::Result<()>>>,
}

impl Events {
    pub(super) fn raise(&self) {
        // Only fails when the counter is full, and then the descriptor is readable already.
        let _ = rustix::io::write(&self.signal, &1u64.to_ne_bytes());
    }

    /// Makes the end of the calling thread known.
    pub(super) fn watch_thread(self: &Arc<Self>) {
        MARK.with_borrow_mut(|mark| {
            if mark.is_none() {
                *mark = Some(Mark(Arc::clone(self)));
            }
        });
    }
}

struct Mark(Arc<Events>);

impl Drop for Mark {
    fn drop(&mut self) {
        self.0.thread_ended.store(true, Ordering::Release);
        self.0.raise();
    }
}

thread_local! {
    static MARK: RefCell<Option<Mark>> = const { RefCell::new(None) };
}
