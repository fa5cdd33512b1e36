//! Names of images in an OCI layout, from the annotations of its index.
//!
//! `io.containerd.image.name` (docker, containerd, nerdctl) is a full reference and must be a valid one.
//! `org.opencontainers.image.ref.name` is loosely defined: skopeo, podman and buildah put a reference there, others a
//! bare tag. It is read as podman does, as a reference: `app` is `app:latest`. Two cases are no repository: `latest`,
//! and what is no valid reference at all; such an image is loaded without a name and the user is told.

use std::collections::BTreeMap;

use crate::oci::{Digest, Reference, Repository, Tag, TagRef};

use crate::text::shown;

pub(super) const IMAGE_NAME: &str = "io.containerd.image.name";
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// What the annotations of a descriptor say about the image's name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) tag: Option<TagRef>,
    /// `NAME@DIGEST`: the repository where a registry has this digest.
    pub(super) digest: Option<(Repository, Digest)>,
    pub(super) note: Option<String>,
}

/// The text that makes two descriptors entries of one image.
pub(super) fn key(annotations: &BTreeMap<String, String>) -> Option<&str> {
    let nonempty = |name| {
        annotations
            .get(name)
            .map(String::as_str)
            .filter(|v: &&str| !v.is_empty())
    };
    nonempty(IMAGE_NAME).or_else(|| nonempty(REF_NAME))
}

/// Reads the annotations; the error is an invalid name and why.
pub(super) fn read(annotations: &BTreeMap<String, String>) -> Result<Named, (String, String)> {
    let Some(text) = key(annotations) else {
        return Ok(Named::default());
    };
    let strict = annotations.get(IMAGE_NAME).is_some_and(|v| !v.is_empty());
    let unusable = || Named {
        note: Some(format!(
            "the archive names this image only \"{}\"; name it with mica tag",
            shown(text)
        )),
        ..Named::default()
    };
    if !strict && text == "latest" {
        return Ok(unusable());
    }
    let reference = match Reference::parse(text) {
        Ok(reference) => reference,
        Err(_) if !strict => return Ok(unusable()),
        Err(error) => return Err((shown(text), error.to_string())),
    };
    let digest = reference.digest.map(|d| (reference.repository.clone(), d));
    let tag = match (reference.tag, &digest) {
        (Some(tag), _) => Some(tag),
        (None, None) => Some(Tag::latest()),
        (None, Some(_)) => None,
    };
    let tag = tag.map(|tag| TagRef {
        repository: reference.repository,
        tag,
    });
    Ok(Named {
        tag,
        digest,
        note: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(image: Option<&str>, reference: Option<&str>) -> Result<Named, (String, String)> {
        let pairs = [(IMAGE_NAME, image), (REF_NAME, reference)];
        let annotations = pairs
            .into_iter()
            .filter_map(|(k, v)| Some((k.to_owned(), v?.to_owned())))
            .collect();
        read(&annotations)
    }

    fn tag(image: Option<&str>, reference: Option<&str>) -> Option<String> {
        named(image, reference).unwrap().tag.map(|t| t.familiar())
    }

    #[test]
    fn the_full_name_wins_over_the_reference_name() {
        assert_eq!(
            tag(Some("docker.io/library/busybox:1"), Some("1")),
            Some("busybox:1".into())
        );
        assert_eq!(
            tag(None, Some("docker.io/library/busybox:1")),
            Some("busybox:1".into())
        );
        assert_eq!(tag(None, Some("busybox:1")), Some("busybox:1".into()));
        assert_eq!(
            tag(None, Some("localhost/app")),
            Some("localhost/app:latest".into())
        );
        assert_eq!(tag(None, Some("app")), Some("app:latest".into()));
        assert_eq!(tag(None, None), None);
    }

    #[test]
    fn a_bare_tag_is_no_name() {
        for text in ["latest", "stable--1+x", "V1.0"] {
            let named = named(None, Some(text)).unwrap();
            assert_eq!(named.tag, None, "{text}");
            assert!(named.note.unwrap().contains(text));
        }
    }

    #[test]
    fn a_full_name_must_be_valid() {
        assert!(named(Some("docker.io/library/BAD:1"), None).is_err());
    }

    #[test]
    fn a_digest_reference_gives_no_tag() {
        let digest = Digest::of(b"x");
        let named = named(Some(&format!("docker.io/library/app@{digest}")), None).unwrap();
        assert_eq!(named.tag, None);
        assert_eq!(
            named.digest,
            Some((Repository::parse("app").unwrap(), digest))
        );
    }
}
