//! What a connection does with its requests, in the types of the trees where fuser's say no more.

use std::io;

use fuser::{
    AccessFlags, Errno, FileHandle, INodeNo, KernelConfig, LockOwner, OpenFlags, RenameFlags,
    ReplyAttr, ReplyCreate, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen,
    TimeOrNow, WriteFlags,
};

use super::connection::RequestContext;
use super::errno::Failure;
use super::stats::Op;
use crate::fs::volumes::Blocking;
use crate::fs::{Caller, FsError, InodeNo, StatFs};

/// One request: its kind, its inode (of a name: the directory's) and who asks.
#[derive(Clone, Copy)]
pub(super) struct Call {
    pub(super) op: Op,
    pub(super) number: INodeNo,
    pub(super) caller: Caller,
    /// An earlier server of the connection has read it, and may have done what it asks for (`FUSE_UNIQUE_RESEND`).
    pub(super) again: bool,
    /// Its number, as the kernel sent it.
    pub(super) unique: u64,
}

impl Call {
    pub(super) fn ino(&self) -> InodeNo {
        InodeNo(self.number.0)
    }

    /// The errno of a failure, after logging it as loudly as its kind asks.
    pub(super) fn failed(&self, error: &impl Failure) -> Errno {
        log::log!(
            error.level(),
            "{} on inode {}: {error}",
            self.op.name(),
            self.number
        );
        error.errno()
    }
}

/// What SETATTR is to change.
pub(super) struct Set {
    pub(super) mode: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) size: Option<u64>,
    pub(super) atime: Option<TimeOrNow>,
    pub(super) mtime: Option<TimeOrNow>,
    /// That of the change itself is to be set: what it says is nobody's to choose.
    pub(super) ctime: bool,
    /// Of an open file.
    pub(super) file: Option<FileHandle>,
}

/// A lock of fcntl(2) or flock(2), first and last byte.
pub(super) struct Lock {
    pub(super) file: FileHandle,
    pub(super) owner: LockOwner,
    pub(super) range: (u64, u64),
    pub(super) kind: i32,
    pub(super) pid: u32,
}

/// How a file is written to: by a call, or from changed pages of a mapping; and the flags it was opened with.
pub(super) type Writing = (WriteFlags, OpenFlags);

/// Permissions of what is made, and the caller's umask.
pub(super) type Modes = (u32, u32);

type Result<T, H> = std::result::Result<T, <H as Handler>::Error>;

