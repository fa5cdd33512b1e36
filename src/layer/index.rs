//! Reading an index: open, verify lazily, answer.
//!
//! Opening checks the header and the table of block checksums. Every access verifies the blocks it touches, once; so
//! a damaged index is an error and never a wrong answer, and an idle index costs a bitmap of a few hundred bytes.
//! The first touch goes through an ordinary read (see [`crate::sys::mmap`]): a truncated file or a disk error is an
//! error too. All offsets and counts are checked even so: a checksum protects from damage, not from our own mistakes.

mod entries;
mod open;
mod parts;

pub use entries::{Entries, Entry, Target};
pub(in crate::layer) use open::{body_offset, head_checksum};
pub(in crate::layer) use parts::Stored;
pub use parts::{Extent, Extents, LowerLink, Xattrs};

use std::sync::atomic::{AtomicU64, Ordering};

use xxhash_rust::xxh3::xxh3_64;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::error::IndexError;
use super::format::{self, NodeRecord, SectionId};
use crate::oci::digest::DiffId;
use crate::sys::mmap::Map;
use crate::tree::{Attributes, NodeKind};

/// A node of one layer. 0 is the layer's root directory. Only meaningful with the index it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeNo(pub u32);

impl NodeNo {
    /// The root directory.
    pub const ROOT: NodeNo = NodeNo(0);
}

/// The tree of one layer, in a memory-mapped file.
#[derive(Debug)]
pub struct LayerIndex {
    map: Map,
    diff_id: DiffId,
    tar_size: u64,
    entry_count: u64,
    content_size: u64,
    body: usize,
    sections: [Range; format::SECTIONS],
    /// One bit per block of the body: verified.
    verified: Box<[AtomicU64]>,
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
        u64::try_from(self.map.len()).unwrap_or(u64::MAX)
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

    /// Verifies every block: what `mica check` does.
    pub fn verify_all(&self) -> Result<(), IndexError> {
        let body = self.map.len() - self.body;
        for block in 0..body.div_ceil(format::BLOCK) {
            self.verify_block(block)?;
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
        for block in start / format::BLOCK..=(start + length - 1) / format::BLOCK {
            self.verify_block(block)?;
        }
        let start = self.body + start;
        self.map.get(start..start + length).ok_or_else(outside)
    }

    fn verify_block(&self, block: usize) -> Result<(), IndexError> {
        let (word, bit) = (block / 64, 1u64 << (block % 64));
        let word = self
            .verified
            .get(word)
            .ok_or_else(|| self.damaged("block number"))?;
        // Relaxed: the bit says something about the file, not about our memory.
        if word.load(Ordering::Relaxed) & bit != 0 {
            return Ok(());
        }
        self.verify_block_now(block)?;
        word.fetch_or(bit, Ordering::Relaxed);
        Ok(())
    }

    #[cold]
    fn verify_block_now(&self, block: usize) -> Result<(), IndexError> {
        let start = self.body + block * format::BLOCK;
        let length = format::BLOCK.min(self.map.len().saturating_sub(start));
        let mut buf = vec![0; length];
        let at = u64::try_from(start).map_err(|_| self.damaged("block number"))?;
        self.map
            .read_exact_at(&mut buf, at)
            .map_err(|_| self.damaged("the file is truncated or cannot be read"))?;
        let place = format::HEADER_SIZE + block * size_of::<u64>();
        let expected = self
            .map
            .get(place..place + size_of::<u64>())
            .and_then(|bytes| <[u8; 8]>::try_from(bytes).ok())
            .ok_or_else(|| self.damaged("block number"))?;
        if xxh3_64(&buf) != u64::from_le_bytes(expected) {
            return Err(self.damaged("a block checksum is wrong"));
        }
        Ok(())
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
