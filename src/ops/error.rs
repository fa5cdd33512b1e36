//! Why a word that can mean a thing of any kind means none.

use std::io;
use std::path::PathBuf;

use crate::ops::image::ImageError;
use crate::ops::usage::UsageError;
use crate::ops::volume::VolumeError;
use crate::store::StoreError;

/// A container, an image, a volume or a path that was not found, or cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The argument names nothing at all.
    #[error("No such object: {0}")]
    NoSuch(String),
    /// A path given on the command line leads nowhere.
    #[error("{}: {source}", path.display())]
    Path {
        /// As given.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// An image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A volume.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// Who uses it cannot be found out.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ObjectError {
    /// Whether docker's daemon says this; its command line then prints its prefix before it.
    pub fn is_daemons(&self) -> bool {
        match self {
            ObjectError::NoSuch(_) => true,
            ObjectError::Image(error) => error.is_daemons(),
            ObjectError::Volume(error) => error.is_daemons(),
            ObjectError::Path { .. } | ObjectError::Usage(_) | ObjectError::Store(_) => false,
        }
    }
}
