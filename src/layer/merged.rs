//! Layers stacked to an image: directory by directory, lazily, straight from the mapped indexes.
//!
//! A merged directory is the list of the layers' directories that show through at its path, topmost first, cut where
//! something hides the rest: an opaque directory, a whiteout, or anything that is no directory. A whiteout or an
//! opaque marker of a layer acts on the layers below it only, and never shows up itself. A marker in a directory that its
//! layer does not list takes the lower directory's entries away, not its mode and owner.
//!
//! Costs. A directory with one part is read straight from its index and needs no memory beyond the part. One with
//! several is probed part by part while they are few; a listing, or a lookup among more than [`PROBES`] parts, makes
//! a sorted table (16 bytes per name) that is kept until [`MergedDir::shed`]. With it a lookup costs one binary
//! search however many layers there are.

mod links;
mod list;
mod table;

pub use list::{ListEntry, MergedList};

use std::sync::Arc;

use parking_lot::RwLock;

use super::error::IndexError;
use super::{Entry, LayerFile, NodeNo, Target, Xattrs};
use crate::tree::Attributes;
use table::Table;

/// Up to so many parts a lookup asks each part; beyond, it makes a table.
pub const PROBES: usize = 4;

/// Position of a layer in its image, 0 at the bottom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerPos(pub u16);

/// A node of one layer of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeRef {
    /// The layer.
    pub layer: LayerPos,
    /// The node in it.
    pub node: NodeNo,
}

/// The layers of an image, bottom first.
#[derive(Debug)]
pub struct Image {
    layers: Vec<Arc<LayerFile>>,
}

/// A directory of the merged tree; cheap to clone. Only meaningful with the image it came from.
#[derive(Debug, Clone)]
pub struct MergedDir(Arc<Dir>);

#[derive(Debug)]
struct Dir {
    /// Topmost first. Empty only for the root of an image without layers.
    parts: Box<[NodeRef]>,
    /// If no part is described and an opaque marker ends them: the lower layers' directory, for its attributes only.
    covered: Option<NodeRef>,
    table: RwLock<Option<Arc<Table>>>,
}

/// What a name of the merged tree stands for.
#[derive(Debug, Clone)]
pub enum MergedEntry {
    /// A directory.
    Dir(MergedDir),
    /// Anything else. Hard links into lower layers are already followed: two names of one file are one `NodeRef`.
    Leaf(NodeRef),
}

/// The answer for one name before directories are wrapped and links are followed.
#[derive(Debug)]
enum Found<'a> {
    Nothing,
    /// The parts, and what is [covered](Dir).
    Dir(Vec<NodeRef>, Option<NodeRef>),
    Leaf(NodeRef),
    /// A hard link of this layer to this path of the layers below.
    Link(LayerPos, &'a [u8]),
}

impl MergedDir {
    fn new(parts: Vec<NodeRef>, covered: Option<NodeRef>) -> MergedDir {
        MergedDir(Arc::new(Dir {
            parts: parts.into(),
            covered,
            table: RwLock::new(None),
        }))
    }

    /// The layers' directories that show through, topmost first.
    pub fn parts(&self) -> &[NodeRef] {
        &self.0.parts
    }

    /// Frees the table of names, if there is one. The next listing makes it again, with the same positions.
    pub fn shed(&self) {
        *self.0.table.write() = None;
    }
}

impl Image {
    /// Stacks `layers`, bottom first. None is fine: an empty root.
    pub fn new(layers: Vec<Arc<LayerFile>>) -> Result<Image, IndexError> {
        match u16::try_from(layers.len()) {
            Ok(_) => Ok(Image { layers }),
            Err(_) => Err(IndexError::TooManyLayers(layers.len())),
        }
    }

    /// The layers, bottom first.
    pub fn layers(&self) -> &[Arc<LayerFile>] {
        &self.layers
    }

    /// The layer at `pos`.
    ///
    /// # Panics
    /// If `pos` is of another image: positions come from this image only.
    // A position says nothing without its image: there is no answer that would not be another file.
    #[allow(clippy::panic)]
    pub fn layer(&self, pos: LayerPos) -> &Arc<LayerFile> {
        match self.layers.get(usize::from(pos.0)) {
            Some(layer) => layer,
            None => panic!(
                "layer {} of an image of {} layers",
                pos.0,
                self.layers.len()
            ),
        }
    }

