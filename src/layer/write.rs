//! Laying out and writing an index.
//!
//! The layout depends only on the folded tree: nodes are numbered breadth first in the order of names, dirents,
//! strings, extents and checksums follow the nodes. So the same tar gives the same bytes, and what a listing of one
//! directory needs lies together.

// Every number here was given out by the arena, which checked it against the width of the record it goes into; one that is not
// its own is a bug of this module, and stops it.
#![allow(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use xxhash_rust::xxh3::xxh3_64;
use zerocopy::IntoBytes;
use zerocopy::little_endian::U64;

use super::error::Problem;
use super::fold::arena::{Arena, DIRENT_DEVICE, NONE, ROOT};
use super::format::{self, DirentRecord, ExtentRecord, Header, LinkRecord, NodeRecord, Section};
use super::index::{XattrKinds, body_offset, head_checksum};
use crate::oci::digest::DiffId;

/// A finished index, ready to be written. Holds the whole tree: about 130 bytes per entry.
#[derive(Debug)]
pub struct IndexBuilder {
    arena: Arena,
    facts: Facts,
    /// Node numbers of the arena in the order of the index.
    order: Vec<u32>,
    /// The other way round; [`NONE`] for what cannot be reached.
    numbers: Vec<u32>,
    /// Dirents sorted by parent, then name; those of node `n` are `starts[n]..starts[n + 1]`.
    sorted: Vec<u32>,
    starts: Vec<u32>,
    content_size: u64,
    attributes: XattrKinds,
    sections: [Section; format::SECTIONS],
    body_length: usize,
}

/// What the scanner knows beside the tree.
#[derive(Debug)]
pub(super) struct Facts {
    pub diff_id: DiffId,
    pub tar_size: u64,
    pub entry_count: u64,
    pub tar_sums: Vec<u64>,
}

impl IndexBuilder {
    /// Lays out `arena`.
    pub(super) fn new(mut arena: Arena, facts: Facts) -> Result<IndexBuilder, Problem> {
        arena.freeze();
        let (starts, sorted) = sort_dirents(&arena);
        let mut builder = IndexBuilder {
            numbers: vec![NONE; arena.nodes.len()],
            order: Vec::new(),
            arena,
            facts,
            sorted,
            starts,
            content_size: 0,
            attributes: XattrKinds::default(),
            sections: Default::default(),
            body_length: 0,
        };
        builder.number_nodes();
        builder.measure()?;
        Ok(builder)
    }

    /// Bytes that [`IndexBuilder::write_to`] will write.
    pub fn file_size(&self) -> u64 {
        (self.body_offset() + self.body_length) as u64
    }

    /// Sum of the sizes of the layer's regular files, each once: docker's SIZE of a layer.
    pub fn content_size(&self) -> u64 {
        self.content_size
    }

    /// Entries of the tar.
    pub fn entry_count(&self) -> u64 {
        self.facts.entry_count
    }

    /// The layer described.
    pub fn diff_id(&self) -> DiffId {
        self.facts.diff_id
    }

    fn body_offset(&self) -> usize {
        body_offset(self.body_length.div_ceil(format::BLOCK))
    }

    /// Walks the tree breadth first: numbers nodes, counts links, attaches whiteouts to directories.
    fn number_nodes(&mut self) {
        self.numbers[ROOT as usize] = 0;
        self.order.push(ROOT);
        self.arena.node_mut(ROOT).nlink = 1.into();
        let mut at = 0;
        while let Some(&node) = self.order.get(at) {
            at += 1;
            if self.arena.node(node).kind != format::KIND_DIRECTORY {
                continue;
            }
            for position in self.children(node) {
                let dirent = *self.arena.dirent(self.sorted[position]);
                if dirent.flags & format::DIRENT_NODE == 0 {
                    continue;
                }
                let record = self.arena.node_mut(dirent.target);
                record.nlink = (record.nlink.get() + 1).into();
                if record.kind == format::KIND_DIRECTORY
                    && dirent.flags & format::DIRENT_WHITEOUT != 0
                {
                    record.flags |= format::NODE_OPAQUE;
                }
                let number = &mut self.numbers[dirent.target as usize];
                if *number == NONE {
                    // Below the arena's node count, which is below NONE.
                    *number = self.order.len() as u32;
                    self.order.push(dirent.target);
                }
            }
        }
    }

