//! The names of a store: which images there are and what they are called. Pure; [`super::index_json`] is its
//! form on disk.
//!
//! Invariants: every tag names an image that is there; `ImageRecord::tags` is the inverse of `Names::tags`
//! (whoever changes one by hand need not care: [`Names::settle`] runs before every commit).

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use super::difference::differences;
use super::error::StoreError;
use super::image_record::{ImageRecord, Origin};
use super::table::{Set, Table};
use super::trash::{Trash, Trashed};
use crate::oci::{Descriptor, DiffId, Digest, ImageId, MediaType, Repository, TagRef};

/// A consistent snapshot of everything that has a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// All images; one without any tag is dangling.
    pub images: Table<ImageId, ImageRecord>,
    /// All tags.
    pub tags: Table<TagRef, TagRecord>,
    /// What was removed and can be brought back.
    pub trash: Trash,
}

/// What a tag points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagRecord {
    /// The image.
    pub id: ImageId,
    /// When the tag was put on that image.
    pub tagged: SystemTime,
    /// Whether it must stay: neither moved nor taken away.
    pub pinned: bool,
}

/// What an untag did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untagged {
    /// The tag that is gone.
    pub tag: TagRef,
    /// The image it named.
    pub id: ImageId,
    /// Origins dropped with the last tag of that repository on that image (docker's `Untagged: repo@sha256:..`).
    pub origins: Vec<Origin>,
    /// Whether the image now has no tag.
    pub dangling: bool,
}

impl Names {
    /// The image a tag names.
    pub fn image_of(&self, tag: &TagRef) -> Option<&ImageRecord> {
        self.images.get(&self.tags.get(tag)?.id)
    }

    /// The tags of one repository.
    pub fn tags_of<'a>(&'a self, repository: &'a Repository) -> impl Iterator<Item = &'a TagRef> {
        self.tags
            .keys()
            .filter(move |tag| tag.repository == *repository)
    }

    /// Images that no tag names.
    pub fn dangling(&self) -> impl Iterator<Item = &ImageRecord> {
        self.images.values().filter(|image| image.tags.is_empty())
    }

    /// Puts `tag` on an image. A tag that named another image is moved, that image may become dangling; the
    /// answer is that other image.
    pub fn tag(
        &mut self,
        tag: &TagRef,
        id: ImageId,
        now: SystemTime,
    ) -> Result<Option<ImageId>, StoreError> {
        if let Some(old) = self.tags.get(tag)
            && old.pinned
            && old.id != id
        {
            return Err(StoreError::Pinned(tag.clone()));
        }
        let image = self
            .images
            .get_mut(&id)
            .ok_or(StoreError::NoSuchImage(id))?;
        image.tags.insert(tag.clone());
        let record = TagRecord {
            id,
            tagged: now,
            pinned: false,
        };
        match self.tags.get_mut(tag) {
            Some(old) if old.id == id => Ok(None),
            Some(old) => {
                let previous = std::mem::replace(old, record).id;
                if let Some(image) = self.images.get_mut(&previous) {
                    image.tags.remove(tag);
                }
                Ok(Some(previous))
            }
            None => {
                self.tags.insert(tag.clone(), record);
                Ok(None)
            }
        }
    }

    /// Takes a tag away. The image stays, dangling if it was the last one.
    pub fn untag(&mut self, tag: &TagRef) -> Result<Untagged, StoreError> {
        if self.is_pinned(tag) {
            return Err(StoreError::Pinned(tag.clone()));
        }
        let record = self
            .tags
            .remove(tag)
            .ok_or_else(|| StoreError::NoSuchTag(tag.clone()))?;
        let mut untagged = Untagged {
            tag: tag.clone(),
            id: record.id,
            origins: Vec::new(),
            dangling: true,
        };
        if let Some(image) = self.images.get_mut(&record.id) {
            image.tags.remove(tag);
            untagged.dangling = image.tags.is_empty();
            if !image.tags.iter().any(|t| t.repository == tag.repository) {
                let ours = |origin: &Origin| origin.repository.as_ref() == Some(&tag.repository);
                untagged.origins = image.origins.iter().filter(|o| ours(o)).cloned().collect();
                image.origins.retain(|origin| !ours(origin));
            }
        }
        Ok(untagged)
    }

    /// Whether a tag must stay as it is.
    pub fn is_pinned(&self, tag: &TagRef) -> bool {
        self.tags.get(tag).is_some_and(|record| record.pinned)
    }

    /// Pins a tag, or lets it go; whether that changed anything.
    pub fn set_pin(&mut self, tag: &TagRef, pinned: bool) -> Result<bool, StoreError> {
        let record = self.tags.get_mut(tag);
        let record = record.ok_or_else(|| StoreError::NoSuchTag(tag.clone()))?;
        Ok(std::mem::replace(&mut record.pinned, pinned) != pinned)
    }

    /// Renames a tag; never onto one that exists. An origin whose repository thereby loses its last tag is
    /// kept without a repository: the bytes still serve an unchanged push.
    pub fn rename_tag(
        &mut self,
        from: &TagRef,
        to: &TagRef,
        now: SystemTime,
    ) -> Result<(), StoreError> {
        if !self.tags.contains_key(from) {
            return Err(StoreError::NoSuchTag(from.clone()));
        }
        if self.tags.contains_key(to) {
            return Err(StoreError::TagExists(to.clone()));
        }
        let untagged = self.untag(from)?;
        self.tag(to, untagged.id, now)?;
        if let Some(image) = self.images.get_mut(&untagged.id) {
            for origin in untagged.origins {
                let homeless = Origin {
                    repository: None,
                    ..origin
                };
                if !image.origins.iter().any(|o| o.digest == homeless.digest) {
                    image.origins.push(homeless);
                }
            }
        }
        Ok(())
    }

