//! How a change of the store becomes one of the view, and is told to the kernel.

use std::sync::Arc;

use parking_lot::MutexGuard;

use super::namespace::{Change, View, changes};
use super::places::{Place, Subject};
use super::trees::Tree;
use super::{Shape, Superblock};
use crate::fs::api::{Caller, FsError, InodeNo, RmPolicy};
use crate::oci::{DiffId, Digest};
use crate::store::{Names, Numbered, differences};

/// The right to change the view.
pub(super) struct Changing<'a>(#[allow(dead_code)] MutexGuard<'a, ()>);

impl Superblock {
    pub(super) fn view(&self) -> Arc<View> {
        self.view.read().clone()
    }

    /// Whether the kernel may know names of the stores of engines by this tree.
    pub(super) fn has_stores(&self) -> bool {
        self.options.shape == Shape::Stores || self.options.shift.is_some()
    }

    /// Takes in what others have changed in the store, and tells the kernel exactly that. On return every lookup gives the
    /// new names; what the kernel has cached goes when the [`KernelCache`] has done its work.
    pub(super) fn catch_up(&self) -> Result<(), FsError> {
        let changing = self.changing();
        // This mount's own changes are taken in by whoever makes them.
        if Arc::ptr_eq(&self.store.names()?, &self.view().names) {
            return Ok(());
        }
        self.take_in(&changing, &[])
    }

