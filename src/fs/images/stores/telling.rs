//! What the kernel has to forget of the store when the names change.
//!
//! As in [`super::super::refresh`], a name is dropped by the directory that it was in, so that a lookup which is being
//! answered meanwhile is waited for.

use std::collections::BTreeSet;

use super::catalog::served_manifest;
use crate::fs::images::Superblock;
use crate::fs::images::places::{Data, Place, StorePlace};
use crate::oci::{ChainId, Digest};
use crate::ops::engines::{layer_ids, link};
use crate::store::{ImageRecord, Names, differences};

impl Superblock {
    pub(in crate::fs::images) fn tell_engines(&self, old: &Names, new: &Names) {
        if !self.has_stores() {
            return;
        }
        let mut gone = Vec::new();
        for (id, image, now) in differences(&old.images, &new.images) {
            let Some(image) = image else { continue };
            if now.is_none() {
                gone.push(image);
            }
            let manifest = served_manifest(image);
            if now.is_none_or(|now| served_manifest(now) != manifest) {
                let place = StorePlace::Image(*id);
                for data in Data::ALL {
                    self.drop_name(&place, &data.file_name(id, &manifest), false);
                }
            }
        }
        for image in &gone {
            self.drop_name(&StorePlace::Images, &image.id.hex(), true);
        }
        if !gone.is_empty() {
            self.drop_layers(&gone, new);
        }
        self.tell_documents();
    }

    /// What no image that is still there has of these.
    fn drop_layers(&self, gone: &[&ImageRecord], new: &Names) {
        let stay: BTreeSet<Digest> = new.images.values().flat_map(layer_ids).collect();
        let all = gone.iter().flat_map(|image| {
            let ids = layer_ids(image).into_iter();
            ids.zip(image.layers.iter().copied())
        });
        for (id, diff_id) in all.filter(|(id, _)| !stay.contains(id)) {
            let layer = StorePlace::Layer(id, diff_id);
            self.drop_name(&layer, "diff", true);
            for file in ["link", "lower"] {
                self.drop_name(&layer, file, false);
            }
            self.drop_name(&StorePlace::Overlay, &id.hex(), true);
            self.drop_name(&StorePlace::Links, &link(&id), false);
            let tar_split = format!("{}.tar-split.gz", id.hex());
            self.drop_name(&StorePlace::Layers, &tar_split, false);
        }
        let chains = |image: &ImageRecord| ChainId::chain(&image.layers);
        let stay: BTreeSet<ChainId> = new.images.values().flat_map(chains).collect();
        for chain in gone.iter().flat_map(|image| chains(image)) {
            if !stay.contains(&chain) {
                self.drop_name(&StorePlace::Chains, &chain.hex(), true);
            }
        }
    }

    /// The lists are other ones.
    pub(super) fn tell_documents(&self) {
        for place in [
            StorePlace::ImagesJson,
            StorePlace::LayersJson,
            StorePlace::ImagesLock,
            StorePlace::LayersLock,
            StorePlace::Containers,
            StorePlace::Images,
            StorePlace::Layers,
            StorePlace::Overlay,
            StorePlace::Links,
            StorePlace::Chains,
        ] {
            if let Some(node) = self.nodes.find(&Place::Store(place)) {
                self.cache.invalidate_inode(node.ino, false);
            }
        }
    }

    fn drop_name(&self, dir: &StorePlace, name: &str, tree: bool) {
        if let Some(node) = self.nodes.find(&Place::Store(dir.clone())) {
            match tree {
                true => self.cache.invalidate_tree(node.ino, name.as_bytes()),
                false => self.cache.invalidate_entry(node.ino, name.as_bytes()),
            }
        }
    }
}
