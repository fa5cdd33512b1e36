//! Who uses what: images, volumes, paths.
//!
//! One look at `/proc` ([`crate::sys::holders`]), one kind of answer ([`User`]), one reading of paths ([`crate::mount_paths`]).
//! `images` and `volumes` say whose things are held; removals, unmounting, ephemeral volumes, engines and the verb `users` ask them.

pub mod images;
pub mod volumes;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::store::{LiveLease, StoreError};
use crate::sys::holders::{self, Depth, Held, How, Question};
use crate::sys::mount::FS_TYPE;
use crate::sys::mountinfo::{self, DeviceId};
use crate::sys::proc;

/// Why it cannot be said who uses something. No answer is never "nobody".
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// The processes or mounts cannot be looked at.
    #[error("cannot find out who uses it: {0}")]
    Look(#[from] io::Error),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How something is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Usage {
    /// An open file or directory.
    Open,
    /// A mapped file.
    Mapped,
    /// A working directory.
    Cwd,
    /// A root directory.
    Root,
    /// A part of it is mounted.
    Mount,
    /// An overlay stands on it.
    Overlay,
    /// A lease.
    Lease,
    /// A container that runs on it, or would use it again.
    Container {
        /// Whether its process lives.
        running: bool,
    },
    /// An engine's container or image that stands on it.
    Engine,
    /// A process that may use it, and that we may not look into.
    Hidden,
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Usage::Open => "open",
            Usage::Mapped => "mapped",
            Usage::Cwd => "cwd",
            Usage::Root => "root",
            Usage::Mount => "mount",
            Usage::Overlay => "overlay",
            Usage::Lease => "lease",
            Usage::Container { .. } => "container",
            Usage::Engine => "engine",
            Usage::Hidden => "hidden",
        })
    }
}

impl From<How> for Usage {
    fn from(how: How) -> Usage {
        match how {
            How::Cwd => Usage::Cwd,
            How::Root => Usage::Root,
            How::Open | How::OpenDirectory => Usage::Open,
            How::Mapped => Usage::Mapped,
            How::Mount => Usage::Mount,
            How::Overlay => Usage::Overlay,
        }
    }
}

/// One user. Its text is what refusals name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Process id; of a mount, of one process that sees it. 0: no process.
    pub pid: u32,
    /// What the process, the container or the engine's thing is called.
    pub command: String,
    /// How.
    pub usage: Usage,
    /// What: a path as the process sees it; of a container its id.
    pub path: PathBuf,
}

impl User {
    /// Who holds something.
    pub fn of(held: &Held) -> User {
        User {
            pid: held.pid,
            command: proc::name(held.pid).unwrap_or_default(),
            usage: held.how.into(),
            path: held.shown.clone(),
        }
    }

    /// The holder of a lease. Its children hold it when it has ended itself.
    pub fn leased(lease: &LiveLease) -> User {
        User {
            pid: lease.record.pid,
            command: match lease.record.pid {
                // Of what engines have, whether the plugin runs or not.
                0 => "engine (volume plugin)".to_owned(),
                pid => proc::name(pid).unwrap_or_else(|| "(ended)".to_owned()),
            },
            usage: Usage::Lease,
            path: PathBuf::new(),
        }
    }

    /// What an engine has.
    pub fn engine(who: String) -> User {
        User {
            pid: 0,
            command: who,
            usage: Usage::Engine,
            path: PathBuf::new(),
        }
    }

    /// docker's word on what removes an image from under this user.
    pub fn remedy(&self) -> &'static str {
        match self.usage {
            Usage::Container { running: true } => "cannot be forced",
            _ => "must be forced",
        }
    }

    /// With the state of a container, as docker says it where an image was asked for by ID.
    pub fn by_state(&self) -> String {
        match self.usage {
            Usage::Container { running: true } => format!("running {self}"),
            Usage::Container { running: false } => format!("stopped {self}"),
            _ => self.to_string(),
        }
    }

    /// With what of a process it is, where something is busy because of it.
    pub fn detail(&self) -> String {
        let how = match self.usage {
            Usage::Cwd => "working directory",
            Usage::Root => "root directory",
            Usage::Open => "open file",
            Usage::Mapped => "mapped file",
            Usage::Mount => "mount",
            Usage::Overlay => "overlay",
            Usage::Lease | Usage::Container { .. } | Usage::Engine | Usage::Hidden => {
                return self.to_string();
            }
        };
        let (name, path) = (self.command.escape_debug(), self.path.to_string_lossy());
        let path = path.escape_debug();
        format!("process {} ({name}): {how} {path}", self.pid)
    }

    /// Whether both are the same mount, container or process, however that came to be known.
    pub fn is_same(&self, other: &User) -> bool {
        let is_mount = |user: &User| matches!(user.usage, Usage::Mount | Usage::Overlay);
        let is_process =
            |user: &User| user.pid != 0 && !matches!(user.usage, Usage::Container { .. });
        match (is_mount(self), is_mount(other)) {
            (true, true) => self.path == other.path,
            (false, false) if is_process(self) && is_process(other) => self.pid == other.pid,
            _ => self == other,
        }
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.usage {
            Usage::Mount => write!(f, "mount {}", self.path.display()),
            Usage::Overlay => write!(f, "overlay {}", self.path.display()),
            Usage::Engine => write!(f, "{}", self.command.escape_debug()),
            // As long as docker shows of an id.
            Usage::Container { .. } => write!(f, "container {:.12}", self.path.to_string_lossy()),
            Usage::Open
            | Usage::Mapped
            | Usage::Cwd
            | Usage::Root
            | Usage::Lease
            | Usage::Hidden => write!(f, "process {} ({})", self.pid, self.command),
        }
    }
}

/// Who keeps a file system from being unmounted, each process once. This one is no exception.
pub fn keeping_busy(device: DeviceId) -> Vec<User> {
    let question = Question {
        whole: &[device],
        depth: Depth::Mapped,
        own: true,
        ..Question::default()
    };
    let mut held = holders::holders(&question).unwrap_or_default().held;
    // A mount alone keeps nothing busy.
    held.retain(|held| !matches!(held.how, How::Mount | How::Overlay));
    held.dedup_by_key(|held| held.pid);
    held.iter().map(User::of).collect()
}

/// Who would notice if the file system that is mounted on `place` were gone: as [`keeping_busy`], and mounts of it elsewhere.
pub fn standing_on(device: DeviceId, place: &Path) -> Vec<User> {
    let question = Question {
        whole: &[device],
        depth: Depth::Mapped,
        ..Question::default()
    };
    let mut held = holders::holders(&question).unwrap_or_default().held;
    held.retain(|held| held.how != How::Mount || held.shown != place);
    held.iter().map(User::of).collect()
}

/// The device of the mica mount on a directory; the topmost if several are. Asks the kernel only, never the mount: it may be hung.
pub fn mounted_on(directory: &Path) -> io::Result<Option<DeviceId>> {
    let mounts = mountinfo::of_self()?;
    let mut here = mounts.iter().rev();
    let here = here.find(|mount| mount.mount_point == directory);
    let here = here.filter(|mount| mount.fs_type == FS_TYPE);
    Ok(here.map(|mount| mount.device))
}
