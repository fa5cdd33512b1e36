//! Extended attributes, extents and links to lower layers.

use zerocopy::little_endian::{U16, U32, U64};

use super::{LayerIndex, NodeNo};
use crate::layer::error::IndexError;
use crate::layer::format::{self, ExtentRecord, LinkRecord, SectionId};

/// The extended attributes of one node, sorted bytewise by name.
#[derive(Debug, Clone, Copy)]
pub struct Xattrs<'a> {
    index: &'a LayerIndex,
    at: u64,
    left: u32,
}

/// A run of a file's content that is stored in the tar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins in the file.
    pub file_offset: u64,
    /// Where it begins in the uncompressed tar.
    pub tar_offset: u64,
    /// Bytes, at least 1.
    pub length: u64,
}

/// The extents of one file in ascending order; gaps, and the rest up to the file's size, are holes.
#[derive(Debug, Clone)]
pub struct Extents<'a> {
    index: &'a LayerIndex,
    base: u64,
    next: u32,
    left: u32,
    /// A file without holes has one extent and no record.
    whole: Option<Extent>,
}

/// A hard link to a file of the layers below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LowerLink<'a> {
    /// The link's path in this layer, normalised, without leading `/`.
    pub path: &'a [u8],
    /// The path it links to, likewise.
    pub target: &'a [u8],
}

/// Where the stored bytes of a regular file are, and how they are verified.
#[derive(Debug, Clone, Copy)]
pub(in crate::layer) struct Stored {
    pub tar_offset: u64,
    pub length: u64,
    pub size: u64,
    pub sparse: bool,
    pub first_sum: u32,
}

impl LayerIndex {
    /// The extended attributes of `node`. `trusted.overlay.*` and `user.overlay.*` are never among them.
    pub fn xattrs(&self, node: NodeNo) -> Result<Xattrs<'_>, IndexError> {
        let empty = Xattrs {
            index: self,
            at: 0,
            left: 0,
        };
        let Some(offset) = u64::from(self.node(node)?.xattrs.get()).checked_sub(1) else {
            return Ok(empty);
        };
        let left = self.number::<U32>(SectionId::Xattrs, offset)?.get();
        Ok(Xattrs {
            at: offset + 4,
            left,
            ..empty
        })
    }

    /// Where the content of the regular file `node` lies in the tar.
    pub fn extents(&self, node: NodeNo) -> Result<Extents<'_>, IndexError> {
        let stored = self.stored(node)?;
        let record = self.node(node)?;
        let whole = (!stored.sparse && stored.length > 0).then_some(Extent {
            file_offset: 0,
            tar_offset: stored.tar_offset,
            length: stored.length,
        });
        Ok(Extents {
            index: self,
            base: stored.tar_offset,
            next: record.extents.get(),
            left: if stored.sparse { record.count.get() } else { 0 },
            whole,
        })
    }

    /// The hard links to files of lower layers, in the order of the tar. An import verifies each against the layers
    /// below ([`merged::Image::verify_lower_links`](crate::layer::merged::Image::verify_lower_links)).
    pub fn lower_links(
        &self,
    ) -> Result<impl Iterator<Item = Result<LowerLink<'_>, IndexError>>, IndexError> {
        let count = self.section(SectionId::Links).length / size_of::<LinkRecord>();
        let count = u32::try_from(count).map_err(|_| self.damaged("links"))?;
        Ok((0..count).map(|number| self.link(number)))
    }

    pub(super) fn link(&self, number: u32) -> Result<LowerLink<'_>, IndexError> {
        let record = self.record::<LinkRecord>(SectionId::Links, number)?;
        let text = |at: U32, length: U32| {
            self.bytes(SectionId::Strings, at.get().into(), length.get().into())
        };
        Ok(LowerLink {
            path: text(record.path, record.path_length)?,
            target: text(record.target, record.target_length)?,
        })
    }

    pub(in crate::layer) fn stored(&self, node: NodeNo) -> Result<Stored, IndexError> {
        let record = self.node(node)?;
        if record.kind != format::KIND_REGULAR {
            return Err(self.wrong_kind(node, "not a regular file"));
        }
        let (size, count) = (record.size.get(), record.count.get());
        let sparse = count > 0 || record.flags & format::NODE_SPARSE != 0;
        let length = match count.checked_sub(1) {
            _ if !sparse => size,
            None => 0,
            Some(last) => {
                let last = record
                    .extents
                    .get()
                    .checked_add(last)
                    .ok_or_else(|| self.damaged("extents"))?;
                let last = self.record::<ExtentRecord>(SectionId::Extents, last)?;
                last.stored_offset
                    .get()
                    .checked_add(last.length.get())
                    .ok_or_else(|| self.damaged("extents"))?
            }
        };
        let tar_offset = record.place.get();
        if tar_offset
            .checked_add(length)
            .is_none_or(|end| end > self.tar_size())
        {
            return Err(self.damaged("content outside the tar"));
        }
        Ok(Stored {
            tar_offset,
            length,
            size,
            sparse,
            first_sum: record.sums.get(),
        })
    }

    /// The checksum of block `block` of a file's stored bytes.
    pub(in crate::layer) fn sum(&self, stored: &Stored, block: u64) -> Result<u64, IndexError> {
        let at = u64::from(stored.first_sum)
            .checked_add(block)
            .and_then(|number| number.checked_mul(8))
            .ok_or_else(|| self.damaged("content checksum"))?;
        Ok(self.number::<U64>(SectionId::Sums, at)?.get())
    }

    /// The checksum of block `block` of the tar.
    pub(in crate::layer) fn tar_sum(&self, block: u64) -> Result<u64, IndexError> {
        let at = block
            .checked_mul(8)
            .ok_or_else(|| self.damaged("checksum of the tar"))?;
        Ok(self.number::<U64>(SectionId::TarSums, at)?.get())
    }

    fn number<T>(&self, id: SectionId, offset: u64) -> Result<&T, IndexError>
    where
        T: zerocopy::FromBytes + zerocopy::KnownLayout + zerocopy::Immutable + zerocopy::Unaligned,
    {
        let size = u64::try_from(size_of::<T>()).map_err(|_| self.damaged("record size"))?;
        T::ref_from_bytes(self.bytes(id, offset, size)?).map_err(|_| self.damaged("record size"))
    }
}

