//! The requests of the images' connection, by a [`FileSystem`]; no decisions.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use fuser::{
    FileHandle, FopenFlags, INodeNo, InitFlags, KernelConfig, OpenAccMode, OpenFlags, RenameFlags,
    ReplyAttr, ReplyCreate, ReplyDirectory, ReplyDirectoryPlus, ReplyEntry, ReplyOpen, WriteFlags,
};

use super::connection::{RequestContext, agree};
use super::convert::{self, Ioctl};
use super::handler::{Call, Handler, Modes, Set, Writing};
use super::reply::{GENERATION, Reply, full};
use super::stats::Op;
use crate::fs::{AttrReply, FileSystem, FsError, InodeNo, Lookup, RenameMode, SetAttr, StatFs};

pub(super) struct Images<T> {
    pub(super) tree: Arc<T>,
    pub(super) context: RequestContext,
    pub(super) strict: bool,
    pub(super) readdirplus_auto: bool,
    pub(super) idmap: bool,
}

type Result<T> = std::result::Result<T, FsError>;

/// What was to go and is not there has gone.
fn unless_done(call: &Call, result: Result<()>) -> Result<()> {
    match result {
        Err(FsError::NotFound) if call.again => Ok(()),
        result => result,
    }
}

impl<T: FileSystem> Handler for Images<T> {
    type Error = FsError;
    type Entry = Lookup;
    type Attr = AttrReply;

    fn context(&self) -> &RequestContext {
        &self.context
    }

    fn declines(&self, op: Op) -> bool {
        match op {
            Op::Open => !self.strict,
            Op::Flush | Op::FSync | Op::OpenDir | Op::FSyncDir | Op::Access => true,
            Op::Fallocate | Op::CopyFileRange | Op::Lock => true,
            _ => false,
        }
    }

    fn init(&mut self, config: &mut KernelConfig) -> io::Result<()> {
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

    fn entry(&self, call: &Call, _: &[u8], of: Result<Lookup>, reply: ReplyEntry) {
        let (attr_ttl, entry_ttl, attr) = match of {
            Ok(Lookup::Found(found)) => (
                convert::ttl(found.attr_ttl),
                found.entry_ttl,
                convert::attr(&found.attr),
            ),
            Ok(Lookup::Absent(ttl)) => (Duration::ZERO, ttl, convert::absent()),
            Err(error) => return reply.error(call.failed(&error)),
        };
        reply.entry_with_ttls(&attr_ttl, &convert::ttl(entry_ttl), &attr, GENERATION);
    }

    fn attr(&self, call: &Call, of: Result<AttrReply>, reply: ReplyAttr) {
        match of {
            Ok(found) => reply.attr(&convert::ttl(found.ttl), &convert::attr(&found.attr)),
            Err(error) => reply.error(call.failed(&error)),
        }
    }

    fn lookup(&self, call: &Call, name: &[u8]) -> Result<Lookup> {
        self.tree.lookup(&call.caller, call.ino(), name)
    }

    fn forget(&self, call: &Call, count: u64) {
        self.tree.forget(call.ino(), count);
    }

    fn getattr(&self, call: &Call) -> Result<AttrReply> {
        self.tree.getattr(&call.caller, call.ino())
    }

    fn setattr(&self, call: &Call, set: &Set) -> Result<AttrReply> {
        let set = SetAttr {
            mode: set.mode,
            uid: set.uid,
            gid: set.gid,
            size: set.size,
            times: set.atime.is_some() || set.mtime.is_some() || set.ctime,
        };
        self.tree.setattr(&call.caller, call.ino(), &set)
    }

    fn readlink(&self, call: &Call) -> Result<Vec<u8>> {
        self.tree.readlink(&call.caller, call.ino())
    }

    fn statfs(&self, call: &Call) -> Result<StatFs> {
        self.tree.statfs(&call.caller, call.ino())
    }

    fn mknod(&self, call: &Call, name: &[u8], _: Modes, _rdev: u32) -> Result<Lookup> {
        Err(self.tree.make_node(&call.caller, call.ino(), name))
    }

    fn mkdir(&self, call: &Call, name: &[u8], _: Modes) -> Result<Lookup> {
        match self.tree.mkdir(&call.caller, call.ino(), name) {
            // Made by the server that had the request before.
            Err(FsError::Exists) if call.again => match self.lookup(call, name) {
                Ok(Lookup::Found(made)) => Ok(Lookup::Found(made)),
                _ => Err(FsError::Exists),
            },
            made => made.map(Lookup::Found),
        }
    }

    fn symlink(&self, call: &Call, name: &[u8], target: &[u8]) -> Result<Lookup> {
        let made = self.tree.symlink(&call.caller, call.ino(), name, target);
        made.map(Lookup::Found)
    }

    fn link(&self, call: &Call, _file: InodeNo, name: &[u8]) -> Result<Lookup> {
        Err(self.tree.make_node(&call.caller, call.ino(), name))
    }

    fn unlink(&self, call: &Call, name: &[u8]) -> Result<()> {
        unless_done(call, self.tree.unlink(&call.caller, call.ino(), name))
    }

    fn rmdir(&self, call: &Call, name: &[u8]) -> Result<()> {
        unless_done(call, self.tree.rmdir(&call.caller, call.ino(), name))
    }

    fn rename(
        &self,
        call: &Call,
        name: &[u8],
        to: (InodeNo, &[u8]),
        flags: RenameFlags,
    ) -> Result<()> {
        let mode = if flags.is_empty() {
            RenameMode::Replace
        } else if flags == RenameFlags::RENAME_NOREPLACE {
            RenameMode::NoReplace
        } else {
            RenameMode::Other
        };
        let (tree, caller) = (&self.tree, &call.caller);
        let result = tree.rename(caller, (call.ino(), name), to, mode);
        if let (true, Err(FsError::NotFound)) = (call.again, &result)
            && let Ok(Lookup::Found(there)) = tree.lookup(caller, to.0, to.1)
        {
            tree.forget(there.attr.ino, 1);
            tree.renamed_before(to);
            return Ok(());
        }
        result
    }

    /// Only of a strict mount.
    fn open(&self, call: &Call, flags: OpenFlags, reply: ReplyOpen) {
        let for_writing = flags.acc_mode() != OpenAccMode::O_RDONLY;
        match self.tree.open(&call.caller, call.ino(), for_writing) {
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE),
            Err(error) => reply.error(call.failed(&error)),
        }
    }

