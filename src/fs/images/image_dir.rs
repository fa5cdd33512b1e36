//! Inside a tree: the merged directories of an image, or one layer alone.
//!
//! Everything here is immutable, so the kernel may keep every answer, "not there" included. The one exception is the root
//! directory's attributes, which carry facts about the tag. A layer alone is shown the way overlayfs stores it: a whiteout is
//! a character device 0:0, an opaque directory has `overlay.opaque` attributes, a directory that it does not describe looks as
//! below it.

mod leaf;
mod listing;
mod shifted;
mod xattr;

pub(super) use listing::dots;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::Superblock;
use super::attr;
use super::inode;
use super::open_layers::Slot;
use super::places::{Place, Subject};
use super::trees::{self, At, Content, DirNode, Open, Tree};
use crate::fs::api::{
    AttrReply, Caller, EntryReply, FileAttr, FileKind, FsError, InodeNo, Lookup, Ttl,
};
use crate::layer::merged::{Image, MergedDir, MergedEntry};
use crate::layer::{Entry, LayerFile, NodeNo, Target};
use crate::oci::DiffId;
use crate::tree::{Attributes, NAME_MAX, NodeKind};

/// How long after a removal a process may still be on its way in by a name that the kernel had.
const ENTERING: Duration = Duration::from_secs(2);

/// What a name in a tree is.
enum Child {
    Dir(At),
    Leaf(usize, NodeNo),
    /// A leaf of a layer that is not part of this content: where a hard link of a layer alone leads.
    Foreign(Arc<Slot>, NodeNo),
    Whiteout,
}

impl Superblock {
    /// The directory's content and its place there, opening the layers if need be.
    pub(super) fn opened(&self, dir: &DirNode) -> Result<(Arc<Content>, At), FsError> {
        let opened = self.trees.opened(dir, |subject| match subject {
            Subject::Layer(layer) | Subject::Chained(_, layer) => {
                trees::open_layer(&self.slots, layer)
            }
            Subject::Chain(_, layers) => trees::open_image(&self.slots, layers),
            subject => {
                let view = self.view();
                let image = subject.image().and_then(|id| view.names.images.get(&id));
                trees::open_image(&self.slots, &image.ok_or(FsError::NotFound)?.layers)
            }
        });
        // A removal that has overtaken this request leaves no layers; that is no damage.
        match opened {
            Err(FsError::Corrupt { .. }) if self.is_gone(&dir.tree.subject()) => {
                Err(FsError::NotFound)
            }
            opened => opened,
        }
    }

    /// Whether the store has no such image or layer any more, whatever this mount still shows.
    pub(super) fn is_gone(&self, subject: &Subject) -> bool {
        let Ok(names) = self.store.names() else {
            return false;
        };
        match subject {
            Subject::Layer(layer) | Subject::Chained(_, layer) => !names.layers().contains(layer),
            Subject::Chain(_, layers) => {
                let here = names.layers();
                !layers.iter().all(|layer| here.contains(layer))
            }
            subject => subject
                .image()
                .is_some_and(|id| !names.images.contains_key(&id)),
        }
    }

    pub(super) fn tree_lookup(&self, dir: &DirNode, name: &[u8]) -> Result<Lookup, FsError> {
        if name.len() > NAME_MAX {
            return Err(FsError::NameTooLong);
        }
        let (content, at) = self.opened(dir)?;
        match self.child(&content, &at, name)? {
            Some(child) => {
                let attr = self.attr_of_child(dir, &content, &child)?;
                self.refer_child(dir, &content, child)?;
                Ok(Lookup::Found(forever(attr)))
            }
            None => Ok(Lookup::Absent(Ttl::Forever)),
        }
    }

    fn child(&self, content: &Content, at: &At, name: &[u8]) -> Result<Option<Child>, FsError> {
        match (content.open()?, at) {
            (Open::Image(image), At::Merged(merged)) => {
                Ok(image.lookup(merged, name)?.map(child_of_image))
            }
            (Open::Layer(file, _), At::Layer(node, path)) => match file.index.find(*node, name)? {
                Some(entry) => self.child_of_layer(content, path, &entry),
                None => Ok(None),
            },
            _ => Err(FsError::NotFound),
        }
    }

