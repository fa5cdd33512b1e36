//! What changed from one image to another: docker's A, C and D.
//!
//! The two merged trees are walked side by side, and only where they can differ. A merged directory is its list of parts
//! ([`MergedDir::parts`]); where both lists are the same layers' nodes, everything below is the same and is not looked at.
//! Where they end alike (the images share lower layers), only names that the differing parts mention can differ. So
//! the cost is that of the layers that are not shared, however large the shared ones are.
//!
//! What counts, as in docker: type, mode, owner, device numbers, extended attributes; of anything but directories size,
//! modification time, link target and content too. Contents are compared by the checksums of the indexes; only a sparse
//! file whose holes lie differently is read. A directory with a change below it is changed; what lies below a deleted
//! name is not listed. The root is never listed.

use std::collections::BTreeSet;

use super::error::{IndexError, ReadError};
use super::format::SUM_BLOCK_U64;
use super::merged::{Image, LayerPos, MergedDir, MergedEntry, NodeRef};
use crate::tree::{Attributes, NodeKind};

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChangeKind {
    /// Only the new tree has it.
    Added,
    /// Both have it, not the same.
    Changed,
    /// Only the old tree has it.
    Deleted,
}

impl ChangeKind {
    /// docker's letter.
    pub fn letter(self) -> char {
        match self {
            ChangeKind::Added => 'A',
            ChangeKind::Changed => 'C',
            ChangeKind::Deleted => 'D',
        }
    }
}

/// One path that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathChange {
    /// Without leading `/`.
    pub path: Vec<u8>,
    /// What happened.
    pub kind: ChangeKind,
}

/// The differences from `old` to `new`, sorted by path.
pub fn images(old: &Image, new: &Image) -> Result<Vec<PathChange>, ReadError> {
    let pair = Pair {
        old,
        new,
        shared: shared(old, new),
        old_links: with_links(old)?,
        new_links: with_links(new)?,
    };
    let mut changes = pair.walk()?;
    changes.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(changes)
}

/// How many layers the images have in common, from the bottom.
fn shared(old: &Image, new: &Image) -> usize {
    let pairs = old.layers().iter().zip(new.layers());
    pairs
        .take_while(|(a, b)| a.index.diff_id() == b.index.diff_id())
        .count()
}

/// For each layer whether it has hard links to files of lower layers.
fn with_links(image: &Image) -> Result<Vec<bool>, IndexError> {
    let links = |index: &super::LayerIndex| Ok(index.lower_links()?.next().is_some());
    image
        .layers()
        .iter()
        .map(|layer| links(&layer.index))
        .collect()
}

struct Pair<'a> {
    old: &'a Image,
    new: &'a Image,
    /// Layers in common, from the bottom.
    shared: usize,
    old_links: Vec<bool>,
    new_links: Vec<bool>,
}

/// Name and value of an extended attribute.
type Attribute<'i> = (&'i [u8], &'i [u8]);

/// A directory on the way, of which at least one side exists.
struct Frame {
    old: Option<MergedDir>,
    new: Option<MergedDir>,
    /// Names still to be looked at, the next one last.
    names: Vec<Box<[u8]>>,
    /// Length of the directory's path.
    length: usize,
    /// Whether the directory itself is in the list.
    listed: bool,
}

