//! The trash: names that were removed and can be brought back until their time is over. Pure; off unless a store or a verb
//! asks for it ([`super::settings`]).
//!
//! Invariants, kept by [`Trash::settle`]: every entry's image is among the living or in [`Trash::images`], and what is there has
//! an entry. Whatever the trash has stays in the store, but under no name: it is in no listing and in no mount.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::image_record::{ImageRecord, Origin};
use super::table::Table;
use crate::oci::{Digest, ImageId, TagRef};

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trash {
    /// The names, oldest removal of an image first.
    pub entries: Vec<Trashed>,
    /// Images that have no name but here.
    pub images: BTreeMap<ImageId, ImageRecord>,
}

/// One name that was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trashed {
    /// The tag; `None`: an image that had none.
    pub name: Option<TagRef>,
    /// The image it named.
    pub id: ImageId,
    /// When it went.
    pub removed: SystemTime,
    /// Until when it can be brought back.
    pub until: SystemTime,
    /// The manifests that went with the name.
    pub origins: Vec<Origin>,
}

impl Trash {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Every blob that it keeps.
    pub fn blobs(&self) -> impl Iterator<Item = Digest> {
        let images = self.images.values().flat_map(ImageRecord::blobs);
        let origins = self.entries.iter().flat_map(|entry| &entry.origins);
        images.chain(origins.map(|origin| origin.digest))
    }

    /// When the next entry's time is over.
    pub fn next_end(&self) -> Option<SystemTime> {
        self.entries.iter().map(|entry| entry.until).min()
    }

    /// Drops what is over at `now`; whether anything was.
    pub fn expire(&mut self, now: SystemTime) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| entry.until > now);
        let expired = self.entries.len() != before;
        if expired {
            let entries = &self.entries;
            self.images
                .retain(|id, _| entries.iter().any(|entry| entry.id == *id));
        }
        expired
    }

    pub(super) fn settle(&mut self, living: &Table<ImageId, ImageRecord>) {
        if self.entries.is_empty() && self.images.is_empty() {
            return;
        }
        let (entries, images) = (&mut self.entries, &mut self.images);
        images.retain(|id, image| {
            image.tags.clear();
            !living.contains_key(id) && entries.iter().any(|entry| entry.id == *id)
        });
        entries.retain(|entry| living.contains_key(&entry.id) || images.contains_key(&entry.id));
        // The order in which it is read back.
        entries.sort_by_key(|entry| (!living.contains_key(&entry.id), entry.id, entry.removed));
    }
}
