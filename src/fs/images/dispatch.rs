//! [`FileSystem`] on [`Superblock`]: finds out what kind of node a request is about, and hands it on.
//!
//! | about | goes to |
//! |---|---|
//! | a directory of an image or a layer | `image_dir`, `removal` |
//! | a leaf of a layer | `image_dir` |
//! | a node of ours | `names_dir`, `info`, `removal`, `renaming` |

use std::sync::Arc;

use super::inode::{Number, SlotNo, decode};
use super::nodes::Node;
use super::places::{InfoFile, LayerFileName, Place, Subject};
use super::trees::DirNode;
use super::{Shape, Superblock};
use crate::fs::api::{
    AttrReply, Caller, DirEntry, EntryReply, FileAttr, FileSystem, FsError, Full, InodeNo, Lookup,
    RenameMode, SetAttr, StatFs,
};
use crate::layer::NodeNo;
use crate::sys::mountinfo::DeviceId;

/// A node that the kernel knows.
enum Known {
    Own(Arc<Node>),
    Dir(Arc<DirNode>),
    Leaf(SlotNo, NodeNo),
}

impl Superblock {
    fn known(&self, ino: InodeNo) -> Result<Known, FsError> {
        let stale = || FsError::Stale(ino.0);
        match decode(ino) {
            Number::Own => self.nodes.get(ino).map(Known::Own).ok_or_else(stale),
            Number::Directory => match self.trees.get(ino) {
                Some(dir) => Ok(Known::Dir(dir)),
                None => self.directory_again(ino).map(Known::Dir),
            },
            Number::Leaf(slot, node) => Ok(Known::Leaf(slot, node)),
        }
    }

    /// Drops references of any node.
    pub(super) fn forget_node(&self, ino: InodeNo, count: u64) {
        match decode(ino) {
            Number::Own => {
                if let Some(node) = self.nodes.forget(ino, count)
                    && let Place::File(InfoFile::Layer(layer, LayerFileName::Tar)) = node.place()
                    && let Some(slot) = self.slots.find(&layer)
                {
                    slot.forget(1);
                }
            }
            Number::Directory => self.trees.forget(ino, count),
            Number::Leaf(slot, _) => {
                if let Some(slot) = self.slots.get(slot) {
                    slot.forget(count);
                }
            }
        }
    }

    /// The attributes as this mount shows them.
    fn owned(&self, mut attr: FileAttr) -> FileAttr {
        if self.options.squash {
            (attr.uid, attr.gid) = (0, 0);
        }
        if let Some(shift) = &self.options.shift
            && !matches!(decode(attr.ino), Number::Own)
        {
            (attr.uid, attr.gid) = (shift.uid(attr.uid), shift.gid(attr.gid));
        }
        if self.options.shared_links && matches!(decode(attr.ino), Number::Leaf(..)) {
            attr.nlink = attr.nlink.saturating_add(1);
        }
        attr
    }

    /// What a change of the node or of its content is refused with.
    fn refusal(&self, ino: InodeNo) -> FsError {
        match self.known(ino) {
            Ok(Known::Own(_)) => match self.options.shape {
                Shape::Images => FsError::NotPermitted,
                Shape::Stores => FsError::ReadOnly,
            },
            Ok(Known::Dir(dir)) => refusal_in(&dir),
            Ok(Known::Leaf(..)) => FsError::ReadOnly,
            Err(error) => error,
        }
    }
}

/// Images are read-only; `layers/` refuses.
fn refusal_in(dir: &DirNode) -> FsError {
    match dir.tree.subject() {
        Subject::Layer(_) => FsError::NotPermitted,
        Subject::Tag(..)
        | Subject::ById(_)
        | Subject::Dangling(_)
        | Subject::Chained(..)
        | Subject::Chain(..) => FsError::ReadOnly,
    }
}

impl FileSystem for Superblock {
    fn mounted(&self, device: DeviceId) {
        self.set_device(device);
    }

    fn refresh(&self) -> Result<(), FsError> {
        self.catch_up()
    }

    fn lookup(&self, _caller: &Caller, parent: InodeNo, name: &[u8]) -> Result<Lookup, FsError> {
        let found = match self.known(parent)? {
            Known::Own(node) => self.own_lookup(&node, name),
            Known::Dir(dir) => {
                self.note_use(&dir.tree);
                self.tree_lookup(&dir, name)
            }
            Known::Leaf(..) => Err(FsError::NotDirectory),
        };
        Ok(match found? {
            Lookup::Found(mut entry) => {
                entry.attr = self.owned(entry.attr);
                Lookup::Found(entry)
            }
            absent => absent,
        })
    }

