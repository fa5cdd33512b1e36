//! The requests of the volumes' connection, by a [`VolumeTree`]; no decisions.
//!
//! What the kernel may keep is the tree's decision, for each answer. Where it is nothing (binds, volumes that others use) names and
//! attributes are asked for each time, since the host may change them at any moment; only the permissions of a directory may be as
//! old as a tick of the kernel's clock ([`Volumes::directory_ttl`]), or each step of each path would cost two requests. Content is the host's own page cache by passthrough, or read and written without a cache.

mod opening;
mod passthrough;
mod times;

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use fuser::{
    AccessFlags, FileHandle, INodeNo, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, WriteFlags,
};

use self::passthrough::Passthrough;
use super::connection::RequestContext;
use super::convert;
use super::handler::{Call, Handler, Lock, Modes, Set, Writing};
use super::reply::{GENERATION, Reply, full};
use super::stats::Op;
use crate::fs::volumes::{
    Attr, Blocking, Change, FileNo, Inherited, LockRequest, Named, VolumeError, VolumeTree, Write,
};
use crate::fs::{InodeNo, StatFs};

/// `O_APPEND`.
const APPEND: i32 = libc::O_APPEND;

pub(super) struct Volumes {
    tree: Arc<VolumeTree>,
    context: RequestContext,
    passthrough: Passthrough,
    directory_ttl: Duration,
}

type Result<T> = std::result::Result<T, VolumeError>;

impl Volumes {
    /// With the files that an earlier process of the connection has left open.
    pub(super) fn new(
        tree: Arc<VolumeTree>,
        context: RequestContext,
        connection: OwnedFd,
        inherited: Vec<Inherited>,
    ) -> Self {
        // The least the kernel knows is one tick of its clock. Where it does not check permissions it need not know them.
        let directory_ttl = if tree.many_users() {
            Duration::from_nanos(1)
        } else {
            Duration::ZERO
        };
        Volumes {
            tree,
            context,
            passthrough: Passthrough::new(connection, inherited),
            directory_ttl,
        }
    }

    /// How long the kernel may keep attributes that it is to keep for `kept`.
    fn attr_ttl(&self, attr: &Attr, kept: Duration) -> Duration {
        match attr.is_directory() {
            true => kept.max(self.directory_ttl),
            false => kept,
        }
    }
}

fn file(handle: FileHandle) -> FileNo {
    FileNo(handle.0)
}

fn lock_request(call: &Call, lock: &Lock) -> LockRequest {
    LockRequest {
        ino: call.ino(),
        file: file(lock.file),
        owner: lock.owner.0,
        range: lock.range,
        kind: lock.kind,
        thread: call.caller.pid,
        user: call.caller.uid,
        pid: lock.pid,
    }
}

impl Handler for Volumes {
    type Error = VolumeError;
    type Entry = Attr;
    type Attr = Attr;

    fn context(&self) -> &RequestContext {
        &self.context
    }

    fn declines(&self, op: Op) -> bool {
        matches!(op, Op::IoCtl | Op::ReadDirPlus)
    }

    fn enter(&self, call: &Call) -> bool {
        if let Err(error) = self.tree.enter() {
            log::error!("volumes: preparing a thread: {error}");
            return false;
        }
        self.tree.asks(&call.caller);
        if let Some((ino, file)) = self.tree.begins(call.unique) {
            self.passthrough.leave(ino, file);
            self.tree.release(file);
        }
        true
    }

    fn init(&mut self, config: &mut KernelConfig) -> io::Result<()> {
        opening::init(self, config)
    }

    fn entry(&self, call: &Call, name: &[u8], of: Result<Attr>, reply: ReplyEntry) {
        let (tree, caller) = (&self.tree, &call.caller);
        let named = match call.op {
            Op::Lookup => Named::Found,
            _ => Named::Made,
        };
        match of {
            Ok(attr) => tree.answering(caller, attr.ino, named, attr.fresh, |keeping| {
                let ttl = self.attr_ttl(&attr, keeping.attributes);
                let attr = convert::volume_attr(&attr);
                reply.entry_with_ttls(&ttl, &keeping.name, &attr, GENERATION);
            }),
            Err(error) if call.op == Op::Lookup && error.is_absence() => {
                tree.answering_nothing(call.ino(), name, |kept| {
                    if kept.is_zero() {
                        reply.error(call.failed(&error));
                    } else {
                        // Number 0 is none: a name that is known to be absent.
                        reply.entry_with_ttls(&kept, &kept, &convert::absent(), GENERATION);
                    }
                });
            }
            Err(error) => reply.error(call.failed(&error)),
        }
    }