    fn create(&self, call: &Call, name: &[u8], _: Modes, _: OpenFlags, reply: ReplyCreate) {
        let error = self.tree.make_node(&call.caller, call.ino(), name);
        reply.error(call.failed(&error));
    }

    fn read(
        &self,
        call: &Call,
        _: FileHandle,
        (offset, size): (u64, u32),
        into: &mut Vec<u8>,
    ) -> Result<()> {
        let ino = call.ino();
        self.tree.read(&call.caller, ino, offset, size, into)
    }

    fn write(
        &self,
        call: &Call,
        _: FileHandle,
        _offset: u64,
        _data: &[u8],
        (flags, _): Writing,
    ) -> Result<usize> {
        let from_cache = flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        Err(self.tree.write(&call.caller, call.ino(), from_cache))
    }

    fn seek(&self, call: &Call, _: FileHandle, offset: i64, hole: bool) -> Result<Option<u64>> {
        // A number below zero is before everything that there is.
        let from = u64::try_from(offset).unwrap_or(u64::MAX);
        self.tree.seek(&call.caller, call.ino(), from, hole)
    }

    fn ioctl(&self, call: &Call, command: u32, data: &[u8]) -> Result<Option<Vec<u8>>> {
        let (tree, caller, ino) = (&self.tree, &call.caller, call.ino());
        let bytes = match convert::ioctl(command, data) {
            Some(Ioctl::GetFlags) => tree.flags(caller, ino)?.to_ne_bytes().to_vec(),
            Some(Ioctl::GetExtended) => convert::extended(tree.flags(caller, ino)?),
            Some(Ioctl::SetFlags(flags)) => {
                tree.set_flags(caller, ino, flags)?;
                Vec::new()
            }
            None => return Ok(None),
        };
        Ok(Some(bytes))
    }

    fn readdir(&self, call: &Call, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let (caller, ino) = (&call.caller, call.ino());
        let result = self.tree.readdir(caller, ino, offset, false, &mut |item| {
            let attr = &item.entry.attr;
            let name = OsStr::from_bytes(item.name);
            let kind = convert::kind(attr.kind);
            full(reply.add(INodeNo(attr.ino.0), item.next_offset, kind, name))
        });
        reply.result(call, result);
    }

    fn readdirplus(&self, call: &Call, offset: u64, mut reply: ReplyDirectoryPlus) {
        let (caller, ino) = (&call.caller, call.ino());
        let result = self.tree.readdir(caller, ino, offset, true, &mut |item| {
            let found = &item.entry;
            let attr = convert::attr(&found.attr);
            let name = OsStr::from_bytes(item.name);
            // fuser has one timeout for both here: the shorter.
            let ttl = convert::ttl(found.entry_ttl.min(found.attr_ttl));
            full(reply.add(attr.ino, item.next_offset, name, &ttl, &attr, GENERATION))
        });
        reply.result(call, result);
    }

    fn getxattr(&self, call: &Call, name: &[u8]) -> Result<Vec<u8>> {
        self.tree.getxattr(&call.caller, call.ino(), name)
    }

    fn listxattr(&self, call: &Call) -> Result<Vec<u8>> {
        self.tree.listxattr(&call.caller, call.ino())
    }

    fn setxattr(&self, call: &Call, name: &[u8], value: &[u8], _flags: i32) -> Result<()> {
        let (caller, ino) = (&call.caller, call.ino());
        self.tree.change_xattr(caller, ino, name, Some(value))
    }

    fn removexattr(&self, call: &Call, name: &[u8]) -> Result<()> {
        self.tree.change_xattr(&call.caller, call.ino(), name, None)
    }
}
