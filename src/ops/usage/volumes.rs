//! Who uses volumes.
//!
//! A user is a process that has a file of the volume open or mapped, or its working or root directory inside; a mount of the
//! volume or of a part of it in any mount namespace, through a mica mount or of the data on the host, an overlay on it; or a lease.
//! An open directory is none: `ls` opens one.
//!
//! What cannot be identified counts as a use of every volume: a place on a volumes' mount that has no name, and a process that we
//! may not look into, if it may be one of ours (see [`may_be_ours`]) and is not the init of a container ([`proc::STARTER`]).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::DirEntryExt as _;
use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;

use super::{Usage, UsageError, User};
use crate::mount_paths;
use crate::store::volumes::{SIDE_MOUNTS, side_mount_name};
use crate::store::{LeaseKind, LiveLease, Store, Volume, VolumeId, VolumeName, Volumes};
use crate::sys::holders::{self, Below, Depth, Held, How, Place, Question};
use crate::sys::mountinfo::{self, DeviceId};
use crate::sys::proc;

/// A volume of more files than this is not searched for a file that some process has open at an unknown place.
const MAX_SEARCHED: usize = 50_000;

/// The users of a store's volumes at one moment.
#[derive(Debug, Clone, Default)]
pub struct VolumeUsers {
    by_volume: BTreeMap<VolumeId, Vec<User>>,
    /// May be users of any volume that is older than the time.
    of_any: Vec<(User, Option<Timestamp>)>,
}

/// How to look.
#[derive(Debug, Clone, Copy, Default)]
pub struct Look {
    /// At mappings too; not from a thread that serves requests, see [`Depth::Mapped`].
    pub maps: bool,
    /// A process that is no user: who asks.
    pub except: Option<u32>,
}

impl VolumeUsers {
    /// The users of one volume, each process and way once.
    pub fn of(&self, volume: &Volume) -> Vec<User> {
        let mut users = self.by_volume.get(&volume.id).cloned().unwrap_or_default();
        // Start times are a little early.
        let since = volume.created - jiff::SignedDuration::from_secs(2);
        let any = self.of_any.iter().filter(|(_, started)| {
            // What began before the volume was there cannot have it from its parents.
            started.is_none_or(|started| started >= since)
        });
        users.extend(any.map(|(user, _)| user.clone()));
        users
    }

    /// Whether it has any user.
    pub fn any(&self, volume: &Volume) -> bool {
        !self.of(volume).is_empty()
    }
}

/// Finds the users of all volumes. Call it with the leases read first: a lease that begins later is seen by nobody yet.
pub fn find(store: &Store, leases: &[LiveLease], look: Look) -> Result<VolumeUsers, UsageError> {
    find_among(store, &*store.volume_set()?, leases, look)
}

