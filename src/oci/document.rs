//! What manifests and configs have in common as JSON documents: limits and errors.

use super::digest::DigestError;
use super::media_type::MediaType;

/// Largest manifest or index that is read: the limit registries and containerd agree on.
pub const MAX_MANIFEST_BYTES: usize = 4 << 20;
/// Largest image config that is read. Configs hold history and labels; the largest in the wild are below 1 MiB.
pub const MAX_CONFIG_BYTES: usize = 8 << 20;
/// Most layers of one image. docker stops at 127; a layer's position must fit 16 bits here.
pub const MAX_LAYERS: usize = 4096;

/// Why a manifest, an index or a config cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Longer than the limit for its kind.
    #[error("document of {size} bytes is larger than the {limit} bytes allowed")]
    TooLarge {
        /// Its length.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// No JSON, nested too deep, a value of another type than the field has, or a field given twice.
    #[error("invalid JSON: {0}")]
    Json(String),
    /// Docker's manifest of 2014 to 2017.
    #[error(
        "manifest schema 1 is not supported: convert the image, for example with \"skopeo copy --format v2s2\""
    )]
    Schema1,
    /// Another schema version than 2.
    #[error("unsupported manifest schema version {0}")]
    SchemaVersion(i64),
    /// Both a manifest and an index (CVE-2021-41190).
    #[error("ambiguous document: it is both an image manifest and an index")]
    Ambiguous,
    /// Neither a manifest nor an index.
    #[error("document is neither an image manifest nor an index")]
    NotAManifest,
    /// The content is of another kind than the media type says.
    #[error("media type {declared} does not fit the document, which is {found}")]
    MediaTypeMismatch {
        /// The media type, from outside or from the document itself.
        declared: MediaType,
        /// What the document is.
        found: &'static str,
    },
    /// Two media types for one document.
    #[error("document declared as {declared} calls itself {embedded}")]
    MediaTypeConflict {
        /// From the descriptor or the registry.
        declared: MediaType,
        /// From the document.
        embedded: MediaType,
    },
    /// A media type that no version of the document has.
    #[error("unsupported media type {0}")]
    UnsupportedMediaType(MediaType),
    /// A manifest of something else than a container image.
    #[error("artifact of type {0} is not a container image")]
    Artifact(MediaType),
    /// A layer of a type that is no tar.
    #[error("layer {digest} has the unsupported media type {media_type}")]
    LayerMediaType {
        /// The layer.
        digest: super::Digest,
        /// Its type.
        media_type: MediaType,
    },
    /// More layers than [`MAX_LAYERS`].
    #[error("image has {0} layers, more than the {MAX_LAYERS} allowed")]
    TooManyLayers(usize),
    /// A digest that is not sha256 or not well formed.
    #[error("{field}: {error}")]
    Digest {
        /// Where.
        field: &'static str,
        /// Why.
        error: DigestError,
    },
    /// A size below zero or beyond 63 bits.
    #[error("{field}: invalid size {size}")]
    Size {
        /// Where.
        field: &'static str,
        /// The number.
        size: i64,
    },
    /// A config without layers section: an artifact's, or docker's of before 2015.
    #[error("invalid image JSON, no RootFS key")]
    NoRootFs,
    /// A root file system that is not a list of layers.
    #[error("unsupported rootfs type {0:?}")]
    RootFsType(String),
}
