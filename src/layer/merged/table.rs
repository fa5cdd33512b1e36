//! The sorted names of one merged directory.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};

use super::{Found, Image, LayerPos, Merge, MergedDir, MergedEntry, NodeRef};
use crate::layer::NodeNo;
use crate::layer::error::IndexError;

/// 16 bytes per name; the names themselves stay in the indexes.
#[derive(Debug)]
pub(super) struct Table {
    rows: Box<[Row]>,
    /// The parts of the directories among the rows.
    parts: Box<[NodeRef]>,
    /// What is covered, by the directory's first part: rare.
    covered: BTreeMap<u32, NodeRef>,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    /// Where the name is.
    dirent: u32,
    layer: LayerPos,
    /// Parts of the directory; 0 for anything else.
    count: u16,
    /// First part of the directory, or the node.
    first: u32,
    /// Layer of the node.
    leaf_layer: LayerPos,
}

impl Table {
    /// Merges the directories `parts`, topmost first. Every entry of every part is touched once.
    pub(super) fn new(image: &Image, parts: &[NodeRef]) -> Result<Table, IndexError> {
        let mut sources = Vec::with_capacity(parts.len());
        for part in parts {
            sources.push(image.layer(part.layer).index.entries(part.node)?);
        }
        // The heap's top is the smallest name, of the topmost part among equals.
        let mut heap = BinaryHeap::with_capacity(parts.len());
        for (at, source) in sources.iter().enumerate() {
            if let Some(entry) = source.get(0)? {
                heap.push(Reverse((entry.name, at, 0usize)));
            }
        }
        let mut rows =
            Vec::with_capacity(sources.iter().map(|source| source.len()).max().unwrap_or(0));
        let mut all_parts = Vec::new();
        let mut all_covered = BTreeMap::new();
        while let Some(Reverse((name, _, _))) = heap.peek().copied() {
            let mut merge = Merge::default();
            let mut home = None;
            let mut done = false;
            while let Some(Reverse((next, at, position))) = heap.peek().copied() {
                if next != name {
                    break;
                }
                heap.pop();
                let (Some(source), Some(part)) = (sources.get(at), parts.get(at)) else {
                    break;
                };
                if let (Some(number), Some(entry)) =
                    (source.number(position), source.get(position)?)
                    && !done
                {
                    home.get_or_insert((part.layer, number));
                    done = merge.add(image, part.layer, &entry)?;
                }
                if let Some(entry) = source.get(position + 1)? {
                    heap.push(Reverse((entry.name, at, position + 1)));
                }
            }
            let Some((layer, dirent)) = home else {
                continue;
            };
            let row = |count, first, leaf_layer| Row {
                dirent,
                layer,
                count,
                first,
                leaf_layer,
            };
            rows.push(match merge.finish() {
                Found::Nothing => continue,
                Found::Leaf(node) => row(0, node.node.0, node.layer),
                Found::Link(from, path) => {
                    let node = image.follow_link(from, path, 0)?;
                    row(0, node.node.0, node.layer)
                }
                Found::Dir(found, covered) => {
                    let first = u32::try_from(all_parts.len())
                        .map_err(|_| IndexError::TooManyLayers(parts.len()))?;
                    let count = u16::try_from(found.len())
                        .map_err(|_| IndexError::TooManyLayers(found.len()))?;
                    all_parts.extend(found);
                    all_covered.extend(covered.map(|covered| (first, covered)));
                    row(count, first, layer)
                }
            });
        }
        Ok(Table {
            rows: rows.into(),
            parts: all_parts.into(),
            covered: all_covered,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn find(
        &self,
        image: &Image,
        name: &[u8],
    ) -> Result<Option<MergedEntry>, IndexError> {
        let (mut low, mut high) = (0, self.rows.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let Some(row) = self.rows.get(middle) else {
                break;
            };
            match row.name(image)?.cmp(name) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Ok(Some(self.entry(row))),
            }
        }
        Ok(None)
    }

    pub(super) fn get<'i>(
        &self,
        image: &'i Image,
        position: usize,
    ) -> Result<Option<(&'i [u8], MergedEntry)>, IndexError> {
        match self.rows.get(position) {
            Some(row) => Ok(Some((row.name(image)?, self.entry(row)))),
            None => Ok(None),
        }
    }

    fn entry(&self, row: &Row) -> MergedEntry {
        let first = row.first as usize;
        match self.parts.get(first..first + usize::from(row.count)) {
            Some(parts) if row.count > 0 => {
                let covered = self.covered.get(&row.first).copied();
                MergedEntry::Dir(MergedDir::new(parts.to_vec(), covered))
            }
            _ => MergedEntry::Leaf(NodeRef {
                layer: row.leaf_layer,
                node: NodeNo(row.first),
            }),
        }
    }
}

impl Row {
    fn name<'i>(&self, image: &'i Image) -> Result<&'i [u8], IndexError> {
        Ok(image
            .layer(self.layer)
            .index
            .entry_numbered(self.dirent)?
            .name)
    }
}
