//! Files in and out of containers (`cp`, `export CONTAINER`): docker's rules about paths, a directory to a tar and a tar to a
//! directory.
//!
//! Between the two sides goes a tar and nothing else. Each side works on descriptors: a name is one component, looked up in a
//! directory that is open, and a symbolic link is data. The side of the container is worked on by a process that has the
//! container's root for its own ([`crate::runtime`]): what a link leads to is in there, whoever changes it meanwhile.

mod pack;
mod paths;
mod unpack;
mod ways;

use rustix::io::Errno;

use crate::layer::TarReadError;

pub use pack::{Owners, Packing, pack};
pub use paths::{Destination, Kind, Path, Plan, place, split_argument};
pub use unpack::{Owner, Unpacking, unpack};

/// So deep may a tree be that is copied: each level is an open directory, and a process has 1,024 as a rule.
const MAX_DEPTH: usize = 480;

/// Why nothing, or not everything, was copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// docker's daemon says so.
    #[error("{0}")]
    Refused(String),
    /// docker's command line does.
    #[error("{0}")]
    Usage(String),
    /// A file system does.
    #[error("{}: {source}", shown(path))]
    File {
        /// Which file.
        path: Vec<u8>,
        /// Why not.
        source: Errno,
    },
    /// The archive, or its source, is at fault.
    #[error(transparent)]
    Archive(#[from] TarReadError),
    /// It cannot be written on.
    #[error("writing the archive: {0}")]
    Write(#[source] std::io::Error),
}

impl CopyError {
    /// Whether docker's daemon says this.
    pub fn is_daemons(&self) -> bool {
        matches!(self, CopyError::Refused(_))
    }
}

/// What was left out, or is not as it was: for one line to the user.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Notes {
    /// Sockets, which no archive holds.
    pub sockets: u64,
    /// Devices, which are not made without `-a`, or not by an ordinary user.
    pub devices: u64,
    /// Files that became shorter while they were read: the rest is zeros.
    pub changed: u64,
    /// Owners that there are not on the other side.
    pub owners: u64,
}

impl Notes {
    /// Together with what the other side says.
    pub fn and(self, other: Notes) -> Notes {
        Notes {
            sockets: self.sockets + other.sockets,
            devices: self.devices + other.devices,
            changed: self.changed + other.changed,
            owners: self.owners + other.owners,
        }
    }

    /// One line each.
    pub fn lines(&self) -> Vec<String> {
        let table = [
            (self.sockets, "sockets were left out: no archive holds them"),
            (
                self.devices,
                "devices were left out: only root can make them, with -a",
            ),
            (
                self.changed,
                "files became shorter while they were read, and end with zeros",
            ),
            (
                self.owners,
                "files belong to others than at their source: there are no such users on the other side",
            ),
        ];
        let said = table.iter().filter(|(count, _)| *count > 0);
        said.map(|(count, what)| format!("{count} {what}"))
            .collect()
    }
}

fn shown(path: &[u8]) -> String {
    // Directories in a tar end with one.
    let path = match path {
        b"/" => path,
        path => path.strip_suffix(b"/").unwrap_or(path),
    };
    String::from_utf8_lossy(path).into_owned()
}

/// The error of a file.
fn at(path: &[u8]) -> impl Fn(Errno) -> CopyError {
    let path = path.to_vec();
    move |source| CopyError::File {
        path: path.clone(),
        source,
    }
}

#[cfg(test)]
mod tests;
