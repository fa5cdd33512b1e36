//! Why a request fails, in containerd's own codes.

use std::io;

use mica::ops::transfer::pull::PullError;
use mica::store::StoreError;
use tonic::{Code, Status};

use crate::filter::FilterError;

/// Why a request fails.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// No such snapshot: [`SnapshotError::not_found`].
    #[error("snapshot {0} is not there")]
    NotFound(String),
    /// There is one of that name: [`SnapshotError::exists`].
    #[error("snapshot {0} exists already")]
    Exists(String),
    /// A name or label that cannot be one.
    #[error("{0}")]
    Invalid(String),
    /// It is not in a state for that.
    #[error("{0}")]
    Precondition(String),
    /// Nothing of the store can be mounted.
    #[error("{0}")]
    Unavailable(String),
    /// A filter that is none.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The registry.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// The disk.
    #[error("{context}: {source}")]
    Io {
        /// With what.
        context: String,
        /// Why.
        source: io::Error,
    },
}

/// What is shown of a text, in a message that has to fit the headers of an answer.
const SHOWN: usize = 200;

/// A client's text in a message.
pub fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}..", text.get(..end).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}

impl SnapshotError {
    /// For `map_err`.
    pub fn io(context: impl Into<String>) -> impl FnOnce(io::Error) -> SnapshotError {
        let context = context.into();
        move |source| SnapshotError::Io { context, source }
    }

    /// There is one of that name.
    pub fn exists(name: &str) -> SnapshotError {
        SnapshotError::Exists(shown(name))
    }

    /// There is none of that name.
    pub fn not_found(name: &str) -> SnapshotError {
        SnapshotError::NotFound(shown(name))
    }

    fn code(&self) -> Code {
        match self {
            SnapshotError::NotFound(_) => Code::NotFound,
            SnapshotError::Exists(_) => Code::AlreadyExists,
            SnapshotError::Invalid(_) | SnapshotError::Filter(_) => Code::InvalidArgument,
            SnapshotError::Precondition(_) => Code::FailedPrecondition,
            SnapshotError::Unavailable(_) => Code::Unavailable,
            // containerd knows no other; the text says what it is.
            SnapshotError::Store(_) | SnapshotError::Pull(_) | SnapshotError::Io { .. } => {
                Code::Unknown
            }
        }
    }
}

impl From<SnapshotError> for Status {
    fn from(error: SnapshotError) -> Status {
        Status::new(error.code(), error.to_string())
    }
}
