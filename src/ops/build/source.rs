//! What COPY copies from: the context's directory, or the merged tree of a stage, an image, an archive. Paths are looked up
//! inside, symbolic links included.

use std::sync::Arc;

use super::BuildError;
use super::context::{Context, join};
use crate::layer::IndexError;
use crate::layer::merged::{Image, MergedEntry, NodeRef};
use crate::oci::dockerfile::pattern::Pattern;
use crate::tree::{Attributes, NodeKind};

/// As many symbolic links as the kernel follows on one path.
const MAX_LINKS: usize = 40;

/// A tree.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// A directory of the host.
    Context(Arc<Context>),
    /// Layers.
    Image(Arc<Image>),
}

/// A place in a tree. Only meaningful with the tree it came from.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// An entry of a context.
    Context(usize),
    /// An entry of a merged tree.
    Image(MergedEntry),
}

/// What two names of one file have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Identity {
    /// Device and inode.
    Host((u64, u64)),
    /// A node of a layer.
    Layer(NodeRef),
}

impl Source {
    /// Its root directory.
    pub(super) fn root(&self) -> Result<Place, BuildError> {
        Ok(match self {
            Source::Context(_) => Place::Context(0),
            Source::Image(image) => Place::Image(MergedEntry::Dir(image.root()?)),
        })
    }

    /// Everything `stat` tells of a place.
    pub(super) fn attributes(&self, place: &Place) -> Result<Attributes, BuildError> {
        Ok(match (self, place) {
            (Source::Context(context), Place::Context(number)) => match context.node(*number) {
                Some(node) => node.attributes,
                None => Attributes::IMPLICIT_DIRECTORY,
            },
            (Source::Image(image), Place::Image(MergedEntry::Dir(dir))) => {
                image.attributes_of_dir(dir)?
            }
            (Source::Image(image), Place::Image(MergedEntry::Leaf(node))) => {
                image.attributes(*node)?
            }
            _ => Attributes::IMPLICIT_DIRECTORY,
        })
    }

    /// The target of a symbolic link.
    pub(super) fn target(&self, place: &Place) -> Result<Vec<u8>, BuildError> {
        Ok(match (self, place) {
            (Source::Context(context), Place::Context(number)) => context
                .node(*number)
                .map_or_else(Vec::new, |node| node.target.to_vec()),
            (Source::Image(image), Place::Image(MergedEntry::Leaf(node))) => {
                image.symlink_target(*node)?.to_vec()
            }
            _ => Vec::new(),
        })
    }

    /// Which file it is, for what may have several names.
    pub(super) fn identity(&self, place: &Place) -> Option<Identity> {
        match (self, place) {
            (Source::Context(context), Place::Context(number)) => {
                context.node(*number).map(|node| Identity::Host(node.inode))
            }
            (_, Place::Image(MergedEntry::Leaf(node))) => Some(Identity::Layer(*node)),
            _ => None,
        }
    }

    /// What a directory holds, by name.
    pub(super) fn children(&self, place: &Place) -> Result<Vec<(Vec<u8>, Place)>, BuildError> {
        match (self, place) {
            (Source::Context(context), Place::Context(number)) => {
                let children = context.node(*number).map_or(&[][..], |node| &node.children);
                let child = |n: &usize| (context.name_of(*n).to_vec(), Place::Context(*n));
                Ok(children.iter().map(child).collect())
            }
            (Source::Image(image), Place::Image(MergedEntry::Dir(dir))) => {
                let list = image.list(dir)?;
                let child = |entry: Result<_, IndexError>| {
                    let entry: crate::layer::merged::ListEntry<'_> = entry?;
                    Ok((entry.name.to_vec(), Place::Image(entry.entry)))
                };
                list.iter().map(child).collect()
            }
            _ => Ok(Vec::new()),
        }
    }

