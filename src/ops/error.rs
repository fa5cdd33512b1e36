//! Why a use case failed, in docker's words where docker has them.

use std::path::PathBuf;

use crate::oci::{ImageId, ReferenceError, TagRef};
use crate::store::{MaybeMissing, StoreError, VolumeName, VolumeNameError};

use crate::ops::usage::{Usage, UsageError, User};

/// A use case that failed. Nothing visible has changed.
#[derive(Debug, thiserror::Error)]
pub enum OpsError {
    /// The argument names no image. Holds docker's spelling of it: `nginx:latest`.
    #[error("No such image: {0}")]
    NoSuchImage(String),
    /// The argument names nothing at all: no container, no image, no volume.
    #[error("No such object: {0}")]
    NoSuchObject(String),
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
    /// A malformed glob.
    #[error("syntax error in pattern: {0:?}")]
    Pattern(String),
    /// A filter that there is not.
    #[error("invalid filter '{0}'")]
    UnknownFilter(String),
    /// A filter with a value that it does not take.
    #[error("invalid filter '{name}=[{value}]'")]
    FilterValue {
        /// The filter.
        name: String,
        /// As given.
        value: String,
    },
    /// `until` twice.
    #[error("more than one until filter specified")]
    ManyUntil,
    /// `used` twice.
    #[error("more than one used filter specified")]
    ManyUsed,
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
    ImageInUse {
        /// The image.
        id: ImageId,
        /// Who.
        user: User,
    },
    /// The tag names another image than the caller has seen.
    #[error("{0} names another image now")]
    TagMoved(TagRef),
    /// The argument names no volume.
    #[error("get {0}: no such volume")]
    NoSuchVolume(String),
    /// A path given on the command line leads nowhere.
    #[error("{}: {source}", path.display())]
    Path {
        /// As given.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A text is no volume name.
    #[error("{verb} {name}: {error}")]
    VolumeName {
        /// What was to be done.
        verb: &'static str,
        /// As given.
        name: String,
        /// Why.
        error: VolumeNameError,
    },
    /// A volume of that name and another kind is there.
    #[error(
        "create {name}: volume name must be unique (it is there, {kind}, or with other options)"
    )]
    VolumeConflict {
        /// The name.
        name: VolumeName,
        /// What is there.
        kind: &'static str,
    },
    /// A volume has users.
    #[error("{verb} {name}: volume is in use - [{}]", pids(users))]
    VolumeInUse {
        /// What was to be done.
        verb: &'static str,
        /// Which.
        name: VolumeName,
        /// Who.
        users: Vec<User>,
    },
    /// A volume was to be removed only if it is empty.
    #[error("remove {0}: volume is not empty")]
    VolumeNotEmpty(VolumeName),
    /// The source of a bind cannot be one.
    #[error("invalid mount config for type \"bind\": {0}")]
    Bind(#[from] BindError),
    /// A bind was to be made ephemeral or persistent.
    #[error("volume {0} is a bind: its data is the host's, and stays in any case")]
    BindHasNoLife(VolumeName),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Who uses an image cannot be found out.
    #[error("cannot find out who uses it: {0}")]
    Users(std::io::Error),
}

impl OpsError {
    /// Whether the thing asked for does not exist, as opposed to something having failed.
    pub fn is_not_found(&self) -> bool {
        matches!(
            self,
            OpsError::NoSuchImage(_)
                | OpsError::NoSuchObject(_)
                | OpsError::NoSuchVolume(_)
                | OpsError::Store(StoreError::NoSuchVolume(_))
        )
    }

    /// Whether docker's daemon says this; its command line then prints its prefix before it.
    pub fn is_daemons(&self) -> bool {
        match self {
            OpsError::NoSuchImage(_)
            | OpsError::NoSuchObject(_)
            | OpsError::Ambiguous(_)
            | OpsError::Reference(_)
            | OpsError::Pattern(_)
            | OpsError::UnknownFilter(_)
            | OpsError::FilterValue { .. }
            | OpsError::ManyUntil
            | OpsError::ManyUsed
            | OpsError::ManyReferences(_)
            | OpsError::ReferenceInUse { .. }
            | OpsError::ImageInUse { .. }
            | OpsError::NoSuchVolume(_)
            | OpsError::VolumeName { .. }
            | OpsError::VolumeConflict { .. }
            | OpsError::VolumeInUse { .. }
            | OpsError::Bind(_)
            | OpsError::Store(StoreError::NoSuchVolume(_)) => true,
            OpsError::Target { .. }
            | OpsError::NotInTrash(_)
            | OpsError::NameTaken(_)
            | OpsError::NotATag(_)
            | OpsError::TagWithDigest
            | OpsError::TagMoved(_)
            | OpsError::Path { .. }
            | OpsError::VolumeNotEmpty(_)
            | OpsError::BindHasNoLife(_)
            | OpsError::Store(_)
            | OpsError::Users(_) => false,
        }
    }
}

/// Why a directory or file cannot be the source of a bind.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// It is not there. docker's words.
    #[error("bind source path does not exist: {}", .0.display())]
    Missing(PathBuf),
    /// It cannot be looked at.
    #[error("bind source path {}: {source}", path.display())]
    Unreadable {
        /// As given.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Relative.
    #[error("bind source path must be absolute: {}", .0.display())]
    Relative(PathBuf),
    /// A device, pipe or socket.
    #[error("bind source path is neither a directory nor a file: {}", .0.display())]
    Kind(PathBuf),
    /// It lies in the store.
    #[error("bind source path is inside the store: {}", .0.display())]
    InStore(PathBuf),
    /// It lies in a mount of the store.
    #[error("bind source path is inside a mount of mica: {}", .0.display())]
    InMount(PathBuf),
}

impl From<UsageError> for OpsError {
    fn from(error: UsageError) -> OpsError {
        match error {
            UsageError::Look(error) => OpsError::Users(error),
            UsageError::Store(error) => OpsError::Store(error),
        }
    }
}

/// docker lists containers; here it is processes, and containers that are stopped.
fn pids(users: &[User]) -> String {
    let mut who: Vec<String> = Vec::new();
    for user in users {
        let name = match user.usage {
            Usage::Container { .. } => user.path.display().to_string(),
            _ => user.pid.to_string(),
        };
        if !who.contains(&name) {
            who.push(name);
        }
    }
    who.join(", ")
}

impl MaybeMissing for OpsError {
    fn is_missing(&self) -> bool {
        matches!(self, OpsError::Store(error) if error.is_missing())
    }
}