    fn attr(&self, call: &Call, of: Result<Attr>, reply: ReplyAttr) {
        let (tree, caller) = (&self.tree, &call.caller);
        match of {
            Ok(attr) => tree.answering(caller, attr.ino, Named::Made, false, |keeping| {
                let ttl = self.attr_ttl(&attr, keeping.attributes);
                reply.attr(&ttl, &convert::volume_attr(&attr));
            }),
            Err(error) => reply.error(call.failed(&error)),
        }
    }

    fn lookup(&self, call: &Call, name: &[u8]) -> Result<Attr> {
        self.tree.lookup(&call.caller, call.ino(), name)
    }

    fn forget(&self, call: &Call, count: u64) {
        self.tree.forget(call.ino(), count);
    }

    fn getattr(&self, call: &Call) -> Result<Attr> {
        self.tree.getattr(call.ino())
    }

    fn setattr(&self, call: &Call, set: &Set) -> Result<Attr> {
        let change = Change {
            mode: set.mode,
            uid: set.uid,
            gid: set.gid,
            size: set.size,
            atime: times::set(set.atime),
            mtime: times::set(set.mtime),
        };
        let open = set.file.map(file);
        self.tree.setattr(&call.caller, call.ino(), &change, open)
    }

    fn readlink(&self, call: &Call) -> Result<Vec<u8>> {
        self.tree.readlink(call.ino())
    }

    fn statfs(&self, call: &Call) -> Result<StatFs> {
        self.tree.statfs(call.ino())
    }

    fn access(&self, call: &Call, mask: AccessFlags) -> Result<()> {
        self.tree.access(call.ino(), mask.bits().cast_unsigned())
    }

    fn mknod(&self, call: &Call, name: &[u8], modes: Modes, rdev: u32) -> Result<Attr> {
        let (caller, parent) = (&call.caller, call.ino());
        self.tree.mknod(caller, parent, name, modes, rdev)
    }

    fn mkdir(&self, call: &Call, name: &[u8], modes: Modes) -> Result<Attr> {
        self.tree.mkdir(&call.caller, call.ino(), name, modes)
    }

    fn symlink(&self, call: &Call, name: &[u8], target: &[u8]) -> Result<Attr> {
        self.tree.symlink(&call.caller, call.ino(), name, target)
    }

    fn link(&self, call: &Call, file: InodeNo, name: &[u8]) -> Result<Attr> {
        self.tree.link(&call.caller, file, call.ino(), name)
    }

    fn unlink(&self, call: &Call, name: &[u8]) -> Result<()> {
        self.tree.unlink(&call.caller, call.ino(), name)
    }

    fn rmdir(&self, call: &Call, name: &[u8]) -> Result<()> {
        self.tree.rmdir(&call.caller, call.ino(), name)
    }

    fn rename(
        &self,
        call: &Call,
        name: &[u8],
        to: (InodeNo, &[u8]),
        flags: RenameFlags,
    ) -> Result<()> {
        let from = (call.ino(), name);
        self.tree.rename(&call.caller, from, to, flags.bits())
    }

    fn open(&self, call: &Call, flags: OpenFlags, reply: ReplyOpen) {
        opening::open(self, call, flags, reply);
    }

    fn create(&self, call: &Call, name: &[u8], modes: Modes, flags: OpenFlags, reply: ReplyCreate) {
        opening::create(self, call, name, (modes, flags), reply);
    }

    fn read(
        &self,
        _: &Call,
        handle: FileHandle,
        (offset, size): (u64, u32),
        into: &mut Vec<u8>,
    ) -> Result<()> {
        self.tree.read(file(handle), offset, size, into)
    }

