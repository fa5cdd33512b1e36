//! Directories of trees that the kernel knows from an earlier server of its connection.
//!
//! The number says tree, topmost layer and node there; what it does not say is the path. The layer's index leads from a directory
//! to its entries only, so the way up is found once per layer, by looking at all its directories, and then kept.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Superblock;
use super::inode::{self, DirectoryNo};
use super::trees::{At, Content, DirNode, Open, Tree, key};
use crate::fs::api::{FsError, InodeNo};
use crate::layer::merged::MergedEntry;
use crate::layer::{LayerIndex, NodeNo, Target};
use crate::oci::DiffId;
use crate::tree::NodeKind;

/// The directory above each directory of a layer, and where it is there.
type Above = HashMap<u32, (u32, u32)>;

/// The ways up that were found.
#[derive(Debug, Default)]
pub(super) struct WaysUp(Mutex<HashMap<DiffId, Arc<Above>>>);

impl Superblock {
    /// The directory with a number that this process has not given out.
    pub(super) fn directory_again(&self, ino: InodeNo) -> Result<Arc<DirNode>, FsError> {
        let stale = || FsError::Stale(ino.0);
        let inherited = self.lasting.as_ref().is_some_and(|l| l.is_inherited());
        let number = inode::directory_no(ino).filter(|_| inherited);
        let number = number.ok_or_else(stale)?;
        let tree = self.trees.numbered(number.tree.0).ok_or_else(stale)?;
        if !self.trees.is_current(&tree) {
            return Err(stale());
        }
        let root = self
            .trees
            .adopt(&tree, tree.root_ino(), tree.root_ino(), None);
        if ino == tree.root_ino() {
            return Ok(root);
        }
        if tree.ino(number.layer, number.node) != ino {
            return Err(stale());
        }
        let (content, _) = self.opened(&root)?;
        let (at, parent) = self
            .place_again(&tree, &content, &number)?
            .ok_or_else(stale)?;
        Ok(self.trees.adopt(&tree, ino, parent, Some((content, at))))
    }

    /// Where the directory is, and the number of the one above.
    fn place_again(
        &self,
        tree: &Tree,
        content: &Content,
        number: &DirectoryNo,
    ) -> Result<Option<(At, InodeNo)>, FsError> {
        let (layer, node) = (number.layer, number.node);
        match content.open()? {
            Open::Image(image) => {
                let Some(file) = image.layers().get(usize::from(layer)) else {
                    return Ok(None);
                };
                let Some(path) = self.ways_up.path(&file.index, node)? else {
                    return Ok(None);
                };
                let found = |path: &[Vec<u8>]| image.resolve(&path.join(&b'/'));
                let above = path.split_last().map_or(&[][..], |(_, above)| above);
                match (found(&path)?, found(above)?) {
                    (Some(MergedEntry::Dir(dir)), Some(MergedEntry::Dir(above))) => {
                        let (at, above) = (At::Merged(dir), At::Merged(above));
                        // Another layer may be the topmost there: then it has another number.
                        let same = key(&at) == (layer, node);
                        Ok(same.then(|| (at, number_of(tree, &above))))
                    }
                    _ => Ok(None),
                }
            }
            Open::Layer(file, _) => {
                let Some(path) = self.ways_up.path(&file.index, node)? else {
                    return Ok(None);
                };
                let above = self.ways_up.above(&file.index)?;
                let above = above.get(&node.0).map_or(0, |(above, _)| *above);
                let path: Arc<[u8]> = path.join(&b'/').into();
                let parent = tree.ino(0, NodeNo(above));
                Ok(Some((At::Layer(node, path), parent)))
            }
        }
    }
}

fn number_of(tree: &Tree, at: &At) -> InodeNo {
    let (layer, node) = key(at);
    match at {
        At::Merged(dir) if dir.parts().iter().all(|part| part.node == NodeNo::ROOT) => {
            tree.root_ino()
        }
        _ => tree.ino(layer, node),
    }
}

impl WaysUp {
    /// The names on the way to a directory; `None` if the layer has none such.
    fn path(&self, index: &LayerIndex, dir: NodeNo) -> Result<Option<Vec<Vec<u8>>>, FsError> {
        let above = self.above(index)?;
        let (mut names, mut at) = (Vec::new(), dir);
        while at != NodeNo::ROOT {
            let Some((parent, position)) = above.get(&at.0) else {
                return Ok(None);
            };
            at = NodeNo(*parent);
            let position = usize::try_from(*position).unwrap_or(usize::MAX);
            let Some(entry) = index.entries(at)?.get(position)? else {
                return Ok(None);
            };
            names.push(entry.name.to_vec());
        }
        names.reverse();
        Ok(Some(names))
    }

    fn above(&self, index: &LayerIndex) -> Result<Arc<Above>, FsError> {
        if let Some(known) = self.0.lock().get(&index.diff_id()) {
            return Ok(known.clone());
        }
        let mut above = Above::new();
        let mut left = vec![NodeNo::ROOT];
        while let Some(dir) = left.pop() {
            for (position, entry) in index.entries(dir)?.iter().enumerate() {
                if let Some(Target::Node(node)) = entry?.target
                    && index.kind(node)? == NodeKind::Directory
                    && node != NodeNo::ROOT
                {
                    let position = u32::try_from(position).unwrap_or(u32::MAX);
                    // A damaged index that leads in a circle ends here.
                    if above.insert(node.0, (dir.0, position)).is_none() {
                        left.push(node);
                    }
                }
            }
        }
        let above = Arc::new(above);
        self.0.lock().insert(index.diff_id(), above.clone());
        Ok(above)
    }

    /// Lets go of layers that are not `stored` any more.
    pub(super) fn retain(&self, stored: &std::collections::BTreeSet<DiffId>) {
        self.0.lock().retain(|layer, _| stored.contains(layer));
    }
}
