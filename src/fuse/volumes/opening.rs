//! What is agreed with the kernel, and how files and directories are opened: what it may keep of them, and by which way it reads.

use std::io;

use fuser::{FileHandle, FopenFlags, InitFlags, KernelConfig, OpenFlags, ReplyCreate, ReplyOpen};

use super::{Volumes, passthrough};
use crate::fs::volumes::{Keeping, Named};
use crate::fuse::connection::agree;
use crate::fuse::convert;
use crate::fuse::handler::{Call, Modes};
use crate::fuse::kernel;
use crate::fuse::reply::GENERATION;
use crate::sys::fuse_device::wrap_backing;

pub(super) fn init(volumes: &Volumes, config: &mut KernelConfig) -> io::Result<()> {
    let (tree, offered) = (&volumes.tree, kernel::capabilities(config));
    tree.kernel_expires_names(offered.contains(InitFlags::FUSE_HAS_EXPIRE_ONLY));
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
    wanted.set(InitFlags::FUSE_FLOCK_LOCKS, tree.can_tell_flock());
    let passthrough =
        offered.contains(InitFlags::FUSE_PASSTHROUGH) && config.set_max_stack_depth(1).is_ok();
    wanted.set(InitFlags::FUSE_PASSTHROUGH, passthrough);
    volumes.passthrough.offer(passthrough);
    agree(config, wanted)
}

pub(super) fn open(volumes: &Volumes, call: &Call, flags: OpenFlags, reply: ReplyOpen) {
    let flags = flags.0.cast_unsigned();
    let opened = match volumes.tree.open(&call.caller, call.ino(), flags) {
        Ok(opened) => opened,
        Err(error) => return reply.error(call.failed(&error)),
    };
    let handle = FileHandle(opened.file.0);
    match volumes.passthrough.enter(&opened) {
        Some(backing) => {
            let id = wrap_backing(ReplyOpen::wrap_backing, &reply, backing.id());
            reply.opened_passthrough(handle, FopenFlags::empty(), &id);
            // It is closed with the last file that has it.
            id.into_raw();
        }
        None => reply.opened(handle, passthrough::UNCACHED),
    }
    opened.answered();
}

pub(super) fn create(
    volumes: &Volumes,
    call: &Call,
    name: &[u8],
    (modes, flags): (Modes, OpenFlags),
    reply: ReplyCreate,
) {
    let (tree, caller) = (&volumes.tree, &call.caller);
    let flags = flags.0.cast_unsigned();
    let (attr, opened) = match tree.create(caller, call.ino(), name, modes, flags) {
        Ok(made) => made,
        Err(error) => return reply.error(call.failed(&error)),
    };
    let handle = FileHandle(opened.file.0);
    let backing = volumes.passthrough.enter(&opened);
    let answer = |keeping: Keeping| {
        // One time for both: a name that is not made here may stand for what others have open.
        let ttl = keeping.name.min(keeping.attributes);
        let attr = convert::volume_attr(&attr);
        match backing {
            Some(backing) => {
                let none = FopenFlags::empty();
                let id = wrap_backing(ReplyCreate::wrap_backing, &reply, backing.id());
                reply.created_passthrough(&ttl, &attr, GENERATION, handle, none, &id);
                id.into_raw();
            }
            None => reply.created(&ttl, &attr, GENERATION, handle, passthrough::UNCACHED),
        }
    };
    tree.answering(caller, attr.ino, Named::Made, attr.fresh, answer);
    opened.answered();
}

pub(super) fn directory(volumes: &Volumes, call: &Call, reply: ReplyOpen) {
    let (tree, caller, ino) = (&volumes.tree, &call.caller, call.ino());
    let opened = match tree.open_directory(caller, ino) {
        Ok(opened) => opened,
        Err(error) => return reply.error(call.failed(&error)),
    };
    tree.answering(caller, ino, Named::Made, false, |keeping| {
        let flags = match keeping.alone {
            true => FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE,
            false => FopenFlags::empty(),
        };
        if keeping.alone {
            tree.keeps_listing(opened);
        }
        reply.opened(FileHandle(opened.0), flags);
    });
}