    fn forget(&self, ino: InodeNo, count: u64) {
        self.forget_node(ino, count);
    }

    fn getattr(&self, caller: &Caller, ino: InodeNo) -> Result<AttrReply, FsError> {
        let mut reply = match self.known(ino)? {
            Known::Own(node) => self.own_attr(&node),
            Known::Dir(dir) => self.attr_asked(caller, &dir),
            Known::Leaf(slot, node) => self.leaf_attr(ino, slot, node),
        }?;
        reply.attr = self.owned(reply.attr);
        Ok(reply)
    }

    fn setattr(
        &self,
        _caller: &Caller,
        ino: InodeNo,
        _set: &SetAttr,
    ) -> Result<AttrReply, FsError> {
        Err(self.refusal(ino))
    }

    fn readlink(&self, _caller: &Caller, ino: InodeNo) -> Result<Vec<u8>, FsError> {
        match self.known(ino)? {
            Known::Own(node) => match node.place() {
                Place::Link(target) => Ok(target.into_vec()),
                Place::Store(place) => match place.target() {
                    Some(target) => Ok(target.into_bytes()),
                    None => Err(FsError::NotSymlink),
                },
                _ => Err(FsError::NotSymlink),
            },
            Known::Dir(_) => Err(FsError::NotSymlink),
            Known::Leaf(slot, node) => {
                let (_, file) = self.leaf(slot)?;
                Ok(file.index.symlink_target(node)?.to_vec())
            }
        }
    }

    fn open(&self, _caller: &Caller, ino: InodeNo, for_writing: bool) -> Result<(), FsError> {
        match for_writing {
            true => Err(self.refusal(ino)),
            false => Ok(()),
        }
    }

    fn read(
        &self,
        _caller: &Caller,
        ino: InodeNo,
        offset: u64,
        size: u32,
        into: &mut Vec<u8>,
    ) -> Result<(), FsError> {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        match self.known(ino)? {
            Known::Own(node) => match node.place() {
                Place::File(file) => {
                    let read = self.file_read(&node, &file, offset, size, into);
                    self.unless_gone(&Place::File(file), read)
                }
                Place::Store(place) => {
                    let read = self.store_read(&node, &place, offset, size, into);
                    self.unless_gone(&Place::Store(place), read)
                }
                Place::Link(_) | Place::Whiteout => Err(FsError::Invalid("not a file".to_owned())),
                _ => Err(FsError::IsDirectory),
            },
            Known::Dir(_) => Err(FsError::IsDirectory),
            Known::Leaf(slot, node) => {
                into.resize(size, 0);
                let length = self.leaf_read(slot, node, offset, into)?;
                into.truncate(length);
                Ok(())
            }
        }
    }

    fn seek(
        &self,
        caller: &Caller,
        ino: InodeNo,
        offset: u64,
        hole: bool,
    ) -> Result<Option<u64>, FsError> {
        if let Known::Leaf(slot, node) = self.known(ino)? {
            let (_, file) = self.leaf(slot)?;
            return Ok(file.seek(node, offset, hole)?);
        }
        let size = self.getattr(caller, ino)?.attr.size;
        let found = if hole { size } else { offset };
        Ok((offset < size).then_some(found))
    }

    fn write(&self, _caller: &Caller, ino: InodeNo, from_cache: bool) -> FsError {
        if from_cache {
            // A shared mapping was written to: the kernel's pages are not the file's any more.
            self.cache.invalidate_inode(ino, false);
        }
        self.refusal(ino)
    }

    fn readdir(
        &self,
        caller: &Caller,
        ino: InodeNo,
        offset: u64,
        plus: bool,
        add: &mut dyn FnMut(&DirEntry<'_>) -> Full,
    ) -> Result<(), FsError> {
        let mut add = |entry: &DirEntry<'_>| {
            let mut entry = *entry;
            entry.entry.attr = self.owned(entry.entry.attr);
            add(&entry)
        };
        let add = &mut add;
        match self.known(ino)? {
            Known::Own(node) => self.own_list(&node, offset, plus, add),
            Known::Dir(dir) => {
                self.note_listing(caller, &dir);
                self.note_use(&dir.tree);
                self.tree_list(&dir, offset, plus, add)
            }
            Known::Leaf(..) => Err(FsError::NotDirectory),
        }
    }