impl Pair<'_> {
    fn walk(&self) -> Result<Vec<PathChange>, ReadError> {
        let mut changes = Vec::new();
        let mut path: Vec<u8> = Vec::new();
        let (old, new) = (self.old.root()?, self.new.root()?);
        // The root is never listed: docker has no line for it.
        let mut stack = vec![self.frame(Some(old), Some(new), 0, true)?];
        while let Some(frame) = stack.last_mut() {
            path.truncate(frame.length);
            let Some(name) = frame.names.pop() else {
                stack.pop();
                continue;
            };
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
            let old = find(self.old, frame.old.as_ref(), &name)?;
            let new = find(self.new, frame.new.as_ref(), &name)?;
            let kind = match (&old, &new) {
                (None, None) => continue,
                (None, Some(_)) => Some(ChangeKind::Added),
                (Some(_), None) => Some(ChangeKind::Deleted),
                (Some(old), Some(new)) => match self.differ(old, new)? {
                    true => Some(ChangeKind::Changed),
                    false => None,
                },
            };
            if let Some(kind) = kind {
                list_parents(&mut stack, &path, &mut changes);
                changes.push(PathChange {
                    path: path.clone(),
                    kind,
                });
            }
            // Below what was deleted or is no directory any more nothing is listed.
            if let Some(MergedEntry::Dir(new)) = new {
                let old = match old {
                    Some(MergedEntry::Dir(old)) => Some(old),
                    _ => None,
                };
                stack.push(self.frame(old, Some(new), path.len(), kind.is_some())?);
            }
        }
        Ok(changes)
    }

    fn frame(
        &self,
        old: Option<MergedDir>,
        new: Option<MergedDir>,
        length: usize,
        listed: bool,
    ) -> Result<Frame, ReadError> {
        let names = self.names(old.as_ref(), new.as_ref())?;
        Ok(Frame {
            names: names.into_iter().rev().map(Into::into).collect(),
            old,
            new,
            length,
            listed,
        })
    }

    /// The names that can differ.
    fn names<'n>(
        &'n self,
        old: Option<&MergedDir>,
        new: Option<&MergedDir>,
    ) -> Result<BTreeSet<&'n [u8]>, ReadError> {
        let none: &[NodeRef] = &[];
        let old = old.map_or(none, MergedDir::parts);
        let new = new.map_or(none, MergedDir::parts);
        let same = old
            .iter()
            .rev()
            .zip(new.iter().rev())
            .take_while(|(old, new)| self.same(**old, **new))
            .count();
        let mut names = BTreeSet::new();
        for (image, parts) in [(self.old, old), (self.new, new)] {
            let differing = parts.len().saturating_sub(same);
            for part in parts.iter().take(differing) {
                for entry in image.layer(part.layer).index.entries(part.node)?.iter() {
                    names.insert(entry?.name);
                }
            }
        }
        Ok(names)
    }

    /// Whether the two are one node of one layer, and mean the same in both images.
    fn same(&self, old: NodeRef, new: NodeRef) -> bool {
        let diff_id = |image: &Image, at: LayerPos| image.layer(at).index.diff_id();
        if old.node != new.node || diff_id(self.old, old.layer) != diff_id(self.new, new.layer) {
            return false;
        }
        // A hard link to a lower layer means what the layers below its own have there.
        let at = usize::from(old.layer.0);
        let below_is_same = old.layer == new.layer && at < self.shared;
        let links =
            |links: &[bool], at: LayerPos| links.get(usize::from(at.0)).copied().unwrap_or(true);
        below_is_same || !(links(&self.old_links, old.layer) || links(&self.new_links, new.layer))
    }

    fn differ(&self, old: &MergedEntry, new: &MergedEntry) -> Result<bool, ReadError> {
        let (old, new) = match (old, new) {
            (MergedEntry::Dir(old), MergedEntry::Dir(new)) => {
                let (a, b) = (
                    self.old.attributes_of_dir(old)?,
                    self.new.attributes_of_dir(new)?,
                );
                if owner_differs(&a, &b) {
                    return Ok(true);
                }
                let (a, b) = (self.old.described_part(old)?, self.new.described_part(new)?);
                return Ok(self.xattrs(self.old, a)? != self.xattrs(self.new, b)?);
            }
            (MergedEntry::Leaf(old), MergedEntry::Leaf(new)) => (*old, *new),
            _ => return Ok(true),
        };
        // Links were followed to their nodes: the same node of the same layer is the same file.
        let diff_id = |image: &Image, node: NodeRef| image.layer(node.layer).index.diff_id();
        if old.node == new.node && diff_id(self.old, old) == diff_id(self.new, new) {
            return Ok(false);
        }
        let (a, b) = (self.old.attributes(old)?, self.new.attributes(new)?);
        if a.kind != b.kind
            || owner_differs(&a, &b)
            || (a.rdev_major, a.rdev_minor) != (b.rdev_major, b.rdev_minor)
            || (a.size, a.mtime_sec, a.mtime_nsec) != (b.size, b.mtime_sec, b.mtime_nsec)
            || self.xattrs(self.old, Some(old))? != self.xattrs(self.new, Some(new))?
        {
            return Ok(true);
        }
        match a.kind {
            NodeKind::Symlink => Ok(self.old.symlink_target(old)? != self.new.symlink_target(new)?),
            NodeKind::Regular => self.contents_differ(old, new, a.size),
            _ => Ok(false),
        }
    }

    fn xattrs<'i>(
        &self,
        image: &'i Image,
        node: Option<NodeRef>,
    ) -> Result<Vec<Attribute<'i>>, IndexError> {
        match node {
            Some(node) => image.xattrs(node)?.collect(),
            None => Ok(Vec::new()),
        }
    }

    /// Both have `size` bytes.
    fn contents_differ(&self, old: NodeRef, new: NodeRef, size: u64) -> Result<bool, ReadError> {
        let (a, b) = (self.old.layer(old.layer), self.new.layer(new.layer));
        let (left, right) = (a.index.stored(old.node)?, b.index.stored(new.node)?);
        let mut alike = left.sparse == right.sparse && left.length == right.length;
        if alike && left.sparse {
            // Checksums are of stored bytes: they compare only where the holes are the same.
            let relative =
                |base: u64| move |e: super::Extent| (e.file_offset, e.tar_offset - base, e.length);
            let (mut x, mut y) = (a.index.extents(old.node)?, b.index.extents(new.node)?);
            let (from, to) = (relative(left.tar_offset), relative(right.tar_offset));
            alike = loop {
                match (
                    x.next().transpose()?.map(from),
                    y.next().transpose()?.map(to),
                ) {
                    (None, None) => break true,
                    (one, other) if one != other => break false,
                    _ => {}
                }
            };
        }
        if alike {
            for block in 0..left.length.div_ceil(SUM_BLOCK_U64) {
                if a.index.sum(&left, block)? != b.index.sum(&right, block)? {
                    return Ok(true);
                }
            }
            return Ok(false);
        }
        let (mut one, mut other) = (vec![0; 1 << 20], vec![0; 1 << 20]);
        let mut at = 0;
        while at < size {
            let got = a.read_at(old.node, at, &mut one)?;
            let also = b.read_at(new.node, at, &mut other)?;
            if got != also || one.get(..got) != other.get(..also) {
                return Ok(true);
            }
            if got == 0 {
                break;
            }
            at += u64::try_from(got).unwrap_or(u64::MAX - at);
        }
        Ok(false)
    }
}

/// Directories on the way to a change are changed.
fn list_parents(stack: &mut [Frame], path: &[u8], changes: &mut Vec<PathChange>) {
    for frame in stack {
        if !std::mem::replace(&mut frame.listed, true) {
            changes.push(PathChange {
                path: path.get(..frame.length).unwrap_or_default().to_vec(),
                kind: ChangeKind::Changed,
            });
        }
    }
}

fn owner_differs(a: &Attributes, b: &Attributes) -> bool {
    (a.mode, a.uid, a.gid) != (b.mode, b.uid, b.gid)
}

fn find(
    image: &Image,
    dir: Option<&MergedDir>,
    name: &[u8],
) -> Result<Option<MergedEntry>, IndexError> {
    match dir {
        Some(dir) => image.lookup(dir, name),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests;
