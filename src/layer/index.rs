//! Reading an index: open, verify lazily, answer.
//!
//! Opening checks the header and the table of block checksums. A block is copied into memory when it is first asked for, and
//! verified there; so a damaged index is an error and never a wrong answer, whatever becomes of the file afterwards, and an idle
//! index costs a few hundred bytes. All offsets and counts are checked even so: a checksum protects from damage, not from
//! our own mistakes.

mod entries;
mod kinds;
mod open;
mod parts;

pub use entries::{Entries, Entry, Target};
pub use kinds::XattrKinds;
pub(in crate::layer) use open::{body_offset, head_checksum};
pub(in crate::layer) use parts::Stored;
pub use parts::{Extent, Extents, LowerLink, Xattrs};

use xxhash_rust::xxh3::xxh3_64;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::error::IndexError;
use super::format::{self, NodeRecord, SectionId};
use crate::oci::digest::DiffId;
use crate::sys::block_copy::BlockCopy;
use crate::tree::{Attributes, NodeKind};

/// A node of one layer. 0 is the layer's root directory. Only meaningful with the index it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeNo(pub u32);

impl NodeNo {
    /// The root directory.
    pub const ROOT: NodeNo = NodeNo(0);
}

/// The tree of one layer, read block by block.
#[derive(Debug)]
pub struct LayerIndex {
    copy: BlockCopy,
    /// Checksums of its blocks.
    sums: Box<[u64]>,
    file_size: u64,
    diff_id: DiffId,
    tar_size: u64,
    entry_count: u64,
    content_size: u64,
    attributes: XattrKinds,
    sections: [Range; format::SECTIONS],
}

/// A byte range of the body.
#[derive(Debug, Clone, Copy, Default)]
struct Range {
    offset: usize,
    length: usize,
}

impl LayerIndex {
    /// The layer described.
    pub fn diff_id(&self) -> DiffId {
        self.diff_id
    }

    /// Bytes of the layer's uncompressed tar.
    pub fn tar_size(&self) -> u64 {
        self.tar_size
    }

    /// Bytes of the index file.
    pub fn index_size(&self) -> u64 {
        self.file_size
    }

    /// Nodes of the folded layer, the root included; node numbers are below this.
    pub fn node_count(&self) -> u32 {
        let records = self.section(SectionId::Nodes).length / size_of::<NodeRecord>();
        u32::try_from(records).unwrap_or(u32::MAX)
    }

    /// Entries of the tar, before folding (extension headers do not count).
    pub fn entry_count(&self) -> u64 {
        self.entry_count
    }

    /// Sum of the sizes of the layer's regular files, each once however many names it has: docker's SIZE of a layer.
    pub fn content_size(&self) -> u64 {
        self.content_size
    }

    /// Which kinds of extended attributes its nodes have.
    pub fn xattr_kinds(&self) -> XattrKinds {
        self.attributes
    }

    /// Verifies every block: what `mica check` does.
    pub fn verify_all(&self) -> Result<(), IndexError> {
        let length = self.copy.len();
        for start in (0..length).step_by(format::BLOCK) {
            self.body(start..length.min(start + 1))?;
        }
        Ok(())
    }

    /// The attributes of a node. `nlink` counts the names within this layer.
    pub fn attributes(&self, node: NodeNo) -> Result<Attributes, IndexError> {
        let record = self.node(node)?;
        let kind = self.kind_of(record)?;
        let (mut rdev_major, mut rdev_minor, mut size, mut nlink) = (0, 0, 0, record.nlink.get());
        match kind {
            NodeKind::CharDevice | NodeKind::BlockDevice => {
                rdev_major =
                    u32::try_from(record.place.get()).map_err(|_| self.damaged("device"))?;
                rdev_minor = record.count.get();
            }
            NodeKind::Regular => size = record.size.get(),
            NodeKind::Symlink => size = u64::from(record.count.get()),
            NodeKind::Directory => nlink = 1,
            NodeKind::Fifo => {}
        }
        Ok(Attributes {
            kind,
            mode: u32::from(record.mode.get()),
            uid: record.uid.get(),
            gid: record.gid.get(),
            rdev_major,
            rdev_minor,
            size,
            mtime_sec: record.mtime_sec.get(),
            mtime_nsec: record.mtime_nsec.get(),
            nlink,
        })
    }

    /// The type of a node.
    pub fn kind(&self, node: NodeNo) -> Result<NodeKind, IndexError> {
        self.kind_of(self.node(node)?)
    }

