//! The names of an image, of which a removal takes some.

use std::collections::BTreeSet;

use crate::oci::{Digest, Repository, TagRef};
use crate::store::{ImageRecord, Set};

/// The names of one image while some are being taken away.
pub(super) struct References {
    pub(super) tags: Set<TagRef>,
    pub(super) digests: BTreeSet<(Repository, Digest)>,
    pub(super) gone_tags: Vec<TagRef>,
    pub(super) gone_digests: Vec<(Repository, Digest)>,
    /// The image stays without any.
    pub(super) kept: bool,
}

impl References {
    pub(super) fn of(image: &ImageRecord) -> Self {
        let digests = image
            .origins
            .iter()
            .filter_map(|o| Some((o.repository.clone()?, o.digest)));
        References {
            tags: image.tags.clone(),
            digests: digests.collect(),
            gone_tags: Vec::new(),
            gone_digests: Vec::new(),
            kept: false,
        }
    }

    /// Whether nothing is left that the image stays for.
    pub(super) fn is_empty(&self) -> bool {
        !self.kept && self.tags.is_empty() && self.digests.is_empty()
    }

    /// Whether an ID is enough to remove the image: at most one tag, and digests of one repository only, the tag's.
    pub(super) fn is_single(&self) -> bool {
        let mut repositories: BTreeSet<&Repository> = self.digests.iter().map(|(r, _)| r).collect();
        repositories.extend(self.tags.iter().map(|tag| &tag.repository));
        self.tags.len() <= 1 && repositories.len() <= 1
    }

    /// With the last tag of a repository its digests go too.
    pub(super) fn untag(&mut self, tag: &TagRef) {
        self.gone_tags.extend(self.tags.take(tag));
        if !self.tags.iter().any(|t| t.repository == tag.repository) {
            let ours = |(r, _): &(Repository, Digest)| *r == tag.repository;
            let gone: Vec<_> = self.digests.iter().filter(|d| ours(d)).cloned().collect();
            for (repository, digest) in gone {
                self.drop_digest(&repository, &digest);
            }
        }
    }

    pub(super) fn drop_digest(&mut self, repository: &Repository, digest: &Digest) {
        let name = (repository.clone(), *digest);
        self.digests.remove(&name);
        self.gone_digests.push(name);
    }

    pub(super) fn drop_all(&mut self) {
        let tags = std::mem::take(&mut self.tags);
        self.gone_tags.extend(tags.iter().cloned());
        self.gone_digests.extend(std::mem::take(&mut self.digests));
    }
}
