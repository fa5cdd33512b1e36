//! A container's upper directory, as a source of changes.

use std::path::Path;

use crate::layer::from_dir::{OverlayAttributes, Owners, Source};
use crate::layer::merged::Image;
use crate::store::containers::Container;
use crate::store::{Store, StoreError};

/// Why an argument names no container, although containers begin so.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The beginning of several.
    #[error("Multiple IDs found with provided prefix: {0}")]
    Ambiguous(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The container that `text` names: its whole ID, its name, or the beginning of its ID, in docker's order.
pub fn find(store: &Store, text: &str) -> Result<Option<Container>, FindError> {
    let name = text.strip_prefix('/').unwrap_or(text);
    let containers = store.containers()?;
    let exact = |container: &&Container| {
        container.record.id.as_str() == text || container.record.name == name
    };
    if let Some(container) = containers.iter().find(exact) {
        return Ok(Some(container.clone()));
    }
    let mut beginning = containers
        .iter()
        .filter(|container| !text.is_empty() && container.record.id.as_str().starts_with(text));
    match (beginning.next(), beginning.next()) {
        (Some(_), Some(_)) => Err(FindError::Ambiguous(text.to_owned())),
        (found, _) => Ok(found.cloned()),
    }
}

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
            Some(ids) if !crate::sys::idmap::is_inside(ids) => Owners::Mapped(ids),
            _ => Owners::Same,
        },
        made: &container.state.made,
    }
}