impl<'a> Xattrs<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.left as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// The value of the attribute `name`.
    pub fn get(self, name: &[u8]) -> Result<Option<&'a [u8]>, IndexError> {
        for attribute in self {
            let (found, value) = attribute?;
            if found == name {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    fn read(&mut self) -> Result<(&'a [u8], &'a [u8]), IndexError> {
        let name_length = self.index.number::<U16>(SectionId::Xattrs, self.at)?.get();
        let value_length = self
            .index
            .number::<U32>(SectionId::Xattrs, self.at + 2)?
            .get();
        let (name_length, value_length) = (u64::from(name_length), u64::from(value_length));
        let name = self
            .index
            .bytes(SectionId::Xattrs, self.at + 6, name_length)?;
        let value = self
            .index
            .bytes(SectionId::Xattrs, self.at + 6 + name_length, value_length)?;
        // Bounded by the section: both slices exist.
        self.at += 6 + name_length + value_length;
        Ok((name, value))
    }
}

impl<'a> Iterator for Xattrs<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), IndexError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let answer = self.read();
        if answer.is_err() {
            self.left = 0;
        }
        Some(answer)
    }
}

impl Extents<'_> {
    fn read(&self, number: u32) -> Result<Extent, IndexError> {
        let record = self
            .index
            .record::<ExtentRecord>(SectionId::Extents, number)?;
        Ok(Extent {
            file_offset: record.file_offset.get(),
            tar_offset: self
                .base
                .checked_add(record.stored_offset.get())
                .ok_or_else(|| self.index.damaged("extents"))?,
            length: record.length.get(),
        })
    }

    /// Skips to the first extent that ends behind `offset`, in logarithmic time.
    pub fn seek(&mut self, offset: u64) -> Result<(), IndexError> {
        let (mut low, mut high) = (0, self.left);
        while low < high {
            let middle = low + (high - low) / 2;
            let extent = self.read(self.next.saturating_add(middle))?;
            if extent.file_offset.saturating_add(extent.length) <= offset {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        self.next = self.next.saturating_add(low);
        self.left -= low;
        Ok(())
    }
}

impl Iterator for Extents<'_> {
    type Item = Result<Extent, IndexError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(whole) = self.whole.take() {
            return Some(Ok(whole));
        }
        self.left = self.left.checked_sub(1)?;
        let number = self.next;
        self.next = self.next.saturating_add(1);
        Some(self.read(number))
    }
}
