//! Names and attributes below a volume: each operation is the host's, on the node the kernel names.

use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{Access, FileType, OFlags, RenameFlags};
use rustix::io::Errno;

use super::super::api::{Caller, InodeNo, StatFs};
use super::attr::FileNo;
use super::attr::{Attr, Change, VolumeError};
use super::keep::Use;
use super::nodes::Node;
use super::{VolumeTree, root};
use crate::sys::beneath::{self, SetTime};

type Result<T> = std::result::Result<T, VolumeError>;

/// The attribute that an ACL is to the kernel.
const ACCESS_ACL: &[u8] = b"system.posix_acl_access";

/// A node, and that its volume may be changed.
#[derive(Debug)]
pub(super) struct Used {
    node: Arc<Node>,
    _in_use: Use,
}

impl Deref for Used {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

impl VolumeTree {
    /// What `name` in `parent` is; takes a reference.
    pub fn lookup(&self, caller: &Caller, parent: InodeNo, name: &[u8]) -> Result<Attr> {
        if Self::is_root(parent) {
            return self.volume_lookup(name);
        }
        let parent = self.nodes.get(parent)?;
        self.found(caller, &parent, name).map(|(_, attr)| attr)
    }

    /// Drops `count` references.
    pub fn forget(&self, ino: InodeNo, count: u64) {
        self.nodes.forget(ino, count);
    }

    pub(super) fn found(
        &self,
        caller: &Caller,
        parent: &Node,
        name: &[u8],
    ) -> Result<(Arc<Node>, Attr)> {
        self.budget.has_room(self.nodes.len())?;
        if let Err(error) = self.budget.may_know(caller.uid) {
            self.forget_some();
            return Err(error);
        }
        let child = self.host.child(parent.directory()?, name)?;
        self.entered(caller, parent, name, child)
    }

    pub(super) fn entered(
        &self,
        caller: &Caller,
        parent: &Node,
        name: &[u8],
        child: OwnedFd,
    ) -> Result<(Arc<Node>, Attr)> {
        let stat = beneath::stat(&child)?;
        let found_as = (parent.ino, name);
        let (node, attr, before) =
            self.nodes
                .enter(&parent.volume, child, &stat, false, found_as, || {
                    Some(self.budget.know(caller.uid))
                });
        self.has_entered(node.ino);
        if let Some((parent, name)) = before {
            self.also_named(&node.volume, parent, &name);
        }
        if self.budget.is_short(self.nodes.len()) {
            self.forget_some();
        }
        Ok((node, attr))
    }

    /// Has the kernel asked to forget what it does not need.
    fn forget_some(&self) {
        if let Some(sweeper) = self.sweeper.get() {
            sweeper.unpark();
        }
    }

    /// What `stat` shows.
    pub fn getattr(&self, ino: InodeNo) -> Result<Attr> {
        if Self::is_root(ino) {
            return self.root_attr();
        }
        let node = self.nodes.get(ino)?;
        self.attr(&node)
    }

    fn attr(&self, node: &Node) -> Result<Attr> {
        Ok(Attr::new(node.ino, &beneath::stat(node)?))
    }

    /// chmod, chown, truncate, utimens.
    pub fn setattr(
        &self,
        caller: &Caller,
        ino: InodeNo,
        change: &Change,
        file: Option<FileNo>,
    ) -> Result<Attr> {
        if Self::is_root(ino) {
            return Err(Errno::PERM.into());
        }
        let node = self.nodes.get(ino)?;
        node.writable()?;
        let node = self.used(node)?;
        if let Some(size) = change.size {
            self.truncate(caller, &node, size, file)?;
        }
        if change.uid.is_some() || change.gid.is_some() {
            self.changing(caller, &*node, || {
                beneath::chown(&*node, change.uid, change.gid)
            })?;
        }
        if let Some(mode) = change.mode {
            let chmod = || self.host.chmod(&*node, mode);
            if mode & 0o6000 == 0 {
                chmod()?;
            } else {
                self.privileges.with_set_id(chmod)?;
            }
        }
        if (change.atime, change.mtime) != (SetTime::Keep, SetTime::Keep) {
            self.host.set_times(&*node, change.atime, change.mtime)?;
        }
        self.attr(&node)
    }

    fn truncate(
        &self,
        caller: &Caller,
        node: &Node,
        size: u64,
        file: Option<FileNo>,
    ) -> Result<()> {
        node.regular()?;
        if let Some(file) = file.and_then(|file| self.files.get(file)) {
            return self.changing(caller, node, || beneath::truncate(&file.descriptor, size));
        }
        let opened = self.host.open(node, OFlags::WRONLY | OFlags::NONBLOCK)?;
        self.changing(caller, node, || beneath::truncate(opened, size))
    }

