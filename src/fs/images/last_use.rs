//! Noticing that an image is used: a name in it, or its own, was looked up here. At most once an hour per image the store is told
//! ([`crate::store::used`]); in between it costs one atomic load.
//!
//! The kernel answers most lookups itself, so the names of images are valid for it for an hour only ([`crate::fs::api::Ttl::Hour`]):
//! whoever goes on walking into an image comes by once an hour. What is attached to an image (a mount, a working directory) is
//! found as its user, whatever its last use.

use std::sync::atomic::Ordering;

use super::Superblock;
use super::places::Subject;
use super::trees::Tree;
use crate::store::used::COARSENESS;

impl Superblock {
    /// Notes a use of the image that `tree` shows.
    pub(super) fn note_use(&self, tree: &Tree) {
        // Seconds, never 0.
        let now = self.age().as_secs().saturating_add(1);
        let last = tree.used.load(Ordering::Relaxed);
        if last != 0 && now.saturating_sub(last) < COARSENESS.as_secs() {
            return;
        }
        tree.used.store(now, Ordering::Relaxed);
        let view = self.view();
        let id = tree.subject().image();
        let Some(image) = id.and_then(|id| view.names.images.get(&id)) else {
            return;
        };
        if self.options.read_only || !self.store.note_use(image) {
            return;
        }
        // It is the atime of all the image's directories.
        let tags = image.tags.iter().cloned();
        let tags = tags.map(|tag| Subject::Tag(tag, image.id));
        for subject in tags.chain([Subject::ById(image.id), Subject::Dangling(image.id)]) {
            if let Some(tree) = self.trees.find(&subject) {
                self.cache.invalidate_inode(tree.root_ino(), true);
            }
        }
    }
}