    fn statfs(&self, _caller: &Caller, ino: InodeNo) -> Result<StatFs, FsError> {
        match self.known(ino)? {
            Known::Own(node) => self.own_statfs(&node.place()),
            Known::Dir(dir) => self.tree_statfs(&dir.tree.subject()),
            // A file may be of many images: what it is stored in.
            Known::Leaf(slot, _) => {
                let (slot, _) = self.leaf(slot)?;
                self.tree_statfs(&Subject::Layer(slot.diff_id))
            }
        }
    }

    fn getxattr(&self, _caller: &Caller, ino: InodeNo, name: &[u8]) -> Result<Vec<u8>, FsError> {
        let known = self.known(ino)?;
        self.probe(name)?;
        match known {
            Known::Own(_) => Err(FsError::NoAttribute),
            Known::Dir(dir) => self.tree_xattr(&dir, name),
            Known::Leaf(slot, node) => self.leaf_xattr(slot, node, name),
        }
    }

    fn listxattr(&self, _caller: &Caller, ino: InodeNo) -> Result<Vec<u8>, FsError> {
        match self.known(ino)? {
            Known::Own(_) => Ok(Vec::new()),
            Known::Dir(dir) => self.tree_xattrs(&dir),
            Known::Leaf(slot, node) => self.leaf_xattrs(slot, node),
        }
    }

    fn change_xattr(
        &self,
        caller: &Caller,
        ino: InodeNo,
        name: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), FsError> {
        let pinned = match self.known(ino)? {
            Known::Dir(dir) => self.set_pin_attribute(caller, &dir, name, value),
            Known::Own(_) | Known::Leaf(..) => None,
        };
        pinned.unwrap_or_else(|| Err(self.refusal(ino)))
    }

    fn flags(&self, _caller: &Caller, ino: InodeNo) -> Result<u32, FsError> {
        Ok(match self.known(ino)? {
            Known::Dir(dir) => self.inode_flags(&dir),
            Known::Own(_) | Known::Leaf(..) => 0,
        })
    }

    fn set_flags(&self, caller: &Caller, ino: InodeNo, flags: u32) -> Result<(), FsError> {
        let set = match self.known(ino)? {
            Known::Dir(dir) => self.set_inode_flags(caller, &dir, flags),
            Known::Own(_) | Known::Leaf(..) => None,
        };
        set.unwrap_or_else(|| Err(self.refusal(ino)))
    }

    fn make_node(&self, _caller: &Caller, parent: InodeNo, _name: &[u8]) -> FsError {
        self.refusal(parent)
    }

    fn mkdir(&self, caller: &Caller, parent: InodeNo, name: &[u8]) -> Result<EntryReply, FsError> {
        match self.known(parent)? {
            Known::Own(node) => self.own_mkdir(caller, &node.place(), name),
            _ => Err(self.refusal(parent)),
        }
    }

    fn symlink(
        &self,
        caller: &Caller,
        parent: InodeNo,
        name: &[u8],
        target: &[u8],
    ) -> Result<EntryReply, FsError> {
        match self.known(parent)? {
            Known::Own(node) => self.own_symlink(caller, &node.place(), name, target),
            _ => Err(self.refusal(parent)),
        }
    }

    fn unlink(&self, caller: &Caller, parent: InodeNo, name: &[u8]) -> Result<(), FsError> {
        match self.known(parent)? {
            Known::Own(node) => self.own_unlink(caller, &node.place(), name),
            Known::Dir(dir) => self.stage(caller, &dir, name, false),
            Known::Leaf(..) => Err(FsError::NotDirectory),
        }
    }

    fn rmdir(&self, caller: &Caller, parent: InodeNo, name: &[u8]) -> Result<(), FsError> {
        match self.known(parent)? {
            Known::Own(node) => self.own_rmdir(caller, &node.place(), name),
            Known::Dir(dir) => self.stage(caller, &dir, name, true),
            Known::Leaf(..) => Err(FsError::NotDirectory),
        }
    }

    fn renamed_before(&self, to: (InodeNo, &[u8])) {
        // What it moves there may be known to this process by its old name.
        self.cache.invalidate_entry(to.0, to.1);
    }

    fn rename(
        &self,
        caller: &Caller,
        from: (InodeNo, &[u8]),
        to: (InodeNo, &[u8]),
        mode: RenameMode,
    ) -> Result<(), FsError> {
        match (self.known(from.0)?, self.known(to.0)?) {
            (Known::Own(old), Known::Own(new)) => {
                let from = (&old.place(), from.1);
                let to = (&new.place(), to.1);
                self.own_rename(caller, from, to, mode)
            }
            (Known::Own(_), _) => Err(self.refusal(to.0)),
            // Never EXDEV: `mv` would copy the image, then delete it.
            _ => Err(self.refusal(from.0)),
        }
    }
}
