//! A container's upper directory, as a source of changes.

use std::path::Path;

use crate::layer::from_dir::{OverlayAttributes, Owners, Source};
use crate::layer::merged::Image;
use crate::store::containers::Container;
use crate::sys::idmap;

/// How a container's upper directory is to be read. A container in a user namespace has its overlay's notes in `user.`
/// attributes; whoever reads from inside such a namespace sees its owners as the container does.
pub(in crate::ops) fn source<'a>(
    container: &'a Container,
    directory: &'a Path,
    base: &'a Image,
) -> Source<'a> {
    let record = &container.record;
    Source {
        directory,
        base: Some(base),
        overlay: match record.ids {
            Some(_) => OverlayAttributes::User,
            None => OverlayAttributes::Trusted,
        },
        owners: match &record.ids {
            Some(ids) if !idmap::is_inside(ids) => Owners::Mapped(ids),
            _ => Owners::Same,
        },
        made: &container.state.made,
        latest: None,
    }
}
