//! Who holds parts of some file systems: one pass over `/proc` for several of them, exact about which part.
//!
//! A process may see a file by another name than we do, or by none: through a bind mount in a namespace of its own, below a
//! `chroot`, on a mount that was detached. So a place is identified by the mount a descriptor is on (`statx` gives its id, `mountinfo`
//! of any namespace which part of the file system it shows), and by the path only below that. Where even that fails the place is
//! unknown, which is an answer: a removal must take it for a use.
//!
//! The one look at what others use: for removals, unmounting, ephemeral volumes, engines and the verb `users`. Looking never sends a
//! request to a file system asked about (`statx` with `AT_STATX_DONT_SYNC`), so a FUSE daemon may look for its own users, even from
//! a request. A process that ends meanwhile is left out. What keeps a mount without being a process (a loop device,
//! a descriptor on its way through a socket, a mount namespace that no process is in) is not found.

mod pass;

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use super::mountinfo::{self, DeviceId};
use super::overlays::{self, Overlay};
use super::proc;
use pass::Pass;

/// How something is held.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum How {
    /// Working directory.
    Cwd,
    /// Root directory.
    Root,
    /// An open file.
    Open,
    /// An open directory.
    OpenDirectory,
    /// A mapped file.
    Mapped,
    /// A mount in the process's namespace.
    Mount,
    /// An overlay in the process's namespace stands on it.
    Overlay,
}

/// Where in a file system.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    /// The path from its root, `/` first.
    At(PathBuf),
    /// Somewhere.
    Unknown,
}

impl Place {
    /// The path, if it is known.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Place::At(path) => Some(path),
            Place::Unknown => None,
        }
    }
}

/// One thing held by one process.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Held {
    /// Process id.
    pub pid: u32,
    /// How.
    pub how: How,
    /// On which of the file systems asked about.
    pub device: DeviceId,
    /// Where in it.
    pub place: Place,
    /// Inode number, where the kernel tells it.
    pub inode: Option<u64>,
    /// The path as `/proc` shows it; of an overlay where that is mounted.
    pub shown: PathBuf,
    /// It is seen through a mount of a part, which is found itself.
    pub through_part: bool,
}

/// What one pass found.
#[derive(Clone, Debug, Default)]
pub struct Holders {
    /// Everything held.
    pub held: Vec<Held>,
    /// Processes that this one may not look into.
    pub hidden: Vec<u32>,
    /// Every overlay of every mount namespace, if asked for; in each namespace once.
    pub overlays: Vec<Overlay>,
}

/// How far to look; cheaper is less.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Depth {
    /// Mounts, and what overlays stand on.
    #[default]
    Mounts,
    /// Those, working and root directories: what attaches a directory.
    Attached,
    /// Those, and what is open.
    Open,
    /// Those, and mappings: everything. Not for a thread that serves requests of one of the file systems: `/proc/<pid>/maps` can
    /// wait for a page that it is to deliver.
    Mapped,
}

/// What to look for.
#[derive(Clone, Debug, Default)]
pub struct Question<'a> {
    /// The file systems that are asked about as a whole: everything on them is found.
    pub whole: &'a [DeviceId],
    /// A directory of the host's file system; what is held on that file system is found only if it lies below, or if where
    /// it lies is unknown.
    pub below: Option<Below<'a>>,
    /// How far.
    pub depth: Depth,
    /// What this process holds, too.
    pub own: bool,
    /// All overlays are wanted.
    pub overlays: bool,
}

/// A directory by all that can be known of it.
#[derive(Clone, Copy, Debug)]
pub struct Below<'a> {
    /// As mountinfo and statx name its file system.
    pub device: DeviceId,
    /// The path from the root of that file system.
    pub inside: &'a Path,
    /// The path that we see.
    pub shown: &'a Path,
}

/// Where a directory lies: its file system, and the path from the root of that.
pub fn locate(directory: &Path) -> io::Result<(DeviceId, PathBuf)> {
    let stat = statx(CWD, directory, AtFlags::empty(), StatxFlags::MNT_ID)?;
    let mount = mountinfo::of_self()?;
    let mount = mount.into_iter().find(|mount| mount.id == stat.stx_mnt_id);
    let mount = mount.ok_or(io::ErrorKind::NotFound)?;
    let below = directory.strip_prefix(&mount.mount_point);
    let below = below.map_err(|_| io::Error::from(io::ErrorKind::NotFound))?;
    let device = DeviceId {
        major: stat.stx_dev_major,
        minor: stat.stx_dev_minor,
    };
    Ok((device, mount.root.join(below)))
}

/// Everything that processes hold of what is asked about.
pub fn holders(question: &Question<'_>) -> io::Result<Holders> {
    let pids = proc::all()?;
    let mut pass = Pass {
        question,
        mounts: HashMap::new(),
        found: Holders::default(),
    };
    let mut namespaces: HashSet<PathBuf> = HashSet::new();
    let me = std::process::id();
    // Mounts first: descriptors are identified by them. A process without a private namespace costs one readlink.
    for &pid in &pids {
        let Some(namespace) = proc::namespace_name(pid, "mnt") else {
            continue;
        };
        // Mounts belong to the namespace; each is told with the first process seen in it.
        if namespaces.insert(namespace) {
            let mounts = mountinfo::of_process(pid).unwrap_or_default();
            for overlay in overlays::among(&mounts) {
                pass.overlay(pid, overlay);
            }
            for mount in mounts {
                pass.mount(pid, mount);
            }
        }
    }
    if question.depth >= Depth::Attached {
        let others = pids.iter().filter(|&&pid| question.own || pid != me);
        for &pid in others {
            let (held, hidden) = (pass.found.held.len(), pass.found.hidden.len());
            pass.process(pid);
            let nothing = pass.found.held.len() == held && pass.found.hidden.len() == hidden;
            // What such a one has open a daemon has, or has had for others.
            if !nothing && proc::is_holder(pid) {
                pass.found.held.truncate(held);
                pass.found.hidden.truncate(hidden);
            }
        }
    }
    Ok(pass.found)
}

#[cfg(test)]
mod tests;
