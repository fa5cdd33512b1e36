//! Which image an argument means.
//!
//! In docker's order: 64 hex digits are an ID; `sha256:<64 hex>` is an ID or a digest; then a name with tag or digest;
//! then at least four hex digits that begin exactly one ID. So a repository called `beef` wins over an ID `beef..`.
//! Beside image IDs (digest of the config) the IDs of docker's containerd store (digest of the manifest or index the
//! image came by) are accepted.

use crate::oci::{Digest, ImageId, Reference, Repository, TagRef};
use crate::store::{ImageRecord, Names};

use crate::ops::image::ImageError;

/// The shortest ID prefix that is looked for.
const MIN_PREFIX: usize = 4;

/// How an argument named its image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// By this tag.
    Tag(TagRef),
    /// By the digest of a manifest, in a repository.
    Digest(Repository, Digest),
    /// By an ID, whole or in part.
    Id,
}

/// The image of an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The image.
    pub id: ImageId,
    /// How it was named.
    pub how: How,
}

/// Finds the image that `text` means.
pub fn image(names: &Names, text: &str) -> Result<Resolved, ImageError> {
    let by_id = |id: ImageId| Resolved { id, how: How::Id };
    let full = match text.strip_prefix("sha256:") {
        Some(hex) => Digest::from_hex(hex),
        None => Digest::from_hex(text),
    };
    if let Ok(digest) = full {
        return match unique(names, |d| *d == digest) {
            Matches::One(id) => Ok(by_id(id)),
            Matches::None => Err(ImageError::NoSuch(digest.to_string())),
            Matches::Many => Err(ImageError::Ambiguous(text.to_owned())),
        };
    }
    let reference = Reference::parse(text);
    if let Ok(reference) = &reference
        && let Some(found) = by_name(names, reference)
    {
        return Ok(found);
    }
    let prefix = text.strip_prefix("sha256:").unwrap_or(text);
    let is_hex = prefix
        .bytes()
        .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if is_hex && (MIN_PREFIX..64).contains(&prefix.len()) {
        match unique(names, |d| d.hex().starts_with(prefix)) {
            Matches::One(id) => return Ok(by_id(id)),
            Matches::Many => return Err(ImageError::Ambiguous(text.to_owned())),
            Matches::None => {}
        }
    }
    let reference = reference?;
    Err(ImageError::NoSuch(spelled(&reference)))
}

/// The reference as docker spells it in messages: with the tag that is meant.
fn spelled(reference: &Reference) -> String {
    match reference.tag_or_latest() {
        Some(tag) => Reference {
            tag: Some(tag),
            ..reference.clone()
        }
        .to_string(),
        None => reference.to_string(),
    }
}

fn by_name(names: &Names, reference: &Reference) -> Option<Resolved> {
    let repository = &reference.repository;
    if let Some(digest) = reference.digest {
        let served = |image: &&ImageRecord| {
            let mut origins = image.origins.iter();
            origins.any(|o| o.digest == digest && o.repository.as_ref() == Some(repository))
        };
        if let Some(image) = names.images.values().find(served) {
            return Some(Resolved {
                id: image.id,
                how: How::Digest(repository.clone(), digest),
            });
        }
        // No registry gave it that name; any ID of an image that the repository has is as clear.
        let mut tagged = names
            .tags_of(repository)
            .filter_map(|tag| names.image_of(tag));
        let image =
            tagged.find(|image| image.id.0 == digest || manifests(image).any(|d| d == digest))?;
        return Some(Resolved {
            id: image.id,
            how: How::Id,
        });
    }
    let tag = TagRef {
        repository: repository.clone(),
        tag: reference.tag_or_latest()?,
    };
    names.tags.get(&tag).map(|record| Resolved {
        id: record.id,
        how: How::Tag(tag),
    })
}

/// The digests of the manifests an image came by, and of its manifest here.
fn manifests(image: &ImageRecord) -> impl Iterator<Item = Digest> {
    let origins = image.origins.iter().map(|o| o.digest);
    origins.chain([image.manifest.digest])
}

enum Matches {
    None,
    One(ImageId),
    Many,
}

/// The one image whose ID fits, or else whose manifest's digest does.
fn unique(names: &Names, fits: impl Fn(&Digest) -> bool) -> Matches {
    let count =
        |mut found: Box<dyn Iterator<Item = ImageId> + '_>| match (found.next(), found.next()) {
            (None, _) => Matches::None,
            (Some(id), None) => Matches::One(id),
            (Some(_), Some(_)) => Matches::Many,
        };
    match count(Box::new(
        names.images.keys().filter(|id| fits(&id.0)).copied(),
    )) {
        Matches::None => count(Box::new(
            names
                .images
                .values()
                .filter(|i| manifests(i).any(|d| fits(&d)))
                .map(|i| i.id),
        )),
        found => found,
    }
}

#[cfg(test)]
mod tests;
