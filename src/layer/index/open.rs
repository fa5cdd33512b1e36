//! Opening an index file: everything that can be checked without reading the body.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use xxhash_rust::xxh3::Xxh3;
use zerocopy::FromBytes;

use super::{LayerIndex, Range, XattrKinds};
use crate::layer::error::IndexError;
use crate::layer::format::{self, Header, SectionId};
use crate::oci::digest::{DiffId, Digest};
use crate::sys::block_copy::BlockCopy;
use crate::sys::io::read_at;

impl LayerIndex {
    /// Opens the index file at `path`, which must describe the layer `expected`. Reads only the header and the
    /// checksum table.
    pub fn open(path: &Path, expected: &DiffId) -> Result<LayerIndex, IndexError> {
        let diff_id = *expected;
        let io = |source: io::Error| IndexError::Io {
            diff_id,
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(io)?;
        let mut prefix = [0; format::PREFIX_SIZE];
        let got = read_at(&file, 0, &mut prefix).map_err(io)?;
        if got == prefix.len()
            && let Some((magic, version)) = prefix.split_at_checked(format::MAGIC.len())
            && magic == format::MAGIC
            && version != format::VERSION.to_le_bytes()
        {
            return Err(IndexError::Version {
                diff_id,
                path: path.to_owned(),
            });
        }
        if file.metadata().map_err(io)?.len() < format::HEADER_SIZE as u64 {
            return Err(IndexError::Format {
                diff_id,
                path: path.to_owned(),
            });
        }
        let length = file.metadata().map_err(io)?.len();
        let damaged = |what| IndexError::Damaged { diff_id, what };
        let mut start = vec![0; format::HEADER_SIZE];
        file.read_exact_at(&mut start, 0)
            .map_err(|_| damaged("the header cannot be read"))?;
        let header = Header::read_from_bytes(&start).map_err(|_| damaged("header"))?;
        if header.magic != format::MAGIC
            || header.version.get() != format::VERSION
            || usize::try_from(header.header_size.get()) != Ok(format::HEADER_SIZE)
        {
            return Err(IndexError::Format {
                diff_id,
                path: path.to_owned(),
            });
        }
        let size = |value: u64| usize::try_from(value).map_err(|_| damaged("header"));
        let file_size = size(header.file_size.get())?;
        let body = size(header.body_offset.get())?;
        if header.file_size.get() != length {
            return Err(damaged("the file has the wrong size"));
        }
        let body_length = file_size
            .checked_sub(body)
            .ok_or_else(|| damaged("header"))?;
        let blocks = body_length.div_ceil(format::BLOCK);
        if body != body_offset(blocks) {
            return Err(damaged("header"));
        }
        let mut head = vec![0; body];
        file.read_exact_at(&mut head, 0)
            .map_err(|_| damaged("the header cannot be read"))?;
        if head_checksum(&head) != Some(header.checksum.get()) {
            return Err(damaged("the header checksum is wrong"));
        }
        // From here on the header is what the writer wrote.
        let found = DiffId(Digest::from_bytes(header.diff_id));
        if found != diff_id {
            return Err(IndexError::WrongLayer { diff_id, found });
        }
        let mut sections = [Range::default(); format::SECTIONS];
        let mut end = 0;
        for (range, section) in sections.iter_mut().zip(header.sections) {
            *range = Range {
                offset: size(section.offset.get())?,
                length: size(section.length.get())?,
            };
            if range.offset != end {
                return Err(damaged("section table"));
            }
            end = range
                .offset
                .checked_add(range.length)
                .ok_or_else(|| damaged("header"))?;
        }
        if end != body_length {
            return Err(damaged("section table"));
        }
        let sums = head.get(format::HEADER_SIZE..).unwrap_or_default();
        let sums = sums.chunks_exact(size_of::<u64>()).take(blocks);
        let sums = sums.map(|sum| {
            sum.iter()
                .rev()
                .fold(0u64, |n, byte| n << 8 | u64::from(*byte))
        });
        let sums = sums.collect();
        let offset = header.body_offset.get();
        let index = LayerIndex {
            copy: BlockCopy::new(file, offset, body_length, format::BLOCK).map_err(io)?,
            sums,
            file_size: length,
            diff_id,
            tar_size: header.tar_size.get(),
            entry_count: header.entry_count.get(),
            content_size: header.content_size.get(),
            attributes: XattrKinds(header.attributes.get()),
            sections,
        };
        if index.section(SectionId::Nodes).length < size_of::<format::NodeRecord>() {
            return Err(damaged("no root directory"));
        }
        let blocks = index.tar_size.div_ceil(format::TAR_BLOCK_U64);
        let sums = index.section(SectionId::TarSums).length / size_of::<u64>();
        if u64::try_from(sums) != Ok(blocks) {
            return Err(damaged("checksums of the tar"));
        }
        Ok(index)
    }
}

/// Where the body begins if it has `blocks` blocks.
pub(in crate::layer) fn body_offset(blocks: usize) -> usize {
    (format::HEADER_SIZE + blocks * size_of::<u64>()).next_multiple_of(format::BODY_ALIGN)
}

/// The checksum of everything before the body, except the checksum itself; `None` if `head` is too short.
pub(in crate::layer) fn head_checksum(head: &[u8]) -> Option<u64> {
    let mut hash = Xxh3::new();
    hash.update(head.get(..format::HEADER_SIZE - size_of::<u64>())?);
    hash.update(head.get(format::HEADER_SIZE..)?);
    Some(hash.digest())
}
