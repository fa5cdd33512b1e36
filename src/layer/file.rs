//! Reading file content out of a layer's tar, verified.
//!
//! Every 32 KiB block of stored bytes has a checksum in the index. A read covers whole blocks, so a few bytes cost at
//! most one block; the kernel's read-ahead makes that rare. A block that does not verify fails the whole read: never
//! wrong bytes. The tar as such has sums of its own, over all of it.

use std::fs::File;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::error::ReadError;
use super::format::{SUM_BLOCK, SUM_BLOCK_U64, TAR_BLOCK, TAR_BLOCK_U64};
use super::index::Stored;
use super::{Extent, LayerIndex, NodeNo};
use crate::sys::io::{DropBehind, read_at};

/// Content of larger files than this does not stay in the page cache of the tar.
///
/// That of smaller ones does: the kernel drops the pages of a FUSE inode with its last name in memory, those of a file on
/// disk only for want of memory. A python3 that starts after the kernel has forgotten its names: 157 ms without these pages,
/// 110 ms with them (kernel overlayfs, which keeps its own: 70 ms).
const LARGE: u64 = 8 << 20;

/// A layer: its index and its open tar.
#[derive(Debug)]
pub struct LayerFile {
    /// The tree.
    pub index: Arc<LayerIndex>,
    blob: File,
    reads: DropBehind,
}

impl LayerFile {
    /// Pairs an index with its uncompressed tar; they must agree about the tar's size.
    pub fn open(index: Arc<LayerIndex>, blob: File) -> Result<LayerFile, ReadError> {
        let diff_id = index.diff_id();
        let found = blob
            .metadata()
            .map_err(|source| ReadError::Io { diff_id, source })?
            .len();
        let expected = index.tar_size();
        if found != expected {
            return Err(ReadError::Size {
                diff_id,
                expected,
                found,
            });
        }
        Ok(LayerFile {
            index,
            blob,
            reads: DropBehind::default(),
        })
    }

    /// The open tar, for `fstat` and for copying it whole.
    pub fn blob(&self) -> &File {
        &self.blob
    }

    /// Reads content of the regular file `node` from `offset`; holes are zeros. Fills `buf` unless the file ends
    /// first, and returns how much it filled. What comes back was verified.
    pub fn read_at(&self, node: NodeNo, offset: u64, buf: &mut [u8]) -> Result<usize, ReadError> {
        let stored = self.index.stored(node)?;
        let left = stored.size.saturating_sub(offset);
        let length = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
        let Some(buf) = buf.get_mut(..length).filter(|buf| !buf.is_empty()) else {
            return Ok(0);
        };
        if !stored.sparse {
            self.read_stored(&stored, offset, buf)?;
            return Ok(length);
        }
        let mut extents = self.index.extents(node)?;
        extents.seek(offset)?;
        buf.fill(0);
        for extent in extents {
            let extent = extent?;
            let Some((target, skipped)) = overlap(&extent, offset, buf) else {
                break;
            };
            // Extents lie behind the first stored byte.
            let from = extent.tar_offset.saturating_sub(stored.tar_offset) + skipped;
            self.read_stored(&stored, from, target)?;
        }
        Ok(length)
    }

    /// Where the next data from `offset` on is, or with `hole` the next hole, as lseek(2) tells; `None` behind the end, and if
    /// there is no more data. What the tar stores is data, zeros or not.
    pub fn seek(&self, node: NodeNo, offset: u64, hole: bool) -> Result<Option<u64>, ReadError> {
        let stored = self.index.stored(node)?;
        if offset >= stored.size {
            return Ok(None);
        }
        if !stored.sparse {
            return Ok(Some(if hole { stored.size } else { offset }));
        }
        let mut extents = self.index.extents(node)?;
        extents.seek(offset)?;
        let mut at = offset;
        for extent in extents {
            let extent = extent?;
            let end = extent.file_offset.saturating_add(extent.length);
            if end <= at {
                continue;
            }
            if !hole {
                return Ok(Some(extent.file_offset.max(offset)));
            }
            if extent.file_offset > at {
                break;
            }
            at = end;
        }
        Ok(hole.then_some(at.min(stored.size)))
    }