    fn children(&self, node: u32) -> std::ops::Range<usize> {
        self.starts[node as usize] as usize..self.starts[node as usize + 1] as usize
    }

    /// Works out the sections.
    fn measure(&mut self) -> Result<(), Problem> {
        let mut lengths = [0usize; format::SECTIONS];
        let [
            nodes,
            dirents,
            strings,
            xattrs,
            extents,
            links,
            sums,
            tar_sums,
        ] = &mut lengths;
        *nodes = self.order.len() * size_of::<NodeRecord>();
        *xattrs = self.arena.xattrs.len();
        *tar_sums = size_of_val(self.facts.tar_sums.as_slice());
        let mut sets = BTreeSet::new();
        let mut content: u64 = 0;
        for node in &self.order {
            let record = self.arena.node(*node);
            sets.insert(record.xattrs.get());
            match record.kind {
                format::KIND_DIRECTORY => {
                    for position in self.children(*node) {
                        let dirent = self.arena.dirent(self.sorted[position]);
                        *dirents += size_of::<DirentRecord>();
                        *strings += usize::from(dirent.name_length);
                        if dirent.flags & format::DIRENT_LINK != 0 {
                            let link = &self.arena.links[dirent.target as usize];
                            *links += size_of::<LinkRecord>();
                            *strings += link.path.1 as usize + link.target.1 as usize;
                        }
                    }
                }
                format::KIND_SYMLINK => *strings += record.count.get() as usize,
                format::KIND_REGULAR => {
                    content = content.saturating_add(record.size.get());
                    *extents += size_of_val(self.extents(record));
                    *sums += size_of_val(self.sums(record));
                }
                _ => {}
            }
        }
        // Each string is written for the one thing it was kept for, so they fit as they did in the arena.
        if *strings >= NONE as usize || *links / size_of::<LinkRecord>() >= NONE as usize {
            return Err(Problem::Limit {
                what: "bytes of names",
                limit: u64::from(NONE),
            });
        }
        let mut offset = 0;
        for (section, length) in self.sections.iter_mut().zip(lengths) {
            *section = Section {
                offset: (offset as u64).into(),
                length: (length as u64).into(),
            };
            offset += length;
        }
        self.body_length = offset;
        self.content_size = content;
        for set in sets {
            let mut attributes = BTreeMap::new();
            self.arena.read_xattrs(set, &mut attributes);
            for name in attributes.keys() {
                self.attributes = self.attributes.with(XattrKinds::of(name));
            }
        }
        Ok(())
    }

    fn extents(&self, record: &NodeRecord) -> &[ExtentRecord] {
        if record.flags & format::NODE_SPARSE == 0 {
            return &[];
        }
        &self.arena.extents[record.extents.get() as usize..][..record.count.get() as usize]
    }

    fn sums(&self, record: &NodeRecord) -> &[u64] {
        let stored = match self.extents(record).last() {
            Some(last) => last.stored_offset.get() + last.length.get(),
            None if record.flags & format::NODE_SPARSE != 0 => 0,
            None => record.size.get(),
        };
        let count = stored.div_ceil(format::SUM_BLOCK_U64) as usize;
        &self.arena.sums[record.sums.get() as usize..][..count]
    }