    /// Renames every tag of a repository; all or, if one of the new names is taken, none. The answer is how
    /// many.
    pub fn rename_repository(
        &mut self,
        from: &Repository,
        to: &Repository,
        now: SystemTime,
    ) -> Result<usize, StoreError> {
        let moves: Vec<(TagRef, TagRef)> = self
            .tags_of(from)
            .map(|tag| {
                let new = TagRef {
                    repository: to.clone(),
                    tag: tag.tag.clone(),
                };
                (tag.clone(), new)
            })
            .collect();
        if moves.is_empty() {
            return Err(StoreError::NoSuchRepository(from.clone()));
        }
        if let Some((_, taken)) = moves.iter().find(|(_, to)| self.tags.contains_key(to)) {
            return Err(StoreError::TagExists(taken.clone()));
        }
        for (old, new) in &moves {
            self.rename_tag(old, new, now)?;
        }
        Ok(moves.len())
    }

    /// Forgets an image that no tag names. The answer is what it was.
    pub fn delete_image(&mut self, id: &ImageId) -> Result<ImageRecord, StoreError> {
        let image = self.images.get(id).ok_or(StoreError::NoSuchImage(*id))?;
        if let Some(tag) = image.tags.first() {
            return Err(StoreError::ImageTagged {
                id: *id,
                tag: tag.clone(),
            });
        }
        self.images.remove(id).ok_or(StoreError::NoSuchImage(*id))
    }

    /// Puts what a removal took away into the trash: `tags` of the image as it was `before`, and the image itself if it is gone.
    pub fn put_in_trash(
        &mut self,
        before: ImageRecord,
        tags: &[TagRef],
        removed: SystemTime,
        until: SystemTime,
    ) {
        let id = before.id;
        let entry = |name: Option<TagRef>| {
            let repository = name.as_ref().map(|tag| &tag.repository);
            let ours = |o: &&Origin| repository.is_none() || o.repository.as_ref() == repository;
            Trashed {
                origins: before.origins.iter().filter(ours).cloned().collect(),
                name,
                id,
                removed,
                until,
            }
        };
        match tags.is_empty() {
            true => self.trash.entries.push(entry(None)),
            false => {
                let named = tags.iter().map(|tag| entry(Some(tag.clone())));
                self.trash.entries.extend(named);
            }
        }
        if !self.images.contains_key(&id) {
            self.trash.images.insert(id, before);
        }
    }

    /// Brings an entry of the trash back. A tag that is on an image again is not taken from it.
    pub fn restore(&mut self, entry: &Trashed, now: SystemTime) -> Result<(), StoreError> {
        if let Some(tag) = &entry.name
            && self.tags.contains_key(tag)
        {
            return Err(StoreError::TagExists(tag.clone()));
        }
        if !self.images.contains_key(&entry.id) {
            let image = self.trash.images.remove(&entry.id);
            let mut image = image.ok_or(StoreError::NoSuchImage(entry.id))?;
            // Each name brings its own.
            image.tags.clear();
            image.origins.retain(|origin| origin.repository.is_none());
            self.images.insert(entry.id, image);
        }
        if let Some(image) = self.images.get_mut(&entry.id) {
            for origin in &entry.origins {
                if !image.origins.contains(origin) {
                    image.origins.push(origin.clone());
                }
            }
        }
        if let Some(tag) = &entry.name {
            self.tag(tag, entry.id, now)?;
        }
        self.trash.entries.retain(|other| other != entry);
        Ok(())
    }

    /// Makes the inverse table true again after changes by hand to what was `before`, which is settled, and checks that every tag has
    /// its image.
    pub(super) fn settle(&mut self, before: &Names) -> Result<(), StoreError> {
        let none = Set::new();
        let mut moved: Vec<(TagRef, ImageId)> = Vec::new();
        for (id, old, new) in differences(&before.images, &self.images) {
            let [old, new] = [old, new].map(|image| image.map_or(&none, |image| &image.tags));
            let differing = old.differing(new);
            moved.extend(differing.map(|tag| (tag.clone(), *id)));
        }
        for (tag, old, new) in differences(&before.tags, &self.tags) {
            let ids = [old, new].into_iter().flatten().map(|record| record.id);
            moved.extend(ids.map(|id| (tag.clone(), id)));
        }
        for (tag, id) in moved {
            let is_named = self.tags.get(&tag).is_some_and(|record| record.id == id);
            match (self.images.get_mut(&id), is_named) {
                (Some(image), true) => drop(image.tags.insert(tag)),
                (Some(image), false) => drop(image.tags.remove(&tag)),
                (None, true) => return Err(StoreError::NoSuchImage(id)),
                (None, false) => {}
            }
        }
        self.trash.settle(&self.images);
        Ok(())
    }

    /// Every blob that the names reach: manifests, configs, layers, origins; those of the trash too.
    pub fn blobs(&self) -> BTreeSet<Digest> {
        let images = self.images.values().flat_map(ImageRecord::blobs);
        images.chain(self.trash.blobs()).collect()
    }

    /// Every layer of an image that is not in the trash.
    pub fn layers(&self) -> BTreeSet<DiffId> {
        self.images
            .values()
            .flat_map(|image| image.layers.iter().copied())
            .collect()
    }
}

/// The descriptor of one of our manifests.
pub(super) fn manifest_descriptor(
    digest: Digest,
    size: u64,
    platform: Option<crate::oci::Platform>,
) -> Descriptor {
    Descriptor {
        media_type: MediaType("application/vnd.oci.image.manifest.v1+json".to_owned()),
        digest,
        size,
        annotations: BTreeMap::new(),
        platform,
    }
}
