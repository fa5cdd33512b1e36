//! Images of an archive, as they are found in it.

use std::sync::Arc;

use crate::archive::catalog::Content;
use crate::oci::{DiffId, Digest, ImageConfig, MediaType, Repository, TagRef};

/// One image of an archive. Its config is checked against its digest where it has one; its layers are only located.
#[derive(Debug)]
pub struct ArchiveImage {
    /// The config; the image's ID is its digest.
    pub config: ImageConfig,
    /// As many as the config has diff_ids, bottom first.
    pub layers: Vec<ArchiveLayer>,
    /// The same layers as further manifests of this image give them, compressed otherwise; to be checked too.
    pub alternatives: Vec<Vec<ArchiveLayer>>,
    /// Names, without repetition; none for an untagged image.
    pub tags: Vec<TagRef>,
    /// The manifests that describe it; none in a docker-archive.
    pub origins: Vec<OriginDocument>,
    /// What the user should know: a name that could not be used.
    pub notes: Vec<String>,
}

/// One layer of an image.
#[derive(Debug, Clone)]
pub struct ArchiveLayer {
    /// The member that holds it.
    pub member: String,
    /// Its bytes, perhaps compressed.
    pub content: Content,
    /// What the uncompressed tar must hash to.
    pub diff_id: DiffId,
    /// What the bytes themselves must hash to, where something promises it.
    pub blob: Option<Digest>,
}

/// A manifest as it was in the archive.
#[derive(Debug, Clone)]
pub struct OriginDocument {
    /// The exact bytes.
    pub bytes: Arc<[u8]>,
    /// Their digest.
    pub digest: Digest,
    /// The media type the manifest declares or was declared with.
    pub media_type: MediaType,
    /// The repository in which a registry knows it under this digest.
    pub repository: Option<Repository>,
}