    /// Reads bytes of the tar itself, as far as it reaches. What comes back was verified.
    pub fn read_tar_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize, ReadError> {
        let size = self.index.tar_size();
        let left = size.saturating_sub(offset);
        let length = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
        let Some(buf) = buf.get_mut(..length).filter(|buf| !buf.is_empty()) else {
            return Ok(0);
        };
        let end = offset + length as u64;
        let first = offset - offset % TAR_BLOCK_U64;
        let last = end.next_multiple_of(TAR_BLOCK_U64).min(size);
        let outside = || self.index.outside();
        let mut whole = vec![0; usize::try_from(last - first).map_err(|_| outside())?];
        let damaged = |offset| ReadError::Damaged {
            diff_id: self.index.diff_id(),
            offset,
        };
        let read = self
            .reads
            .read_at(&self.blob, first, &mut whole)
            .map_err(|source| self.io(source))?;
        if read != whole.len() {
            return Err(damaged(first + read as u64));
        }
        for (block, bytes) in (first / TAR_BLOCK_U64..).zip(whole.chunks(TAR_BLOCK)) {
            if xxh3_64(bytes) != self.index.tar_sum(block)? {
                return Err(damaged(block * TAR_BLOCK_U64));
            }
        }
        let skip = usize::try_from(offset - first).map_err(|_| outside())?;
        let part = whole
            .get(skip..)
            .and_then(|rest| rest.get(..length))
            .ok_or_else(outside)?;
        buf.copy_from_slice(part);
        Ok(length)
    }

    /// Verifies all content of the regular file `node`.
    pub fn verify(&self, node: NodeNo) -> Result<(), ReadError> {
        let stored = self.index.stored(node)?;
        let mut buf = vec![0; 32 * SUM_BLOCK];
        let mut at = 0;
        while at < stored.length {
            let length =
                usize::try_from(stored.length - at).map_or(buf.len(), |left| left.min(buf.len()));
            let Some(part) = buf.get_mut(..length) else {
                break;
            };
            self.read_stored(&stored, at, part)?;
            at += length as u64;
        }
        Ok(())
    }

    /// Fills `buf` with verified stored bytes from `from`; the range must be within the stored bytes.
    fn read_stored(&self, stored: &Stored, from: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        let end = from.saturating_add(buf.len() as u64);
        if end > stored.length {
            return Err(self.index.outside().into());
        }
        let first = from - from % SUM_BLOCK_U64;
        let last = end.next_multiple_of(SUM_BLOCK_U64).min(stored.length);
        if first == from && last == end {
            return self.read_blocks(stored, from, buf);
        }
        // The ends of the range are inside blocks: read whole blocks aside. One read either way.
        let mut whole = vec![0; usize::try_from(last - first).map_err(|_| self.index.outside())?];
        self.read_blocks(stored, first, &mut whole)?;
        let skip = usize::try_from(from - first).map_err(|_| self.index.outside())?;
        let part = whole
            .get(skip..)
            .and_then(|rest| rest.get(..buf.len()))
            .ok_or_else(|| self.index.outside())?;
        buf.copy_from_slice(part);
        Ok(())
    }

    /// Reads and verifies blocks: `from` is a multiple of the block size, and `buf` ends at one or at the end.
    fn read_blocks(&self, stored: &Stored, from: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        let damaged = |offset| ReadError::Damaged {
            diff_id: self.index.diff_id(),
            offset,
        };
        // Checked against the tar's size with the index.
        let at = stored.tar_offset + from;
        let read = match stored.length > LARGE {
            true => self.reads.read_at(&self.blob, at, buf),
            false => read_at(&self.blob, at, buf),
        };
        let read = read.map_err(|source| self.io(source))?;
        if read != buf.len() {
            return Err(damaged(at + read as u64));
        }
        for (block, bytes) in (from / SUM_BLOCK_U64..).zip(buf.chunks(SUM_BLOCK)) {
            if xxh3_64(bytes) != self.index.sum(stored, block)? {
                return Err(damaged(stored.tar_offset + block * SUM_BLOCK_U64));
            }
        }
        Ok(())
    }

    fn io(&self, source: std::io::Error) -> ReadError {
        ReadError::Io {
            diff_id: self.index.diff_id(),
            source,
        }
    }
}

/// The part of `buf`, which stands for the file from `offset`, that `extent` covers, and how many bytes of the extent
/// come before it. `None` if the extent begins behind `buf`.
fn overlap<'b>(extent: &Extent, offset: u64, buf: &'b mut [u8]) -> Option<(&'b mut [u8], u64)> {
    let skipped = offset.saturating_sub(extent.file_offset);
    let start = usize::try_from(extent.file_offset.saturating_sub(offset)).ok()?;
    let length = extent.length.saturating_sub(skipped);
    let rest = buf.get_mut(start..).filter(|rest| !rest.is_empty())?;
    let length = usize::try_from(length).map_or(rest.len(), |length| length.min(rest.len()));
    rest.get_mut(..length).map(|target| (target, skipped))
}
