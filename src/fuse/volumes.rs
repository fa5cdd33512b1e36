//! `fuser::Filesystem` on top of [`VolumeTree`]: count, call, convert, reply; no decisions. One `impl` of
//! fuser's trait, so one file, whatever its length.
//!
//! What the kernel may keep is the tree's decision, for each answer. Where it is nothing (binds, volumes that others use) names and
//! attributes are asked for each time, since the host may change them at any moment; only the permissions of a directory may be as
//! old as a tick of the kernel's clock ([`directory_ttl`]), or each step of each path would cost two requests. Content is the host's own page cache by passthrough, or read and written without a cache.

mod passthrough;
mod times;

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, FopenFlags, Generation,
    INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags,
    PollNotifier, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyIoctl, ReplyLock, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use self::passthrough::Passthrough;
use super::connection::{RequestContext, agree, empty, failed, full, inode, space, xattr};
use super::convert;
use super::kernel;
use super::stats::Op;
use crate::fs::Caller;
use crate::fs::volumes::{
    Attr, Change, FileNo, Keeping, LockRequest, Named, VolumeError, VolumeTree, Write,
};

/// `O_APPEND`.
const APPEND: i32 = libc::O_APPEND;

thread_local! {
    /// The buffer for file content, kept by each thread.
    static CONTENT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

pub(super) struct Volumes {
    tree: Arc<VolumeTree>,
    context: RequestContext,
    passthrough: Passthrough,
    directory_ttl: Duration,
}

impl Volumes {
    pub(super) fn new(tree: Arc<VolumeTree>, context: RequestContext) -> Self {
        // The least the kernel knows is one tick of its clock. Where it does not check permissions it need not know them.
        let directory_ttl = if tree.many_users() {
            Duration::from_nanos(1)
        } else {
            Duration::ZERO
        };
        Volumes {
            tree,
            context,
            passthrough: Passthrough::default(),
            directory_ttl,
        }
    }

    fn serve(
        &self,
        op: Op,
        request: &Request,
        ino: INodeNo,
        handler: impl FnOnce(&VolumeTree, &Caller),
    ) {
        self.context
            .serve(op, request, ino, |caller| match self.tree.enter() {
                Ok(()) => {
                    self.tree.asks(caller);
                    handler(&self.tree, caller);
                }
                // The reply is dropped with the handler, which answers EIO.
                Err(error) => log::error!("volumes: preparing a thread: {error}"),
            });
    }

    /// How long the kernel may keep attributes that it is to keep for `kept`.
    fn attr_ttl(&self, attr: &Attr, kept: Duration) -> Duration {
        match attr.is_directory() {
            true => kept.max(self.directory_ttl),
            false => kept,
        }
    }

    fn entry(
        &self,
        reply: ReplyEntry,
        (op, caller): (Op, &Caller),
        (parent, name): (INodeNo, &OsStr),
        found: Result<Attr, VolumeError>,
    ) {
        let named = match op {
            Op::Lookup => Named::Found,
            _ => Named::Made,
        };
        match found {
            Ok(attr) => {
                self.tree
                    .answering(caller, attr.ino, named, attr.fresh, |keeping| {
                        reply.entry_with_ttls(
                            &self.attr_ttl(&attr, keeping.attributes),
                            &keeping.name,
                            &convert::volume_attr(&attr),
                            Generation(0),
                        );
                    });
            }
            Err(error) if op == Op::Lookup && error.is_absence() => {
                self.tree
                    .answering_nothing(inode(parent), name.as_bytes(), |kept| {
                        if kept.is_zero() {
                            reply.error(failed(op, parent, &error));
                        } else {
                            // Number 0 is none: a name that is known to be absent.
                            reply.entry_with_ttls(&kept, &kept, &convert::absent(), Generation(0));
                        }
                    });
            }
            Err(error) => reply.error(failed(op, parent, &error)),
        }
    }

    fn attr(
        &self,
        reply: ReplyAttr,
        (op, caller): (Op, &Caller),
        ino: INodeNo,
        found: Result<Attr, VolumeError>,
    ) {
        match found {
            Ok(attr) => self
                .tree
                .answering(caller, attr.ino, Named::Made, false, |keeping| {
                    let ttl = self.attr_ttl(&attr, keeping.attributes);
                    reply.attr(&ttl, &convert::volume_attr(&attr));
                }),
            Err(error) => reply.error(failed(op, ino, &error)),
        }
    }
}

fn file(handle: FileHandle) -> FileNo {
    FileNo(handle.0)
}

fn written(reply: ReplyWrite, op: Op, ino: INodeNo, result: Result<usize, VolumeError>) {
    match result {
        Ok(count) => reply.written(u32::try_from(count).unwrap_or(u32::MAX)),
        Err(error) => reply.error(failed(op, ino, &error)),
    }
}

impl fuser::Filesystem for Volumes {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let offered = kernel::capabilities(config);
        self.tree
            .kernel_expires_names(offered.contains(InitFlags::FUSE_HAS_EXPIRE_ONLY));
        let mut wanted = InitFlags::FUSE_ASYNC_READ
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_DONT_MASK
            | InitFlags::FUSE_POSIX_ACL
            | InitFlags::FUSE_HANDLE_KILLPRIV_V2
            | InitFlags::FUSE_POSIX_LOCKS
            | InitFlags::FUSE_ASYNC_DIO
            | InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP
            // A symbolic link is never changed, only replaced by another.
            | InitFlags::FUSE_CACHE_SYMLINKS
            // Of a listing that is kept, the kernel looks whether the directory has changed since.
            | InitFlags::FUSE_AUTO_INVAL_DATA
            | InitFlags::FUSE_MAX_PAGES;
        wanted.set(InitFlags::FUSE_FLOCK_LOCKS, self.tree.can_tell_flock());
        let passthrough =
            offered.contains(InitFlags::FUSE_PASSTHROUGH) && config.set_max_stack_depth(1).is_ok();
        wanted.set(InitFlags::FUSE_PASSTHROUGH, passthrough);
        self.passthrough.offer(passthrough);
        agree(config, wanted)
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.serve(Op::Lookup, request, parent, |tree, caller| {
            let found = tree.lookup(caller, inode(parent), name.as_bytes());
            self.entry(reply, (Op::Lookup, caller), (parent, name), found);
        });
    }

    fn forget(&self, request: &Request, ino: INodeNo, count: u64) {
        self.serve(Op::Forget, request, ino, |tree, _| {
            tree.forget(inode(ino), count);
        });
    }

    fn getattr(&self, request: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        self.serve(Op::GetAttr, request, ino, |tree, caller| {
            let found = tree.getattr(inode(ino));
            self.attr(reply, (Op::GetAttr, caller), ino, found);
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
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = Change {
            mode,
            uid,
            gid,
            size,
            atime: times::set(atime),
            mtime: times::set(mtime),
        };
        self.serve(Op::SetAttr, request, ino, |tree, caller| {
            let found = tree.setattr(caller, inode(ino), &change, fh.map(file));
            self.attr(reply, (Op::SetAttr, caller), ino, found);
        });
    }

    fn readlink(&self, request: &Request, ino: INodeNo, reply: ReplyData) {
        self.serve(Op::ReadLink, request, ino, |tree, _| {
            match tree.readlink(inode(ino)) {
                Ok(target) => reply.data(&target),
                Err(error) => reply.error(failed(Op::ReadLink, ino, &error)),
            }
        });
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        self.serve(Op::MkNod, request, parent, |tree, caller| {
            let bytes = name.as_bytes();
            let made = tree.mknod(caller, inode(parent), bytes, (mode, umask), rdev);
            self.entry(reply, (Op::MkNod, caller), (parent, name), made);
        });
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        self.serve(Op::MkDir, request, parent, |tree, caller| {
            let made = tree.mkdir(caller, inode(parent), name.as_bytes(), (mode, umask));
            self.entry(reply, (Op::MkDir, caller), (parent, name), made);
        });
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.serve(Op::Unlink, request, parent, |tree, caller| {
            let result = tree.unlink(caller, inode(parent), name.as_bytes());
            empty(reply, Op::Unlink, parent, result);
        });
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.serve(Op::RmDir, request, parent, |tree, caller| {
            let result = tree.rmdir(caller, inode(parent), name.as_bytes());
            empty(reply, Op::RmDir, parent, result);
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
            self.entry(reply, (Op::SymLink, caller), (parent, name), made);
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
        self.serve(Op::Rename, request, parent, |tree, caller| {
            let from = (inode(parent), name.as_bytes());
            let to = (inode(new_parent), new_name.as_bytes());
            let result = tree.rename(caller, from, to, flags.bits());
            empty(reply, Op::Rename, parent, result);
        });
    }

    fn link(
        &self,
        request: &Request,
        ino: INodeNo,
        parent: INodeNo,
        name: &OsStr,
        reply: ReplyEntry,
    ) {
        self.serve(Op::Link, request, parent, |tree, caller| {
            let made = tree.link(caller, inode(ino), inode(parent), name.as_bytes());
            self.entry(reply, (Op::Link, caller), (parent, name), made);
        });
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.serve(Op::Open, request, ino, |tree, caller| {
            match tree.open(caller, inode(ino), flags.0.cast_unsigned()) {
                Ok(opened) => {
                    let handle = FileHandle(opened.file.0);
                    let backing = self.passthrough.enter(&opened, |fd| reply.open_backing(fd));
                    match backing {
                        Some(id) => reply.opened_passthrough(handle, FopenFlags::empty(), &id),
                        None => reply.opened(handle, passthrough::UNCACHED),
                    }
                }
                Err(error) => reply.error(failed(Op::Open, ino, &error)),
            }
        });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        self.serve(Op::Create, request, parent, |tree, caller| {
            let (name, flags) = (name.as_bytes(), flags.cast_unsigned());
            match tree.create(caller, inode(parent), name, (mode, umask), flags) {
                Ok((attr, opened)) => {
                    let handle = FileHandle(opened.file.0);
                    let backing = self.passthrough.enter(&opened, |fd| reply.open_backing(fd));
                    let answer = |keeping: Keeping| {
                        // One time for both: a name that is not made here may stand for what others have open.
                        let ttl = keeping.name.min(keeping.attributes);
                        let attr = convert::volume_attr(&attr);
                        let (generation, none) = (Generation(0), FopenFlags::empty());
                        match backing {
                            Some(id) => reply
                                .created_passthrough(&ttl, &attr, generation, handle, none, &id),
                            None => {
                                let flags = passthrough::UNCACHED;
                                reply.created(&ttl, &attr, generation, handle, flags);
                            }
                        }
                    };
                    tree.answering(caller, attr.ino, Named::Made, attr.fresh, answer);
                }
                Err(error) => reply.error(failed(Op::Create, parent, &error)),
            }
        });
    }

    fn read(
        &self,
        request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.serve(Op::Read, request, ino, |tree, _| {
            CONTENT.with_borrow_mut(|content| {
                content.clear();
                match tree.read(file(fh), offset, size, content) {
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
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        // Changed pages of a mapping go where they belong, whatever the file they are written back through was opened for.
        let mapped = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let way = match (mapped, flags.0 & APPEND != 0) {
            (true, _) => Write::Mapped,
            (false, true) => Write::Append,
            (false, false) => Write::At,
        };
        self.serve(Op::Write, request, ino, |tree, caller| {
            let result = tree.write(caller, file(fh), offset, data, way);
            written(reply, Op::Write, ino, result);
        });
    }

    fn flush(
        &self,
        request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        self.serve(Op::Flush, request, ino, |tree, _| {
            let result = tree.flush(inode(ino), file(fh), lock_owner.0);
            empty(reply, Op::Flush, ino, result);
        });
    }

    fn release(
        &self,
        request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.serve(Op::Release, request, ino, |tree, _| {
            self.passthrough.leave(inode(ino), file(fh));
            tree.release(inode(ino), file(fh), lock_owner.map(|owner| owner.0));
            reply.ok();
        });
    }

    fn fsync(
        &self,
        request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        data_only: bool,
        reply: ReplyEmpty,
    ) {
        self.serve(Op::FSync, request, ino, |tree, _| {
            empty(reply, Op::FSync, ino, tree.fsync(file(fh), data_only));
        });
    }

    fn opendir(&self, request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.serve(Op::OpenDir, request, ino, |tree, caller| {
            match tree.open_directory(caller, inode(ino)) {
                Ok(opened) => tree.answering(caller, inode(ino), Named::Made, false, |keeping| {
                    let flags = match keeping.alone {
                        true => FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE,
                        false => FopenFlags::empty(),
                    };
                    if keeping.alone {
                        tree.keeps_listing(opened);
                    }
                    reply.opened(FileHandle(opened.0), flags);
                }),
                Err(error) => reply.error(failed(Op::OpenDir, ino, &error)),
            }
        });
    }

    fn readdir(
        &self,
        request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        self.serve(Op::ReadDir, request, ino, |tree, _| {
            let result = tree.list(file(fh), offset, &mut |entry| {
                let kind = convert::host_kind(entry.kind);
                let name = OsStr::from_bytes(entry.name);
                full(reply.add(INodeNo(entry.ino.0), entry.next, kind, name))
            });
            match result {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(failed(Op::ReadDir, ino, &error)),
            }
            tree.listed(file(fh));
        });
    }

    fn releasedir(
        &self,
        request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.serve(Op::ReleaseDir, request, ino, |tree, _| {
            tree.release_directory(file(fh));
            reply.ok();
        });
    }

    fn fsyncdir(
        &self,
        request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        data_only: bool,
        reply: ReplyEmpty,
    ) {
        self.serve(Op::FSyncDir, request, ino, |tree, _| {
            let result = tree.sync_directory(file(fh), data_only);
            empty(reply, Op::FSyncDir, ino, result);
        });
    }

    fn statfs(&self, request: &Request, ino: INodeNo, reply: ReplyStatfs) {
        self.serve(Op::StatFs, request, ino, |tree, _| {
            space(reply, ino, tree.statfs(inode(ino)));
        });
    }

    fn setxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        self.serve(Op::SetXattr, request, ino, |tree, caller| {
            let flags = flags.cast_unsigned();
            let result = tree.set_xattr(caller, inode(ino), name.as_bytes(), value, flags);
            empty(reply, Op::SetXattr, ino, result);
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
        self.serve(Op::GetXattr, request, ino, |tree, _| {
            let value = tree.get_xattr(inode(ino), name.as_bytes());
            xattr(reply, Op::GetXattr, ino, size, value);
        });
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.serve(Op::ListXattr, request, ino, |tree, _| {
            xattr(reply, Op::ListXattr, ino, size, tree.list_xattr(inode(ino)));
        });
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.serve(Op::RemoveXattr, request, ino, |tree, caller| {
            let result = tree.remove_xattr(caller, inode(ino), name.as_bytes());
            empty(reply, Op::RemoveXattr, ino, result);
        });
    }

    fn access(&self, request: &Request, ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        self.serve(Op::Access, request, ino, |tree, _| {
            let result = tree.access(inode(ino), mask.bits().cast_unsigned());
            empty(reply, Op::Access, ino, result);
        });
    }

    fn getlk(
        &self,
        request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        lock_owner: LockOwner,
        start: u64,
        end: u64,
        kind: i32,
        pid: u32,
        reply: ReplyLock,
    ) {
        self.serve(Op::Lock, request, ino, |tree, caller| {
            let wanted = lock(caller, ino, fh, lock_owner, (start, end), kind, pid);
            match tree.blocking_lock(&wanted) {
                Ok(Some((kind, (start, end), pid))) => reply.locked(start, end, kind, pid),
                Ok(None) => reply.locked(start, end, libc::F_UNLCK, 0),
                Err(error) => reply.error(failed(Op::Lock, ino, &error)),
            }
        });
    }

    fn setlk(
        &self,
        request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        lock_owner: LockOwner,
        start: u64,
        end: u64,
        kind: i32,
        pid: u32,
        sleep: bool,
        reply: ReplyEmpty,
    ) {
        self.serve(Op::Lock, request, ino, |tree, caller| {
            let wanted = lock(caller, ino, fh, lock_owner, (start, end), kind, pid);
            tree.lock(wanted, sleep, move |result| {
                empty(reply, Op::Lock, ino, result);
            });
        });
    }

    fn lseek(
        &self,
        request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        self.serve(Op::Lseek, request, ino, |tree, _| {
            let hole = whence == libc::SEEK_HOLE;
            let Ok(from) = u64::try_from(offset) else {
                return reply.error(Errno::ENXIO);
            };
            let found = tree.seek(file(fh), from, hole);
            match found.map(|at| i64::try_from(at).unwrap_or(i64::MAX)) {
                Ok(at) => reply.offset(at),
                Err(error) => reply.error(failed(Op::Lseek, ino, &error)),
            }
        });
    }

    fn ioctl(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(self.context.decline(Op::IoCtl));
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
        request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.serve(Op::Fallocate, request, ino, |tree, caller| {
            let result = tree.allocate(caller, file(fh), mode.cast_unsigned(), offset, length);
            empty(reply, Op::Fallocate, ino, result);
        });
    }

    fn copy_file_range(
        &self,
        request: &Request,
        ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        _ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        length: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        self.serve(Op::CopyFileRange, request, ino_in, |tree, caller| {
            let (from, to) = ((file(fh_in), offset_in), (file(fh_out), offset_out));
            let result = tree.copy(caller, from, to, length);
            written(reply, Op::CopyFileRange, ino_in, result);
        });
    }
}

fn lock(
    caller: &Caller,
    ino: INodeNo,
    fh: FileHandle,
    owner: LockOwner,
    range: (u64, u64),
    kind: i32,
    pid: u32,
) -> LockRequest {
    LockRequest {
        ino: inode(ino),
        file: file(fh),
        owner: owner.0,
        range,
        kind,
        thread: caller.pid,
        user: caller.uid,
        pid,
    }
}
