//! The flat listings: images without a tag, all images, all layers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Flat, View};
use crate::fs::api::Timestamp;
use crate::oci::{DiffId, ImageId};
use crate::store::{ImageRecord, Names, differences};

impl Flat<ImageId> {
    /// Images without a tag by the first 12 digits of their ID; where two share them, by all 64.
    pub(super) fn dangling(names: &Names, before: Option<&View>) -> Arc<Flat<ImageId>> {
        if let Some(before) = before.filter(|before| same_dangling(names, before)) {
            return before.dangling.clone();
        }
        let ids: Vec<ImageId> = names.dangling().map(|image| image.id).collect();
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for id in &ids {
            *seen.entry(id.short()).or_default() += 1;
        }
        let name = |id: &ImageId| match seen.get(&id.short()) {
            Some(1) => id.short(),
            _ => id.hex(),
        };
        let flat = Flat {
            mtime: last_added(names, &mut ids.iter()),
            entries: ids.iter().map(|id| (name(id).into(), *id)).collect(),
        };
        Arc::new(flat.settled(before.map(|before| &*before.dangling)))
    }

    /// All images by their ID.
    pub(super) fn by_id(names: &Names, before: Option<&View>) -> Arc<Flat<ImageId>> {
        if let Some(before) = before.filter(|before| same_images(names, before)) {
            return before.by_id.clone();
        }
        let ids = names.images.keys();
        let flat = Flat {
            entries: ids.clone().map(|id| (id.hex().into(), *id)).collect(),
            mtime: last_added(names, &mut ids.clone()),
        };
        Arc::new(flat.settled(before.map(|before| &*before.by_id)))
    }
}

impl Flat<DiffId> {
    /// All layers by their digest.
    pub(super) fn layers(names: &Names, before: Option<&View>) -> Arc<Flat<DiffId>> {
        if let Some(before) = before.filter(|before| same_images(names, before)) {
            return before.layers.clone();
        }
        let layers: BTreeSet<DiffId> = names.layers();
        let flat = Flat {
            entries: layers
                .iter()
                .map(|layer| (layer.hex().into(), *layer))
                .collect(),
            mtime: last_added(names, &mut names.images.keys()),
        };
        Arc::new(flat.settled(before.map(|before| &*before.layers)))
    }
}

impl<V: PartialEq> Flat<V> {
    /// With the time of what was `before`, or a later one if the entries differ.
    fn settled(mut self, before: Option<&Flat<V>>) -> Flat<V> {
        if let Some(before) = before {
            self.mtime = match self.entries == before.entries {
                true => before.mtime,
                false => before.mtime.next(),
            };
        }
        self
    }
}

/// An image's layers are part of its ID.
fn same_images(names: &Names, before: &View) -> bool {
    let mut different = differences(&before.names.images, &names.images);
    different.all(|(_, before, after)| before.is_some() && after.is_some())
}

fn same_dangling(names: &Names, before: &View) -> bool {
    let dangling = |image: Option<&ImageRecord>| image.is_some_and(|image| image.tags.is_empty());
    let mut different = differences(&before.names.images, &names.images);
    different.all(|(_, before, after)| dangling(before) == dangling(after))
}

fn last_added(names: &Names, ids: &mut dyn Iterator<Item = &ImageId>) -> Timestamp {
    let times = ids.filter_map(|id| names.images.get(id));
    let times = times.map(|image| image.added.into());
    times.max().unwrap_or_default()
}
