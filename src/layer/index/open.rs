//! Opening an index file: everything that can be checked without reading the body.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicU64;

use xxhash_rust::xxh3::Xxh3;
use zerocopy::FromBytes;

use super::{LayerIndex, Range};
use crate::layer::error::IndexError;
use crate::layer::format::{self, Header, SectionId};
use crate::oci::digest::{DiffId, Digest};
use crate::sys::mmap::Map;

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
        if file.metadata().map_err(io)?.len() < format::HEADER_SIZE as u64 {
            return Err(IndexError::Format {
                diff_id,
                path: path.to_owned(),
            });
        }
        let map = Map::new(file).map_err(io)?;
        Self::from_map(map, path, diff_id)
    }

    fn from_map(map: Map, path: &Path, diff_id: DiffId) -> Result<LayerIndex, IndexError> {
        let damaged = |what| IndexError::Damaged { diff_id, what };
        // Read, not mapped: a failing disk or a file truncated meanwhile is an error here.
        let mut start = vec![0; format::HEADER_SIZE];
        map.read_exact_at(&mut start, 0)
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
        if file_size != map.len() {
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
        map.read_exact_at(&mut head, 0)
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
        let verified = (0..blocks.div_ceil(64))
            .map(|_| AtomicU64::new(0))
            .collect();
        let index = LayerIndex {
            map,
            diff_id,
            tar_size: header.tar_size.get(),
            entry_count: header.entry_count.get(),
            content_size: header.content_size.get(),
            body,
            sections,
            verified,
        };
        if index.section(SectionId::Nodes).length < size_of::<format::NodeRecord>() {
            return Err(damaged("no root directory"));
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