    /// The entry `name` of a directory.
    pub(super) fn child(&self, place: &Place, name: &[u8]) -> Result<Option<Place>, BuildError> {
        Ok(match (self, place) {
            (Source::Context(context), Place::Context(number)) => {
                context.child(*number, name).map(Place::Context)
            }
            (Source::Image(image), Place::Image(MergedEntry::Dir(dir))) => {
                image.lookup(dir, name)?.map(Place::Image)
            }
            _ => None,
        })
    }

    /// What is at `path` with all symbolic links followed inside the tree, and where that really is.
    pub(super) fn find(&self, path: &[u8]) -> Result<Option<(Vec<u8>, Place)>, BuildError> {
        Ok(match self.resolve(path)? {
            Resolved {
                path,
                place: Some(place),
                missing,
            } if missing.is_empty() => Some((path, place)),
            _ => None,
        })
    }

    /// Follows `path` as far as it goes; `..` does not lead out.
    pub(super) fn resolve(&self, path: &[u8]) -> Result<Resolved, BuildError> {
        let mut way: Vec<(Vec<u8>, Place)> = vec![(Vec::new(), self.root()?)];
        let mut todo: Vec<Vec<u8>> = Vec::new();
        let mut missing: Vec<Vec<u8>> = Vec::new();
        push(&mut todo, path);
        let mut links = 0;
        while let Some(name) = todo.pop() {
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    if missing.pop().is_none() && way.len() > 1 {
                        way.pop();
                    }
                    continue;
                }
                _ => {}
            }
            let Some((here, place)) = way.last().filter(|_| missing.is_empty()) else {
                missing.push(name);
                continue;
            };
            let Some(child) = self.child(place, &name)? else {
                missing.push(name);
                continue;
            };
            if self.attributes(&child)?.kind != NodeKind::Symlink {
                way.push((join(here, &name), child));
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(BuildError::Failed(format!(
                    "too many levels of symbolic links: /{}",
                    path.escape_ascii()
                )));
            }
            let target = self.target(&child)?;
            if target.starts_with(b"/") {
                way.truncate(1);
            }
            push(&mut todo, &target);
        }
        let (path, place) = way
            .pop()
            .map_or((Vec::new(), None), |(path, place)| (path, Some(place)));
        Ok(Resolved {
            path,
            place,
            missing,
        })
    }

    /// The places that a pattern of `filepath.Match` means, sorted, each with its path as found. Links on the way are followed.
    pub(super) fn glob(&self, pattern: &[u8]) -> Result<Vec<(Vec<u8>, Place)>, BuildError> {
        let mut found = vec![(Vec::new(), self.root()?)];
        for part in pattern
            .split(|byte| *byte == b'/')
            .filter(|part| !part.is_empty())
        {
            let matcher = match Pattern::is_pattern(part) {
                true => Some(Pattern::new(part).map_err(|_| {
                    let text = String::from_utf8_lossy(pattern);
                    BuildError::Failed(format!("syntax error in pattern: {text:?}"))
                })?),
                false => None,
            };
            let mut next = Vec::new();
            for (path, _) in &found {
                let Some((_, place)) = self.find(path)? else {
                    continue;
                };
                match &matcher {
                    None => {
                        if let Some(child) = self.child(&place, part)? {
                            next.push((join(path, part), child));
                        }
                    }
                    Some(matcher) => {
                        let children = self.children(&place)?.into_iter();
                        let children = children.filter(|(name, _)| matcher.matches(name));
                        next.extend(children.map(|(name, child)| (join(path, &name), child)));
                    }
                }
            }
            found = next;
        }
        Ok(found)
    }
}

/// How far a path goes.
#[derive(Debug, Clone)]
pub(super) struct Resolved {
    /// Where it really is, without leading slash: as far as it exists.
    pub path: Vec<u8>,
    /// What is there.
    pub place: Option<Place>,
    /// The components that do not exist.
    pub missing: Vec<Vec<u8>>,
}

fn push(todo: &mut Vec<Vec<u8>>, path: &[u8]) {
    todo.extend(path.rsplit(|byte| *byte == b'/').map(<[u8]>::to_vec));
}
