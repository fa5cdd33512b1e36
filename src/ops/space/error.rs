//! Why the space of a store was not measured, or not given back.

use crate::ops::container::run::RunError;
use crate::ops::image::ImageError;
use crate::ops::usage::UsageError;
use crate::ops::volume::VolumeError;
use crate::store::{MaybeMissing, StoreError};

/// What takes space is everything; this is by whose part it failed.
#[derive(Debug, thiserror::Error)]
pub enum SpaceError {
    /// Containers.
    #[error(transparent)]
    Container(#[from] RunError),
    /// Images.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Volumes.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// Who uses what.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SpaceError {
    /// Whether docker's daemon says this; its command line then prints its prefix before it.
    pub fn is_daemons(&self) -> bool {
        match self {
            SpaceError::Container(error) => error.is_daemons(),
            SpaceError::Image(error) => error.is_daemons(),
            SpaceError::Volume(error) => error.is_daemons(),
            SpaceError::Usage(_) | SpaceError::Store(_) => false,
        }
    }
}

impl MaybeMissing for SpaceError {
    fn is_missing(&self) -> bool {
        match self {
            SpaceError::Image(error) => error.is_missing(),
            SpaceError::Volume(error) => error.is_missing(),
            SpaceError::Store(error) | SpaceError::Usage(UsageError::Store(error)) => {
                error.is_missing()
            }
            SpaceError::Container(_) | SpaceError::Usage(UsageError::Look(_)) => false,
        }
    }
}
