//! Why a use case of volumes failed, in docker's words where docker has them.

use std::io;
use std::path::PathBuf;

use crate::ops::filters::FilterError;
use crate::ops::usage::{Usage, UsageError, User};
use crate::store::{MaybeMissing, StoreError, VolumeName, VolumeNameError};

/// A use case of volumes that failed. Nothing visible has changed.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The argument names no volume.
    #[error("get {0}: no such volume")]
    NoSuch(String),
    /// A text is no volume name.
    #[error("{verb} {name}: {error}")]
    Name {
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
    Conflict {
        /// The name.
        name: VolumeName,
        /// What is there.
        kind: &'static str,
    },
    /// A volume has users.
    #[error("{verb} {name}: volume is in use - [{}]", pids(users))]
    InUse {
        /// What was to be done.
        verb: &'static str,
        /// Which.
        name: VolumeName,
        /// Who.
        users: Vec<User>,
    },
    /// A volume was to be removed only if it is empty.
    #[error("remove {0}: volume is not empty")]
    NotEmpty(VolumeName),
    /// The source of a bind cannot be one.
    #[error("invalid mount config for type \"bind\": {0}")]
    Bind(#[from] BindError),
    /// A bind was to be made ephemeral or persistent.
    #[error("volume {0} is a bind: its data is the host's, and stays in any case")]
    BindHasNoLife(VolumeName),
    /// No name could be made up for a new one.
    #[error("naming the volume: {0}")]
    Random(#[source] io::Error),
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

impl VolumeError {
    /// Whether the volume asked for does not exist, as opposed to something having failed.
    pub fn is_not_found(&self) -> bool {
        matches!(
            self,
            VolumeError::NoSuch(_) | VolumeError::Store(StoreError::NoSuchVolume(_))
        )
    }

    /// Whether docker's daemon says this; its command line then prints its prefix before it.
    pub fn is_daemons(&self) -> bool {
        match self {
            VolumeError::NoSuch(_)
            | VolumeError::Name { .. }
            | VolumeError::Conflict { .. }
            | VolumeError::InUse { .. }
            | VolumeError::Bind(_)
            | VolumeError::Filter(_)
            | VolumeError::Store(StoreError::NoSuchVolume(_)) => true,
            VolumeError::NotEmpty(_)
            | VolumeError::BindHasNoLife(_)
            | VolumeError::Random(_)
            | VolumeError::Store(_)
            | VolumeError::Users(_) => false,
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
        source: io::Error,
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

impl From<UsageError> for VolumeError {
    fn from(error: UsageError) -> Self {
        match error {
            UsageError::Look(error) => VolumeError::Users(error),
            UsageError::Store(error) => VolumeError::Store(error),
        }
    }
}

impl MaybeMissing for VolumeError {
    fn is_missing(&self) -> bool {
        matches!(self, VolumeError::Store(error) if error.is_missing())
    }
}

/// docker lists containers; here it is processes, and containers that are stopped.
fn pids(users: &[User]) -> String {
    let mut who: Vec<String> = Vec::new();
    for user in users {
        let name = match user.usage {
            Usage::Container { .. } => user.path.display().to_string(),
            // No process: an engine, or the kernel.
            _ if user.pid == 0 => user.command.clone(),
            _ => user.pid.to_string(),
        };
        if !who.contains(&name) {
            who.push(name);
        }
    }
    who.join(", ")
}
