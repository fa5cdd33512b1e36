//! `run`: from an image, some volumes and a command line to a container that can be started.
//!
//! Everything is decided here and written down in the container's record; starting it needs nothing else. What docker does
//! with the same options is what counts, its texts included.

pub(in crate::ops) mod create;
pub mod env;
pub mod hosts;
pub mod limits;
pub mod logs;
pub mod masks;
pub mod mounts;
mod names;
mod ready;
pub mod security;
pub mod user;

pub use crate::ops::container::run::create::{Created, Options, create};
pub use crate::ops::container::run::names::is_valid as is_valid_name;
pub use crate::ops::container::run::ready::{Ready, again, as_it_is, ready};

use crate::ops::filters::FilterError;
use crate::ops::image::ImageError;
use crate::ops::volume::VolumeError;
use crate::store::StoreError;
use crate::store::containers::ContainerId;

/// The search path of a container whose image sets none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The capabilities of a container, by number: docker's but for `NET_RAW`, which on the host's network reads and forges what is
/// the host's.
pub const CAPABILITIES: [(&str, u32); 13] = [
    ("CHOWN", 0),
    ("DAC_OVERRIDE", 1),
    ("FOWNER", 3),
    ("FSETID", 4),
    ("KILL", 5),
    ("SETGID", 6),
    ("SETUID", 7),
    ("SETPCAP", 8),
    ("NET_BIND_SERVICE", 10),
    ("SYS_CHROOT", 18),
    ("MKNOD", 27),
    ("AUDIT_WRITE", 29),
    ("SETFCAP", 31),
];

/// A container that was not made, or not found.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// docker's daemon refuses with these words.
    #[error("{0}")]
    Refused(String),
    /// docker's command line does.
    #[error("{0}")]
    Usage(String),
    /// Standard input was to be the terminal of a process, and is none.
    #[error("the input device is not a TTY")]
    NotATty,
    /// The argument names no container.
    #[error("No such container: {0}")]
    NoSuch(String),
    /// Another container has the name.
    #[error(
        "Conflict. The container name \"/{name}\" is already in use by container \"{id}\". You have to remove (or rename) that container to be able to reuse that name."
    )]
    NameTaken {
        /// The name.
        name: String,
        /// Whose it is.
        id: ContainerId,
    },
    /// A container that runs is not removed, unless that is forced.
    #[error("cannot remove container \"{name}\": container is {}", match paused {
        true => "paused and must be unpaused first",
        false => "running: stop the container before removing or force remove",
    })]
    Running {
        /// Which.
        name: String,
        /// Whether it is paused.
        paused: bool,
    },
    /// An image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A volume.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// A filter.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl RunError {
    /// Whether docker's daemon says this; its command line then prints its prefix before it.
    pub fn is_daemons(&self) -> bool {
        match self {
            RunError::Refused(_)
            | RunError::NoSuch(_)
            | RunError::NameTaken { .. }
            | RunError::Running { .. }
            | RunError::Filter(_) => true,
            RunError::Image(error) => error.is_daemons(),
            RunError::Volume(error) => error.is_daemons(),
            RunError::Usage(_) | RunError::NotATty | RunError::Store(_) | RunError::Io { .. } => {
                false
            }
        }
    }

    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> RunError {
        let what = what.into();
        move |source| RunError::Io { what, source }
    }
}
