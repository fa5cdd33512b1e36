//! What a store of an engine has of a layer and of an image.

use crate::oci::{DiffId, Digest, ImageId};

/// A layer below its parents.
#[derive(Clone, Debug)]
pub(in crate::fs::images) struct ChainedLayer {
    pub id: Digest,
    pub diff_id: DiffId,
    pub parent: Option<Digest>,
    /// 26 digits of base32: its name in `overlay/l`.
    pub link: Box<str>,
    /// The blob that a registry has it by, and its size, where that was proved.
    pub blob: Option<(Digest, u64)>,
    /// Of its tar.
    pub size: u64,
    pub created: jiff::Timestamp,
}

/// An image.
#[derive(Clone, Debug)]
pub(in crate::fs::images) struct StoredImage {
    pub id: ImageId,
    pub manifest: Digest,
    pub manifest_size: u64,
    pub config_size: u64,
    /// The topmost layer.
    pub top: Option<Digest>,
    /// Canonical references.
    pub names: Vec<String>,
    pub created: jiff::Timestamp,
}
