//! COPY and ADD: from sources and a destination to the entries of a layer.
//!
//! The layer is written straight as a tar, without a container. Where its entries go is looked up in the merged tree of the
//! stage: a symbolic link on the way to the destination is followed inside that tree, and nowhere else.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;

use super::BuildError;
use super::context::{Context, join};
use super::source::{Identity, Place, Resolved, Source};
use crate::layer::merged::{Image, MergedEntry, NodeRef};
use crate::oci::dockerfile::ignore::Ignore;
use crate::tree::{Attributes, NodeKind};

/// Entries that one step may make.
const MAX_ITEMS: usize = 10_000_000;

/// One entry of the layer to be.
#[derive(Debug)]
pub(super) struct Item {
    /// Where, without leading slash.
    pub path: Vec<u8>,
    /// Everything `stat` tells.
    pub attributes: Attributes,
    /// What it holds.
    pub content: Content,
    /// Known after [`super::digest::fill`].
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Another name of this earlier item.
    pub link: Option<usize>,
}

/// What an entry holds.
#[derive(Debug)]
pub(super) enum Content {
    /// Nothing that would have to be read.
    Nothing,
    /// The target of a symbolic link.
    Target(Vec<u8>),
    /// An entry of a context.
    Context(Arc<Context>, usize),
    /// A node of a layer.
    Layer(Arc<Image>, NodeRef),
    /// A text of the Dockerfile.
    Bytes(Vec<u8>),
    /// A file that was downloaded.
    File(File),
}

