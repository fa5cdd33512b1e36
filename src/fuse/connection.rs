//! What every request of every connection shares: its count, its caller, and its panic.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use fuser::{Errno, INodeNo, InitFlags, KernelConfig, Request};

use super::events::Events;
use super::kernel;
use super::stats::{Op, Stats};
use crate::fs::Caller;

/// The largest read and write request: 256 pages, the kernel's own limit.
const MAX_REQUEST: u32 = 1024 * 1024;
/// Readahead and direct requests that may be under way at once.
const MAX_BACKGROUND: u16 = 64;

/// Where the requests of one connection are counted and watched.
pub(super) struct RequestContext {
    pub(super) stats: Arc<Stats>,
    pub(super) events: Arc<Events>,
}

impl RequestContext {
    /// Runs the handler of one request. If it panics, the reply it held is dropped, which answers EIO; the thread goes on.
    pub(super) fn serve(
        &self,
        op: Op,
        request: &Request,
        ino: INodeNo,
        handler: impl FnOnce(&Caller),
    ) {
        self.events.watch_thread();
        self.stats.count(op);
        let caller = Caller {
            uid: request.uid(),
            gid: request.gid(),
            pid: request.pid(),
        };
        log::trace!("{} {ino} {caller:?}", op.name());
        if catch_unwind(AssertUnwindSafe(|| handler(&caller))).is_err() {
            self.stats.count_panic();
            log::error!(
                "a bug: the handler of {} on inode {ino} panicked; the caller got EIO",
                op.name()
            );
        }
    }

    /// A request that is not for us at all; the kernel then stops sending this kind.
    pub(super) fn decline(&self, op: Op) -> Errno {
        self.events.watch_thread();
        self.stats.count(op);
        Errno::ENOSYS
    }
}

/// Asks for those of the capabilities that the kernel has, and for the largest requests.
pub(super) fn agree(config: &mut KernelConfig, wanted: InitFlags) -> io::Result<()> {
    let refused = |what: &str| io::Error::other(format!("FUSE set-up: {what} refused"));
    config
        .add_capabilities(wanted & kernel::capabilities(config))
        .map_err(|_| refused("capabilities"))?;
    // The limit on pages of any request, reads included, follows from the largest write.
    config
        .set_max_write(MAX_REQUEST)
        .map_err(|_| refused("request size"))?;
    config
        .set_max_background(MAX_BACKGROUND)
        .map_err(|_| refused("background requests"))?;
    Ok(())
}
