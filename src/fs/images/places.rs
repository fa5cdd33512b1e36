//! What nodes and trees are of: names for them that outlive any table.

mod store;

use std::sync::Arc;

pub(super) use store::{Data, StorePlace};

use crate::oci::{ChainId, DiffId, Digest, ImageId, TagRef};
use crate::store::Numbered;

/// What a node of the tree's own is.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) enum Place {
    Root,
    /// Directory of `images/`, by its path there; `""` is `images/` itself.
    Repo(Box<str>),
    Dangling,
    ById,
    Layers,
    /// `layers/<hex>`.
    Layer(DiffId),
    Info,
    /// As `Repo`, below `info/images`.
    InfoRepo(Box<str>),
    /// `info/images/<repository>/<tag>`: of this image only, a tag that moves gets another node.
    InfoTag(TagRef, ImageId),
    InfoVolumes,
    Volumes,
    /// Where the stores of engines are mounted.
    Stores,
    /// In the tree of the stores.
    Store(StorePlace),
    File(InfoFile),
    /// A symlink, by its target.
    Link(Box<[u8]>),
    /// Every whiteout of every layer.
    Whiteout,
}

/// A regular file of ours.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) enum InfoFile {
    Df,
    Events,
    Version,
    /// `info/images/<repository>/<tag>/<file>`
    Tag(TagRef, ImageId, TagFile),
    /// `layers/<hex>/<file>`
    Layer(DiffId, LayerFileName),
}

/// The files about a tag.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum TagFile {
    Id,
    Digest,
    Config,
    Manifest,
    Inspect,
    History,
    Layers,
    Size,
    Users,
}

impl TagFile {
    pub(super) const ALL: [(&'static str, TagFile); 9] = [
        ("config.json", TagFile::Config),
        ("digest", TagFile::Digest),
        ("history", TagFile::History),
        ("id", TagFile::Id),
        ("inspect.json", TagFile::Inspect),
        ("layers", TagFile::Layers),
        ("manifest.json", TagFile::Manifest),
        ("size", TagFile::Size),
        ("users", TagFile::Users),
    ];
}

/// The files beside a layer's `diff`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum LayerFileName {
    Info,
    Tar,
    Users,
}

impl LayerFileName {
    pub(super) const ALL: [(&'static str, LayerFileName); 3] = [
        ("info.json", LayerFileName::Info),
        ("tar", LayerFileName::Tar),
        ("users", LayerFileName::Users),
    ];
}

/// What a tree is of.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) enum Subject {
    Tag(TagRef, ImageId),
    ById(ImageId),
    Dangling(ImageId),
    Layer(DiffId),
    /// A layer below its parents, in the store of an engine: by the id it has there.
    Chained(Digest, DiffId),
    /// What a layer and its parents make together: their chain, and the layers, bottom first.
    Chain(ChainId, Arc<[DiffId]>),
}

impl Subject {
    /// What the store has its number under.
    pub(super) fn numbered(&self) -> Numbered {
        match self {
            Subject::Tag(tag, id) => Numbered::Tag(tag.clone(), *id),
            Subject::ById(id) => Numbered::ById(*id),
            Subject::Dangling(id) => Numbered::Dangling(*id),
            Subject::Layer(layer) => Numbered::LayerTree(*layer),
            Subject::Chained(id, layer) => Numbered::Chained(*id, *layer),
            Subject::Chain(id, _) => Numbered::Chain(*id),
        }
    }

    /// The image, unless it is of layers.
    pub(super) fn image(&self) -> Option<ImageId> {
        match self {
            Subject::Tag(_, id) | Subject::ById(id) | Subject::Dangling(id) => Some(*id),
            Subject::Layer(_) | Subject::Chained(..) | Subject::Chain(..) => None,
        }
    }
}
