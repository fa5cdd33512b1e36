//! The entries of one directory.

use std::cmp::Ordering;

use super::{LayerIndex, NodeNo};
use crate::layer::error::IndexError;
use crate::layer::format::{self, DirentRecord, SectionId};

/// One name of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The name, a valid [`EntryName`](crate::tree::EntryName).
    pub name: &'a [u8],
    /// The layers below have a whiteout here: whatever they call by this name is hidden.
    pub whiteout: bool,
    /// What this layer has by this name; `None`: nothing, this is a pure whiteout.
    pub target: Option<Target<'a>>,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// A node of this layer.
    Node(NodeNo),
    /// A hard link to a file that only the layers below have: its path there, normalised, without leading `/`.
    /// The content is as of the layers below, whatever the layers above do.
    LowerLink(&'a [u8]),
}

/// The entries of one directory, sorted bytewise by name; cheap to copy.
#[derive(Debug, Clone, Copy)]
pub struct Entries<'a> {
    index: &'a LayerIndex,
    first: u32,
    count: u32,
}

impl LayerIndex {
    /// The entries of the directory `dir`, whiteouts included.
    pub fn entries(&self, dir: NodeNo) -> Result<Entries<'_>, IndexError> {
        let record = self.node(dir)?;
        if record.kind != format::KIND_DIRECTORY {
            return Err(self.wrong_kind(dir, "not a directory"));
        }
        Ok(Entries {
            index: self,
            first: u32::try_from(record.place.get()).map_err(|_| self.damaged("directory"))?,
            count: record.count.get(),
        })
    }

    /// The entry `name` of the directory `dir`, in logarithmic time. A whiteout is an entry.
    pub fn find(&self, dir: NodeNo, name: &[u8]) -> Result<Option<Entry<'_>>, IndexError> {
        match self.entries(dir)?.position(name)? {
            Ok(at) => self.entries(dir)?.get(at),
            Err(_) => Ok(None),
        }
    }

    /// The entry with the absolute number `dirent`, which [`Entries::number`] gave.
    pub(in crate::layer) fn entry_numbered(&self, dirent: u32) -> Result<Entry<'_>, IndexError> {
        let record = self.record::<DirentRecord>(SectionId::Dirents, dirent)?;
        let target = match record.flags & (format::DIRENT_NODE | format::DIRENT_LINK) {
            0 => None,
            format::DIRENT_NODE => Some(Target::Node(NodeNo(record.target.get()))),
            format::DIRENT_LINK => Some(Target::LowerLink(self.link(record.target.get())?.target)),
            _ => return Err(self.damaged("directory entry")),
        };
        Ok(Entry {
            name: self.name(record)?,
            whiteout: record.flags & format::DIRENT_WHITEOUT != 0,
            target,
        })
    }

    fn name(&self, record: &DirentRecord) -> Result<&[u8], IndexError> {
        self.bytes(
            SectionId::Strings,
            u64::from(record.name.get()),
            u64::from(record.name_length),
        )
    }
}

impl<'a> Entries<'a> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        // u32 to usize: mica runs on 64-bit (and would on 32-bit) machines.
        self.count as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Entry number `position`; `None` beyond the end.
    pub fn get(&self, position: usize) -> Result<Option<Entry<'a>>, IndexError> {
        match self.number(position) {
            Some(number) => self.index.entry_numbered(number).map(Some),
            None => Ok(None),
        }
    }

    /// All entries in order.
    pub fn iter(self) -> impl Iterator<Item = Result<Entry<'a>, IndexError>> {
        (0..self.len()).filter_map(move |at| self.get(at).transpose())
    }

    /// `Ok(position)` of the entry `name`, or `Err(position)` of the first entry behind it.
    pub fn position(&self, name: &[u8]) -> Result<Result<usize, usize>, IndexError> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let number = self
                .number(middle)
                .ok_or_else(|| self.index.damaged("directory entry"))?;
            let record = self
                .index
                .record::<DirentRecord>(SectionId::Dirents, number)?;
            match self.index.name(record)?.cmp(name) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Ok(Ok(middle)),
            }
        }
        Ok(Err(low))
    }

    /// The absolute number of the entry at `position`, valid for the whole index.
    pub(in crate::layer) fn number(&self, position: usize) -> Option<u32> {
        let position = u32::try_from(position).ok().filter(|at| *at < self.count)?;
        self.first.checked_add(position)
    }
}