    /// Writes the index to `file`, which should be empty, from its beginning. Does not sync. The same builder writes
    /// the same bytes each time.
    pub fn write_to(&self, file: &mut File) -> io::Result<()> {
        let mut body = BodyWriter::new(file, self.body_offset());
        self.write_nodes(&mut body)?;
        self.write_dirents(&mut body)?;
        self.write_strings(&mut body)?;
        body.put(&self.arena.xattrs)?;
        for record in self.regular_files() {
            body.put(self.extents(record).as_bytes())?;
        }
        self.write_links(&mut body)?;
        for record in self.regular_files() {
            for sum in self.sums(record) {
                body.put(U64::new(*sum).as_bytes())?;
            }
        }
        for sum in &self.facts.tar_sums {
            body.put(U64::new(*sum).as_bytes())?;
        }
        let (sums, written) = body.finish()?;
        debug_assert_eq!(written, self.body_length);
        let mut head = vec![0; self.body_offset()];
        let mut header = Header {
            magic: format::MAGIC,
            version: format::VERSION.into(),
            header_size: (format::HEADER_SIZE as u32).into(),
            diff_id: *self.facts.diff_id.0.as_bytes(),
            tar_size: self.facts.tar_size.into(),
            file_size: self.file_size().into(),
            body_offset: (self.body_offset() as u64).into(),
            entry_count: self.facts.entry_count.into(),
            content_size: self.content_size.into(),
            attributes: self.attributes.0.into(),
            reserved: 0.into(),
            sections: self.sections,
            checksum: 0.into(),
        };
        let table = &mut head[format::HEADER_SIZE..];
        for (place, sum) in table.chunks_exact_mut(size_of::<u64>()).zip(sums) {
            place.copy_from_slice(&sum.to_le_bytes());
        }
        head[..format::HEADER_SIZE].copy_from_slice(header.as_bytes());
        header.checksum = head_checksum(&head).unwrap_or_default().into();
        head[..format::HEADER_SIZE].copy_from_slice(header.as_bytes());
        file.write_all_at(&head, 0)
    }

    fn regular_files(&self) -> impl Iterator<Item = &NodeRecord> {
        self.order
            .iter()
            .map(|node| self.arena.node(*node))
            .filter(|record| record.kind == format::KIND_REGULAR)
    }

    /// Names come first in the strings, then symlink targets, then the paths of links.
    fn names_length(&self) -> u64 {
        self.sorted_names()
            .map(|dirent| u64::from(dirent.name_length))
            .sum()
    }

    fn sorted_names(&self) -> impl Iterator<Item = &super::fold::arena::Dirent> {
        self.order
            .iter()
            .filter(|node| self.arena.node(**node).kind == format::KIND_DIRECTORY)
            .flat_map(|node| self.children(*node))
            .map(|position| self.arena.dirent(self.sorted[position]))
    }

    fn write_nodes(&self, body: &mut BodyWriter<'_>) -> io::Result<()> {
        let (mut dirents, mut targets, mut extents, mut sums) =
            (0u64, self.names_length(), 0u32, 0u32);
        for node in &self.order {
            let mut record = *self.arena.node(*node);
            match record.kind {
                format::KIND_DIRECTORY => {
                    let count = self.children(*node).len();
                    record.place = dirents.into();
                    record.count = (count as u32).into();
                    record.extents = 0.into();
                    dirents += count as u64;
                }
                format::KIND_SYMLINK => {
                    record.place = targets.into();
                    targets += u64::from(record.count.get());
                }
                format::KIND_REGULAR => {
                    let old = *self.arena.node(*node);
                    record.extents = extents.into();
                    record.sums = sums.into();
                    extents += self.extents(&old).len() as u32;
                    sums += self.sums(&old).len() as u32;
                }
                _ => {}
            }
            body.put(record.as_bytes())?;
        }
        Ok(())
    }

