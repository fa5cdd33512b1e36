//! The scanner: is fed a tar in pieces of any size and drives header, extension, content and end states.
//!
//! What it refuses, beside what [`super::tar`] and [`super::fold`] refuse: a stream that ends anywhere but before a
//! header or behind the end marker; a lone zero block; extension headers without an entry. What it accepts, as docker
//! does: a missing end marker, anything behind the end marker, global PAX headers (ignored, as they would otherwise
//! apply to every entry), a size on entries that have no content (there is none then).

mod content;
pub(super) mod extensions;
pub(super) mod resolve;

use super::error::{LayerError, Problem};
use super::fold::{Folded, Folder};
use super::format::{SUM_BLOCK, TAR_BLOCK};
use super::limits::Limits;
use super::tar::header::{self, Fields, Flag};
use super::tar::sparse::{self, DataMap, OldMap, PaxFormat, Segment};
use super::tar::{BLOCK, BLOCK_U64, EntryKind, TarEntry};
use super::write::{Facts, IndexBuilder};
use crate::oci::digest::DiffId;
use content::BlockSums;
use extensions::Extensions;

/// How much is looked at in one go.
const PIECE: usize = 128 << 10;

/// Is fed the uncompressed tar of one layer as it streams by, and gives its index.
#[derive(Debug)]
pub struct LayerScanner {
    limits: Limits,
    folder: Folder,
    sums: BlockSums<SUM_BLOCK>,
    /// Of the whole tar, and the finished ones.
    tar: BlockSums<TAR_BLOCK>,
    tar_sums: Vec<u64>,
    state: State,
    /// A block that did not come in one piece.
    partial: Vec<u8>,
    /// Bytes of the tar so far.
    offset: u64,
    /// Where the entry's first header began, and its path once known.
    entry_offset: u64,
    path: Option<Vec<u8>>,
    extensions: Extensions,
    entries: u64,
    failed: bool,
}

#[derive(Debug)]
enum State {
    /// Before a header.
    Header,
    /// One zero block was seen.
    ZeroBlock,
    /// In the data of an extension header, then its padding.
    Extension { flag: Flag, left: u64, padding: u64 },
    /// In the map of an old sparse file.
    OldMap(Box<(TarEntry, OldMap)>),
    /// In the map of a PAX 1.0 sparse file.
    DataMap(Box<(TarEntry, DataMap)>),
    /// In content that is checksummed, then its padding.
    Content { left: u64, padding: u64 },
    /// In bytes that nobody wants.
    Skip { left: u64 },
    /// Behind the end marker.
    End,
}

impl LayerScanner {
    /// A scanner for one layer.
    pub fn new(limits: &Limits) -> LayerScanner {
        LayerScanner {
            limits: *limits,
            folder: Folder::new(limits),
            sums: BlockSums::default(),
            tar: BlockSums::default(),
            tar_sums: Vec::new(),
            state: State::Header,
            partial: Vec::with_capacity(BLOCK),
            offset: 0,
            entry_offset: 0,
            path: None,
            extensions: Extensions::default(),
            entries: 0,
            failed: false,
        }
    }

