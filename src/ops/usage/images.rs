//! Who uses an image: what makes a removal refuse unless it is forced.
//!
//! A user is attached through a mount of the store: its working or root directory is inside the image's tree, or some
//! part of the tree is mounted elsewhere; or it runs with a lease on the image. Files that are merely open do not count,
//! they stay readable. Only what this process may see in `/proc` is found.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::oci::ImageId;
use crate::store::containers::ContainerId;
use crate::store::{ImageRecord, LeaseKind, LiveLease, Names, notify};
use crate::sys::mountinfo::{self, DeviceId};
use crate::sys::proc::{self, Depth, Usage};

use crate::ops::engines;
use crate::ops::error::OpsError;

/// One user, as messages name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum User {
    /// A process works inside.
    Process {
        /// Process id.
        pid: u32,
        /// Its short name.
        name: String,
    },
    /// A part of the image is mounted elsewhere.
    Mount(PathBuf),
    /// A container engine has a container or an image on it: which.
    Engine(String),
    /// A container was made from it.
    Container {
        /// Which.
        id: ContainerId,
        /// Whether its process lives.
        running: bool,
    },
}

impl User {
    /// docker's word on what removes an image from under this user.
    pub fn remedy(&self) -> &'static str {
        match self {
            User::Container { running: true, .. } => "cannot be forced",
            User::Process { .. } | User::Mount(_) | User::Engine(_) | User::Container { .. } => {
                "must be forced"
            }
        }
    }

    /// With the state of a container, as docker says it where an image was asked for by ID.
    pub fn by_state(&self) -> String {
        match self {
            User::Container { running: true, .. } => format!("running {self}"),
            User::Container { running: false, .. } => format!("stopped {self}"),
            User::Process { .. } | User::Mount(_) | User::Engine(_) => self.to_string(),
        }
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            User::Process { pid, name } => write!(f, "process {pid} ({name})"),
            User::Mount(path) => write!(f, "mount {}", path.display()),
            User::Engine(who) => write!(f, "{}", who.escape_debug()),
            User::Container { id, .. } => write!(f, "container {}", id.short()),
        }
    }
}

