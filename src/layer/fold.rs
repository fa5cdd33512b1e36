//! Folding the entries of one tar into one tree, as they come.
//!
//! Rules (OCI image spec, layer.md; where it is silent, what docker and containerd show):
//! - The last entry of a name counts. A directory entry over a directory changes its attributes and keeps its
//!   children; anything else over a directory drops them.
//! - A whiteout or opaque marker hides names of lower layers, wherever it stands in the tar. With an entry of the same
//!   name that entry stays, and if it is a directory it is opaque.
//! - A missing parent becomes an implicit directory. A child of anything but a directory is refused.
//! - A symbolic link of the same layer on the way is followed, inside the layer's root.
//! - `..` in the path of an entry or of a hard link's target takes the component before it away, by the letters alone, and
//!   stops at the root. An entry without a name is passed over unless it is a directory: then it is the root.
//! - A character device 0:0 is a whiteout of its name, as it is for overlayfs, on which container tools unpack layers.
//! - A hard link's target is looked up in the tree as of then, else it is a file of the layers below ([`links`]). Its
//!   own mode, owner, times and xattrs apply to the file, as in docker.
//!
//! Memory: 60 bytes per node and 16 per name, plus the names, in a handful of vectors; a hash table of `u32` finds
//! names. Directories that were replaced are not freed, they are just not reachable any more.

pub(super) mod arena;
mod links;
mod path;

use super::error::Problem;
use super::format::{self, ExtentRecord, NodeRecord};
use super::limits::Limits;
use super::tar::{EntryKind, TarEntry};
use crate::tree::whiteout::{self, Marker};
use arena::{Arena, Dirent, NONE, ROOT};

/// The tree of one layer while its tar streams by.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) arena: Arena,
    limits: Limits,
    /// Steps of path resolution so far.
    steps: u64,
    /// The parent of the last entry as the tar spelled it, and where it led; dropped when a directory or symbolic
    /// link is replaced.
    last_parent: Option<(Vec<u8>, u32)>,
}

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Folded {
    /// Its content, if any, is of no interest.
    NoContent,
    /// A regular file whose content must be given to [`Arena::sums`].
    Content,
}

impl Folder {
    pub(super) fn new(limits: &Limits) -> Folder {
        Folder {
            arena: Arena::new(),
            limits: *limits,
            steps: 0,
            last_parent: None,
        }
    }

    /// Adds an entry whose first stored byte is at `tar_offset`.
    pub(super) fn add(&mut self, entry: &TarEntry, tar_offset: u64) -> Result<Folded, Problem> {
        let path = path::clean(&entry.path);
        let Some((parent, name)) = self.split(&path)? else {
            match entry.kind {
                EntryKind::Directory => {}
                // Go's clean form of no name is the root, and no container tool unpacks a file there.
                _ if entry.path.is_empty() => return Ok(Folded::NoContent),
                _ => return Err(Problem::Root),
            }
            self.describe(ROOT, entry)?;
            return Ok(Folded::NoContent);
        };
        match whiteout::classify(name) {
            Some(Marker::Invalid) => return Err(Problem::Whiteout),
            Some(Marker::AufsMetadata) => return Ok(Folded::NoContent),
            Some(Marker::Opaque) => {
                let Some(parent) = self.parent(parent)? else {
                    return Ok(Folded::NoContent);
                };
                self.arena.node_mut(parent).flags |= format::NODE_OPAQUE;
                return Ok(Folded::NoContent);
            }
            Some(Marker::Whiteout(hidden)) => {
                let Some(parent) = self.parent(parent)? else {
                    return Ok(Folded::NoContent);
                };
                let at = self.name(parent, hidden)?;
                self.arena.dirent_mut(at).flags |= format::DIRENT_WHITEOUT;
                return Ok(Folded::NoContent);
            }
            None if name.len() > crate::tree::NAME_MAX => return Err(Problem::NameTooLong),
            None => {}
        }
        if entry.kind == EntryKind::HardLink {
            return self.add_link(entry, parent, name);
        }
        let Some(parent) = self.parent(parent)? else {
            return Ok(Folded::NoContent);
        };
        let at = self.name(parent, name)?;
        let old = *self.arena.dirent(at);
        if entry.kind == EntryKind::CharDevice && (entry.rdev_major, entry.rdev_minor) == (0, 0) {
            self.retarget(at, 0, NONE);
            self.arena.dirent_mut(at).flags |= format::DIRENT_WHITEOUT | arena::DIRENT_DEVICE;
            return Ok(Folded::NoContent);
        }
        if entry.kind == EntryKind::Directory
            && old.flags & format::DIRENT_NODE != 0
            && self.arena.node(old.target).kind == format::KIND_DIRECTORY
        {
            self.describe(old.target, entry)?;
            return Ok(Folded::NoContent);
        }
        let node = self.arena.push_node(new_node(entry))?;
        self.describe(node, entry)?;
        match entry.kind {
            EntryKind::Directory => self.arena.node_mut(node).extents = at.into(),
            EntryKind::Symlink => {
                let target = self.string(&entry.link)?;
                let record = self.arena.node_mut(node);
                record.place = u64::from(target).into();
                // 4,095 at most, checked by the scanner.
                record.count = u32::try_from(entry.link.len()).unwrap_or(0).into();
            }
            EntryKind::Regular => self.place(node, entry, tar_offset)?,
            _ => {}
        }
        self.retarget(at, format::DIRENT_NODE, node);
        Ok(match entry.kind {
            EntryKind::Regular => Folded::Content,
            _ => Folded::NoContent,
        })
    }