    fn write_dirents(&self, body: &mut BodyWriter<'_>) -> io::Result<()> {
        let (mut name, mut link) = (0u32, 0u32);
        for dirent in self.sorted_names() {
            let target = match dirent.flags & (format::DIRENT_NODE | format::DIRENT_LINK) {
                format::DIRENT_NODE => self.numbers[dirent.target as usize],
                format::DIRENT_LINK => {
                    link += 1;
                    link - 1
                }
                _ => 0,
            };
            let record = DirentRecord {
                name: name.into(),
                target: target.into(),
                name_length: dirent.name_length,
                flags: dirent.flags & !DIRENT_DEVICE,
            };
            name += u32::from(dirent.name_length);
            body.put(record.as_bytes())?;
        }
        Ok(())
    }

    fn write_strings(&self, body: &mut BodyWriter<'_>) -> io::Result<()> {
        for dirent in self.sorted_names() {
            body.put(self.arena.name_of(dirent))?;
        }
        for node in &self.order {
            let record = self.arena.node(*node);
            if record.kind == format::KIND_SYMLINK {
                body.put(
                    self.arena
                        .text(record.place.get() as u32, record.count.get()),
                )?;
            }
        }
        for link in self.links() {
            body.put(self.arena.text(link.path.0, link.path.1))?;
            body.put(self.arena.text(link.target.0, link.target.1))?;
        }
        Ok(())
    }

    fn links(&self) -> impl Iterator<Item = &super::fold::arena::Link> {
        self.sorted_names()
            .filter(|dirent| dirent.flags & format::DIRENT_LINK != 0)
            .map(|dirent| &self.arena.links[dirent.target as usize])
    }

    fn write_links(&self, body: &mut BodyWriter<'_>) -> io::Result<()> {
        let targets: u64 = self
            .order
            .iter()
            .map(|node| self.arena.node(*node))
            .filter(|record| record.kind == format::KIND_SYMLINK)
            .map(|record| u64::from(record.count.get()))
            .sum();
        let mut at = (self.names_length() + targets) as u32;
        for link in self.links() {
            let record = LinkRecord {
                path: at.into(),
                path_length: link.path.1.into(),
                target: (at + link.path.1).into(),
                target_length: link.target.1.into(),
            };
            at += link.path.1 + link.target.1;
            body.put(record.as_bytes())?;
        }
        Ok(())
    }
}

/// All dirents grouped by parent and sorted by name within, and where each parent's begin.
fn sort_dirents(arena: &Arena) -> (Vec<u32>, Vec<u32>) {
    let mut starts = vec![0u32; arena.nodes.len() + 1];
    for dirent in &arena.dirents {
        starts[dirent.parent as usize + 1] += 1;
    }
    for at in 1..starts.len() {
        starts[at] += starts[at - 1];
    }
    let mut next = starts.clone();
    let mut sorted = vec![0u32; arena.dirents.len()];
    for (number, dirent) in arena.dirents.iter().enumerate() {
        let place = &mut next[dirent.parent as usize];
        sorted[*place as usize] = number as u32;
        *place += 1;
    }
    for pair in starts.windows(2) {
        sorted[pair[0] as usize..pair[1] as usize]
            .sort_unstable_by_key(|number| arena.name_of(arena.dirent(*number)));
    }
    (starts, sorted)
}

/// Writes the body block by block, and hashes each block.
struct BodyWriter<'f> {
    file: &'f File,
    at: u64,
    block: Vec<u8>,
    sums: Vec<u64>,
    written: usize,
}

impl<'f> BodyWriter<'f> {
    fn new(file: &'f File, offset: usize) -> Self {
        BodyWriter {
            file,
            at: offset as u64,
            block: Vec::with_capacity(format::BLOCK),
            sums: Vec::new(),
            written: 0,
        }
    }

    fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = format::BLOCK - self.block.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.block.extend_from_slice(now);
            bytes = later;
            if self.block.len() == format::BLOCK {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        self.sums.push(xxh3_64(&self.block));
        self.file.write_all_at(&self.block, self.at)?;
        self.at += self.block.len() as u64;
        self.written += self.block.len();
        self.block.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<(Vec<u64>, usize)> {
        self.flush()?;
        Ok((self.sums, self.written))
    }
}
