//! What every request shares: its count, its caller, its failure, and its panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use fuser::{
    Errno, Generation, INodeNo, ReplyAttr, ReplyCreate, ReplyEmpty, ReplyEntry, ReplyWrite,
    ReplyXattr, Request,
};

use crate::fs::{AttrReply, Caller, EntryReply, FileSystem, FsError, Full, InodeNo};
use crate::fuse::convert;
use crate::fuse::errno::{errno, level};
use crate::fuse::session::Events;
use crate::fuse::stats::{Op, Stats};

pub(in crate::fuse) struct Adapter<T> {
    pub(in crate::fuse) tree: Arc<T>,
    pub(in crate::fuse) stats: Arc<Stats>,
    pub(in crate::fuse) events: Arc<Events>,
    pub(in crate::fuse) strict: bool,
    pub(in crate::fuse) readdirplus_auto: bool,
}

impl<T: FileSystem> Adapter<T> {
    pub(super) fn serve(
        &self,
        op: Op,
        request: &Request,
        ino: INodeNo,
        handler: impl FnOnce(&T, &Caller),
    ) {
        self.events.watch_thread();
        self.stats.count(op);
        let caller = Caller {
            uid: request.uid(),
            gid: request.gid(),
            pid: request.pid(),
        };
        log::trace!("{} {ino} {caller:?}", op.name());
        if catch_unwind(AssertUnwindSafe(|| handler(&self.tree, &caller))).is_err() {
            self.stats.count_panic();
            log::error!(
                "a bug: the handler of {} on inode {ino} panicked; the caller got EIO",
                op.name()
            );
        }
    }

    /// A request that no place of the tree takes; `error` finds out what it is refused with here.
    pub(super) fn refuse<R: Refuse>(
        &self,
        op: Op,
        request: &Request,
        ino: INodeNo,
        reply: R,
        error: impl FnOnce(&T, &Caller) -> FsError,
    ) {
        self.serve(op, request, ino, |tree, caller| {
            let error = error(tree, caller);
            reply.refuse(failed(op, ino, &error));
        });
    }

    /// A request that is not for us at all; the kernel then stops sending this kind.
    pub(super) fn decline(&self, op: Op) -> Errno {
        self.events.watch_thread();
        self.stats.count(op);
        Errno::ENOSYS
    }
}

/// A reply that can be an error.
pub(super) trait Refuse {
    fn refuse(self, errno: Errno);
}

macro_rules! refuse {
    ($($reply:ty),*) => {$(
        impl Refuse for $reply {
            fn refuse(self, errno: Errno) {
                self.error(errno);
            }
        }
    )*};
}

refuse!(
    ReplyAttr,
    ReplyCreate,
    ReplyEmpty,
    ReplyEntry,
    ReplyWrite,
    ReplyXattr
);

/// The errno of a failure, after logging it as loudly as its kind asks.
pub(super) fn failed(op: Op, ino: INodeNo, error: &FsError) -> Errno {
    log::log!(level(error), "{} on inode {ino}: {error}", op.name());
    errno(error)
}

pub(super) fn inode(ino: INodeNo) -> InodeNo {
    InodeNo(ino.0)
}

pub(super) fn found(reply: ReplyEntry, entry: &EntryReply) {
    reply.entry_with_ttls(
        &convert::ttl(entry.attr_ttl),
        &convert::ttl(entry.entry_ttl),
        &convert::attr(&entry.attr),
        Generation(0),
    );
}

pub(super) fn entry(reply: ReplyEntry, op: Op, ino: INodeNo, result: Result<EntryReply, FsError>) {
    match result {
        Ok(made) => found(reply, &made),
        Err(error) => reply.error(failed(op, ino, &error)),
    }
}

pub(super) fn attr(reply: ReplyAttr, op: Op, ino: INodeNo, result: Result<AttrReply, FsError>) {
    match result {
        Ok(found) => reply.attr(&convert::ttl(found.ttl), &convert::attr(&found.attr)),
        Err(error) => reply.error(failed(op, ino, &error)),
    }
}

pub(super) fn empty(reply: ReplyEmpty, op: Op, ino: INodeNo, result: Result<(), FsError>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(failed(op, ino, &error)),
    }
}

/// getxattr(2) and listxattr(2): size 0 asks for the size.
pub(super) fn xattr(
    reply: ReplyXattr,
    op: Op,
    ino: INodeNo,
    size: u32,
    result: Result<Vec<u8>, FsError>,
) {
    match result {
        Ok(value) => match (u32::try_from(value.len()), size) {
            (Ok(length), 0) => reply.size(length),
            (Ok(length), size) if length <= size => reply.data(&value),
            _ => reply.error(Errno::ERANGE),
        },
        Err(error) => reply.error(failed(op, ino, &error)),
    }
}

pub(super) fn full(full: bool) -> Full {
    if full { Full::Yes } else { Full::No }
}
