//! `fuser::Filesystem` for every [`Handler`]: count, convert, hand on, reply; no decisions.
//!
//! One `impl` of fuser's trait, so one file of its signatures, filled line by line rather than a name a line.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, FileHandle, INodeNo, IoctlFlags, KernelConfig,
    LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLock,
    ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow,
    WriteFlags,
};

use super::handler::{Call, Handler, Lock, Set};
use super::reply::{Refuse, Reply, Xattr};
use super::stats::Op;
use crate::fs::InodeNo;

thread_local! {
    /// The buffer for file content, kept by each thread.
    static CONTENT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

pub(super) struct Adapter<H>(pub(super) H);

impl<H: Handler> Adapter<H> {
    /// Counts a request and declines it, or hands it on with its reply; one that is dropped on the way answers EIO.
    fn serve<R: Refuse>(
        &self,
        (op, request, ino): (Op, &Request, INodeNo),
        reply: R,
        handle: impl FnOnce(&H, &Call, R),
    ) {
        let (handler, context) = (&self.0, self.0.context());
        if handler.declines(op) {
            return reply.refuse(context.decline(op));
        }
        context.serve(op, request, ino, |caller| {
            let unique = u64::from(request.unique());
            let call = Call {
                op,
                number: ino,
                caller: *caller,
                again: unique >> 63 == 1,
                unique,
            };
            if handler.enter(&call) {
                handle(handler, &call, reply);
            }
        });
    }

    /// The same for a reply that is a value or an error.
    fn answer<R: Reply>(
        &self,
        what: (Op, &Request, INodeNo),
        reply: R,
        handle: impl FnOnce(&H, &Call) -> Result<R::Value, H::Error>,
    ) {
        self.serve(what, reply, |handler, call, reply| {
            reply.result(call, handle(handler, call));
        });
    }

    /// The same for one that looks a name up, or makes it.
    fn named(
        &self,
        what: (Op, &Request, INodeNo),
        name: &OsStr,
        reply: ReplyEntry,
        handle: impl FnOnce(&H, &Call, &[u8]) -> Result<H::Entry, H::Error>,
    ) {
        let name = name.as_bytes();
        self.serve(what, reply, |handler, call, reply| {
            handler.entry(call, name, handle(handler, call, name), reply);
        });
    }
}

#[rustfmt::skip]
impl<H: Handler> fuser::Filesystem for Adapter<H> {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        self.0.init(config)
    }

    fn lookup(&self, rq: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.named((Op::Lookup, rq, parent), name, reply, |h, call, name| h.lookup(call, name));
    }

    fn forget(&self, rq: &Request, ino: INodeNo, count: u64) {
        self.serve((Op::Forget, rq, ino), (), |h, call, ()| h.forget(call, count));
    }

    fn getattr(&self, rq: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.serve((Op::GetAttr, rq, ino), reply, |h, call, reply| h.attr(call, h.getattr(call), reply));
    }

    fn setattr(
        &self, rq: &Request, ino: INodeNo,
        mode: Option<u32>, uid: Option<u32>, gid: Option<u32>, size: Option<u64>,
        atime: Option<TimeOrNow>, mtime: Option<TimeOrNow>, ctime: Option<SystemTime>,
        file: Option<FileHandle>, _crtime: Option<SystemTime>, _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>, _flags: Option<BsdFileFlags>, reply: ReplyAttr,
    ) {
        let set = Set { mode, uid, gid, size, atime, mtime, ctime: ctime.is_some(), file };
        self.serve((Op::SetAttr, rq, ino), reply, |h, call, reply| h.attr(call, h.setattr(call, &set), reply));
    }

    fn readlink(&self, rq: &Request, ino: INodeNo, reply: ReplyData) {
        self.answer((Op::ReadLink, rq, ino), reply, |h, call| h.readlink(call));
    }

    fn statfs(&self, rq: &Request, ino: INodeNo, reply: ReplyStatfs) {
        self.answer((Op::StatFs, rq, ino), reply, |h, call| h.statfs(call));
    }

    fn access(&self, rq: &Request, ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        self.answer((Op::Access, rq, ino), reply, |h, call| h.access(call, mask));
    }

    fn mknod(
        &self, rq: &Request, parent: INodeNo, name: &OsStr,
        mode: u32, umask: u32, rdev: u32, reply: ReplyEntry,
    ) {
        self.named((Op::MkNod, rq, parent), name, reply, |h, call, name| {
            h.mknod(call, name, (mode, umask), rdev)
        });
    }

    fn mkdir(
        &self, rq: &Request, parent: INodeNo, name: &OsStr,
        mode: u32, umask: u32, reply: ReplyEntry,
    ) {
        self.named((Op::MkDir, rq, parent), name, reply, |h, call, name| h.mkdir(call, name, (mode, umask)));
    }

    fn symlink(&self, rq: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let target = target.as_os_str().as_bytes();
        self.named((Op::SymLink, rq, parent), name, reply, |h, call, name| h.symlink(call, name, target));
    }

    fn link(&self, rq: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.named((Op::Link, rq, parent), name, reply, |h, call, name| h.link(call, InodeNo(ino.0), name));
    }

    fn unlink(&self, rq: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.answer((Op::Unlink, rq, parent), reply, |h, call| h.unlink(call, name.as_bytes()));
    }

    fn rmdir(&self, rq: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.answer((Op::RmDir, rq, parent), reply, |h, call| h.rmdir(call, name.as_bytes()));
    }

    fn rename(
        &self, rq: &Request, parent: INodeNo, name: &OsStr,
        new_parent: INodeNo, new_name: &OsStr, flags: RenameFlags, reply: ReplyEmpty,
    ) {
        let to = (InodeNo(new_parent.0), new_name.as_bytes());
        self.answer((Op::Rename, rq, parent), reply, |h, call| h.rename(call, name.as_bytes(), to, flags));
    }

    fn open(&self, rq: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.serve((Op::Open, rq, ino), reply, |h, call, reply| h.open(call, flags, reply));
    }

    fn create(
        &self, rq: &Request, parent: INodeNo, name: &OsStr,
        mode: u32, umask: u32, flags: i32, reply: ReplyCreate,
    ) {
        self.serve((Op::Create, rq, parent), reply, |h, call, reply| {
            h.create(call, name.as_bytes(), (mode, umask), OpenFlags(flags), reply);
        });
    }

    fn read(
        &self, rq: &Request, ino: INodeNo, file: FileHandle, offset: u64, size: u32,
        _flags: OpenFlags, _owner: Option<LockOwner>, reply: ReplyData,
    ) {
        self.serve((Op::Read, rq, ino), reply, |h, call, reply| {
            CONTENT.with_borrow_mut(|content| {
                content.clear();
                match h.read(call, file, (offset, size), content) {
                    Ok(()) => reply.data(content),
                    Err(error) => reply.error(call.failed(&error)),
                }
            });
        });
    }

    fn write(
        &self, rq: &Request, ino: INodeNo, file: FileHandle, offset: u64, data: &[u8],
        write_flags: WriteFlags, flags: OpenFlags, _owner: Option<LockOwner>, reply: ReplyWrite,
    ) {
        self.answer((Op::Write, rq, ino), reply, |h, call| {
            h.write(call, file, offset, data, (write_flags, flags))
        });
    }

    fn flush(&self, rq: &Request, ino: INodeNo, file: FileHandle, owner: LockOwner, reply: ReplyEmpty) {
        self.answer((Op::Flush, rq, ino), reply, |h, call| h.flush(call, file, owner));
    }

    fn release(
        &self, rq: &Request, ino: INodeNo, file: FileHandle,
        _flags: OpenFlags, owner: Option<LockOwner>, _flush: bool, reply: ReplyEmpty,
    ) {
        self.serve((Op::Release, rq, ino), reply, |h, call, reply| {
            h.release(call, file, owner);
            reply.ok();
        });
    }

    fn fsync(&self, rq: &Request, ino: INodeNo, file: FileHandle, data_only: bool, reply: ReplyEmpty) {
        self.answer((Op::FSync, rq, ino), reply, |h, call| h.fsync(call, file, data_only));
    }

    fn lseek(
        &self, rq: &Request, ino: INodeNo, file: FileHandle,
        offset: i64, whence: i32, reply: ReplyLseek,
    ) {
        let hole = whence == libc::SEEK_HOLE;
        self.answer((Op::Lseek, rq, ino), reply, |h, call| h.seek(call, file, offset, hole));
    }

    fn fallocate(
        &self, rq: &Request, ino: INodeNo, file: FileHandle,
        offset: u64, length: u64, mode: i32, reply: ReplyEmpty,
    ) {
        self.answer((Op::Fallocate, rq, ino), reply, |h, call| h.allocate(call, file, mode, (offset, length)));
    }

    fn copy_file_range(
        &self, rq: &Request, ino: INodeNo, file: FileHandle, offset: u64,
        _ino_to: INodeNo, file_to: FileHandle, offset_to: u64,
        length: u64, _flags: CopyFileRangeFlags, reply: ReplyWrite,
    ) {
        self.answer((Op::CopyFileRange, rq, ino), reply, |h, call| {
            h.copy(call, (file, offset), (file_to, offset_to), length)
        });
    }

    fn ioctl(
        &self, rq: &Request, ino: INodeNo, _file: FileHandle, _flags: IoctlFlags,
        command: u32, data: &[u8], _out_size: u32, reply: ReplyIoctl,
    ) {
        self.answer((Op::IoCtl, rq, ino), reply, |h, call| h.ioctl(call, command, data));
    }

    fn poll(
        &self, _: &Request, _ino: INodeNo, _file: FileHandle,
        _notifier: PollNotifier, _events: PollEvents, _flags: PollFlags, reply: ReplyPoll,
    ) {
        reply.error(self.0.context().decline(Op::Poll));
    }

    fn opendir(&self, rq: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.serve((Op::OpenDir, rq, ino), reply, |h, call, reply| h.opendir(call, reply));
    }

    fn readdir(&self, rq: &Request, ino: INodeNo, file: FileHandle, offset: u64, reply: ReplyDirectory) {
        self.serve((Op::ReadDir, rq, ino), reply, |h, call, reply| h.readdir(call, file, offset, reply));
    }

    fn readdirplus(&self, rq: &Request, ino: INodeNo, _: FileHandle, offset: u64, reply: ReplyDirectoryPlus) {
        self.serve((Op::ReadDirPlus, rq, ino), reply, |h, call, reply| h.readdirplus(call, offset, reply));
    }

    fn releasedir(&self, rq: &Request, ino: INodeNo, file: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.serve((Op::ReleaseDir, rq, ino), reply, |h, call, reply| {
            h.releasedir(call, file);
            reply.ok();
        });
    }

    fn fsyncdir(&self, rq: &Request, ino: INodeNo, file: FileHandle, data_only: bool, reply: ReplyEmpty) {
        self.answer((Op::FSyncDir, rq, ino), reply, |h, call| h.fsyncdir(call, file, data_only));
    }

    fn getxattr(&self, rq: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        self.answer((Op::GetXattr, rq, ino), Xattr(reply, size), |h, call| h.getxattr(call, name.as_bytes()));
    }

    fn listxattr(&self, rq: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.answer((Op::ListXattr, rq, ino), Xattr(reply, size), |h, call| h.listxattr(call));
    }

    fn setxattr(
        &self, rq: &Request, ino: INodeNo, name: &OsStr,
        value: &[u8], flags: i32, _position: u32, reply: ReplyEmpty,
    ) {
        self.answer((Op::SetXattr, rq, ino), reply, |h, call| {
            h.setxattr(call, name.as_bytes(), value, flags)
        });
    }

    fn removexattr(&self, rq: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.answer((Op::RemoveXattr, rq, ino), reply, |h, call| h.removexattr(call, name.as_bytes()));
    }

    fn getlk(
        &self, rq: &Request, ino: INodeNo, file: FileHandle, owner: LockOwner,
        start: u64, end: u64, kind: i32, pid: u32, reply: ReplyLock,
    ) {
        let lock = Lock { file, owner, range: (start, end), kind, pid };
        self.answer((Op::Lock, rq, ino), reply, |h, call| h.getlk(call, &lock));
    }

    fn setlk(
        &self, rq: &Request, ino: INodeNo, file: FileHandle, owner: LockOwner,
        start: u64, end: u64, kind: i32, pid: u32, wait: bool, reply: ReplyEmpty,
    ) {
        let lock = Lock { file, owner, range: (start, end), kind, pid };
        self.serve((Op::Lock, rq, ino), reply, |h, call, reply| h.setlk(call, &lock, wait, reply));
    }
}
