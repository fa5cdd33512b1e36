//! The places of the store.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::oci::{DiffId, Digest, ImageId};

/// A node of the store. A layer goes by the id that containers/storage gives it ([`layer_id`](crate::ops::engines::layer_id)).
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(in crate::fs::images) enum StorePlace {
    /// `containers`, the store's root.
    Containers,
    /// `chains`, the trees of layers with their parents: by chain ID, as containerd names them.
    Chains,
    /// `overlay-images`
    Images,
    ImagesJson,
    ImagesLock,
    /// `overlay-images/<id>`
    Image(ImageId),
    /// Below it, with the digest of its bytes: the manifest that is shown of an image may become another.
    Data(ImageId, Data, Digest),
    /// `overlay-layers`
    Layers,
    LayersJson,
    LayersLock,
    TarSplit(Digest, DiffId),
    /// `overlay`
    Overlay,
    /// `overlay/<id>`
    Layer(Digest, DiffId),
    Link(Digest),
    Lower(Digest),
    /// `overlay/l`
    Links,
    /// `overlay/l/<link>`, and without a layer `c`.
    Symlink(Option<Digest>),
}

impl StorePlace {
    pub(in crate::fs::images) fn is_directory(&self) -> bool {
        match self {
            StorePlace::Containers
            | StorePlace::Chains
            | StorePlace::Images
            | StorePlace::Image(_)
            | StorePlace::Layers
            | StorePlace::Overlay
            | StorePlace::Layer(..)
            | StorePlace::Links => true,
            StorePlace::ImagesJson
            | StorePlace::ImagesLock
            | StorePlace::Data(..)
            | StorePlace::LayersJson
            | StorePlace::LayersLock
            | StorePlace::TarSplit(..)
            | StorePlace::Link(_)
            | StorePlace::Lower(_)
            | StorePlace::Symlink(_) => false,
        }
    }

    /// Where a symlink leads to.
    pub(in crate::fs::images) fn target(&self) -> Option<String> {
        match self {
            StorePlace::Symlink(Some(id)) => Some(format!("../{}/diff", id.hex())),
            StorePlace::Symlink(None) => Some("containers".to_owned()),
            _ => None,
        }
    }

    /// The directory above, unless that is the root of the tree.
    pub(in crate::fs::images) fn parent(&self) -> Option<StorePlace> {
        Some(match self {
            StorePlace::Containers | StorePlace::Chains => return None,
            StorePlace::Images | StorePlace::Layers | StorePlace::Overlay => StorePlace::Containers,
            StorePlace::ImagesJson | StorePlace::ImagesLock | StorePlace::Image(_) => {
                StorePlace::Images
            }
            StorePlace::Data(id, ..) => StorePlace::Image(*id),
            StorePlace::LayersJson | StorePlace::LayersLock | StorePlace::TarSplit(..) => {
                StorePlace::Layers
            }
            StorePlace::Layer(..) | StorePlace::Links => StorePlace::Overlay,
            // Files: nobody asks for the directory above them.
            StorePlace::Link(_) | StorePlace::Lower(_) | StorePlace::Symlink(_) => {
                StorePlace::Overlay
            }
        })
    }
}

/// A piece of "big data" of an image.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(in crate::fs::images) enum Data {
    /// `manifest`
    Manifest,
    /// `manifest-sha256:<hex>`, the same bytes.
    ManifestByDigest,
    /// `sha256:<id>`
    Config,
}

impl Data {
    pub(in crate::fs::images) const ALL: [Data; 3] =
        [Data::Manifest, Data::ManifestByDigest, Data::Config];

    /// The key in `images.json`.
    pub(in crate::fs::images) fn key(self, id: &ImageId, manifest: &Digest) -> String {
        match self {
            Data::Manifest => "manifest".to_owned(),
            Data::ManifestByDigest => format!("manifest-{manifest}"),
            Data::Config => id.to_string(),
        }
    }

    /// The digest of its bytes.
    pub(in crate::fs::images) fn digest(self, id: &ImageId, manifest: &Digest) -> Digest {
        match self {
            Data::Manifest | Data::ManifestByDigest => *manifest,
            Data::Config => id.0,
        }
    }

    /// The name of its file: a key that is not all letters and digits goes as base64 behind a `=`.
    pub(in crate::fs::images) fn file_name(self, id: &ImageId, manifest: &Digest) -> String {
        let key = self.key(id, manifest);
        match self {
            Data::Manifest => key,
            _ => format!("={}", BASE64_STANDARD.encode(key)),
        }
    }
}
