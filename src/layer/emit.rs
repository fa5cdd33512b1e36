//! Writing a tar, entry by entry, exactly: see [`super::tar::encode`] for what goes into a header and what into PAX records.

use std::io::{self, Write};

use super::tar::encode::Entry;
use super::tar::sparse::Segment;
use super::tar::{BLOCK, BLOCK_U64, EntryKind};
use crate::tree::{Attributes, NodeKind};

/// One entry to write.
#[derive(Debug, Clone, Copy)]
pub struct TarMember<'a> {
    /// Without leading `/`; empty: the root directory.
    pub path: &'a [u8],
    /// Everything that `stat` tells.
    pub attributes: &'a Attributes,
    /// The target of a symbolic link.
    pub target: &'a [u8],
    /// An earlier entry that this is another name of.
    pub hard_link: Option<&'a [u8]>,
    /// Names and values.
    pub xattrs: &'a [(&'a [u8], &'a [u8])],
    /// Data of a file with holes: offset and length, ascending. Its bytes follow each other in the archive.
    pub segments: Option<&'a [(u64, u64)]>,
}

/// Writes entries one after the other. The content of a regular file follows its entry: as many bytes as its size says, or
/// as its segments have.
pub struct TarWriter<W> {
    out: W,
    /// Bytes still to come of the entry's content, and of zeros behind them.
    content: u64,
    padding: usize,
}

impl<W: Write> TarWriter<W> {
    /// A writer.
    pub fn new(out: W) -> TarWriter<W> {
        TarWriter {
            out,
            content: 0,
            padding: 0,
        }
    }

    /// Begins an entry. The content of the one before must be complete.
    pub fn entry(&mut self, member: &TarMember<'_>) -> io::Result<()> {
        self.complete()?;
        let entry = member.encoded();
        self.out.write_all(&entry.encode())?;
        self.content = match &entry.segments {
            Some(segments) => segments.iter().map(|segment| segment.length).sum(),
            None => entry.size,
        };
        self.padding = usize::try_from(self.content.wrapping_neg() % BLOCK_U64).unwrap_or_default();
        Ok(())
    }

    /// Content of the entry.
    pub fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        let left = self.content.checked_sub(bytes.len() as u64);
        self.content = left.ok_or_else(|| io::Error::other("more content than announced"))?;
        self.out.write_all(bytes)
    }

    /// The end of the archive; the output again.
    pub fn finish(mut self) -> io::Result<W> {
        self.complete()?;
        self.zeros(2 * BLOCK)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn complete(&mut self) -> io::Result<()> {
        if self.content > 0 {
            return Err(io::Error::other("less content than announced"));
        }
        let padding = std::mem::take(&mut self.padding);
        self.zeros(padding)
    }

    fn zeros(&mut self, count: usize) -> io::Result<()> {
        let zeros = [0; 2 * BLOCK];
        self.out.write_all(zeros.get(..count).unwrap_or(&zeros))
    }
}

impl TarMember<'_> {
    fn encoded(&self) -> Entry {
        let kind = match (self.hard_link, self.attributes.kind) {
            (Some(_), _) => EntryKind::HardLink,
            (None, NodeKind::Regular) => EntryKind::Regular,
            (None, NodeKind::Symlink) => EntryKind::Symlink,
            (None, NodeKind::CharDevice) => EntryKind::CharDevice,
            (None, NodeKind::BlockDevice) => EntryKind::BlockDevice,
            (None, NodeKind::Directory) => EntryKind::Directory,
            (None, NodeKind::Fifo) => EntryKind::Fifo,
        };
        let mut entry = Entry::new(kind, self.path);
        if self.path.is_empty() {
            entry.path.push(b'.');
        }
        if kind == EntryKind::Directory {
            entry.path.push(b'/');
        }
        match (kind, self.hard_link) {
            (EntryKind::Symlink, _) => entry.link = self.target.to_vec(),
            (_, Some(first)) => entry.link = first.to_vec(),
            _ => {}
        }
        let attributes = self.attributes;
        entry.mode = attributes.mode;
        (entry.uid, entry.gid) = (attributes.uid, attributes.gid);
        entry.mtime = (attributes.mtime_sec, attributes.mtime_nsec);
        entry.device = (attributes.rdev_major, attributes.rdev_minor);
        let xattrs = self.xattrs.iter();
        entry.xattrs = xattrs.map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
        if kind == EntryKind::Regular {
            entry.size = attributes.size;
            entry.segments = self.segments.map(|segments| {
                let segment = |&(offset, length): &(u64, u64)| Segment { offset, length };
                segments.iter().map(segment).collect()
            });
        }
        entry
    }
}