/// How a step copies.
#[derive(Debug, Clone, Default)]
pub(super) struct How {
    /// Owner and group; `None`: as in the source.
    pub owner: Option<(u32, u32)>,
    /// Permission bits; `None`: as in the source.
    pub mode: Option<u32>,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`.
    pub exclude: Ignore,
    /// The time of directories that are made on the way, in seconds.
    pub now: i64,
    /// No time is behind this one.
    pub latest: Option<i64>,
}

/// The entries of one layer while they are put together.
#[derive(Debug)]
pub(super) struct Copying<'a> {
    stage: &'a Source,
    how: &'a How,
    /// In the order they are written.
    pub items: Vec<Item>,
    names: HashMap<Identity, usize>,
    /// Directories that this layer makes.
    made: HashMap<Vec<u8>, ()>,
}

/// A place in the layer: its path, and what the stage has there.
type Target = (Vec<u8>, Option<Place>);

impl<'a> Copying<'a> {
    /// A layer on top of `stage`.
    pub(super) fn new(stage: &'a Source, how: &'a How) -> Copying<'a> {
        Copying {
            stage,
            how,
            items: Vec::new(),
            names: HashMap::new(),
            made: HashMap::new(),
        }
    }

    /// Copies what is at `place` of `source`, found at `path`, to `destination`. `into`: that is a directory, or will be one.
    pub(super) fn add(
        &mut self,
        source: &Source,
        (path, place): &(Vec<u8>, Place),
        destination: &[u8],
        into: bool,
    ) -> Result<(), BuildError> {
        let directory = source.attributes(place)?.kind == NodeKind::Directory;
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        if self.how.parents {
            return self.add_with_parents(source, path, place, destination);
        }
        let wanted = match directory || !into {
            true => destination.to_vec(),
            false => join(destination, name),
        };
        let target = self.open(&wanted)?;
        match directory {
            true => self.tree(source, place, target, true),
            false => self.leaf(source, place, target),
        }
    }

    /// Puts a file with this content at `destination`, or below it under `name`.
    pub(super) fn add_file(
        &mut self,
        name: &str,
        attributes: Attributes,
        content: Content,
        destination: &[u8],
        into: bool,
    ) -> Result<(), BuildError> {
        let wanted = match into {
            true => join(destination, name.as_bytes()),
            false => destination.to_vec(),
        };
        let target = self.open(&wanted)?;
        self.put(target, attributes, content, None)
    }

    /// Makes a directory and its parents; whether there was something to make.
    pub(super) fn add_directory(&mut self, path: &[u8]) -> Result<bool, BuildError> {
        let (path, there) = self.open(path)?;
        match there {
            Some(place) if self.is_directory(&place)? => Ok(false),
            Some(_) => Err(not_a_directory(&path)),
            None => {
                self.make(path);
                Ok(true)
            }
        }
    }

    /// The path of `dest` below the destination, with the directories above it as they are in the source.
    fn add_with_parents(
        &mut self,
        source: &Source,
        path: &[u8],
        place: &Place,
        destination: &[u8],
    ) -> Result<(), BuildError> {
        // What stands before `/./` is not repeated.
        let pivot = path.windows(3).position(|part| part == b"/./");
        let (dropped, kept) = match pivot {
            Some(at) => path.split_at(at + 3),
            None => (&b""[..], path),
        };
        let mut way = dropped.to_vec();
        let mut wanted = destination.to_vec();
        let parts: Vec<&[u8]> = kept.split(|byte| *byte == b'/').collect();
        let Some((last, above)) = parts.split_last() else {
            return Ok(());
        };
        for part in above.iter().filter(|part| !part.is_empty()) {
            way = join(&way, part);
            wanted = join(&wanted, part);
            let target = self.open(&wanted)?;
            if target.1.is_none()
                && !self.made.contains_key(&target.0)
                && let Some((_, parent)) = source.find(&way)?
            {
                let attributes = source.attributes(&parent)?;
                let content = self.content(source, &parent, &attributes)?;
                self.put(target, attributes, content, None)?;
            }
        }
        let target = self.open(&join(&wanted, last))?;
        match source.attributes(place)?.kind {
            NodeKind::Directory => self.tree(source, place, target, true),
            _ => self.leaf(source, place, target),
        }
    }

    /// Where `path` really is in the stage; directories that are missing above it are made.
    fn open(&mut self, path: &[u8]) -> Result<Target, BuildError> {
        let Resolved {
            mut path,
            place,
            missing,
        } = self.stage.resolve(path)?;
        if missing.is_empty() {
            return Ok((path, place));
        }
        if let Some(place) = &place
            && !self.is_directory(place)?
        {
            return Err(not_a_directory(&path));
        }
        let Some((last, above)) = missing.split_last() else {
            return Ok((path, place));
        };
        for name in above {
            path = join(&path, name);
            if !self.made.contains_key(&path) {
                self.make(path.clone());
            }
        }
        Ok((join(&path, last), None))
    }

    fn is_directory(&self, place: &Place) -> Result<bool, BuildError> {
        Ok(self.stage.attributes(place)?.kind == NodeKind::Directory)
    }

    fn make(&mut self, path: Vec<u8>) {
        let (uid, gid) = self.how.owner.unwrap_or((0, 0));
        self.made.insert(path.clone(), ());
        self.items.push(Item {
            path,
            attributes: Attributes {
                uid,
                gid,
                mtime_sec: self.how.now,
                ..Attributes::IMPLICIT_DIRECTORY
            },
            content: Content::Nothing,
            xattrs: Vec::new(),
            link: None,
        });
    }

    /// Copies what a directory holds; of a directory that is there already the first keeps its attributes.
    fn tree(
        &mut self,
        source: &Source,
        place: &Place,
        target: Target,
        top: bool,
    ) -> Result<(), BuildError> {
        let root = (
            place.clone(),
            Vec::new(),
            target,
            top,
            self.how.exclude.root(),
        );
        let mut todo = vec![root];
        while let Some((place, relative, target, top, above)) = todo.pop() {
            let Some(target) = self.directory(source, &place, target, top)? else {
                continue;
            };
            let mut children = source.children(&place)?;
            children.reverse();
            for (name, child) in children {
                let below = join(&relative, &name);
                let (left_out, matched) = match self.how.exclude.is_empty() {
                    true => (false, above.clone()),
                    false => self.how.exclude.look(&below, &above),
                };
                let directory = source.attributes(&child)?.kind == NodeKind::Directory;
                if left_out && !(directory && self.how.exclude.may_take_in_below(&below)) {
                    continue;
                }
                let there = match &target.1 {
                    Some(there) => self.stage.child(there, &name)?,
                    None => None,
                };
                let target = (join(&target.0, &name), there);
                match directory {
                    true => todo.push((child, below, target, false, matched)),
                    false => self.leaf(source, &child, target)?,
                }
            }
        }
        Ok(())
    }

    /// Enters a directory of the target, made if it is not there.
    fn directory(
        &mut self,
        source: &Source,
        place: &Place,
        (path, there): Target,
        top: bool,
    ) -> Result<Option<Target>, BuildError> {
        let attributes = source.attributes(place)?;
        let Some(there) = there else {
            if !self.made.contains_key(&path) {
                let content = self.content(source, place, &attributes)?;
                self.put((path.clone(), None), attributes, content, None)?;
            }
            return Ok(Some((path, None)));
        };
        match self.stage.attributes(&there)?.kind {
            NodeKind::Directory => {
                if !top && !path.is_empty() {
                    let content = self.content(source, place, &attributes)?;
                    self.put(
                        (path.clone(), Some(there.clone())),
                        attributes,
                        content,
                        None,
                    )?;
                }
                Ok(Some((path, Some(there))))
            }
            // A link to a directory stays one; what is copied goes where it leads, inside.
            NodeKind::Symlink => match self.stage.find(&path)? {
                Some((path, there)) if self.is_directory(&there)? => Ok(Some((path, Some(there)))),
                _ => Err(not_a_directory(&path)),
            },
            _ => Err(not_a_directory(&path)),
        }
    }

    /// Copies anything but a directory.
    fn leaf(&mut self, source: &Source, place: &Place, target: Target) -> Result<(), BuildError> {
        let attributes = source.attributes(place)?;
        if let (Source::Context(context), Place::Context(number)) = (source, place)
            && context.node(*number).is_some_and(|node| node.special)
        {
            let what = match attributes.kind {
                NodeKind::Fifo => "a named pipe",
                _ => "a device",
            };
            let path = String::from_utf8_lossy(&context.path_of(*number)).into_owned();
            return Err(BuildError::Failed(format!(
                "COPY failed: {path:?} is {what}: only files, directories and symbolic links are copied from a context (.dockerignore leaves it out)"
            )));
        }
        let mut first = None;
        if attributes.nlink > 1
            && attributes.kind != NodeKind::Directory
            && let Some(identity) = source.identity(place)
        {
            first = self.names.get(&identity).copied();
            if first.is_none() {
                self.names.insert(identity, self.items.len());
            }
        }
        let content = match first {
            Some(_) => Content::Nothing,
            None => self.content(source, place, &attributes)?,
        };
        self.put(target, attributes, content, first)
    }

    fn content(
        &self,
        source: &Source,
        place: &Place,
        attributes: &Attributes,
    ) -> Result<Content, BuildError> {
        Ok(match (source, place) {
            _ if attributes.kind == NodeKind::Symlink => Content::Target(source.target(place)?),
            (Source::Context(context), Place::Context(number)) => {
                Content::Context(Arc::clone(context), *number)
            }
            (Source::Image(image), Place::Image(MergedEntry::Leaf(node))) => {
                Content::Layer(Arc::clone(image), *node)
            }
            (Source::Image(image), Place::Image(MergedEntry::Dir(dir))) => {
                match image.described_part(dir)? {
                    Some(node) => Content::Layer(Arc::clone(image), node),
                    None => Content::Nothing,
                }
            }
            _ => Content::Nothing,
        })
    }

    fn put(
        &mut self,
        (path, there): Target,
        mut attributes: Attributes,
        content: Content,
        link: Option<usize>,
    ) -> Result<(), BuildError> {
        if attributes.kind != NodeKind::Directory
            && let Some(there) = &there
            && self.is_directory(there)?
        {
            return Err(BuildError::Failed(format!(
                "cannot replace to directory /{} with file",
                path.escape_ascii()
            )));
        }
        if self.items.len() >= MAX_ITEMS {
            return Err(BuildError::Failed(format!(
                "more than {MAX_ITEMS} files to copy"
            )));
        }
        if let Some((uid, gid)) = self.how.owner {
            (attributes.uid, attributes.gid) = (uid, gid);
        }
        if let Some(mode) = self.how.mode
            && attributes.kind != NodeKind::Symlink
        {
            attributes.mode = mode;
        }
        if let Some(latest) = self.how.latest
            && attributes.mtime_sec >= latest
        {
            (attributes.mtime_sec, attributes.mtime_nsec) = (latest, 0);
        }
        if attributes.kind == NodeKind::Directory {
            self.made.insert(path.clone(), ());
        }
        self.items.push(Item {
            path,
            attributes,
            content,
            xattrs: Vec::new(),
            link,
        });
        Ok(())
    }
}

fn not_a_directory(path: &[u8]) -> BuildError {
    BuildError::Failed(format!(
        "cannot copy to non-directory: /{}",
        path.escape_ascii()
    ))
}
