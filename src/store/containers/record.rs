//! What is written down of a container.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::oci::{DiffId, ImageId};
use crate::store::files::path_text;
use crate::store::ids::ContainerId;
use crate::sys::idmap::IdMap;

/// The version of the record that this program writes.
pub const VERSION: u32 = 1;

/// `config.json`: what a container is. Unknown keys of newer programs are an older one's loss when it rewrites the file,
/// which only a rename of the container does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// [`VERSION`].
    pub version: u32,
    /// Its identity.
    pub id: ContainerId,
    /// Its name, unique in the store.
    pub name: String,
    /// The image it was made from.
    pub image: ImageId,
    /// How the image was called on the command line.
    pub image_name: String,
    /// The image's layers, bottom first: what `upper` lies on.
    pub layers: Vec<DiffId>,
    /// When it was made.
    pub created: jiff::Timestamp,
    /// What its process runs with: the image's configuration with the options of `run` applied.
    pub config: ContainerConfig,
    /// Volumes, host directories and the like it sees, in the order of mounting.
    #[serde(default)]
    pub mounts: Vec<MountUse>,
    /// Goes when its process ends.
    #[serde(default)]
    pub auto_remove: bool,
    /// Runs without a terminal or reader; prints into `log`.
    #[serde(default)]
    pub detached: bool,
    /// The root file system cannot be written to.
    #[serde(default)]
    pub read_only: bool,
    /// A small init is process 1.
    #[serde(default)]
    pub init: bool,
    /// Host name.
    #[serde(default)]
    pub hostname: String,
    /// Lines for `/etc/hosts`.
    #[serde(default)]
    pub extra_hosts: Vec<String>,
    /// Size of `/dev/shm` in bytes, if not the usual 64 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shm_size: Option<u64>,
    /// Limits of its processes, see `setrlimit`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ulimits: Vec<Ulimit>,
    /// Capabilities its process has, by kernel number.
    #[serde(default)]
    pub capabilities: Vec<u32>,
    /// What else its process may ask of the kernel.
    #[serde(default)]
    pub security: Security,
    /// The ids of its user namespace; `None` if it has none (root made it): then owners in `upper` are those inside.
    #[serde(default)]
    pub ids: Option<IdMap>,
}

/// What a process may ask of the kernel. A record from before there was such a thing says nothing: then the default holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Security {
    /// Which system calls.
    #[serde(default)]
    pub seccomp: Seccomp,
    /// Programs with a set-user-id bit or file capabilities have their effect.
    #[serde(default)]
    pub new_privileges: bool,
}

/// Which system calls a process may make.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Seccomp {
    /// docker's default profile.
    #[default]
    Default,
    /// All.
    Unconfined,
    /// Those of a profile in docker's form, its text.
    Profile(String),
}

/// A limit of every process of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// docker's name of it: `nofile`.
    pub name: String,
    /// What is enforced; `None`: nothing.
    pub soft: Option<u64>,
    /// How far a process may raise that.
    pub hard: Option<u64>,
}

/// The process to run, in the terms of an image's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// User, or user:group; names are the image's.
    #[serde(default)]
    pub user: String,
    /// `NAME=value`.
    #[serde(default)]
    pub env: Vec<String>,
    /// Entry point; `None` is another thing than an empty one.
    #[serde(default)]
    pub entrypoint: Option<Vec<String>>,
    /// Command.
    #[serde(default)]
    pub cmd: Option<Vec<String>>,
    /// Working directory; empty is `/`.
    #[serde(default)]
    pub working_dir: String,
    /// Labels, the image's included.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What `stop` sends; empty is `SIGTERM`.
    #[serde(default)]
    pub stop_signal: String,
    /// Has a terminal.
    #[serde(default)]
    pub tty: bool,
    /// Reads its caller's standard input.
    #[serde(default)]
    pub open_stdin: bool,
}

/// Something mounted into a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountUse {
    /// Where, absolute, as the container sees it.
    #[serde(with = "path_text")]
    pub destination: PathBuf,
    /// What.
    #[serde(flatten)]
    pub source: MountSource,
    /// Cannot be written to.
    #[serde(default)]
    pub read_only: bool,
    /// A new volume does not get the image's content.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_copy: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum MountSource {
    /// A volume of the store.
    Volume {
        /// Its name.
        name: String,
        /// Made for this container, without a name of its own.
        #[serde(default)]
        anonymous: bool,
        /// A directory or file below it, or empty.
        #[serde(default)]
        subpath: String,
    },
    /// A directory or file of the host.
    Bind {
        /// Which, absolute.
        #[serde(with = "path_text")]
        source: PathBuf,
    },
    /// A file system in memory that nobody else sees.
    Tmpfs {
        /// Size limit in bytes.
        #[serde(default)]
        size: Option<u64>,
        /// Mode of its root.
        #[serde(default)]
        mode: Option<u32>,
        /// The kernel's other options.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        options: Vec<String>,
    },
    /// The tree of another image.
    Image {
        /// Which.
        image: ImageId,
        /// A directory below its root, or empty.
        #[serde(default)]
        subpath: String,
    },
}

/// `state.json`: what became of the process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerState {
    /// Whether it runs.
    #[serde(flatten)]
    pub status: Status,
    /// Why it could not be started, if so.
    #[serde(default)]
    pub error: String,
    /// Paths, absolute as the container sees them, that were made in `upper` as something to mount on; parents come first.
    /// They are no change of the container's as long as they are empty.
    #[serde(default)]
    pub made: Vec<String>,
    /// The namespaces that its process was started in, by kind and inode number, while it runs: what `exec` enters. None of a
    /// container that an older program has started.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub namespaces: BTreeMap<String, u64>,
}

/// `paused`: the processes of a container that stand still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Its first process: of a run that is over the file says nothing.
    pub pid: u32,
    /// Those that were stopped for it, by number and start time; `None`: whoever stopped them did not come to say so.
    pub held: Option<Vec<(u32, u64)>>,
}

/// How a container stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum Status {
    /// Never started.
    #[default]
    Created,
    /// Its process lives. In the file: lived when it was written, see the module's header.
    Running {
        /// The process in the container, as the host sees it.
        pid: u32,
        /// Since when.
        started: jiff::Timestamp,
    },
    /// Its process has ended.
    Exited {
        /// Exit code; 128 and the number of the signal that ended it.
        code: u8,
        /// Since when it ran.
        started: jiff::Timestamp,
        /// Until when.
        finished: jiff::Timestamp,
    },
}

impl Status {
    /// The process, while it lives.
    pub fn pid(&self) -> Option<u32> {
        match self {
            Status::Running { pid, .. } => Some(*pid),
            Status::Created | Status::Exited { .. } => None,
        }
    }
}
