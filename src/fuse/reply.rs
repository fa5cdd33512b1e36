//! Replies that carry a value or an error, of one shape for all of them.

use fuser::{
    Errno, Generation, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLock, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs,
    ReplyWrite, ReplyXattr,
};

use super::errno::Failure;
use super::handler::Call;
use crate::fs::volumes::Blocking;
use crate::fs::{Full, StatFs};

/// A reply that can be an error.
pub(super) trait Refuse {
    fn refuse(self, errno: Errno);
}

/// A reply that is a value otherwise.
pub(super) trait Reply: Refuse + Sized {
    type Value;

    fn give(self, value: Self::Value);

    fn result<E: Failure>(self, call: &Call, result: Result<Self::Value, E>) {
        match result {
            Ok(value) => self.give(value),
            Err(error) => self.refuse(call.failed(&error)),
        }
    }
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

/// A request without an answer.
impl Refuse for () {
    fn refuse(self, _: Errno) {}
}

refuse!(
    ReplyAttr,
    ReplyCreate,
    ReplyData,
    ReplyDirectory,
    ReplyDirectoryPlus,
    ReplyEmpty,
    ReplyEntry,
    ReplyIoctl,
    ReplyLock,
    ReplyLseek,
    ReplyOpen,
    ReplyPoll,
    ReplyStatfs,
    ReplyWrite,
    ReplyXattr
);

impl Reply for ReplyEmpty {
    type Value = ();

    fn give(self, (): ()) {
        self.ok();
    }
}

impl Reply for ReplyData {
    type Value = Vec<u8>;

    fn give(self, value: Vec<u8>) {
        self.data(&value);
    }
}

impl Reply for ReplyDirectory {
    type Value = ();

    fn give(self, (): ()) {
        self.ok();
    }
}

impl Reply for ReplyDirectoryPlus {
    type Value = ();

    fn give(self, (): ()) {
        self.ok();
    }
}

impl Reply for ReplyWrite {
    type Value = usize;

    fn give(self, count: usize) {
        self.written(u32::try_from(count).unwrap_or(u32::MAX));
    }
}

impl Reply for ReplyLseek {
    type Value = Option<u64>;

    fn give(self, at: Option<u64>) {
        match at {
            Some(at) => self.offset(i64::try_from(at).unwrap_or(i64::MAX)),
            None => self.error(Errno::ENXIO),
        }
    }
}

impl Reply for ReplyIoctl {
    type Value = Option<Vec<u8>>;

    fn give(self, data: Option<Vec<u8>>) {
        match data {
            Some(data) => self.ioctl(0, &data),
            None => self.error(Errno::ENOTTY),
        }
    }
}

impl Reply for ReplyLock {
    type Value = Blocking;

    fn give(self, (kind, (start, end), pid): Blocking) {
        self.locked(start, end, kind, pid);
    }
}

impl Reply for ReplyStatfs {
    type Value = StatFs;

    fn give(self, s: StatFs) {
        self.statfs(
            s.blocks,
            s.free,
            s.available,
            s.files,
            s.files_free,
            s.block_size,
            255,
            s.block_size,
        );
    }
}

/// Of getxattr(2) and listxattr(2), with the size of the caller's buffer; 0 asks for the size.
pub(super) struct Xattr(pub(super) ReplyXattr, pub(super) u32);

impl Refuse for Xattr {
    fn refuse(self, errno: Errno) {
        self.0.error(errno);
    }
}

impl Reply for Xattr {
    type Value = Vec<u8>;

    fn give(self, value: Vec<u8>) {
        let Xattr(reply, size) = self;
        match (u32::try_from(value.len()), size) {
            (Ok(length), 0) => reply.size(length),
            (Ok(length), size) if length <= size => reply.data(&value),
            _ => reply.error(Errno::ERANGE),
        }
    }
}

/// Inodes are never made a second time under a number.
pub(super) const GENERATION: Generation = Generation(0);

pub(super) fn full(full: bool) -> Full {
    if full { Full::Yes } else { Full::No }
}