    pub(super) fn changing(&self) -> Changing<'_> {
        Changing(self.changing.lock())
    }

    /// Makes the present names of the store the view. Of the directories `stay`, those that would vanish become empty ones.
    pub(super) fn take_in(
        &self,
        changing: &Changing<'_>,
        stay: &[Box<str>],
    ) -> Result<(), FsError> {
        let names = match &self.lasting {
            Some(lasting) => {
                let (names, file) = self.store.names_and_file()?;
                if !Arc::ptr_eq(&names, &self.view().names) {
                    lasting.names(file);
                }
                names
            }
            None => self.store.names()?,
        };
        let old = self.view();
        self.take_these(changing, names, stay);
        self.let_go(&old);
        Ok(())
    }

    /// Makes `names` the view, and tells the kernel of what is different. What they do not have is still known by its number.
    pub(super) fn take_these(
        &self,
        _changing: &Changing<'_>,
        names: Arc<Names>,
        stay: &[Box<str>],
    ) {
        let old = self.view();
        let new = {
            let mut kept = self.kept.lock();
            let view = View::new(names.clone(), &kept, Some(&old));
            let gone = stay.iter().filter(|path| !view.dirs.contains_key(&***path));
            let gone: Vec<Box<str>> = gone.cloned().collect();
            match gone.is_empty() {
                true => view,
                false => {
                    kept.extend(gone);
                    View::new(names, &kept, Some(&old))
                }
            }
        };
        if let Some(lasting) = &self.lasting {
            lasting.put_kept(self.kept.lock().iter().map(|path| &**path));
        }
        let new = Arc::new(new);
        *self.view.write() = new.clone();
        for change in changes(&old, &new) {
            self.tell(&change);
        }
        self.tell_engines(&old.names, &new.names);
    }

    /// Lets go of what the view does not have any more, and `old` had.
    fn let_go(&self, old: &View) {
        let view = self.view();
        let mut gone = Vec::new();
        for (tag, record, _) in differences(&old.names.tags, &view.names.tags) {
            gone.extend(record.map(|record| Subject::Tag(tag.clone(), record.id)));
        }
        for (id, ..) in differences(&old.names.images, &view.names.images) {
            gone.extend([Subject::ById(*id), Subject::Dangling(*id)]);
        }
        let same_layers = Arc::ptr_eq(&old.layers, &view.layers);
        let exists = |subject: &Subject| exists(&view, subject);
        if self.trees.let_go(gone, !same_layers, exists) {
            self.orphans.look();
        }
        if same_layers {
            return;
        }
        self.roots
            .lock()
            .retain(|id, _| view.names.images.contains_key(id));
        let stored = view.names.layers();
        self.slots.retain(&stored);
        self.ways_up.retain(&stored);
    }

    /// The tree of a subject, with the number that the store keeps for it.
    pub(super) fn tree(&self, subject: &Subject) -> Result<Arc<Tree>, FsError> {
        let all = || {
            let view = self.view();
            let tags = view.names.tags.iter();
            let tags = tags.map(|(tag, record)| Numbered::Tag(tag.clone(), record.id));
            let images = view.names.images.keys().map(|id| Numbered::ById(*id));
            let dangling = view.dangling.entries.values();
            let dangling = dangling.map(|id| Numbered::Dangling(*id));
            let layers = view.names.layers().into_iter().map(Numbered::LayerTree);
            tags.chain(images).chain(dangling).chain(layers).collect()
        };
        self.trees
            .tree(subject, || self.numbers.get(&subject.numbered(), all))
    }

    /// Tells the kernel of one change, if it knows the place.
    fn tell(&self, change: &Change) {
        let name = |place: Place, name: &str| {
            if let Some(node) = self.nodes.find(&place) {
                self.cache.invalidate_tree(node.ino, name.as_bytes());
            }
        };
        let listing = |place: Place| {
            if let Some(node) = self.nodes.find(&place) {
                self.cache.invalidate_inode(node.ino, false);
            }
        };
        match change {
            Change::Name(dir, entry) => {
                name(Place::Repo(dir.clone()), entry);
                name(Place::InfoRepo(dir.clone()), entry);
            }
            Change::Listing(dir) => {
                listing(Place::Repo(dir.clone()));
                listing(Place::InfoRepo(dir.clone()));
            }
            Change::Tagged(entry) => {
                if let Some(tree) = self.trees.find(&Subject::Tag(entry.tag.clone(), entry.id)) {
                    self.cache.invalidate_inode(tree.root_ino(), true);
                }
            }
            Change::DanglingName(entry) => name(Place::Dangling, entry),
            Change::DanglingListing => listing(Place::Dangling),
            Change::IdName(entry) => name(Place::ById, entry),
            Change::IdListing => listing(Place::ById),
            Change::LayerName(entry) => {
                name(Place::Layers, entry);
                // A reader of the tar keeps the layer open, but not longer than it reads.
                if let Ok(layer) = Digest::from_hex(entry) {
                    name(Place::Layer(DiffId(layer)), "tar");
                }
            }
            Change::LayerListing => listing(Place::Layers),
        }
    }

    /// Has the other mounts of this store told, after a change made through this one.
    pub(super) fn notify_others(&self) {
        self.peers.tell();
    }

    /// Whether `caller` may change names through this mount; the error is what the caller is told otherwise.
    pub(super) fn may_change(&self, caller: &Caller) -> Result<(), FsError> {
        match self.options.rm {
            _ if self.options.read_only => Err(FsError::ReadOnly),
            RmPolicy::Off => Err(FsError::ReadOnly),
            RmPolicy::Own if caller.uid == self.options.uid || caller.uid == 0 => Ok(()),
            RmPolicy::Own => Err(FsError::Denied),
            RmPolicy::All => Ok(()),
        }
    }

    /// The inode number of a fixed node or one the kernel knows; else the number that stands for "unknown" in a listing.
    pub(super) fn known_ino(&self, place: &Place) -> InodeNo {
        const UNKNOWN: InodeNo = InodeNo(0xffff_ffff);
        self.nodes.find(place).map_or(UNKNOWN, |node| node.ino)
    }
}

fn exists(view: &View, subject: &Subject) -> bool {
    match subject {
        Subject::Tag(tag, id) => view
            .names
            .tags
            .get(tag)
            .is_some_and(|record| record.id == *id),
        Subject::ById(id) => view.names.images.contains_key(id),
        Subject::Dangling(id) => view.is_dangling(id),
        Subject::Layer(layer) | Subject::Chained(_, layer) => {
            view.layers.entries.contains_key(layer.hex().as_str())
        }
        Subject::Chain(_, layers) => layers
            .iter()
            .all(|layer| view.layers.entries.contains_key(layer.hex().as_str())),
    }
}
