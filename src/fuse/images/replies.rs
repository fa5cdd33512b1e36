//! Replies that are always an error here, and those of entries and attributes.

use fuser::{
    Errno, Generation, INodeNo, ReplyAttr, ReplyCreate, ReplyEmpty, ReplyEntry, ReplyWrite,
    ReplyXattr,
};

use crate::fs::{AttrReply, EntryReply, FsError};
use crate::fuse::connection::failed;
use crate::fuse::convert;
use crate::fuse::stats::Op;

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