    fn write(
        &self,
        call: &Call,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        (write_flags, flags): Writing,
    ) -> Result<usize> {
        // Changed pages of a mapping go where they belong, whatever the file they are written back through was opened for.
        let mapped = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let way = match (mapped, flags.0 & APPEND != 0) {
            (true, _) => Write::Mapped,
            (false, true) => Write::Append,
            (false, false) => Write::At,
        };
        let caller = &call.caller;
        self.tree.write(caller, file(handle), offset, data, way)
    }

    fn flush(&self, call: &Call, handle: FileHandle, owner: LockOwner) -> Result<()> {
        self.tree.flush(call.ino(), file(handle), owner.0)
    }

    fn release(&self, call: &Call, handle: FileHandle, _: Option<LockOwner>) {
        let (ino, file) = (call.ino(), file(handle));
        self.passthrough.leave(ino, file);
        self.tree.release(file);
    }

    fn fsync(&self, _: &Call, handle: FileHandle, data_only: bool) -> Result<()> {
        self.tree.fsync(file(handle), data_only)
    }

    fn seek(&self, _: &Call, handle: FileHandle, offset: i64, hole: bool) -> Result<Option<u64>> {
        match u64::try_from(offset) {
            Ok(from) => self.tree.seek(file(handle), from, hole).map(Some),
            Err(_) => Ok(None),
        }
    }

    fn allocate(
        &self,
        call: &Call,
        handle: FileHandle,
        mode: i32,
        (offset, length): (u64, u64),
    ) -> Result<()> {
        let (tree, mode) = (&self.tree, mode.cast_unsigned());
        tree.allocate(&call.caller, file(handle), mode, offset, length)
    }

    fn copy(
        &self,
        call: &Call,
        from: (FileHandle, u64),
        to: (FileHandle, u64),
        length: u64,
    ) -> Result<usize> {
        let (from, to) = ((file(from.0), from.1), (file(to.0), to.1));
        self.tree.copy(&call.caller, from, to, length)
    }

    fn opendir(&self, call: &Call, reply: ReplyOpen) {
        opening::directory(self, call, reply);
    }

    fn readdir(&self, call: &Call, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let result = self
            .tree
            .list((call.ino(), file(handle)), offset, &mut |entry| {
                let kind = convert::host_kind(entry.kind);
                let name = OsStr::from_bytes(entry.name);
                full(reply.add(INodeNo(entry.ino.0), entry.next, kind, name))
            });
        reply.result(call, result);
        self.tree.listed(file(handle));
    }

    fn releasedir(&self, _: &Call, handle: FileHandle) {
        self.tree.release_directory(file(handle));
    }

    fn fsyncdir(&self, call: &Call, handle: FileHandle, data_only: bool) -> Result<()> {
        self.tree
            .sync_directory(call.ino(), file(handle), data_only)
    }

    fn getxattr(&self, call: &Call, name: &[u8]) -> Result<Vec<u8>> {
        self.tree.get_xattr(call.ino(), name)
    }

    fn listxattr(&self, call: &Call) -> Result<Vec<u8>> {
        self.tree.list_xattr(call.ino())
    }

    fn setxattr(&self, call: &Call, name: &[u8], value: &[u8], flags: i32) -> Result<()> {
        let (caller, ino) = (&call.caller, call.ino());
        let flags = flags.cast_unsigned();
        self.tree.set_xattr(caller, ino, name, value, flags)
    }

    fn removexattr(&self, call: &Call, name: &[u8]) -> Result<()> {
        self.tree.remove_xattr(&call.caller, call.ino(), name)
    }

    fn getlk(&self, call: &Call, lock: &Lock) -> Result<Blocking> {
        let found = self.tree.blocking_lock(&lock_request(call, lock))?;
        Ok(found.unwrap_or((libc::F_UNLCK, lock.range, 0)))
    }

    fn setlk(&self, call: &Call, lock: &Lock, wait: bool, reply: ReplyEmpty) {
        let (wanted, call) = (lock_request(call, lock), *call);
        self.tree.lock(wanted, wait, move |result| {
            reply.result(&call, result);
        });
    }
}
