//! Plans as data.

use super::*;
use crate::oci::{Descriptor, MediaType};
use std::time::SystemTime;

/// An image record made of names alone: its ID is the digest of `id`, its layers' of their words.
pub(crate) fn image(id: &str, tags: &[&str], layers: &[&str]) -> ImageRecord {
    ImageRecord {
        id: ImageId(Digest::of(id.as_bytes())),
        manifest: Descriptor {
            media_type: MediaType::oci_manifest(),
            digest: Digest::of(format!("manifest of {id}").as_bytes()),
            size: 1,
            annotations: Default::default(),
            platform: None,
        },
        layers: layers
            .iter()
            .map(|l| DiffId(Digest::of(l.as_bytes())))
            .collect(),
        created: None,
        size: 0,
        added: SystemTime::UNIX_EPOCH,
        origins: Vec::new(),
        tags: tags.iter().map(|t| TagRef::parse(t).unwrap()).collect(),
    }
}