    /// Where a symbolic link leads.
    pub fn readlink(&self, ino: InodeNo) -> Result<Vec<u8>> {
        let node = self.nodes.get(ino)?;
        match node.kind {
            FileType::Symlink => Ok(beneath::read_link(&*node)?),
            _ => Err(Errno::INVAL.into()),
        }
    }

    /// A directory in which names may be changed.
    pub(super) fn changeable(&self, ino: InodeNo) -> Result<Used> {
        if Self::is_root(ino) {
            return Err(Errno::PERM.into());
        }
        let node = self.nodes.get(ino)?;
        node.directory()?.writable()?;
        self.used(node)
    }

    /// A node that is about to be changed.
    pub(super) fn used(&self, node: Arc<Node>) -> Result<Used> {
        let _in_use = self.using(&node.volume)?;
        Ok(Used { node, _in_use })
    }

    /// A file, device, pipe or socket.
    pub fn mknod(
        &self,
        caller: &Caller,
        parent: InodeNo,
        name: &[u8],
        (mode, umask): (u32, u32),
        device: u32,
    ) -> Result<Attr> {
        let parent = self.changeable(parent)?;
        self.once(&parent, name, || {
            self.making(caller, mode, umask, || {
                beneath::mknod(&*parent, name, mode, device)
            })
        })?;
        self.made(caller, &parent, name, FileType::from_raw_mode(mode))
    }

    /// A directory, or a volume.
    pub fn mkdir(
        &self,
        caller: &Caller,
        parent: InodeNo,
        name: &[u8],
        (mode, umask): (u32, u32),
    ) -> Result<Attr> {
        if Self::is_root(parent) {
            return self.volume_mkdir(caller, name, mode & !umask);
        }
        let parent = self.changeable(parent)?;
        self.once(&parent, name, || {
            self.making(caller, mode, umask, || beneath::mkdir(&*parent, name, mode))
        })?;
        self.made(caller, &parent, name, FileType::Directory)
    }

    /// A symbolic link, or a bind.
    pub fn symlink(
        &self,
        caller: &Caller,
        parent: InodeNo,
        name: &[u8],
        target: &[u8],
    ) -> Result<Attr> {
        if Self::is_root(parent) {
            return self.volume_bind(caller, name, target);
        }
        let parent = self.changeable(parent)?;
        self.once(&parent, name, || {
            self.making(caller, 0, 0, || beneath::symlink(target, &*parent, name))
        })?;
        self.made(caller, &parent, name, FileType::Symlink)
    }

    /// Runs `make` as the caller.
    pub(super) fn making<T>(
        &self,
        caller: &Caller,
        mode: u32,
        umask: u32,
        make: impl FnOnce() -> beneath::Result<T>,
    ) -> Result<T> {
        self.budget.may_know(caller.uid)?;
        self.create_as(caller, umask)?;
        let made = if mode & 0o2000 == 0 {
            make()
        } else {
            self.privileges.with_set_id(make)
        };
        Ok(made?)
    }

    /// What has just been made. Something else may stand there by now: the kernel is to look again.
    fn made(&self, caller: &Caller, parent: &Node, name: &[u8], kind: FileType) -> Result<Attr> {
        let child = self.host.child(parent, name)?;
        let stat = beneath::stat(&child)?;
        if beneath::kind(&stat) != kind {
            return Err(Errno::STALE.into());
        }
        self.entered(caller, parent, name, child)
            .map(|(_, attr)| attr)
    }

    /// One more name.
    pub fn link(
        &self,
        caller: &Caller,
        ino: InodeNo,
        parent: InodeNo,
        name: &[u8],
    ) -> Result<Attr> {
        let parent = self.changeable(parent)?;
        let node = self.nodes.get(ino)?;
        if node.kind == FileType::Directory {
            return Err(Errno::PERM.into());
        }
        same_volume(&node, &parent)?;
        self.once(&parent, name, || {
            Ok(self.host.link(&*node, &*parent, name)?)
        })?;
        let child = self.host.child(&*parent, name)?;
        self.entered(caller, &parent, name, child)
            .map(|(_, attr)| attr)
    }

    /// Removes a name that is no directory's, or detaches the bind of a file.
    pub fn unlink(&self, caller: &Caller, parent: InodeNo, name: &[u8]) -> Result<()> {
        if Self::is_root(parent) {
            return self.volume_unlink(caller, name);
        }
        let parent = self.changeable(parent)?;
        self.remove_once(&parent, name, || Ok(beneath::unlink(&*parent, name)?))
    }

    /// Removes an empty directory, or a volume.
    pub fn rmdir(&self, caller: &Caller, parent: InodeNo, name: &[u8]) -> Result<()> {
        if Self::is_root(parent) {
            return self.volume_rmdir(caller, name);
        }
        let parent = self.changeable(parent)?;
        self.remove_once(&parent, name, || Ok(beneath::rmdir(&*parent, name)?))
    }

