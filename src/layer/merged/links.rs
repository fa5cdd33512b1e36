//! Hard links to files of the layers below.
//!
//! The target is looked up in the tree that the layers below the link's layer make, so it is what the writer of the
//! layer saw, whatever is stacked on top. Symbolic links on the way are followed inside that tree, as a chroot would;
//! the last component is not.

use super::{Found, Image, LayerPos, NodeRef};
use crate::layer::error::IndexError;
use crate::tree::NodeKind;

/// As many symbolic links as the kernel follows on one path.
const MAX_SYMLINKS: usize = 40;

impl Image {
    /// Checks that every hard link to a lower layer leads to a file there. Call it before an image becomes visible.
    pub fn verify_lower_links(&self) -> Result<(), IndexError> {
        for (at, layer) in self.layers().iter().enumerate() {
            let pos = u16::try_from(at).map_err(|_| IndexError::TooManyLayers(at))?;
            for link in layer.index.lower_links()? {
                let link = link?;
                self.follow_link(LayerPos(pos), link.target, 0)
                    .map_err(|error| match error {
                        IndexError::DanglingLink { target, .. } => IndexError::DanglingLink {
                            diff_id: layer.index.diff_id(),
                            path: link.path.into(),
                            target,
                        },
                        other => other,
                    })?;
            }
        }
        Ok(())
    }

    /// The file that a hard link of `layer` to `path` is.
    /// `depth` counts links that were met on the way to links.
    pub(super) fn follow_link(
        &self,
        layer: LayerPos,
        path: &[u8],
        depth: usize,
    ) -> Result<NodeRef, IndexError> {
        let dangling = || IndexError::DanglingLink {
            diff_id: self.layer(layer).index.diff_id(),
            path: Box::default(),
            target: path.into(),
        };
        let (mut below, mut path) = (layer, path);
        loop {
            // A link leads to strictly lower layers: this ends.
            match self.find_below(below, path, depth)? {
                Some(Found::Leaf(node)) => return Ok(node),
                Some(Found::Link(next, target)) if next < below => (below, path) = (next, target),
                _ => return Err(dangling()),
            }
        }
    }

    /// What `path` is in the tree of the layers below `layer`; `None`: the way there does not exist.
    fn find_below(
        &self,
        layer: LayerPos,
        path: &[u8],
        depth: usize,
    ) -> Result<Option<Found<'_>>, IndexError> {
        let root = self.root_parts(usize::from(layer.0))?;
        let mut dirs = vec![root.clone()];
        // Components still to go, the next one last.
        let mut todo: Vec<Box<[u8]>> = Vec::new();
        push_components(&mut todo, path);
        let mut symlinks = 0;
        while let Some(name) = todo.pop() {
            match &*name {
                b"." => continue,
                b".." => {
                    if dirs.len() > 1 {
                        dirs.pop();
                    }
                    continue;
                }
                _ => {}
            }
            let Some(dir) = dirs.last() else {
                return Ok(None);
            };
            let found = self.probe(dir, &name)?;
            if todo.is_empty() {
                return Ok(Some(found));
            }
            let node = match found {
                Found::Dir(parts, _) => {
                    dirs.push(parts);
                    continue;
                }
                // A hard link to a symbolic link, in strictly lower layers.
                Found::Link(next, target) if depth < MAX_SYMLINKS => {
                    self.follow_link(next, target, depth + 1)?
                }
                Found::Leaf(node) => node,
                _ => return Ok(None),
            };
            symlinks += 1;
            if symlinks > MAX_SYMLINKS || self.attributes(node)?.kind != NodeKind::Symlink {
                return Ok(None);
            }
            let target = self.symlink_target(node)?;
            if target.first() == Some(&b'/') {
                dirs = vec![root.clone()];
            }
            push_components(&mut todo, target);
        }
        Ok(None)
    }
}

fn push_components(todo: &mut Vec<Box<[u8]>>, path: &[u8]) {
    todo.extend(
        path.split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty())
            .rev()
            .map(Box::from),
    );
}