    /// Whether this is a directory that the layer has entries in but never describes. A merge takes the attributes of
    /// the lower layers' directory, or [`Attributes::IMPLICIT_DIRECTORY`].
    pub fn is_implicit(&self, node: NodeNo) -> Result<bool, IndexError> {
        Ok(self.node(node)?.flags & format::NODE_IMPLICIT != 0)
    }

    /// Whether the directory hides everything that the lower layers have there: an opaque marker, or a whiteout and
    /// a directory of the same name.
    pub fn is_opaque(&self, node: NodeNo) -> Result<bool, IndexError> {
        Ok(self.node(node)?.flags & format::NODE_OPAQUE != 0)
    }

    /// The target of a symbolic link, 1 to 4,095 bytes without NUL.
    pub fn symlink_target(&self, node: NodeNo) -> Result<&[u8], IndexError> {
        let record = self.node(node)?;
        if record.kind != format::KIND_SYMLINK {
            return Err(self.wrong_kind(node, "not a symbolic link"));
        }
        self.bytes(
            SectionId::Strings,
            record.place.get(),
            u64::from(record.count.get()),
        )
    }

    fn node(&self, node: NodeNo) -> Result<&NodeRecord, IndexError> {
        self.record(SectionId::Nodes, node.0)
    }

    fn kind_of(&self, record: &NodeRecord) -> Result<NodeKind, IndexError> {
        Ok(match record.kind {
            format::KIND_DIRECTORY => NodeKind::Directory,
            format::KIND_REGULAR => NodeKind::Regular,
            format::KIND_SYMLINK => NodeKind::Symlink,
            format::KIND_CHAR => NodeKind::CharDevice,
            format::KIND_BLOCK => NodeKind::BlockDevice,
            format::KIND_FIFO => NodeKind::Fifo,
            _ => return Err(self.damaged("unknown node type")),
        })
    }

    fn section(&self, id: SectionId) -> Range {
        match self.sections.get(id as usize) {
            Some(range) => *range,
            None => Range::default(),
        }
    }

    /// Record `index` of a section of `T`s.
    fn record<T>(&self, id: SectionId, index: u32) -> Result<&T, IndexError>
    where
        T: FromBytes + KnownLayout + Immutable + Unaligned,
    {
        let size = u64::try_from(size_of::<T>()).map_err(|_| self.damaged("record size"))?;
        // Below 2^32 * 2^8.
        let bytes = self.bytes(id, u64::from(index) * size, size)?;
        T::ref_from_bytes(bytes).map_err(|_| self.damaged("record size"))
    }

    /// `length` verified bytes from `offset` of a section.
    fn bytes(&self, id: SectionId, offset: u64, length: u64) -> Result<&[u8], IndexError> {
        let section = self.section(id);
        let outside = || self.damaged("a record points outside its section");
        let offset = usize::try_from(offset).map_err(|_| outside())?;
        let length = usize::try_from(length).map_err(|_| outside())?;
        let end = offset.checked_add(length).ok_or_else(outside)?;
        if end > section.length {
            return Err(outside());
        }
        if length == 0 {
            return Ok(&[]);
        }
        // Within the section, which was checked to be within the body at open.
        let start = section.offset + offset;
        self.body(start..start + length)
    }

    /// Bytes of the body, each block verified when it is first asked for.
    fn body(&self, range: std::ops::Range<usize>) -> Result<&[u8], IndexError> {
        let check = |block: usize, bytes: &[u8]| match self.sums.get(block) {
            Some(sum) if *sum == xxh3_64(bytes) => Ok(()),
            Some(_) => Err(self.damaged("a block checksum is wrong")),
            None => Err(self.damaged("block number")),
        };
        let unread = |_| self.damaged("the file is truncated or cannot be read");
        self.copy.get(range, check, unread)
    }

    fn damaged(&self, what: &'static str) -> IndexError {
        IndexError::Damaged {
            diff_id: self.diff_id,
            what,
        }
    }

    fn wrong_kind(&self, node: NodeNo, what: &'static str) -> IndexError {
        IndexError::Kind {
            diff_id: self.diff_id,
            node: node.0,
            what,
        }
    }
}

impl LayerIndex {
    /// The error for a file that ends before its size.
    pub fn size_disagrees(&self) -> IndexError {
        self.damaged("a file is shorter than its size")
    }

    /// The error for a range that the records do not cover.
    pub(in crate::layer) fn outside(&self) -> IndexError {
        self.damaged("a range outside the content")
    }
}
