//! Directories of trees that do not exist any more, but are still known to the kernel: somebody was inside when the tag went.
//!
//! The kernel drops what nobody uses when a tag directory is removed. What was in use then stays cached after its last use, as
//! its name was never taken away, until memory gets short: and the removed layer stays open as long. So the names are taken away
//! here. A thread does it, first a moment after a removal, when the kernel has dropped the rest by itself, then less and less
//! often while anything is left. Without removals it sleeps.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use super::trees::{At, Content, Open, Trees};
use crate::fs::api::{FsError, KernelCache};
use crate::sys::memory;

/// When to look first, and how long to wait at most.
const SOON: Duration = Duration::from_millis(100);
const SELDOM: Duration = Duration::from_secs(30);

/// Names taken away before the kernel is waited for: those of a million files at once would take 200 MB.
const BATCH: usize = 4096;

/// The thread's queue. The thread ends with the value.
#[derive(Debug)]
pub(super) struct Orphans(Option<SyncSender<()>>);

impl Orphans {
    pub(super) fn start(trees: Arc<Trees>, cache: Arc<dyn KernelCache>) -> Orphans {
        let (sender, receiver) = sync_channel(1);
        let work = move || {
            // None: nothing is left, sleep until something is removed.
            let mut pause: Option<Duration> = None;
            loop {
                let woken = match pause {
                    None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
                    Some(pause) => receiver.recv_timeout(pause),
                };
                pause = match (woken, pause) {
                    (Err(RecvTimeoutError::Disconnected), _) => return,
                    (Ok(()), _) => Some(SOON),
                    (Err(RecvTimeoutError::Timeout), pause) => {
                        let pause = pause.unwrap_or(SOON).saturating_mul(2).min(SELDOM);
                        let left = sweep(&trees, &*cache) > 0;
                        if !left {
                            // What a large image took is free now, in pieces that the allocator would keep.
                            memory::give_back();
                        }
                        left.then_some(pause)
                    }
                };
            }
        };
        let thread = thread::Builder::new()
            .name("mica-orphans".to_owned())
            .stack_size(256 * 1024);
        match thread.spawn(work) {
            Ok(_) => Orphans(Some(sender)),
            Err(error) => {
                log::warn!("removed layers may stay open longer than used: {error}");
                Orphans(None)
            }
        }
    }

    /// Something was removed.
    pub(super) fn look(&self) {
        if let Some(sender) = &self.0 {
            // Full: it will look. Closed: the thread has panicked, which costs space only.
            let _ = sender.try_send(());
        }
    }
}

/// Takes away the names in all orphaned directories; how many of these there are.
fn sweep(trees: &Trees, cache: &dyn KernelCache) -> usize {
    let orphans = trees.orphans();
    let mut queued = 0;
    for dir in &orphans {
        let take_away = |name: &[u8]| {
            cache.invalidate_entry(dir.ino, name);
            queued += 1;
            if queued % BATCH == 0 {
                cache.settle();
            }
        };
        if let Some((content, at)) = dir.place()
            && let Err(error) = names(content, at, take_away)
        {
            // What cannot be listed could not be looked up either.
            log::debug!("names of orphaned inode {}: {error}", dir.ino.0);
        }
    }
    orphans.len()
}

fn names(content: &Content, at: &At, mut each: impl FnMut(&[u8])) -> Result<(), FsError> {
    match (content.open()?, at) {
        (Open::Image(image), At::Merged(dir)) => {
            for entry in image.list(dir)?.iter() {
                each(entry?.name);
            }
            dir.shed();
        }
        (Open::Layer(file, _), At::Layer(node, _)) => {
            for entry in file.index.entries(*node)?.iter() {
                each(entry?.name);
            }
        }
        _ => {}
    }
    Ok(())
}
