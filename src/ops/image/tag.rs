//! `tag`: one more name, or several, for an image. A name that another image has moves over; that image may become
//! dangling and stays.

use std::time::SystemTime;

use crate::oci::{ImageId, ReferenceError, TagRef};
use crate::store::Store;

use crate::ops::image::ImageError;
use crate::ops::image::resolve;

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tagged {
    /// The image.
    pub id: ImageId,
    /// Each target, with the image that lost that name.
    pub targets: Vec<(TagRef, Option<ImageId>)>,
}

/// The targets of an argument list, all valid or none.
pub fn parse_targets<S: AsRef<str>>(targets: &[S]) -> Result<Vec<TagRef>, ImageError> {
    let parse = |text: &S| match TagRef::parse(text.as_ref()) {
        Err(ReferenceError::TagWithDigest) => Err(ImageError::TagWithDigest),
        parsed => parsed.map_err(|error| ImageError::Target {
            text: text.as_ref().to_owned(),
            error,
        }),
    };
    targets.iter().map(parse).collect()
}

/// Names the image that `source` means by all `targets`, in one step. The mounts are for the caller to notify.
pub fn tag(store: &Store, source: &str, targets: &[TagRef]) -> Result<Tagged, ImageError> {
    let lock = store.lock()?;
    store.change(&lock, |names| {
        let id = resolve::image(names, source)?.id;
        let now = SystemTime::now();
        let put = |target: &TagRef| Ok((target.clone(), names.tag(target, id, now)?));
        let targets = targets.iter().map(put).collect::<Result<_, ImageError>>()?;
        Ok(Tagged { id, targets })
    })
}