    /// The inode number of `name`, without a reference.
    pub(super) fn staged_child(
        &self,
        dir: &DirNode,
        name: &[u8],
    ) -> Result<Option<InodeNo>, FsError> {
        let (content, at) = self.opened(dir)?;
        match self.child(&content, &at, name)? {
            Some(child) => Ok(Some(self.attr_of_child(dir, &content, &child)?.ino)),
            None => Ok(None),
        }
    }

    fn child_of_layer(
        &self,
        content: &Content,
        parent: &[u8],
        entry: &Entry<'_>,
    ) -> Result<Option<Child>, FsError> {
        let Open::Layer(file, below) = content.open()? else {
            return Ok(None);
        };
        match entry.target {
            None => Ok(Some(Child::Whiteout)),
            Some(Target::Node(node)) => Ok(Some(match file.index.kind(node)? {
                NodeKind::Directory => {
                    let path = match parent {
                        b"" => entry.name.into(),
                        parent => [parent, b"/", entry.name].concat().into(),
                    };
                    Child::Dir(At::Layer(node, path))
                }
                _ => Child::Leaf(0, node),
            })),
            Some(Target::LowerLink(path)) => {
                let Some(image) = self.below(file, below) else {
                    return Ok(None);
                };
                match image.resolve(path)? {
                    Some(MergedEntry::Leaf(found)) => {
                        let layer = image.layer(found.layer).index.diff_id();
                        Ok(Some(Child::Foreign(self.slots.of(&layer), found.node)))
                    }
                    _ => Ok(None),
                }
            }
        }
    }