    /// The root directory.
    pub fn root(&self) -> Result<MergedDir, IndexError> {
        let parts = self.root_parts(self.layers.len())?;
        let lowest = parts.last().map_or(0, |part| part.layer.0);
        let mut covered = None;
        for pos in (0..lowest).rev().map(LayerPos) {
            if covered.is_none() && !self.layer(pos).index.is_implicit(NodeNo::ROOT)? {
                covered = Some(NodeRef {
                    layer: pos,
                    node: NodeNo::ROOT,
                });
            }
        }
        Ok(MergedDir::new(parts, covered))
    }

    /// The root's parts if only the `count` bottom layers existed.
    fn root_parts(&self, count: usize) -> Result<Vec<NodeRef>, IndexError> {
        let mut parts = Vec::new();
        for (at, layer) in self.layers.iter().enumerate().take(count).rev() {
            let pos = u16::try_from(at).map_err(|_| IndexError::TooManyLayers(at))?;
            parts.push(NodeRef {
                layer: LayerPos(pos),
                node: NodeNo::ROOT,
            });
            if layer.index.is_opaque(NodeNo::ROOT)? {
                break;
            }
        }
        Ok(parts)
    }

    /// The part that gives the directory its attributes and xattrs: the topmost that a layer describes. `None`: no
    /// layer does.
    pub fn described_part(&self, dir: &MergedDir) -> Result<Option<NodeRef>, IndexError> {
        for part in dir.parts() {
            if !self.layer(part.layer).index.is_implicit(part.node)? {
                return Ok(Some(*part));
            }
        }
        Ok(dir.0.covered)
    }

    /// The directory's attributes; `nlink` is 1.
    pub fn attributes_of_dir(&self, dir: &MergedDir) -> Result<Attributes, IndexError> {
        match self.described_part(dir)? {
            Some(part) => self.attributes(part),
            None => Ok(Attributes::IMPLICIT_DIRECTORY),
        }
    }

    /// The attributes of a node.
    pub fn attributes(&self, node: NodeRef) -> Result<Attributes, IndexError> {
        self.layer(node.layer).index.attributes(node.node)
    }

    /// The target of a symbolic link.
    pub fn symlink_target(&self, node: NodeRef) -> Result<&[u8], IndexError> {
        self.layer(node.layer).index.symlink_target(node.node)
    }

