//! How failures of the levels below become facts of this one.
//!
//! Two rules: damage is never "not found", and "not found" is only said of what the names do not hold.

use super::face::FsError;
use crate::layer::{IndexError, ReadError};
use crate::ops::OpsError;
use crate::ops::usage::UsageError;
use crate::ops::volume::BindError;
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
        OpsError::from(error).into()
    }
}

impl From<OpsError> for FsError {
    fn from(error: OpsError) -> Self {
        match error {
            OpsError::Store(error) => error.into(),
            // The tag was moved while the caller removed it: what he saw is gone.
            OpsError::NoSuchImage(_)
            | OpsError::NoSuchObject(_)
            | OpsError::NoSuchVolume(_)
            | OpsError::NotInTrash(_)
            | OpsError::TagMoved(_) => FsError::NotFound,
            OpsError::NameTaken(_) => FsError::Exists,
            OpsError::ManyReferences(_)
            | OpsError::ReferenceInUse { .. }
            | OpsError::ImageInUse { .. }
            | OpsError::VolumeInUse { .. } => FsError::Busy(error.to_string()),
            OpsError::VolumeConflict { .. } => FsError::Exists,
            OpsError::VolumeNotEmpty(_) => FsError::NotEmpty,
            OpsError::BindHasNoLife(_) => FsError::NotPermitted,
            OpsError::Bind(BindError::Missing(_)) => FsError::NotFound,
            OpsError::Bind(BindError::Unreadable { path, source }) => FsError::Io {
                context: path.display().to_string(),
                source,
            },
            OpsError::Ambiguous(_)
            | OpsError::Reference(_)
            | OpsError::Target { .. }
            | OpsError::TagWithDigest
            | OpsError::UnknownFilter(_)
            | OpsError::FilterValue { .. }
            | OpsError::ManyUntil
            | OpsError::VolumeName { .. }
            | OpsError::Bind(
                BindError::Relative(_)
                | BindError::Kind(_)
                | BindError::InStore(_)
                | BindError::InMount(_),
            )
            | OpsError::ManyUsed
            | OpsError::NotATag(_)
            | OpsError::Pattern(_) => FsError::Invalid(error.to_string()),
            OpsError::Path { path, source } => FsError::Io {
                context: path.display().to_string(),
                source,
            },
            OpsError::Users(source) => FsError::Io {
                context: "looking for users".to_owned(),
                source,
            },
        }
    }
}
