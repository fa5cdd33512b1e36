//! Manifests, indexes and descriptors (OCI image spec, docker schema 2), told apart by content and media type.

use super::digest::Digest;
use super::platform::Platform;

/// A media type; unknown ones are kept as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaType(pub String);

/// A validated descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Media type.
    pub media_type: MediaType,
    /// Digest.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// Annotations.
    pub annotations: std::collections::BTreeMap<String, String>,
    /// Platform, in an index.
    pub platform: Option<Platform>,
}

/// An image manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The config.
    pub config: Descriptor,
    /// Layers, bottom first.
    pub layers: Vec<Descriptor>,
}

/// What a manifest blob turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestOrIndex {
    /// One image.
    Manifest(Manifest),
    /// A list of manifests.
    Index(Vec<Descriptor>),
}
