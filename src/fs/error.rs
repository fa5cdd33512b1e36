//! How failures of the levels below become facts of this one.
//!
//! Two rules: damage is never "not found", and "not found" is only said of what the names do not hold.

use std::io;

use super::api::FsError;
use crate::layer::{IndexError, ReadError};
use crate::ops::image::ImageError;
use crate::ops::usage::UsageError;
use crate::ops::volume::{self as volumes, BindError};
use crate::store::StoreError;

impl From<IndexError> for FsError {
    fn from(error: IndexError) -> Self {
        let what = error.to_string();
        match error {
            IndexError::Io { source, .. } => FsError::Io {
                context: what,
                source,
            },
            IndexError::Format { diff_id, .. }
            | IndexError::Version { diff_id, .. }
            | IndexError::WrongLayer { diff_id, .. }
            | IndexError::Damaged { diff_id, .. }
            | IndexError::DanglingLink { diff_id, .. }
            | IndexError::Kind { diff_id, .. } => FsError::Corrupt {
                digest: diff_id.0,
                what,
            },
            IndexError::TooManyLayers(_) => FsError::Store(what),
        }
    }
}

impl From<ReadError> for FsError {
    fn from(error: ReadError) -> Self {
        let what = error.to_string();
        match error {
            ReadError::Index(error) => error.into(),
            ReadError::Io { source, .. } => FsError::Io {
                context: what,
                source,
            },
            ReadError::Size { diff_id, .. } | ReadError::Damaged { diff_id, .. } => {
                FsError::Corrupt {
                    digest: diff_id.0,
                    what,
                }
            }
        }
    }
}

impl From<StoreError> for FsError {
    fn from(error: StoreError) -> Self {
        let full = [rustix::io::Errno::NOSPC, rustix::io::Errno::DQUOT];
        if let Some(errno) = error.raw_os_error()
            && full.iter().any(|full| full.raw_os_error() == errno)
        {
            return FsError::NoSpace(error.to_string());
        }
        let what = error.to_string();
        match error {
            StoreError::Index(error) => error.into(),
            StoreError::Layer(error) => error.into(),
            StoreError::LayerMissing(layer)
            | StoreError::IndexMissing(layer)
            | StoreError::LayerDamaged { diff_id: layer, .. } => FsError::Corrupt {
                digest: layer.0,
                what,
            },
            StoreError::BlobMissing(digest)
            | StoreError::BlobDamaged { digest, .. }
            | StoreError::Document { digest, .. } => FsError::Corrupt { digest, what },
            StoreError::NoSuchImage(_)
            | StoreError::NoSuchTag(_)
            | StoreError::NoSuchRepository(_)
            | StoreError::NoSuchVolume(_)
            | StoreError::VolumeEnded(_) => FsError::NotFound,
            StoreError::TagExists(_) | StoreError::VolumeExists(_) => FsError::Exists,
            StoreError::Pinned(_) => FsError::NotPermitted,
            StoreError::ImageTagged { .. } | StoreError::VolumeKept { .. } => FsError::Busy(what),
            StoreError::ReadOnly { .. } => FsError::ReadOnly,
            StoreError::Io { .. }
            | StoreError::NotAStore { .. }
            | StoreError::NotEmpty { .. }
            | StoreError::Foreign { .. }
            | StoreError::Planted { .. }
            | StoreError::MetaDamaged { .. }
            | StoreError::TooNew { .. }
            | StoreError::NoLocks { .. }
            | StoreError::NamesDamaged { .. }
            | StoreError::VolumesDamaged { .. }
            | StoreError::LayersDisagree { .. }
            | StoreError::TooMuch { .. }
            | StoreError::LittleRoom { .. } => FsError::Store(what),
        }
    }
}

impl From<UsageError> for FsError {
    fn from(error: UsageError) -> FsError {
        match error {
            UsageError::Store(error) => error.into(),
            UsageError::Look(source) => unknown_users(source),
        }
    }
}

fn unknown_users(source: io::Error) -> FsError {
    FsError::Io {
        context: "looking for users".to_owned(),
        source,
    }
}

impl From<ImageError> for FsError {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::Store(error) => error.into(),
            // The tag was moved while the caller removed it: what was seen is gone.
            ImageError::NoSuch(_) | ImageError::NotInTrash(_) | ImageError::TagMoved(_) => {
                FsError::NotFound
            }
            ImageError::NameTaken(_) => FsError::Exists,
            ImageError::ManyReferences(_)
            | ImageError::ReferenceInUse { .. }
            | ImageError::InUse { .. } => FsError::Busy(error.to_string()),
            ImageError::Ambiguous(_)
            | ImageError::Reference(_)
            | ImageError::Target { .. }
            | ImageError::TagWithDigest
            | ImageError::NotATag(_)
            | ImageError::Filter(_) => FsError::Invalid(error.to_string()),
            ImageError::Users(source) => unknown_users(source),
        }
    }
}

impl From<volumes::VolumeError> for FsError {
    fn from(error: volumes::VolumeError) -> Self {
        use volumes::VolumeError;
        match error {
            VolumeError::Store(error) => error.into(),
            VolumeError::NoSuch(_) | VolumeError::Bind(BindError::Missing(_)) => FsError::NotFound,
            VolumeError::InUse { .. } => FsError::Busy(error.to_string()),
            VolumeError::Conflict { .. } => FsError::Exists,
            VolumeError::NotEmpty(_) => FsError::NotEmpty,
            VolumeError::BindHasNoLife(_) => FsError::NotPermitted,
            VolumeError::Bind(BindError::Unreadable { path, source }) => FsError::Io {
                context: path.display().to_string(),
                source,
            },
            VolumeError::Name { .. }
            | VolumeError::Bind(
                BindError::Relative(_)
                | BindError::Kind(_)
                | BindError::InStore(_)
                | BindError::InMount(_),
            )
            | VolumeError::Filter(_) => FsError::Invalid(error.to_string()),
            VolumeError::Random(source) => FsError::Io {
                context: "naming the volume".to_owned(),
                source,
            },
            VolumeError::Users(source) => unknown_users(source),
        }
    }
}