    /// The extended attributes of a node; of a directory ask for its [`Image::described_part`].
    pub fn xattrs(&self, node: NodeRef) -> Result<Xattrs<'_>, IndexError> {
        self.layer(node.layer).index.xattrs(node.node)
    }

    /// The entry `name` of `dir`.
    pub fn lookup(&self, dir: &MergedDir, name: &[u8]) -> Result<Option<MergedEntry>, IndexError> {
        let parts = dir.parts();
        let ready = dir.0.table.read().clone();
        let table = match ready {
            None if parts.len() > PROBES => Some(self.table(dir)?),
            ready => ready,
        };
        match table {
            Some(table) => table.find(self, name),
            None => {
                let found = self.probe(parts, name)?;
                self.settle(found)
            }
        }
    }

    /// The entries of `dir`. Positions are stable for as long as the image exists.
    pub fn list(&self, dir: &MergedDir) -> Result<MergedList<'_>, IndexError> {
        MergedList::new(self, dir)
    }

    /// The entry at `path`, components separated by `/`. Follows no symbolic links; `.` and empty components are
    /// skipped; `..` is an ordinary name, which no directory has.
    pub fn resolve(&self, path: &[u8]) -> Result<Option<MergedEntry>, IndexError> {
        let mut at = MergedEntry::Dir(self.root()?);
        for name in path.split(|byte| *byte == b'/') {
            if matches!(name, b"" | b".") {
                continue;
            }
            let MergedEntry::Dir(dir) = &at else {
                return Ok(None);
            };
            match self.lookup(dir, name)? {
                Some(next) => at = next,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    /// Calls `visit` with the path (without leading `/`) of every entry below the root; a directory comes before its
    /// entries, those of one directory are sorted. Depth costs memory, not stack.
    pub fn walk<E: From<IndexError>>(
        &self,
        mut visit: impl FnMut(&[u8], &MergedEntry) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut path = Vec::new();
        let mut stack = vec![(self.list(&self.root()?)?, 0, 0)];
        while let Some((list, position, length)) = stack.last_mut() {
            path.truncate(*length);
            let Some((next, entry)) = list.next_from(*position)? else {
                stack.pop();
                continue;
            };
            *position = next;
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(entry.name);
            visit(&path, &entry.entry)?;
            if let MergedEntry::Dir(dir) = &entry.entry {
                stack.push((self.list(dir)?, 0, path.len()));
            }
        }
        Ok(())
    }

    fn table(&self, dir: &MergedDir) -> Result<Arc<Table>, IndexError> {
        if let Some(table) = &*dir.0.table.read() {
            return Ok(table.clone());
        }
        // Two threads may both make it; they make the same.
        let table = Arc::new(Table::new(self, dir.parts())?);
        *dir.0.table.write() = Some(table.clone());
        Ok(table)
    }

    /// Asks each part for `name`, topmost first.
    fn probe(&self, parts: &[NodeRef], name: &[u8]) -> Result<Found<'_>, IndexError> {
        let mut merge = Merge::default();
        for part in parts {
            let index = &self.layer(part.layer).index;
            if let Some(entry) = index.find(part.node, name)?
                && merge.add(self, part.layer, &entry)?
            {
                break;
            }
        }
        Ok(merge.finish())
    }

    fn settle(&self, found: Found<'_>) -> Result<Option<MergedEntry>, IndexError> {
        Ok(match found {
            Found::Nothing => None,
            Found::Dir(parts, covered) => Some(MergedEntry::Dir(MergedDir::new(parts, covered))),
            Found::Leaf(node) => Some(MergedEntry::Leaf(node)),
            Found::Link(layer, path) => Some(MergedEntry::Leaf(self.follow_link(layer, path, 0)?)),
        })
    }
}

/// Merges the entries of one name, given topmost first.
#[derive(Debug, Default)]
struct Merge<'a> {
    parts: Vec<NodeRef>,
    leaf: Option<Found<'a>>,
    /// An opaque marker has ended the parts, and none of them is described.
    closed: bool,
    covered: Option<NodeRef>,
}

impl<'a> Merge<'a> {
    /// Adds the entry of the next layer down; `true`: nothing below can matter any more.
    fn add(
        &mut self,
        image: &Image,
        layer: LayerPos,
        entry: &Entry<'a>,
    ) -> Result<bool, IndexError> {
        let leaf = match entry.target {
            None => return Ok(true),
            Some(Target::LowerLink(path)) => Found::Link(layer, path),
            Some(Target::Node(node)) => {
                let index = &image.layer(layer).index;
                let found = NodeRef { layer, node };
                if index.kind(node)? != crate::tree::NodeKind::Directory {
                    Found::Leaf(found)
                } else if self.closed {
                    let implicit = index.is_implicit(node)?;
                    self.covered = (!implicit).then_some(found);
                    return Ok(entry.whiteout || !implicit);
                } else {
                    self.parts.push(found);
                    // A whiteout is the end of the directory that was there; a marker empties it.
                    if entry.whiteout {
                        return Ok(true);
                    }
                    if index.is_opaque(node)? {
                        self.closed = true;
                        return self.is_described(image);
                    }
                    return Ok(false);
                }
            }
        };
        // Below a directory something else is hidden by it.
        if self.parts.is_empty() {
            self.leaf = Some(leaf);
        }
        Ok(true)
    }

    fn finish(self) -> Found<'a> {
        match self.leaf {
            Some(leaf) => leaf,
            None if self.parts.is_empty() => Found::Nothing,
            None => Found::Dir(self.parts, self.covered),
        }
    }

    fn is_described(&self, image: &Image) -> Result<bool, IndexError> {
        for part in &self.parts {
            if !image.layer(part.layer).index.is_implicit(part.node)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