/// The first user of an image found, looking at every live mount of its store, every lease, and what engines have on it.
pub fn of_image(
    leases: &[LiveLease],
    names: &Names,
    image: &ImageRecord,
) -> Result<Option<User>, OpsError> {
    for lease in leases {
        let found = match &lease.record.kind {
            LeaseKind::Run { image: id, .. } if *id == image.id => Some(runner(lease)),
            LeaseKind::Daemon { mountpoint } => {
                let users = of_mount(mountpoint).map_err(OpsError::Users)?;
                let mut inside = users.into_iter().filter(|(path, _)| belongs(path, image));
                let seen = inside.next().map(|(_, user)| user);
                seen.or_else(|| {
                    let mut told = told_by(lease).into_iter();
                    told.find(|(id, _)| *id == image.id).map(|(_, user)| user)
                })
            }
            LeaseKind::Run { .. }
            | LeaseKind::Import
            | LeaseKind::Check
            | LeaseKind::Engine { .. }
            | LeaseKind::Builds
            | LeaseKind::Volume { .. } => None,
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    of_engines(leases, names, image)
}

/// The first engine found that has something on an image.
pub fn of_engines(
    leases: &[LiveLease],
    names: &Names,
    image: &ImageRecord,
) -> Result<Option<User>, OpsError> {
    let mut engines = engines::by_image(leases, names)?;
    let who = engines
        .remove(&image.id)
        .and_then(|who| who.into_iter().next());
    Ok(who.map(User::Engine))
}

/// The container that uses an image, one that runs if there is any.
pub fn container(leases: &[LiveLease], image: &ImageId) -> Option<User> {
    let of = |want: bool| {
        leases.iter().find(|lease| {
            matches!(&lease.record.kind, LeaseKind::Run { image: id, running, .. }
                if id == image && *running == want)
        })
    };
    of(true).or_else(|| of(false)).map(runner)
}

/// The users of all images that have any, at the cost of one look.
pub fn by_image(
    leases: &[LiveLease],
    names: &Names,
) -> Result<BTreeMap<ImageId, Vec<User>>, OpsError> {
    let mut found: BTreeMap<ImageId, Vec<User>> = BTreeMap::new();
    let (mut inside, mut told) = (Vec::new(), Vec::new());
    for lease in leases {
        match &lease.record.kind {
            LeaseKind::Run { image, .. } => found.entry(*image).or_default().push(runner(lease)),
            LeaseKind::Daemon { mountpoint } => {
                inside.extend(of_mount(mountpoint).map_err(OpsError::Users)?);
                told.extend(told_by(lease));
            }
            LeaseKind::Import
            | LeaseKind::Check
            | LeaseKind::Builds
            | LeaseKind::Engine { .. }
            | LeaseKind::Volume { .. } => {}
        }
    }
    for (id, who) in engines::by_image(leases, names)? {
        found
            .entry(id)
            .or_default()
            .extend(who.into_iter().map(User::Engine));
    }
    if inside.is_empty() && told.is_empty() {
        return Ok(found);
    }
    let trees: BTreeMap<PathBuf, ImageId> = names
        .images
        .values()
        .flat_map(|image| trees(image).map(|tree| (PathBuf::from(tree), image.id)))
        .collect();
    for (path, user) in inside {
        if let Some(id) = normal(&path).ancestors().find_map(|dir| trees.get(dir)) {
            found.entry(*id).or_default().push(user);
        }
    }
    for (id, user) in told {
        let users = found.entry(id).or_default();
        if !users.contains(&user) {
            users.push(user);
        }
    }
    Ok(found)
}

/// How many users each image has, of those that have any.
pub fn counts(leases: &[LiveLease], names: &Names) -> Result<BTreeMap<ImageId, usize>, OpsError> {
    let users = by_image(leases, names)?.into_iter();
    Ok(users.map(|(id, users)| (id, users.len())).collect())
}

/// Who holds a lease on an image.
fn runner(lease: &LiveLease) -> User {
    if let LeaseKind::Run {
        container: Some(id),
        running,
        ..
    } = &lease.record.kind
    {
        return User::Container {
            id: id.clone(),
            running: *running,
        };
    }
    let pid = lease.record.pid;
    let name = proc::name(pid).unwrap_or_default();
    User::Process { pid, name }
}

/// What a daemon reports of one user: a line of its answer to `users`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// The image.
    pub image: ImageId,
    /// The process, unless it is a mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Its name, or the mount point.
    pub text: String,
}

/// What the daemon of a mount knows and we may not: the mount can be in another namespace than ours, and a name that is gone from
/// it still be mounted elsewhere.
fn told_by(lease: &LiveLease) -> Vec<(ImageId, User)> {
    let told = notify::users(lease).unwrap_or_else(|error| {
        // It ends, or hangs: what we see is what there is.
        log::debug!("mount {}: {error}", lease.id.as_str());
        String::new()
    });
    let user = |line: &str| {
        let Report { image, pid, text } = serde_json::from_str(line).ok()?;
        let user = match pid {
            Some(pid) => User::Process { pid, name: text },
            None => User::Mount(text.into()),
        };
        Some((image, user))
    };
    told.lines().filter_map(user).collect()
}

/// Who is attached through one mount of a store, and where below its root. Asks the kernel only, never the mount: it may be
/// hung.
fn of_mount(mountpoint: &Path) -> std::io::Result<Vec<(PathBuf, User)>> {
    let Some(device) = device_at(mountpoint)? else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for user in proc::users_of(device, Depth::Attached)? {
        match user.usage {
            Usage::Mount { root, mount_point } => found.push((root, User::Mount(mount_point))),
            Usage::WorkingDirectory | Usage::RootDirectory => {
                // What is seen through a bind mount is found as that.
                if let Ok(inside) = user.path.strip_prefix(mountpoint) {
                    let (pid, name) = (user.pid, user.name);
                    found.push((inside.to_owned(), User::Process { pid, name }));
                }
            }
            Usage::OpenFile | Usage::Mapping => {}
        }
    }
    Ok(found)
}

/// The device of the mica mount on a directory; the topmost if several are.
pub(super) fn device_at(mountpoint: &Path) -> std::io::Result<Option<DeviceId>> {
    let mounts = mountinfo::of_self()?;
    let here = mounts.iter().rev().find(|m| m.mount_point == mountpoint);
    Ok(here
        .filter(|m| m.fs_type == OsStr::new("fuse.mica"))
        .map(|m| m.device))
}

/// Whether a path below the mount's root lies in one of the image's trees.
pub(super) fn belongs(inside: &Path, image: &ImageRecord) -> bool {
    let inside = normal(inside);
    trees(image).any(|tree| inside.starts_with(tree))
}

/// The path without root and dots.
pub(super) fn normal(path: &Path) -> PathBuf {
    let parts = path.components();
    parts
        .filter(|c| matches!(c, Component::Normal(_)))
        .collect()
}

/// Where an image's trees are below a mount's root.
fn trees(image: &ImageRecord) -> impl Iterator<Item = String> {
    let by_tag = image.tags.iter().flat_map(|tag| {
        let repository = tag.repository.familiar();
        // The second spelling is for a tag whose name a repository has.
        [
            format!("images/{repository}/{}", tag.tag),
            format!("images/{repository}/:{}", tag.tag),
        ]
    });
    by_tag.chain(by_id(&image.id))
}

fn by_id(id: &ImageId) -> [String; 2] {
    [
        format!("by-id/{}", id.hex()),
        format!("images/.dangling/{}", id.short()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::fixtures::image;

    #[test]
    fn paths_belong_to_images() {
        let image = image("a", &["nginx:1.21", "org/app:x"], &[]);
        let (full, short) = (image.id.hex(), image.id.short());
        let table = [
            ("/images/nginx/1.21".to_owned(), true),
            ("images/nginx/1.21/usr/bin".to_owned(), true),
            ("images/org/app/x".to_owned(), true),
            ("images/org/app/:x/y".to_owned(), true),
            (format!("by-id/{full}/etc"), true),
            (format!("images/.dangling/{short}"), true),
            ("images/nginx/1.2".to_owned(), false),
            ("images/nginx/1.211".to_owned(), false),
            ("images/nginx".to_owned(), false),
            ("/".to_owned(), false),
            ("layers/nginx/1.21".to_owned(), false),
        ];
        for (path, expected) in table {
            assert_eq!(belongs(Path::new(&path), &image), expected, "{path}");
        }
    }
}