/// Answers the requests of one connection. What has a body here is for those who decline the request, or have nothing to do.
pub(super) trait Handler: Send + Sync + Sized + 'static {
    type Error: Failure + From<FsError>;
    /// A name that was found or made, and what the kernel may know of it.
    type Entry;
    type Attr;

    fn context(&self) -> &RequestContext;
    /// Requests that are not for this connection at all; the kernel then stops sending that kind.
    fn declines(&self, op: Op) -> bool;
    /// Before a thread handles a request; false: it cannot, and the caller gets EIO.
    fn enter(&self, _: &Call) -> bool {
        true
    }
    fn init(&mut self, config: &mut KernelConfig) -> io::Result<()>;

    /// Answers what LOOKUP has found, or what another request has made.
    fn entry(&self, _: &Call, name: &[u8], of: Result<Self::Entry, Self>, reply: ReplyEntry);
    fn attr(&self, _: &Call, of: Result<Self::Attr, Self>, reply: ReplyAttr);

    fn lookup(&self, _: &Call, name: &[u8]) -> Result<Self::Entry, Self>;
    fn forget(&self, _: &Call, count: u64);
    fn getattr(&self, _: &Call) -> Result<Self::Attr, Self>;
    fn setattr(&self, _: &Call, set: &Set) -> Result<Self::Attr, Self>;
    fn readlink(&self, _: &Call) -> Result<Vec<u8>, Self>;
    fn statfs(&self, _: &Call) -> Result<StatFs, Self>;
    fn access(&self, _: &Call, _mask: AccessFlags) -> Result<(), Self> {
        declined()
    }

    fn mknod(&self, _: &Call, name: &[u8], modes: Modes, rdev: u32) -> Result<Self::Entry, Self>;
    fn mkdir(&self, _: &Call, name: &[u8], modes: Modes) -> Result<Self::Entry, Self>;
    fn symlink(&self, _: &Call, name: &[u8], target: &[u8]) -> Result<Self::Entry, Self>;
    fn link(&self, _: &Call, file: InodeNo, name: &[u8]) -> Result<Self::Entry, Self>;
    fn unlink(&self, _: &Call, name: &[u8]) -> Result<(), Self>;
    fn rmdir(&self, _: &Call, name: &[u8]) -> Result<(), Self>;
    fn rename(
        &self,
        _: &Call,
        name: &[u8],
        to: (InodeNo, &[u8]),
        flags: RenameFlags,
    ) -> Result<(), Self>;

    fn open(&self, _: &Call, flags: OpenFlags, reply: ReplyOpen);
    fn create(&self, _: &Call, name: &[u8], modes: Modes, flags: OpenFlags, reply: ReplyCreate);
    /// Fills `into`, given empty, with up to `size` bytes; fewer only at the end of the file.
    fn read(
        &self,
        _: &Call,
        file: FileHandle,
        range: (u64, u32),
        into: &mut Vec<u8>,
    ) -> Result<(), Self>;
    fn write(
        &self,
        _: &Call,
        file: FileHandle,
        offset: u64,
        data: &[u8],
        how: Writing,
    ) -> Result<usize, Self>;
    fn flush(&self, _: &Call, _file: FileHandle, _owner: LockOwner) -> Result<(), Self> {
        declined()
    }
    fn release(&self, _: &Call, _file: FileHandle, _owner: Option<LockOwner>) {}
    fn fsync(&self, _: &Call, _file: FileHandle, _data_only: bool) -> Result<(), Self> {
        declined()
    }
    /// `None`: nothing more up to the end.
    fn seek(
        &self,
        _: &Call,
        file: FileHandle,
        offset: i64,
        hole: bool,
    ) -> Result<Option<u64>, Self>;
    fn allocate(
        &self,
        _: &Call,
        _file: FileHandle,
        _mode: i32,
        _range: (u64, u64),
    ) -> Result<(), Self> {
        declined()
    }
    fn copy(
        &self,
        _: &Call,
        _from: (FileHandle, u64),
        _to: (FileHandle, u64),
        _length: u64,
    ) -> Result<usize, Self> {
        declined()
    }
    /// `None`: an ioctl that is not known here.
    fn ioctl(&self, _: &Call, _command: u32, _data: &[u8]) -> Result<Option<Vec<u8>>, Self> {
        declined()
    }

    fn opendir(&self, _: &Call, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }
    fn readdir(&self, _: &Call, file: FileHandle, offset: u64, reply: ReplyDirectory);
    fn readdirplus(&self, _: &Call, _offset: u64, reply: ReplyDirectoryPlus) {
        reply.error(Errno::ENOSYS);
    }
    fn releasedir(&self, _: &Call, _file: FileHandle) {}
    fn fsyncdir(&self, _: &Call, _file: FileHandle, _data_only: bool) -> Result<(), Self> {
        declined()
    }

    fn getxattr(&self, _: &Call, name: &[u8]) -> Result<Vec<u8>, Self>;
    fn listxattr(&self, _: &Call) -> Result<Vec<u8>, Self>;
    fn setxattr(&self, _: &Call, name: &[u8], value: &[u8], flags: i32) -> Result<(), Self>;
    fn removexattr(&self, _: &Call, name: &[u8]) -> Result<(), Self>;

    /// The lock in the way of one; without any, one of the kind that unlocks.
    fn getlk(&self, _: &Call, _lock: &Lock) -> Result<Blocking, Self> {
        declined()
    }
    /// Answers now, or when the lock is had.
    fn setlk(&self, _: &Call, _lock: &Lock, _wait: bool, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }
}

/// What [`Handler::declines`] names never comes to it. Not ENOSYS, which would mean "never again" if it did.
fn declined<T, E: From<FsError>>() -> std::result::Result<T, E> {
    Err(FsError::Unsupported.into())
}
