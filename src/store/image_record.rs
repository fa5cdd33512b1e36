//! What is known of an image without opening a blob, and of the manifests that it came by.

use std::time::SystemTime;

use super::table::Set;
use crate::oci::{Descriptor, DiffId, Digest, ImageId, Repository, TagRef};

/// What is known of an image without opening a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRecord {
    /// sha256 of the config.
    pub id: ImageId,
    /// The manifest in this store: uncompressed layers. With platform, without annotations.
    pub manifest: Descriptor,
    /// Bottom first.
    pub layers: Vec<DiffId>,
    /// By the config; `None` if it says nothing usable.
    pub created: Option<jiff::Timestamp>,
    /// Sum of the layers' content sizes: docker's SIZE.
    pub size: u64,
    /// When it came into this store.
    pub added: SystemTime,
    /// Manifests it came by, byte for byte in `blobs/`.
    pub origins: Vec<Origin>,
    /// The local image it was made from, if one was.
    pub parent: Option<ImageId>,
    /// Tags that name it.
    pub tags: Set<TagRef>,
}

/// A manifest as a registry or archive had it: what `Digest` and `RepoDigests` show.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// Repository it was served for, if it was.
    pub repository: Option<Repository>,
    /// sha256 of its bytes.
    pub digest: Digest,
    /// As served.
    pub media_type: String,
    /// Positions of layers whose blob in this manifest was never seen, so that nobody knows whether it is that layer:
    /// they were here already. Ascending.
    pub unproved: Vec<u16>,
}

impl ImageRecord {
    /// Its config and its manifests, original ones included.
    pub fn documents(&self) -> impl Iterator<Item = Digest> {
        [self.id.0, self.manifest.digest]
            .into_iter()
            .chain(self.origins.iter().map(|origin| origin.digest))
    }

    /// Every blob this image needs.
    pub fn blobs(&self) -> impl Iterator<Item = Digest> {
        self.documents()
            .chain(self.layers.iter().map(|layer| layer.0))
    }
}
