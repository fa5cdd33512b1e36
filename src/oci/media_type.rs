//! Media types, OCI's and docker's.

use std::fmt;

pub(super) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(super) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(super) const OCI_FOREIGN: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";
pub(super) const DOCKER_FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar";
pub(super) const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
pub(super) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(super) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(super) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub(super) const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
pub(super) const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+json";
pub(super) const DOCKER_SCHEMA1_SIGNED: &str =
    "application/vnd.docker.distribution.manifest.v1+prettyjws";
/// Types that say nothing, sent by simple servers; docker takes them for unset too.
pub(super) const MEANINGLESS: &[&str] = &[
    "",
    "application/json",
    "application/octet-stream",
    "text/html",
    "text/plain",
];

/// A media type; unknown ones are kept as text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MediaType(pub String);

/// What a media type says a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Manifest,
    Index,
    Schema1,
    Meaningless,
    Other,
}

impl MediaType {
    /// The OCI image manifest.
    pub fn oci_manifest() -> Self {
        MediaType(OCI_MANIFEST.to_owned())
    }
    /// The OCI image index.
    pub fn oci_index() -> Self {
        MediaType(OCI_INDEX.to_owned())
    }
    /// The OCI image config.
    pub fn oci_config() -> Self {
        MediaType(OCI_CONFIG.to_owned())
    }
    /// The OCI uncompressed layer.
    pub fn oci_layer() -> Self {
        MediaType(OCI_LAYER.to_owned())
    }
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// Whether this is an OCI or docker schema 2 image manifest.
    pub fn is_manifest(&self) -> bool {
        self.kind() == Kind::Manifest
    }
    /// Whether this is an OCI index or a docker manifest list.
    pub fn is_index(&self) -> bool {
        self.kind() == Kind::Index
    }

    pub(super) fn kind(&self) -> Kind {
        // Parameters ("; charset=utf-8") come with HTTP headers.
        let bare = self.0.split(';').next().unwrap_or("").trim();
        match bare {
            OCI_MANIFEST | DOCKER_MANIFEST => Kind::Manifest,
            OCI_INDEX | DOCKER_LIST => Kind::Index,
            DOCKER_SCHEMA1 | DOCKER_SCHEMA1_SIGNED => Kind::Schema1,
            _ if MEANINGLESS.contains(&bare) => Kind::Meaningless,
            _ => Kind::Other,
        }
    }
}

impl fmt::Display for MediaType {
    /// Quoted, as the text may be anything.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}