    /// renameat2(2), within a volume; or a new name for a volume.
    pub fn rename(
        &self,
        caller: &Caller,
        from: (InodeNo, &[u8]),
        to: (InodeNo, &[u8]),
        flags: u32,
    ) -> Result<()> {
        let flags = RenameFlags::from_bits(flags).ok_or(Errno::INVAL)?;
        match (Self::is_root(from.0), Self::is_root(to.0)) {
            (true, true) => return self.volume_rename(caller, from.1, to.1, flags),
            // A volume does not become a directory of another, nor the other way round.
            (true, false) | (false, true) => return Err(Errno::XDEV.into()),
            (false, false) => {}
        }
        let source = self.changeable(from.0)?;
        let target = self.changeable(to.0)?;
        same_volume(&source, &target)?;
        self.move_once((&source, from.1), (&target, to.1), || {
            Ok(beneath::rename(
                (&*source, from.1),
                (&*target, to.1),
                flags,
            )?)
        })?;
        // The kernel takes what it knows of a name along to the other.
        self.also_named(&target.volume, target.ino, to.1);
        if flags.contains(RenameFlags::EXCHANGE) {
            self.also_named(&source.volume, source.ino, from.1);
        }
        Ok(())
    }

    /// The file system behind.
    pub fn statfs(&self, ino: InodeNo) -> Result<StatFs> {
        let found = if Self::is_root(ino) {
            root::statvfs(&self.store_path)?
        } else {
            beneath::statvfs(&*self.nodes.get(ino)?)?
        };
        let size = u32::try_from(found.f_frsize).unwrap_or(4096).max(1);
        Ok(StatFs {
            block_size: size,
            blocks: found.f_blocks,
            free: found.f_bfree,
            available: found.f_bavail,
            files: found.f_files,
            files_free: found.f_ffree,
        })
    }

    /// access(2), asked where the kernel does not check itself.
    pub fn access(&self, ino: InodeNo, mask: u32) -> Result<()> {
        if Self::is_root(ino) {
            return Ok(());
        }
        let node = self.nodes.get(ino)?;
        let wanted = Access::from_bits_truncate(mask);
        if wanted.contains(Access::WRITE_OK) && node.kind != FileType::CharacterDevice {
            node.writable()?;
        }
        Ok(self.host.access(&*node, wanted)?)
    }

    /// getxattr(2).
    pub fn get_xattr(&self, ino: InodeNo, name: &[u8]) -> Result<Vec<u8>> {
        if Self::is_root(ino) {
            return Err(Errno::NODATA.into());
        }
        let node = self.nodes.get(ino)?;
        match self.mark(&node, name) {
            Some(mark) => mark,
            None => match self.host.get_xattr(&*node, name) {
                // Who asks each file of a tree for it asks no more after this one.
                Err(Errno::NODATA) if name == b"security.selinux" && !self.selinux => {
                    Err(Errno::OPNOTSUPP.into())
                }
                found => Ok(found?),
            },
        }
    }

    /// listxattr(2).
    pub fn list_xattr(&self, ino: InodeNo) -> Result<Vec<u8>> {
        if Self::is_root(ino) {
            return Ok(Vec::new());
        }
        let node = self.nodes.get(ino)?;
        let list = self.host.list_xattr(&*node)?;
        Ok(Self::without_marks(&node, list))
    }

    /// setxattr(2).
    pub fn set_xattr(
        &self,
        caller: &Caller,
        ino: InodeNo,
        name: &[u8],
        value: &[u8],
        flags: u32,
    ) -> Result<()> {
        if Self::is_root(ino) {
            return Err(Errno::PERM.into());
        }
        let node = self.nodes.get(ino)?;
        node.writable()?;
        let node = self.used(node)?;
        if let Some(set) = self.set_mark(caller, &node, name, Some(value)) {
            return set;
        }
        let set = || self.host.set_xattr(&*node, name, value, flags);
        // It changes the mode as well.
        if name == ACCESS_ACL {
            self.changing(caller, &*node, set)
        } else {
            Ok(set()?)
        }
    }

    /// removexattr(2).
    pub fn remove_xattr(&self, caller: &Caller, ino: InodeNo, name: &[u8]) -> Result<()> {
        if Self::is_root(ino) {
            return Err(Errno::PERM.into());
        }
        let node = self.nodes.get(ino)?;
        node.writable()?;
        let node = self.used(node)?;
        if let Some(removed) = self.set_mark(caller, &node, name, None) {
            return removed;
        }
        Ok(self.host.remove_xattr(&*node, name)?)
    }
}

/// Between volumes there is no link and no rename, as between mounts.
fn same_volume(a: &Node, b: &Node) -> Result<()> {
    if a.volume.number == b.volume.number {
        Ok(())
    } else {
        Err(Errno::XDEV.into())
    }
}