/// As [`find`], of volumes that may have been removed.
pub fn find_among(
    store: &Store,
    volumes: &Volumes,
    leases: &[LiveLease],
    look: Look,
) -> Result<VolumeUsers, UsageError> {
    let mut users = VolumeUsers::default();
    of_leases(volumes, leases, &mut users);

    let devices = devices(leases);
    let data = store.layout().volumes().canonicalize();
    let data = data.ok().filter(|_| volumes.iter().next().is_some());
    let located = match &data {
        Some(data) => Some(holders::locate(data)?),
        None => None,
    };
    let below = match (&data, &located) {
        (Some(shown), Some((device, inside))) => Some(Below {
            device: *device,
            inside,
            shown,
        }),
        _ => None,
    };
    if devices.is_empty() && below.is_none() {
        return Ok(users);
    }
    let question = Question {
        whole: &devices,
        below,
        depth: match look.maps {
            true => Depth::Mapped,
            false => Depth::Open,
        },
        ..Question::default()
    };
    let found = holders::holders(&question)?;
    let daemons: BTreeSet<u32> = leases
        .iter()
        .filter(|lease| lease.is_daemon())
        .map(|lease| lease.record.pid)
        .chain(look.except)
        .collect();
    let points = leases
        .iter()
        .filter_map(LiveLease::mountpoint)
        .map(|point| {
            let name = side_mount_name(point);
            (name, point.join(mount_paths::VOLUMES))
        });
    let mut finder = Finder {
        store,
        volumes,
        below,
        beside: points.collect(),
        commands: BTreeMap::new(),
        users,
    };
    for held in &found.held {
        // A daemon holds its volumes' data for others; a mount in its namespace is no less a mount.
        if matches!(held.how, How::Mount | How::Overlay) || !daemons.contains(&held.pid) {
            finder.held(held);
        }
    }
    for pid in found
        .hidden
        .into_iter()
        .filter(|pid| !daemons.contains(pid))
    {
        let name = proc::name(pid).unwrap_or_default();
        if name.as_bytes() != proc::STARTER.to_bytes() && may_be_ours(pid) {
            let started = proc::started(pid);
            let user = finder.user(pid, Usage::Hidden, Path::new(""));
            finder.users.of_any.push((user, started));
        }
    }
    for of_volume in finder.users.by_volume.values_mut() {
        of_volume.sort_by(|a, b| (a.pid, a.usage, &a.path).cmp(&(b.pid, b.usage, &b.path)));
        of_volume.dedup();
    }
    Ok(finder.users)
}

/// Who has a lease on volumes. Costs no look at processes.
pub fn leased(volumes: &Volumes, leases: &[LiveLease]) -> VolumeUsers {
    let mut users = VolumeUsers::default();
    of_leases(volumes, leases, &mut users);
    users
}

fn of_leases(volumes: &Volumes, leases: &[LiveLease], users: &mut VolumeUsers) {
    for lease in leases {
        let LeaseKind::Volume { volumes: names } = &lease.record.kind else {
            continue;
        };
        for volume in names.iter().filter_map(|name| volumes.get(name)) {
            let of_volume = users.by_volume.entry(volume.id.clone()).or_default();
            of_volume.push(User::leased(lease));
        }
    }
}

/// Where the volumes are mounted: the connection below each daemon's mount.
pub fn devices(leases: &[LiveLease]) -> Vec<DeviceId> {
    let mut devices = Vec::new();
    for lease in leases {
        let Some(mountpoint) = lease.mountpoint() else {
            continue;
        };
        let point = mountpoint.join(mount_paths::VOLUMES);
        // The daemon's view: ours may lack the mount.
        let mounts = mountinfo::of_process(lease.record.pid).or_else(|_| mountinfo::of_self());
        let mounts = mounts.unwrap_or_default();
        let name = side_mount_name(mountpoint);
        let is_beside = |place: &Path| {
            let above = place.parent().and_then(Path::file_name);
            place.file_name() == Some(OsStr::new(&name))
                && above.is_some_and(|above| {
                    above.as_encoded_bytes().starts_with(SIDE_MOUNTS.as_bytes())
                })
        };
        let mut newest = mounts.iter().rev();
        let here = newest.find(|mount| mount.mount_point == point || is_beside(&mount.mount_point));
        let is_fuse = |kind: &OsStr| kind.as_encoded_bytes().starts_with(b"fuse");
        devices.extend(here.filter(|m| is_fuse(&m.fs_type)).map(|m| m.device));
    }
    devices
}

struct Finder<'a> {
    store: &'a Store,
    volumes: &'a Volumes,
    below: Option<Below<'a>>,
    /// Names of directories that volumes are mounted on beside a mount point, and what they are called in it.
    beside: Vec<(String, PathBuf)>,
    commands: BTreeMap<u32, String>,
    users: VolumeUsers,
}

