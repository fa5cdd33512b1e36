//! `fuser::Filesystem` on top of [`FileSystem`]: count, call, convert, reply; no decisions.
//!
//! One `impl` of fuser's trait, so one file, whatever its length.

mod replies;

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, FopenFlags, Generation,
    INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, PollEvents,
    PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLock, ReplyLseek, ReplyOpen,
    ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use replies::{Refuse, attr, entry, found};

use super::connection::{RequestContext, agree, empty, failed, full, inode, space, xattr};
use super::convert;
use super::stats::Op;
use crate::fs::{Caller, FileSystem, FsError, Lookup, RenameMode, SetAttr};

thread_local! {
    /// The buffer for file content, kept by each thread.
    static CONTENT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

pub(super) struct Images<T> {
    pub(super) tree: Arc<T>,
    pub(super) context: RequestContext,
    pub(super) strict: bool,
    pub(super) readdirplus_auto: bool,
    pub(super) idmap: bool,
}

impl<T: FileSystem> Images<T> {
    fn serve(&self, op: Op, request: &Request, ino: INodeNo, handler: impl FnOnce(&T, &Caller)) {
        self.context
            .serve(op, request, ino, |caller| handler(&self.tree, caller));
    }

    /// A request that no place of the tree takes; `error` finds out what it is refused with here.
    fn refuse<R: Refuse>(
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
}

/// Whether an earlier server of the connection has read this request, and may have done what it asks for (`FUSE_UNIQUE_RESEND`).
fn is_again(request: &Request) -> bool {
    u64::from(request.unique()) >> 63 == 1
}

/// What was to go and is not there has gone.
fn unless_done(request: &Request, result: Result<(), FsError>) -> Result<(), FsError> {
    match result {
        Err(FsError::NotFound) if is_again(request) => Ok(()),
        result => result,
    }
}

impl<T: FileSystem> fuser::Filesystem for Images<T> {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let mut wanted = InitFlags::FUSE_ASYNC_READ
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_CACHE_SYMLINKS
            | InitFlags::FUSE_AUTO_INVAL_DATA
            | InitFlags::FUSE_NO_OPENDIR_SUPPORT
            | InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_MAX_PAGES;
        wanted.set(InitFlags::FUSE_READDIRPLUS_AUTO, self.readdirplus_auto);
        wanted.set(InitFlags::FUSE_NO_OPEN_SUPPORT, !self.strict);
        wanted.set(InitFlags::FUSE_ALLOW_IDMAP, self.idmap);
        agree(config, wanted)
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.serve(Op::Lookup, request, parent, |tree, caller| {
            match tree.lookup(caller, inode(parent), name.as_bytes()) {
                Ok(Lookup::Found(entry)) => found(reply, &entry),
                Ok(Lookup::Absent(ttl)) => reply.entry_with_ttls(
                    &Duration::ZERO,
                    &convert::ttl(ttl),
                    &convert::absent(),
                    Generation(0),
                ),
                Err(error) => reply.error(failed(Op::Lookup, parent, &error)),
            }
        });
    }

    fn forget(&self, request: &Request, ino: INodeNo, count: u64) {
        self.serve(Op::Forget, request, ino, |tree, _| {
            tree.forget(inode(ino), count);
        });
    }

    fn getattr(&self, request: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        self.serve(Op::GetAttr, request, ino, |tree, caller| {
            attr(reply, Op::GetAttr, ino, tree.getattr(caller, inode(ino)));
        });
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = SetAttr {
            mode,
            uid,
            gid,
            size,
            times: atime.is_some() || mtime.is_some() || ctime.is_some(),
        };
        self.serve(Op::SetAttr, request, ino, |tree, caller| {
            attr(
                reply,
                Op::SetAttr,
                ino,
                tree.setattr(caller, inode(ino), &set),
            );
        });
    }

    fn readlink(&self, request: &Request, ino: INodeNo, reply: ReplyData) {
        self.serve(Op::ReadLink, request, ino, |tree, caller| {
            match tree.readlink(caller, inode(ino)) {
                Ok(target) => reply.data(&target),
                Err(error) => reply.error(failed(Op::ReadLink, ino, &error)),
            }
        });
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if !self.strict {
            return reply.error(self.context.decline(Op::Open));
        }
        let for_writing = flags.acc_mode() != OpenAccMode::O_RDONLY;
        self.serve(Op::Open, request, ino, |tree, caller| {
            match tree.open(caller, inode(ino), for_writing) {
                Ok(()) => reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE),
                Err(error) => reply.error(failed(Op::Open, ino, &error)),
            }
        });
    }

    fn read(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.serve(Op::Read, request, ino, |tree, caller| {
            CONTENT.with_borrow_mut(|content| {
                content.clear();
                match tree.read(caller, inode(ino), offset, size, content) {
                    Ok(()) => reply.data(content),
                    Err(error) => reply.error(failed(Op::Read, ino, &error)),
                }
            });
        });
    }

    fn write(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _offset: u64,
        _data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let from_cache = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        self.refuse(Op::Write, request, ino, reply, |tree, caller| {
            tree.write(caller, inode(ino), from_cache)
        });
    }

    fn release(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.serve(Op::Release, request, ino, |_, _| reply.ok());
    }

    fn flush(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.error(self.context.decline(Op::Flush));
    }

    fn fsync(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        reply.error(self.context.decline(Op::FSync));
    }

    fn opendir(&self, _request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.error(self.context.decline(Op::OpenDir));
    }

    fn readdir(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        self.serve(Op::ReadDir, request, ino, |tree, caller| {
            let result = tree.readdir(caller, inode(ino), offset, false, &mut |item| {
                let attr = &item.entry.attr;
                let name = OsStr::from_bytes(item.name);
                let kind = convert::kind(attr.kind);
                full(reply.add(INodeNo(attr.ino.0), item.next_offset, kind, name))
            });
            match result {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(failed(Op::ReadDir, ino, &error)),
            }
        });
    }

    fn readdirplus(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        self.serve(Op::ReadDirPlus, request, ino, |tree, caller| {
            let result = tree.readdir(caller, inode(ino), offset, true, &mut |item| {
                let found = &item.entry;
                let attr = convert::attr(&found.attr);
                let name = OsStr::from_bytes(item.name);
                // fuser has one timeout for both here: the shorter.
                let ttl = convert::ttl(found.entry_ttl.min(found.attr_ttl));
                let generation = Generation(0);
                full(reply.add(attr.ino, item.next_offset, name, &ttl, &attr, generation))
            });
            match result {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(failed(Op::ReadDirPlus, ino, &error)),
            }
        });
    }

    fn releasedir(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.serve(Op::ReleaseDir, request, ino, |_, _| reply.ok());
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        reply.error(self.context.decline(Op::FSyncDir));
    }

    fn statfs(&self, request: &Request, ino: INodeNo, reply: ReplyStatfs) {
        self.serve(Op::StatFs, request, ino, |tree, caller| {
            space(reply, ino, tree.statfs(caller, inode(ino)));
        });
    }

    fn setxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        _flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        self.serve(Op::SetXattr, request, ino, |tree, caller| {
            let done = tree.change_xattr(caller, inode(ino), name.as_bytes(), Some(value));
            empty(reply, Op::SetXattr, ino, done);
        });
    }

    fn getxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        self.serve(Op::GetXattr, request, ino, |tree, caller| {
            let value = tree.getxattr(caller, inode(ino), name.as_bytes());
            xattr(reply, Op::GetXattr, ino, size, value);
        });
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.serve(Op::ListXattr, request, ino, |tree, caller| {
            let names = tree.listxattr(caller, inode(ino));
            xattr(reply, Op::ListXattr, ino, size, names);
        });
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.serve(Op::RemoveXattr, request, ino, |tree, caller| {
            let done = tree.change_xattr(caller, inode(ino), name.as_bytes(), None);
            empty(reply, Op::RemoveXattr, ino, done);
        });
    }

    fn access(&self, _request: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        reply.error(self.context.decline(Op::Access));
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        self.refuse(Op::Create, request, parent, reply, |tree, caller| {
            tree.make_node(caller, inode(parent), name.as_bytes())
        });
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        self.refuse(Op::MkNod, request, parent, reply, |tree, caller| {
            tree.make_node(caller, inode(parent), name.as_bytes())
        });
    }

    fn link(
        &self,
        request: &Request,
        _ino: INodeNo,
        parent: INodeNo,
        name: &OsStr,
        reply: ReplyEntry,
    ) {
        self.refuse(Op::Link, request, parent, reply, |tree, caller| {
            tree.make_node(caller, inode(parent), name.as_bytes())
        });
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        self.serve(Op::MkDir, request, parent, |tree, caller| {
            let mut made = tree.mkdir(caller, inode(parent), name.as_bytes());
            if let (true, Err(FsError::Exists)) = (is_again(request), &made)
                && let Ok(Lookup::Found(entry)) =
                    tree.lookup(caller, inode(parent), name.as_bytes())
            {
                made = Ok(entry);
            }
            entry(reply, Op::MkDir, parent, made);
        });
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let target = target.as_os_str().as_bytes();
        self.serve(Op::SymLink, request, parent, |tree, caller| {
            let made = tree.symlink(caller, inode(parent), name.as_bytes(), target);
            entry(reply, Op::SymLink, parent, made);
        });
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.serve(Op::Unlink, request, parent, |tree, caller| {
            let result = tree.unlink(caller, inode(parent), name.as_bytes());
            let result = unless_done(request, result);
            empty(reply, Op::Unlink, parent, result);
        });
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.serve(Op::RmDir, request, parent, |tree, caller| {
            let result = tree.rmdir(caller, inode(parent), name.as_bytes());
            let result = unless_done(request, result);
            empty(reply, Op::RmDir, parent, result);
        });
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mode = if flags.is_empty() {
            RenameMode::Replace
        } else if flags == RenameFlags::RENAME_NOREPLACE {
            RenameMode::NoReplace
        } else {
            RenameMode::Other
        };
        self.serve(Op::Rename, request, parent, |tree, caller| {
            let from = (inode(parent), name.as_bytes());
            let to = (inode(new_parent), new_name.as_bytes());
            let mut result = tree.rename(caller, from, to, mode);
            if let (true, Err(FsError::NotFound)) = (is_again(request), &result)
                && let Ok(Lookup::Found(there)) = tree.lookup(caller, to.0, to.1)
            {
                tree.forget(there.attr.ino, 1);
                tree.renamed_before(to);
                result = Ok(());
            }
            empty(reply, Op::Rename, parent, result);
        });
    }

    fn lseek(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        self.serve(Op::Lseek, request, ino, |tree, caller| {
            let hole = whence == libc::SEEK_HOLE;
            // A number below zero is before everything that there is.
            let from = u64::try_from(offset).unwrap_or(u64::MAX);
            match tree.seek(caller, inode(ino), from, hole) {
                Ok(Some(at)) => reply.offset(i64::try_from(at).unwrap_or(i64::MAX)),
                Ok(None) => reply.error(Errno::ENXIO),
                Err(error) => reply.error(failed(Op::Lseek, ino, &error)),
            }
        });
    }

    fn ioctl(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        command: u32,
        data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        self.serve(Op::IoCtl, request, ino, |tree, caller| {
            let done = match convert::ioctl(command, data) {
                Some(convert::Ioctl::GetFlags) => tree
                    .flags(caller, inode(ino))
                    .map(|flags| flags.to_ne_bytes().to_vec()),
                Some(convert::Ioctl::GetExtended) => {
                    tree.flags(caller, inode(ino)).map(convert::extended)
                }
                Some(convert::Ioctl::SetFlags(flags)) => tree
                    .set_flags(caller, inode(ino), flags)
                    .map(|()| Vec::new()),
                None => return reply.error(fuser::Errno::ENOTTY),
            };
            match done {
                Ok(bytes) => reply.ioctl(0, &bytes),
                Err(error) => reply.error(failed(Op::IoCtl, ino, &error)),
            }
        });
    }

    fn poll(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _notifier: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(self.context.decline(Op::Poll));
    }

    fn fallocate(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _offset: u64,
        _length: u64,
        _mode: i32,
        reply: ReplyEmpty,
    ) {
        reply.error(self.context.decline(Op::Fallocate));
    }

    fn copy_file_range(
        &self,
        _request: &Request,
        _ino_in: INodeNo,
        _fh_in: FileHandle,
        _offset_in: u64,
        _ino_out: INodeNo,
        _fh_out: FileHandle,
        _offset_out: u64,
        _length: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(self.context.decline(Op::CopyFileRange));
    }

    fn getlk(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        _start: u64,
        _end: u64,
        _kind: i32,
        _pid: u32,
        reply: ReplyLock,
    ) {
        reply.error(self.context.decline(Op::Lock));
    }
}
