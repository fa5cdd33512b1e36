//! Sparse files: GNU's old format (type `S`) and the PAX formats 0.0, 0.1 and 1.0.
//!
//! All of them say the same: the file's size, and an ascending list of segments whose bytes follow each other in the
//! archive. A map is never expanded: its cost is its own length, and holes of any size are just numbers.

use tar_core::{GnuExtSparseHeader, GnuSparseHeader, Header};
use zerocopy::FromBytes;

use super::decimal::decimal;
use super::header::number;
use super::{BLOCK, BLOCK_U64};
use crate::layer::error::Problem;
use crate::layer::limits::Limits;

/// A run of data in a sparse file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where in the file.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
}

/// `GNU.sparse.*` records of a PAX header.
#[derive(Debug, Default)]
pub(crate) struct PaxSparse {
    major: Option<u64>,
    minor: Option<u64>,
    pub name: Option<Vec<u8>>,
    pub size: Option<u64>,
    blocks: Option<u64>,
    segments: Vec<Segment>,
    pending: Option<u64>,
    map: bool,
}

/// What the records say about the file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PaxFormat {
    /// No sparse file.
    Plain,
    /// 0.0 or 0.1: the map was in the records.
    Segments(Vec<Segment>),
    /// 1.0: the map comes before the data.
    MapInData,
}

impl PaxSparse {
    pub(super) fn apply(&mut self, name: &[u8], value: &[u8]) -> Result<(), ()> {
        let value_number = || decimal(value).ok_or(());
        match name {
            b"major" => self.major = Some(value_number()?),
            b"minor" => self.minor = Some(value_number()?),
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.size = Some(value_number()?),
            b"numblocks" => self.blocks = Some(value_number()?),
            b"offset" if self.pending.is_some() => return Err(()),
            b"offset" => self.pending = Some(value_number()?),
            b"numbytes" => {
                let offset = self.pending.take().ok_or(())?;
                self.segments.push(Segment {
                    offset,
                    length: value_number()?,
                });
            }
            b"map" => {
                self.segments.clear();
                self.map = true;
                let mut numbers = value.split(|byte| *byte == b',');
                while let Some(offset) = numbers.next().filter(|_| !value.is_empty()) {
                    self.segments.push(Segment {
                        offset: decimal(offset).ok_or(())?,
                        length: decimal(numbers.next().ok_or(())?).ok_or(())?,
                    });
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Which of the formats this is.
    pub(crate) fn take_format(&mut self) -> Result<PaxFormat, Problem> {
        let has_map = self.map || !self.segments.is_empty() || self.blocks == Some(0);
        match (self.major, self.minor) {
            (Some(1), Some(0)) => return Ok(PaxFormat::MapInData),
            (Some(0), Some(0 | 1)) | (None, None) if has_map => {}
            (None, None) => return Ok(PaxFormat::Plain),
            _ => return Err(Problem::Sparse("unknown version")),
        }
        let count = u64::try_from(self.segments.len()).unwrap_or(u64::MAX);
        if self.pending.is_some() || self.blocks.is_some_and(|blocks| blocks != count) {
            return Err(Problem::Sparse("incomplete"));
        }
        Ok(PaxFormat::Segments(std::mem::take(&mut self.segments)))
    }
}

/// The map of an old GNU sparse file, while its blocks arrive.
#[derive(Debug)]
pub(crate) struct OldMap {
    pub real_size: u64,
    pub segments: Vec<Segment>,
    /// Another block of the map follows.
    pub more: bool,
    ended: bool,
}

impl OldMap {
    /// The part that is in the header.
    pub(crate) fn from_header(block: &[u8; BLOCK]) -> Result<OldMap, Problem> {
        let header = Header::from_bytes(block)
            .try_as_gnu()
            .ok_or(Problem::Sparse("not in a GNU header"))?;
        let real_size = number(&header.realsize).and_then(|size| u64::try_from(size).ok());
        let mut map = OldMap {
            real_size: real_size.ok_or(Problem::Field("real size"))?,
            segments: Vec::new(),
            more: header.isextended != [0],
            ended: false,
        };
        map.add(&header.sparse)?;
        Ok(map)
    }

    /// A further block.
    pub(crate) fn push(&mut self, block: &[u8; BLOCK]) -> Result<(), Problem> {
        let block =
            GnuExtSparseHeader::ref_from_bytes(block).map_err(|_| Problem::Sparse("incomplete"))?;
        self.more = block.isextended != [0];
        self.add(&block.sparse)
    }

    fn add(&mut self, entries: &[GnuSparseHeader]) -> Result<(), Problem> {
        for entry in entries {
            // An unused slot ends the map.
            self.ended |= entry.offset.first() == Some(&0);
            if self.ended {
                break;
            }
            let value = |field| {
                number(field)
                    .and_then(|value| u64::try_from(value).ok())
                    .ok_or(Problem::Sparse("not a number"))
            };
            push_limited(
                &mut self.segments,
                Segment {
                    offset: value(&entry.offset)?,
                    length: value(&entry.numbytes)?,
                },
            )?;
        }
        Ok(())
    }
}

/// The map of a PAX 1.0 sparse file, while its blocks arrive: decimal lines, a count and then pairs.
#[derive(Debug, Default)]
pub(crate) struct DataMap {
    count: Option<u64>,
    pending: Option<u64>,
    line: Vec<u8>,
    pub segments: Vec<Segment>,
    /// Bytes of the blocks so far.
    pub length: u64,
}

impl DataMap {
    /// The next block; `true`: the map is complete, data follows.
    pub(crate) fn push(&mut self, block: &[u8; BLOCK]) -> Result<bool, Problem> {
        self.length += BLOCK_U64;
        for byte in block {
            if *byte != b'\n' {
                // No 63-bit number is longer.
                if self.line.len() >= 19 {
                    return Err(Problem::Sparse("not a number"));
                }
                self.line.push(*byte);
                continue;
            }
            let value = decimal(&self.line).ok_or(Problem::Sparse("not a number"))?;
            self.line.clear();
            match (self.count, self.pending.take()) {
                (None, _) => self.count = Some(value),
                (Some(_), None) => self.pending = Some(value),
                (Some(_), Some(offset)) => push_limited(
                    &mut self.segments,
                    Segment {
                        offset,
                        length: value,
                    },
                )?,
            }
            if self.count == Some(self.segments.len() as u64) && self.pending.is_none() {
                // The rest of the block is padding.
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn push_limited(segments: &mut Vec<Segment>, segment: Segment) -> Result<(), Problem> {
    if segments.len() >= Limits::MAX_EXTENTS {
        return Err(Problem::Limit {
            what: "sparse segments",
            limit: Limits::MAX_EXTENTS as u64,
        });
    }
    segments.push(segment);
    Ok(())
}

/// Checks a map against the file's size and the bytes in the archive, and drops empty segments.
pub(crate) fn check(
    mut segments: Vec<Segment>,
    size: u64,
    stored: u64,
) -> Result<Vec<Segment>, Problem> {
    let (mut end, mut sum) = (0u64, 0u64);
    for segment in &segments {
        if segment.offset < end {
            return Err(Problem::Sparse("segments overlap or run backwards"));
        }
        end = segment
            .offset
            .checked_add(segment.length)
            .filter(|end| *end <= size)
            .ok_or(Problem::Sparse("a segment lies behind the end of the file"))?;
        // Disjoint and below `size`: no overflow.
        sum = sum.saturating_add(segment.length);
    }
    if sum != stored {
        return Err(Problem::Sparse("it does not describe the content given"));
    }
    segments.retain(|segment| segment.length > 0);
    Ok(segments)
}