    /// Sets where a regular file's content is.
    fn place(&mut self, node: u32, entry: &TarEntry, tar_offset: u64) -> Result<(), Problem> {
        let sums = self.arena.sums.len();
        let first = self.arena.extents.len();
        if let Some(segments) = &entry.segments {
            if first + segments.len() > Limits::MAX_EXTENTS {
                return Err(Problem::Limit {
                    what: "sparse segments",
                    limit: Limits::MAX_EXTENTS as u64,
                });
            }
            let mut stored = 0;
            for segment in segments {
                self.arena.extents.push(ExtentRecord {
                    file_offset: segment.offset.into(),
                    stored_offset: stored.into(),
                    length: segment.length.into(),
                });
                stored += segment.length;
            }
        }
        let record = self.arena.node_mut(node);
        record.place = tar_offset.into();
        record.size = entry.size.into();
        record.sums = u32::try_from(sums)
            .map_err(|_| Problem::Limit {
                what: "content blocks",
                limit: u64::from(u32::MAX),
            })?
            .into();
        if let Some(segments) = &entry.segments {
            record.flags |= format::NODE_SPARSE;
            // Bounded by MAX_EXTENTS above.
            record.extents = u32::try_from(first).unwrap_or(NONE).into();
            record.count = u32::try_from(segments.len()).unwrap_or(0).into();
        }
        Ok(())
    }

    /// Gives a node the attributes of an entry; what makes it the node it is stays.
    fn describe(&mut self, node: u32, entry: &TarEntry) -> Result<(), Problem> {
        let xattrs = self.xattr_set(entry, NONE)?;
        let record = self.arena.node_mut(node);
        set_common(record, entry);
        record.xattrs = xattrs.into();
        record.flags &= !format::NODE_IMPLICIT;
        Ok(())
    }

    /// Points a name at a new target.
    fn retarget(&mut self, at: u32, kind: u8, target: u32) {
        let old = *self.arena.dirent(at);
        if old.flags & format::DIRENT_NODE != 0
            && matches!(
                self.arena.node(old.target).kind,
                format::KIND_DIRECTORY | format::KIND_SYMLINK
            )
        {
            self.last_parent = None;
        }
        let dirent = self.arena.dirent_mut(at);
        dirent.flags = dirent.flags & format::DIRENT_WHITEOUT | kind;
        dirent.target = target;
    }

    /// The dirent `name` of `parent`, made if need be.
    fn name(&mut self, parent: u32, name: &[u8]) -> Result<u32, Problem> {
        if let Some(at) = self.arena.find(parent, name) {
            return Ok(at);
        }
        let string = self.string(name)?;
        self.arena.insert(Dirent {
            parent,
            name: string,
            target: NONE,
            // Checked above: 255 at most.
            name_length: u8::try_from(name.len()).map_err(|_| Problem::NameTooLong)?,
            flags: 0,
        })
    }

    fn string(&mut self, bytes: &[u8]) -> Result<u32, Problem> {
        self.budget(bytes.len())?;
        self.arena.push_string(bytes)
    }

    /// Checks that `more` bytes of metadata may be kept.
    fn budget(&self, more: usize) -> Result<(), Problem> {
        let kept = self.arena.strings.len() + self.arena.xattrs.len();
        let wanted = u64::try_from(kept.saturating_add(more)).unwrap_or(u64::MAX);
        if wanted > self.limits.max_metadata_bytes {
            return Err(Problem::Limit {
                what: "bytes of names and attributes",
                limit: self.limits.max_metadata_bytes,
            });
        }
        Ok(())
    }

    /// The xattr set of `entry` added to that of `base`; names of overlayfs are dropped. What a layer says about
    /// overlayfs must not reach one that is stacked on top.
    fn xattr_set(&mut self, entry: &TarEntry, base: u32) -> Result<u32, Problem> {
        if entry.xattrs.is_empty() {
            return Ok(if base == NONE { 0 } else { base });
        }
        let mut set = std::collections::BTreeMap::new();
        if base != NONE {
            self.arena.read_xattrs(base, &mut set);
        }
        for (name, value) in &entry.xattrs {
            if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
                continue;
            }
            set.insert(name.clone(), value.clone());
        }
        if set.is_empty() {
            return Ok(0);
        }
        let bytes = arena::encode_xattrs(&set)?;
        self.budget(bytes.len())?;
        self.arena.intern_xattrs(&bytes)
    }
}

fn new_node(entry: &TarEntry) -> NodeRecord {
    let kind = match entry.kind {
        EntryKind::Directory => format::KIND_DIRECTORY,
        // A hard link makes no node.
        EntryKind::Regular | EntryKind::HardLink => format::KIND_REGULAR,
        EntryKind::Symlink => format::KIND_SYMLINK,
        EntryKind::CharDevice => format::KIND_CHAR,
        EntryKind::BlockDevice => format::KIND_BLOCK,
        EntryKind::Fifo => format::KIND_FIFO,
    };
    let mut record = arena::empty_node(kind);
    if matches!(entry.kind, EntryKind::CharDevice | EntryKind::BlockDevice) {
        record.place = u64::from(entry.rdev_major).into();
        record.count = entry.rdev_minor.into();
    }
    record
}

fn set_common(record: &mut NodeRecord, entry: &TarEntry) {
    // Linux has no other mode for symbolic links.
    record.mode = match record.kind {
        format::KIND_SYMLINK => 0o777,
        _ => entry.mode & 0o7777,
    }
    .into();
    record.uid = entry.uid.into();
    record.gid = entry.gid.into();
    record.mtime_sec = entry.mtime_sec.into();
    record.mtime_nsec = entry.mtime_nsec.into();
}
