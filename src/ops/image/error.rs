//! Why a use case of images failed, in docker's words where docker has them.

use crate::oci::{ImageId, ReferenceError, TagRef};
use crate::ops::filters::FilterError;
use crate::ops::usage::{UsageError, User};
use crate::store::{MaybeMissing, StoreError};

/// A use case of images that failed. Nothing visible has changed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The argument names no image. Holds docker's spelling of it: `nginx:latest`.
    #[error("No such image: {0}")]
    NoSuch(String),
    /// An ID prefix of several images.
    #[error("ambiguous reference: {0} is the beginning of several image IDs")]
    Ambiguous(String),
    /// The argument is no reference at all.
    #[error("{0}")]
    Reference(#[from] ReferenceError),
    /// A target of `tag` is no reference; docker's command line finds this, not its daemon.
    #[error("error parsing reference: {text:?} is not a valid repository/tag: {error}")]
    Target {
        /// As given.
        text: String,
        /// Why.
        error: ReferenceError,
    },
    /// A target of `tag` has a digest.
    #[error("{}", ReferenceError::TagWithDigest)]
    TagWithDigest,
    /// Nothing in the trash of that name.
    #[error("nothing of that name is in the trash: {0}")]
    NotInTrash(String),
    /// The name to bring back is on an image again.
    #[error("{0} is on an image again; restore it as another name: `mica restore {0} NEW_NAME`")]
    NameTaken(TagRef),
    /// Something is not a name, but has to be.
    #[error("{0:?} is no tag: only tags can be pinned")]
    NotATag(String),
    /// An image asked for by ID has more names than one.
    #[error(
        "conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories",
        .0.short()
    )]
    ManyReferences(ImageId),
    /// The image behind the last name is in use.
    #[error(
        "conflict: unable to remove repository reference \"{reference}\" (must force) - {user} is using its referenced image {}",
        .id.short()
    )]
    ReferenceInUse {
        /// The name, as docker prints it.
        reference: String,
        /// The image.
        id: ImageId,
        /// Who.
        user: User,
    },
    /// The image asked for by ID is in use.
    #[error("conflict: unable to delete {} ({}) - image is being used by {}", .id.short(), .user.remedy(), .user.by_state())]
    InUse {
        /// The image.
        id: ImageId,
        /// Who.
        user: User,
    },
    /// The tag names another image than the caller has seen.
    #[error("{0} names another image now")]
    TagMoved(TagRef),
    /// A filter.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Who uses it cannot be found out.
    #[error("cannot find out who uses it: {0}")]
    Users(std::io::Error),
}

impl ImageError {
    /// Whether the image asked for does not exist, as opposed to something having failed.
    pub fn is_not_found(&self) -> bool {
        matches!(self, ImageError::NoSuch(_))
    }

    /// Whether docker's daemon says this; its command line then prints its prefix before it.
    pub fn is_daemons(&self) -> bool {
        match self {
            ImageError::NoSuch(_)
            | ImageError::Ambiguous(_)
            | ImageError::Reference(_)
            | ImageError::ManyReferences(_)
            | ImageError::ReferenceInUse { .. }
            | ImageError::InUse { .. }
            | ImageError::Filter(_) => true,
            ImageError::Target { .. }
            | ImageError::NotInTrash(_)
            | ImageError::NameTaken(_)
            | ImageError::NotATag(_)
            | ImageError::TagWithDigest
            | ImageError::TagMoved(_)
            | ImageError::Store(_)
            | ImageError::Users(_) => false,
        }
    }
}

impl From<UsageError> for ImageError {
    fn from(error: UsageError) -> Self {
        match error {
            UsageError::Look(error) => ImageError::Users(error),
            UsageError::Store(error) => ImageError::Store(error),
        }
    }
}

impl MaybeMissing for ImageError {
    fn is_missing(&self) -> bool {
        matches!(self, ImageError::Store(error) if error.is_missing())
    }
}
