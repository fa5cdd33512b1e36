//! Listing a merged directory by position, as READDIR does.

use std::sync::Arc;

use super::table::Table;
use super::{Image, Merge, MergedDir, MergedEntry};
use crate::layer::error::IndexError;
use crate::layer::{Entries, LayerIndex};

/// The entries of one merged directory. Positions are 0 to [`MergedList::end`]; not every position has an entry.
#[derive(Debug)]
pub struct MergedList<'i> {
    image: &'i Image,
    source: Source<'i>,
}

#[derive(Debug)]
enum Source<'i> {
    Empty,
    /// One part: straight from the index, whiteouts are skipped.
    One(super::LayerPos, Entries<'i>),
    Many(Arc<Table>),
}

/// One entry of a listing.
#[derive(Debug, Clone)]
pub struct ListEntry<'i> {
    /// The name.
    pub name: &'i [u8],
    /// What it stands for.
    pub entry: MergedEntry,
}

impl<'i> MergedList<'i> {
    pub(super) fn new(image: &'i Image, dir: &MergedDir) -> Result<Self, IndexError> {
        let source = match dir.parts() {
            [] => Source::Empty,
            [part] => {
                let index: &LayerIndex = &image.layer(part.layer).index;
                Source::One(part.layer, index.entries(part.node)?)
            }
            _ => Source::Many(image.table(dir)?),
        };
        Ok(MergedList { image, source })
    }

    /// One more than the last position; an upper bound of the number of entries.
    pub fn end(&self) -> usize {
        match &self.source {
            Source::Empty => 0,
            Source::One(_, entries) => entries.len(),
            Source::Many(table) => table.len(),
        }
    }

    /// The first entry at `position` or behind it, and the position to go on from. Any position is allowed; `None`:
    /// no more entries.
    pub fn next_from(&self, position: usize) -> Result<Option<(usize, ListEntry<'i>)>, IndexError> {
        match &self.source {
            Source::Empty => Ok(None),
            Source::Many(table) => Ok(table
                .get(self.image, position)?
                .map(|(name, entry)| (position + 1, ListEntry { name, entry }))),
            Source::One(layer, entries) => {
                let mut at = position;
                while let Some(entry) = entries.get(at)? {
                    at += 1;
                    let mut merge = Merge::default();
                    merge.add(self.image, *layer, &entry)?;
                    if let Some(found) = self.image.settle(merge.finish())? {
                        let name = entry.name;
                        return Ok(Some((at, ListEntry { name, entry: found })));
                    }
                }
                Ok(None)
            }
        }
    }

    /// All entries in order.
    pub fn iter(&self) -> impl Iterator<Item = Result<ListEntry<'i>, IndexError>> {
        let mut position = 0;
        std::iter::from_fn(move || match self.next_from(position) {
            Ok(Some((next, entry))) => {
                position = next;
                Some(Ok(entry))
            }
            Ok(None) => None,
            Err(error) => {
                position = usize::MAX;
                Some(Err(error))
            }
        })
    }
}
