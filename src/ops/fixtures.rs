//! Names made of words, for the tests of the verbs.

use std::time::{Duration, SystemTime};

use crate::oci::{Descriptor, DiffId, Digest, ImageId, MediaType, Repository, TagRef};
use crate::store::{ImageRecord, Names, Origin, TagRecord};

/// An image whose ID is the digest of a word, as are its layers.
pub fn image(word: &str, tags: &[&str], layers: &[&str]) -> ImageRecord {
    ImageRecord {
        id: id(word),
        manifest: Descriptor {
            media_type: MediaType::oci_manifest(),
            digest: Digest::of(format!("manifest of {word}").as_bytes()),
            size: 1,
            annotations: Default::default(),
            platform: None,
        },
        layers: layers.iter().map(|l| diff_id(l)).collect(),
        created: None,
        size: 0,
        added: SystemTime::UNIX_EPOCH,
        origins: Vec::new(),
        parent: None,
        tags: tags.iter().map(|t| tag(t)).collect(),
    }
}

/// The same with digests of a word, each in a repository ("" for none).
pub fn with_origins(mut image: ImageRecord, origins: &[(&str, &str)]) -> ImageRecord {
    let origin = |(repository, word): &(&str, &str)| Origin {
        unproved: Vec::new(),
        repository: (!repository.is_empty()).then(|| Repository::parse(repository).unwrap()),
        digest: Digest::of(word.as_bytes()),
        media_type: MediaType::oci_manifest().0,
    };
    image.origins = origins.iter().map(origin).collect();
    image
}

/// The names that some images have by their own account. The n-th tag was set n seconds after the epoch.
pub fn names(images: impl IntoIterator<Item = ImageRecord>) -> Names {
    let mut names = Names::default();
    let mut time = SystemTime::UNIX_EPOCH;
    for image in images {
        for tag in &image.tags {
            time += Duration::from_secs(1);
            let record = TagRecord {
                id: image.id,
                tagged: time,
                pinned: false,
            };
            assert!(names.tags.insert(tag.clone(), record).is_none());
        }
        names.images.insert(image.id, image);
    }
    names
}

pub fn id(word: &str) -> ImageId {
    ImageId(Digest::of(word.as_bytes()))
}

pub fn diff_id(word: &str) -> DiffId {
    DiffId(Digest::of(word.as_bytes()))
}

pub fn tag(text: &str) -> TagRef {
    TagRef::parse(text).unwrap()
}
