//! PeerNotifier the other mounts of the store about a change made through this one, in a thread of its own.
//!
//! Not in the request: the kernel holds the changed directory's lock until the request is answered, another mount answers only
//! when its kernel has taken the change, and that waits for the lock of the same directory there. Two mounts that change at once
//! would wait for each other.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use crate::store::{LeaseId, Store};

/// The thread's queue. It ends with the value.
#[derive(Debug)]
pub(super) struct PeerNotifier(Option<SyncSender<()>>);

impl PeerNotifier {
    pub(super) fn start(store: Store, own: Option<LeaseId>) -> PeerNotifier {
        // One waiting message is enough: it is taken before the others are told, so it covers every change before it.
        let (sender, receiver) = sync_channel(1);
        let thread = thread::Builder::new()
            .name("mica-peers".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || {
                while receiver.recv().is_ok() {
                    match &own {
                        Some(own) => store.notify_other_mounts(own),
                        None => store.notify_mounts(),
                    };
                }
            });
        match thread {
            Ok(_) => PeerNotifier(Some(sender)),
            Err(error) => {
                // They watch the store, too.
                log::warn!("cannot tell the other mounts of the store: {error}");
                PeerNotifier(None)
            }
        }
    }

    /// Has the others told soon.
    pub(super) fn tell(&self) {
        if let Some(sender) = &self.0 {
            // Full: one waits already. Closed: the thread has panicked, and the others watch the store.
            let _ = sender.try_send(());
        }
    }
}