    fn below<'c>(
        &self,
        file: &LayerFile,
        below: &'c OnceLock<Option<Arc<Content>>>,
    ) -> Option<&'c Image> {
        let content = below.get_or_init(|| self.content_below(&file.index.diff_id()));
        match content.as_ref()?.open() {
            Ok(Open::Image(image)) => Some(image),
            _ => None,
        }
    }

    /// The part that describes a directory of a tree: a layer and a node of it. `None`: nothing does.
    fn described(
        &self,
        content: &Content,
        at: &At,
    ) -> Result<Option<(Arc<LayerFile>, NodeNo)>, FsError> {
        let of_image = |image: &Image, dir: &MergedDir| -> Result<_, FsError> {
            let part = image.described_part(dir)?;
            Ok(part.map(|part| (image.layer(part.layer).clone(), part.node)))
        };
        match (content.open()?, at) {
            (Open::Image(image), At::Merged(dir)) => of_image(image, dir),
            (Open::Layer(file, below), At::Layer(node, path)) => {
                if !file.index.is_implicit(*node)? {
                    return Ok(Some((file.clone(), *node)));
                }
                let Some(image) = self.below(file, below) else {
                    return Ok(None);
                };
                match image.resolve(path)? {
                    Some(MergedEntry::Dir(dir)) => of_image(image, &dir),
                    _ => Ok(None),
                }
            }
            _ => Err(FsError::NotFound),
        }
    }

    fn attributes_of_dir(&self, content: &Content, at: &At) -> Result<Attributes, FsError> {
        match self.described(content, at)? {
            Some((layer, node)) => Ok(layer.index.attributes(node)?),
            None => Ok(Attributes::IMPLICIT_DIRECTORY),
        }
    }

    /// The layers below `layer` in some image that has it.
    fn content_below(&self, layer: &DiffId) -> Option<Arc<Content>> {
        let view = self.view();
        let below = view.names.images.values().find_map(|image| {
            let at = image.layers.iter().position(|l| l == layer)?;
            image.layers.get(..at)
        })?;
        let opened = trees::open_image(&self.slots, below);
        opened
            .inspect_err(|error| log::error!("the layers below {layer}: {error}"))
            .ok()
    }

    /// Gives the kernel one reference to `child`.
    fn refer_child(
        &self,
        dir: &DirNode,
        content: &Arc<Content>,
        child: Child,
    ) -> Result<(), FsError> {
        match child {
            Child::Dir(at) => {
                self.trees.refer_dir(dir, content, at);
            }
            Child::Leaf(layer, _) => slot_at(content, layer)?.refer(),
            Child::Foreign(slot, _) => slot.refer(),
            Child::Whiteout => {
                self.nodes.refer(Place::Whiteout);
            }
        }
        Ok(())
    }

    fn attr_of_child(
        &self,
        dir: &DirNode,
        content: &Content,
        child: &Child,
    ) -> Result<FileAttr, FsError> {
        match child {
            Child::Dir(at) => {
                let (layer, node) = trees::key(at);
                Ok(attr::of_directory(
                    dir.tree.ino(layer, node),
                    &self.attributes_of_dir(content, at)?,
                ))
            }
            Child::Leaf(layer, node) => {
                let ino = inode::leaf(slot_at(content, *layer)?.no, *node);
                let attributes = match content.open()? {
                    Open::Image(image) => {
                        let layer = image.layers().get(*layer).ok_or(FsError::NotFound)?;
                        layer.index.attributes(*node)?
                    }
                    Open::Layer(file, _) => file.index.attributes(*node)?,
                };
                Ok(attr::of_leaf(ino, &attributes))
            }
            Child::Foreign(slot, node) => {
                let attributes = self.slots.open(slot)?.index.attributes(*node)?;
                Ok(attr::of_leaf(inode::leaf(slot.no, *node), &attributes))
            }
            Child::Whiteout => Ok(self.whiteout_attr()),
        }
    }

    /// Every whiteout: a character device 0:0 without permissions.
    pub(super) fn whiteout_attr(&self) -> FileAttr {
        let ino = self.known_ino(&Place::Whiteout);
        attr::own(
            ino,
            FileKind::CharDevice,
            0,
            (0, 0),
            0,
            crate::fs::api::Timestamp::default(),
        )
    }

    /// As [`Superblock::tree_attr`], for somebody who may be about to enter.
    pub(super) fn attr_asked(&self, caller: &Caller, dir: &DirNode) -> Result<AttrReply, FsError> {
        let mut reply = self.tree_attr(dir)?;
        if dir.is_root() && self.stages.note_asking(dir.ino, caller.pid) {
            reply.ttl = Ttl::Zero;
        }
        Ok(reply)
    }

    pub(super) fn tree_attr(&self, dir: &DirNode) -> Result<AttrReply, FsError> {
        let attr = match dir.is_root() {
            true => {
                // A removal is under way: what comes of it is the answer. Who has asked in order to enter, by a name that the kernel
                // still had, must not: there it is dead.
                let removed = *dir.tree.settled.read();
                if removed.is_some_and(|at| at.elapsed() < ENTERING) {
                    return Err(FsError::NotFound);
                }
                self.root_attr_if_there(&dir.tree)?
            }
            false => {
                let (content, at) = self.opened(dir)?;
                attr::of_directory(dir.ino, &self.attributes_of_dir(&content, &at)?)
            }
        };
        let is_fact = dir.is_root() && dir.tree.subject().image().is_some();
        Ok(AttrReply {
            attr,
            ttl: if is_fact { Ttl::Hour } else { Ttl::Forever },
        })
    }

    /// The reply for the root directory of a subject, with a reference.
    pub(super) fn enter_root(&self, subject: &Subject) -> Result<EntryReply, FsError> {
        let tree = self.tree(subject)?;
        let attr = self.root_attr_if_there(&tree)?;
        self.trees.refer_root(&tree);
        // Nobody's number: whoever looks it up may be about to enter.
        let staged = self.stages.note_asking(tree.root_ino(), 0);
        Ok(match subject.image() {
            // So that its use is noticed, see `used`.
            Some(_) => EntryReply {
                attr,
                entry_ttl: Ttl::Hour,
                attr_ttl: if staged { Ttl::Zero } else { Ttl::Hour },
            },
            None => forever(attr),
        })
    }

    /// As [`Superblock::root_attr`]; a removal that has overtaken the request is no damage.
    fn root_attr_if_there(&self, tree: &Tree) -> Result<FileAttr, FsError> {
        match self.root_attr(tree) {
            Err(FsError::Corrupt { .. }) if self.is_gone(&tree.subject()) => Err(FsError::NotFound),
            found => found,
        }
    }

    /// Attributes of a root directory: mode and owner are the image's; times and size are facts about it.
    pub(super) fn root_attr(&self, tree: &Tree) -> Result<FileAttr, FsError> {
        let view = self.view();
        let ino = tree.root_ino();
        let subject = tree.subject();
        let image = match &subject {
            Subject::Layer(layer) | Subject::Chained(_, layer) => {
                let content = trees::open_layer(&self.slots, layer)?;
                let at = At::Layer(NodeNo(0), Arc::default());
                return Ok(attr::of_directory(
                    ino,
                    &self.attributes_of_dir(&content, &at)?,
                ));
            }
            Subject::Chain(_, layers) => {
                let attributes = self.attributes_of_roots(layers);
                return Ok(attr::of_directory(ino, &attributes?));
            }
            subject => subject.image().and_then(|id| view.names.images.get(&id)),
        };
        // Removed, but the kernel still knows it: somebody's working directory.
        let Some(image) = image else {
            return Ok(attr::of_directory(ino, &Attributes::IMPLICIT_DIRECTORY));
        };
        let attributes = self.attributes_of_root(image);
        let tagged = match &subject {
            Subject::Tag(tag, _) => view.names.tags.get(tag).map(|record| record.tagged),
            _ => None,
        };
        let mtime = image.created.map(Into::into).unwrap_or_default();
        Ok(FileAttr {
            size: image.size,
            mtime,
            atime: self.store.last_used(image).into(),
            ctime: tagged.unwrap_or(image.added).into(),
            ..attr::of_directory(ino, &attributes)
        })
    }

    /// Attributes of an image's root directory, without keeping its layers open. A damaged index must not keep anybody from
    /// seeing and removing the tag: then the attributes of a directory that no layer describes.
    fn attributes_of_root(&self, image: &crate::store::ImageRecord) -> Attributes {
        if let Some(known) = self.roots.lock().get(&image.id) {
            return *known;
        }
        match self.attributes_of_roots(&image.layers) {
            Ok(found) => {
                self.roots.lock().insert(image.id, found);
                found
            }
            Err(error) => {
                log::error!("root directory of image {}: {error}", image.id);
                Attributes::IMPLICIT_DIRECTORY
            }
        }
    }

    /// Attributes of the root directory that layers make together: those of the topmost that describes it.
    fn attributes_of_roots(&self, layers: &[DiffId]) -> Result<Attributes, FsError> {
        for layer in layers.iter().rev() {
            let index = self.store.layer_index(layer)?;
            if !index.is_implicit(NodeNo(0))? {
                return Ok(index.attributes(NodeNo(0))?);
            }
        }
        Ok(Attributes::IMPLICIT_DIRECTORY)
    }
}

fn forever(attr: FileAttr) -> EntryReply {
    EntryReply {
        attr,
        entry_ttl: Ttl::Forever,
        attr_ttl: Ttl::Forever,
    }
}

fn child_of_image(entry: MergedEntry) -> Child {
    match entry {
        MergedEntry::Dir(dir) => Child::Dir(At::Merged(dir)),
        MergedEntry::Leaf(leaf) => Child::Leaf(usize::from(leaf.layer.0), leaf.node),
    }
}

fn slot_at(content: &Content, layer: usize) -> Result<&Arc<Slot>, FsError> {
    content.slots.get(layer).ok_or(FsError::NotFound)
}