impl Finder<'_> {
    fn user(&mut self, pid: u32, usage: Usage, path: &Path) -> User {
        let command = self.commands.entry(pid);
        let command = command.or_insert_with(|| proc::name(pid).unwrap_or_default());
        User {
            pid,
            command: command.clone(),
            usage,
            path: self.as_typed(path),
        }
    }

    /// A place in the mount, where the user sees it, for one beside it.
    fn as_typed(&self, path: &Path) -> PathBuf {
        let mut rest = path.components();
        while let Some(part) = rest.next() {
            if !part
                .as_os_str()
                .as_encoded_bytes()
                .starts_with(SIDE_MOUNTS.as_bytes())
            {
                continue;
            }
            let name = rest.next();
            let is_it = |of: &str| name.is_some_and(|name| name.as_os_str() == OsStr::new(of));
            if let Some((_, place)) = self.beside.iter().find(|(of, _)| is_it(of)) {
                return place.join(rest.as_path());
            }
        }
        path.to_owned()
    }

    fn held(&mut self, held: &Held) {
        if held.how == How::OpenDirectory {
            return;
        }
        let user = self.user(held.pid, held.how.into(), &held.shown);
        let below = self.below.filter(|below| below.device == held.device);
        let on_host = match (&held.place, self.below) {
            (Place::At(path), Some(below)) => path.strip_prefix(below.inside).ok(),
            _ => None,
        };
        let id = match (&held.place, on_host, below) {
            (_, Some(rest), _) => first(rest).and_then(VolumeId::parse),
            (Place::At(path), None, _) => {
                let name = mount_paths::volume(path).and_then(|name| VolumeName::parse(name).ok());
                let volume = name.and_then(|name| self.volumes.get(&name));
                volume.map(|volume| volume.id.clone())
            }
            // On the store's own file system, at a place without a name: searched for where it matters.
            (Place::Unknown, None, Some(_)) => return self.searched(held, user),
            (Place::Unknown, None, None) => return self.users.of_any.push((user, None)),
        };
        if let Some(id) = id {
            self.users.by_volume.entry(id).or_default().push(user);
        }
    }

    /// A file or directory of the host without a name that we know, found by its inode number.
    fn searched(&mut self, held: &Held, user: User) {
        let Some(inode) = held.inode else {
            return self.users.of_any.push((user, None));
        };
        for volume in self
            .volumes
            .iter()
            .filter(|volume| volume.kind.is_ephemeral())
        {
            let mut left = MAX_SEARCHED;
            if has_inode(&self.store.volume_root(volume), inode, &mut left) {
                let of_volume = self.users.by_volume.entry(volume.id.clone()).or_default();
                of_volume.push(user.clone());
            }
        }
    }
}

/// The first component of a relative path.
fn first(path: &Path) -> Option<&str> {
    match path.components().next()? {
        Component::Normal(name) => name.to_str(),
        _ => None,
    }
}

/// Whether a tree has that inode; a tree too large or unreadable may have it.
fn has_inode(dir: &Path, inode: u64, left: &mut usize) -> bool {
    let Ok(entries) = fs::read_dir(dir) else {
        return dir.try_exists().unwrap_or(true);
    };
    for entry in entries {
        let Ok(entry) = entry else { return true };
        *left = left.saturating_sub(1);
        if *left == 0 || entry.ino() == inode {
            return true;
        }
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_dir && has_inode(&entry.path(), inode, left) {
            return true;
        }
    }
    std::os::unix::fs::MetadataExt::ino(&match dir.symlink_metadata() {
        Ok(stat) => stat,
        Err(_) => return true,
    }) == inode
}

/// Whether a process that we may not look into can have come by a volume: it has one of our user ids, or descends from a process
/// that has. Root looks into every process, and a mount of an ordinary user lets nobody else in; so this is about the user's own programs
/// that changed their identity (sudo, a mail transfer agent), which keep what they had open before.
fn may_be_ours(pid: u32) -> bool {
    let uid = rustix::process::getuid().as_raw();
    let mut next = Some(pid);
    // A chain of parents is short; the limit is for one that changes while it is read.
    for _ in 0..64 {
        let Some(status) = next.and_then(proc::status) else {
            return false;
        };
        if status.uids.contains(&uid) {
            return true;
        }
        next = Some(status.parent).filter(|parent| *parent > 1);
    }
    true
}
