//! `pin`: a tag that must stay. It is neither untagged nor moved nor pruned, and its image stays with it, until it is let go.

use crate::oci::TagRef;
use crate::store::Store;

use crate::ops::image::ImageError;
use crate::ops::image::resolve::{self, How};

/// Pins tags, or lets them go; all or none. The answer is those that were not so before. The mounts are for the caller to notify.
pub fn set<S: AsRef<str>>(
    store: &Store,
    names: &[S],
    pinned: bool,
) -> Result<Vec<TagRef>, ImageError> {
    let lock = store.lock()?;
    store.change(&lock, |all| {
        let mut changed = Vec::new();
        for text in names {
            let text = text.as_ref();
            let How::Tag(tag) = resolve::image(all, text)?.how else {
                return Err(ImageError::NotATag(text.to_owned()));
            };
            if all.set_pin(&tag, pinned)? {
                changed.push(tag);
            }
        }
        Ok(changed)
    })
}