    /// The next bytes of the tar, cut anywhere; larger pieces are faster. After an error every call is an error.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), LayerError> {
        // Piece by piece, so that the second look at a byte finds it in the processor's cache.
        let result = chunk.chunks(PIECE).try_for_each(|piece| {
            self.tar.feed(piece, &mut self.tar_sums);
            self.run(piece)
        });
        result.map_err(|problem| self.error(problem))
    }

    /// The end of the tar: checks that it is complete, that it was `tar_size` bytes, and lays out the index of the
    /// layer `diff_id` (whose truth the caller has checked by hashing the same bytes).
    pub fn finish(mut self, diff_id: DiffId, tar_size: u64) -> Result<IndexBuilder, LayerError> {
        if let Err(problem) = self.check_end(tar_size) {
            return Err(self.error(problem));
        }
        self.tar.end(&mut self.tar_sums);
        let facts = Facts {
            diff_id,
            tar_size,
            entry_count: self.entries,
            tar_sums: self.tar_sums,
        };
        let offset = self.offset;
        IndexBuilder::new(self.folder.arena, facts).map_err(|problem| LayerError {
            path: None,
            offset,
            problem,
        })
    }

    /// Bytes pushed so far.
    pub fn bytes(&self) -> u64 {
        self.offset
    }

    /// Entries seen so far.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    fn error(&mut self, problem: Problem) -> LayerError {
        self.failed = true;
        LayerError {
            path: self.path.clone().map(Vec::into_boxed_slice),
            offset: self.entry_offset,
            problem,
        }
    }

    fn check_end(&self, tar_size: u64) -> Result<(), Problem> {
        let between =
            matches!(self.state, State::Header | State::ZeroBlock) && self.partial.is_empty();
        if self.failed || !(between || matches!(self.state, State::End)) {
            return Err(Problem::Truncated);
        }
        if self.extensions.pending() {
            return Err(Problem::Extension("no entry follows it"));
        }
        if self.offset != tar_size {
            return Err(Problem::Size {
                fed: self.offset,
                claimed: tar_size,
            });
        }
        Ok(())
    }

    fn run(&mut self, mut chunk: &[u8]) -> Result<(), Problem> {
        if self.failed {
            return Err(Problem::Truncated);
        }
        let length = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        if self.offset.saturating_add(length) > self.limits.max_tar_bytes {
            return Err(Problem::Limit {
                what: "bytes",
                limit: self.limits.max_tar_bytes,
            });
        }
        while !chunk.is_empty() {
            match &mut self.state {
                State::End => {
                    self.offset += chunk.len() as u64;
                    chunk = &[];
                }
                State::Skip { left } => {
                    let taken = take(&mut chunk, left);
                    self.offset += taken.len() as u64;
                    if *left == 0 {
                        self.state = State::Header;
                    }
                }
                State::Content { left, padding } => {
                    let taken = take(&mut chunk, left);
                    self.sums.feed(taken, &mut self.folder.arena.sums);
                    self.offset += taken.len() as u64;
                    if *left == 0 {
                        self.sums.end(&mut self.folder.arena.sums);
                        let padding = *padding;
                        self.skip(padding);
                    }
                }
                State::Extension {
                    flag,
                    left,
                    padding,
                } => {
                    let taken = take(&mut chunk, left);
                    self.extensions.buffer.extend_from_slice(taken);
                    self.offset += taken.len() as u64;
                    if *left == 0 {
                        let (flag, padding) = (*flag, *padding);
                        self.extension(flag)?;
                        self.skip(padding);
                    }
                }
                State::Header | State::ZeroBlock | State::OldMap(_) | State::DataMap(_) => {
                    if let Some(block) = self.next_block(&mut chunk) {
                        self.offset += BLOCK_U64;
                        self.block(&block)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// A whole block, put together from as many chunks as it takes.
    fn next_block(&mut self, chunk: &mut &[u8]) -> Option<[u8; BLOCK]> {
        if self.partial.is_empty()
            && let Some((block, rest)) = chunk.split_first_chunk::<BLOCK>()
        {
            *chunk = rest;
            return Some(*block);
        }
        let missing = BLOCK - self.partial.len();
        let (now, later) = chunk.split_at(missing.min(chunk.len()));
        self.partial.extend_from_slice(now);
        *chunk = later;
        let block = <[u8; BLOCK]>::try_from(self.partial.as_slice()).ok()?;
        self.partial.clear();
        Some(block)
    }

    fn skip(&mut self, left: u64) {
        self.state = match left {
            0 => State::Header,
            left => State::Skip { left },
        };
    }

    fn block(&mut self, block: &[u8; BLOCK]) -> Result<(), Problem> {
        match std::mem::replace(&mut self.state, State::Header) {
            State::Header => self.header(block),
            State::ZeroBlock if is_zero(block) => {
                self.state = State::End;
                Ok(())
            }
            State::ZeroBlock => Err(Problem::LoneZeroBlock),
            State::OldMap(mut pending) => {
                pending.1.push(block)?;
                self.old_map(pending)
            }
            State::DataMap(mut pending) => {
                if !pending.1.push(block)? {
                    if pending.1.length >= pending.0.stored {
                        return Err(Problem::Sparse("longer than the content"));
                    }
                    self.state = State::DataMap(pending);
                    return Ok(());
                }
                let (mut entry, map) = *pending;
                entry.stored = entry
                    .stored
                    .checked_sub(map.length)
                    .ok_or(Problem::Sparse("longer than the content"))?;
                self.sparse_entry(entry, map.segments)
            }
            other => {
                self.state = other;
                Ok(())
            }
        }
    }

    fn header(&mut self, block: &[u8; BLOCK]) -> Result<(), Problem> {
        if !self.extensions.pending() {
            self.entry_offset = self.offset - BLOCK_U64;
            self.path = None;
        }
        if is_zero(block) {
            if self.extensions.pending() {
                return Err(Problem::Extension("no entry follows it"));
            }
            self.state = State::ZeroBlock;
            return Ok(());
        }
        let fields = match header::decode(block) {
            Ok(fields) => fields,
            Err(problem) => {
                if problem != Problem::HeaderChecksum && self.path.is_none() {
                    self.path = Some(header::path(block));
                }
                return Err(problem);
            }
        };
        match fields.flag {
            Flag::LongName | Flag::LongLink | Flag::Pax => self.begin_extension(&fields),
            Flag::GlobalPax => {
                if self.extensions.pending() {
                    return Err(Problem::Extension("a global header follows it"));
                }
                let length = padded(fields.size)?;
                self.skip(length);
                Ok(())
            }
            Flag::OldSparse | Flag::OldFile | Flag::Entry(_) => self.entry(fields, block),
        }
    }

    fn begin_extension(&mut self, fields: &Fields) -> Result<(), Problem> {
        let limit = self.limits.max_metadata_bytes;
        self.extensions.begin(fields, limit)?;
        self.state = State::Extension {
            flag: fields.flag,
            left: fields.size,
            padding: padded(fields.size)? - fields.size,
        };
        if fields.size == 0 {
            self.extension(fields.flag)?;
            self.state = State::Header;
        }
        Ok(())
    }

    /// The data of an extension header is complete.
    fn extension(&mut self, flag: Flag) -> Result<(), Problem> {
        if let Some(path) = self.extensions.end(flag)? {
            self.path = Some(path);
        }
        Ok(())
    }

    fn entry(&mut self, fields: Fields, block: &[u8; BLOCK]) -> Result<(), Problem> {
        self.entries += 1;
        if self.entries > self.limits.max_entries {
            return Err(Problem::Limit {
                what: "entries",
                limit: self.limits.max_entries,
            });
        }
        let flag = fields.flag;
        let mut extensions = std::mem::take(&mut self.extensions);
        extensions.buffer.clear();
        self.extensions.buffer = std::mem::take(&mut extensions.buffer);
        let mut pax = extensions.pax.unwrap_or_default();
        // Of two that differ some readers take the one and some the other.
        for (long, path) in [
            (&extensions.long_name, &pax.path),
            (&extensions.long_link, &pax.linkpath),
        ] {
            if let (Some(long), Some(path)) = (long, path)
                && !long.is_empty()
                && !path.is_empty()
                && long != path
            {
                return Err(Problem::Extension("a long name and a PAX record differ"));
            }
        }
        let format = match flag {
            Flag::OldFile | Flag::Entry(EntryKind::Regular) => pax.sparse.take_format()?,
            _ => PaxFormat::Plain,
        };
        if format != PaxFormat::Plain
            && let Some(name) = pax.sparse.name.take()
        {
            // The header's own name is invented then, so that other readers do not clash.
            pax.path = Some(name);
        }
        let real_size = pax.sparse.size;
        let resolved = resolve::entry(fields, extensions.long_name, extensions.long_link, pax);
        let mut entry = match resolved {
            Ok(entry) => entry,
            Err((path, problem)) => {
                self.path = Some(path);
                return Err(problem);
            }
        };
        self.path = Some(entry.path.clone());
        let real_size = || real_size.ok_or(Problem::Sparse("the size is missing"));
        match format {
            PaxFormat::Segments(segments) => {
                entry.size = real_size()?;
                return self.sparse_entry(entry, segments);
            }
            PaxFormat::MapInData => {
                entry.size = real_size()?;
                self.state = State::DataMap(Box::new((entry, DataMap::default())));
                return Ok(());
            }
            PaxFormat::Plain => {}
        }
        if flag == Flag::OldSparse {
            let map = OldMap::from_header(block)?;
            entry.size = map.real_size;
            return self.old_map(Box::new((entry, map)));
        }
        self.begin_content(&entry)
    }

    fn old_map(&mut self, pending: Box<(TarEntry, OldMap)>) -> Result<(), Problem> {
        if pending.1.more {
            self.state = State::OldMap(pending);
            return Ok(());
        }
        let (entry, map) = *pending;
        self.sparse_entry(entry, map.segments)
    }

    fn sparse_entry(&mut self, mut entry: TarEntry, segments: Vec<Segment>) -> Result<(), Problem> {
        entry.segments = Some(sparse::check(segments, entry.size, entry.stored)?);
        self.begin_content(&entry)
    }

    /// Folds the entry and goes on to its content, which begins here.
    fn begin_content(&mut self, entry: &TarEntry) -> Result<(), Problem> {
        let length = padded(entry.stored)?;
        let folded = self.folder.add(entry, self.offset)?;
        match folded {
            Folded::Content if entry.stored > 0 => {
                self.state = State::Content {
                    left: entry.stored,
                    padding: length - entry.stored,
                };
            }
            _ => self.skip(length),
        }
        Ok(())
    }
}

/// Takes at most `left` bytes off the front of `chunk`.
fn take<'c>(chunk: &mut &'c [u8], left: &mut u64) -> &'c [u8] {
    let length = usize::try_from(*left).map_or(chunk.len(), |left| left.min(chunk.len()));
    let (taken, rest) = chunk.split_at(length);
    *chunk = rest;
    *left -= taken.len() as u64;
    taken
}

fn is_zero(block: &[u8; BLOCK]) -> bool {
    block.iter().all(|byte| *byte == 0)
}

/// `size` with its padding.
pub(super) fn padded(size: u64) -> Result<u64, Problem> {
    size.checked_next_multiple_of(BLOCK_U64)
        .ok_or(Problem::Field("size"))
}
