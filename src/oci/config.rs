//! The image config document (OCI image spec config.md plus docker's fields), read leniently, never re-serialised.

use super::digest::{DiffId, ImageId};
use super::platform::Platform;

/// One line of an image's history.
#[derive(Debug, Clone, Default)]
pub struct HistoryEntry {
    /// RFC 3339 time as written, when given.
    pub created: Option<String>,
    /// The command.
    pub created_by: String,
    /// The comment.
    pub comment: String,
    /// The author.
    pub author: String,
    /// Whether the step made no layer.
    pub empty_layer: bool,
}

/// A parsed image config beside its exact bytes.
#[derive(Debug, Clone)]
pub struct ImageConfig {
    /// sha256 of `bytes`.
    pub id: ImageId,
    /// The document as received.
    pub bytes: Vec<u8>,
    /// RFC 3339 time as written, when given.
    pub created: Option<String>,
    /// Platform the image is for.
    pub platform: Platform,
    /// Layers, bottom first.
    pub diff_ids: Vec<DiffId>,
    /// History, oldest first; may be empty.
    pub history: Vec<HistoryEntry>,
}
