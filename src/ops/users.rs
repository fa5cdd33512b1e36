//! Who uses an image: what makes a removal refuse unless it is forced.
//!
//! A user is attached through a mount of the store: its working or root directory is inside the image's tree, or some
//! part of the tree is mounted elsewhere; or it runs with a lease on the image. Files that are merely open do not count,
//! they stay readable. Only what this process may see in `/proc` is found.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Component, Path, PathBuf};

use crate::oci::ImageId;
use crate::store::{ImageRecord, LeaseKind, LiveLease};
use crate::sys::mountinfo::{self, DeviceId};
use crate::sys::proc::{self, Depth, Usage};

use super::error::OpsError;

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
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            User::Process { pid, name } => write!(f, "process {pid} ({name})"),
            User::Mount(path) => write!(f, "mount {}", path.display()),
        }
    }
}

/// The first user of an image found, looking at every live mount of its store and every lease.
pub fn of_image(leases: &[LiveLease], image: &ImageRecord) -> Result<Option<User>, OpsError> {
    for lease in leases {
        let found = match &lease.record.kind {
            LeaseKind::Run { image: id } if *id == image.id => {
                let pid = lease.record.pid;
                let name = proc::name(pid).unwrap_or_default();
                Some(User::Process { pid, name })
            }
            LeaseKind::Daemon { mountpoint } => {
                of_mount(mountpoint, image).map_err(OpsError::Users)?
            }
            LeaseKind::Run { .. } | LeaseKind::Import | LeaseKind::Check => None,
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The first user of an image through one mount of its store. Asks the kernel only, never the mount: it may be hung.
fn of_mount(mountpoint: &Path, image: &ImageRecord) -> std::io::Result<Option<User>> {
    let Some(device) = device_at(mountpoint)? else {
        return Ok(None);
    };
    for user in proc::users_of(device, Depth::Attached)? {
        let (inside, found) = match user.usage {
            Usage::Mount { root, mount_point } => (root, User::Mount(mount_point)),
            Usage::WorkingDirectory | Usage::RootDirectory => {
                match user.path.strip_prefix(mountpoint) {
                    Ok(inside) => (
                        inside.to_owned(),
                        User::Process {
                            pid: user.pid,
                            name: user.name,
                        },
                    ),
                    // Seen through a bind mount, which is found itself.
                    Err(_) => continue,
                }
            }
            Usage::OpenFile | Usage::Mapping => continue,
        };
        if belongs(&inside, image) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The device of the mica mount on a directory; the topmost if several are.
fn device_at(mountpoint: &Path) -> std::io::Result<Option<DeviceId>> {
    let mounts = mountinfo::of_self()?;
    let here = mounts.iter().rev().find(|m| m.mount_point == mountpoint);
    Ok(here
        .filter(|m| m.fs_type == OsStr::new("fuse.mica"))
        .map(|m| m.device))
}

/// Whether a path below the mount's root lies in one of the image's trees.
fn belongs(inside: &Path, image: &ImageRecord) -> bool {
    let inside: PathBuf = inside
        .components()
        .filter(|c| matches!(c, Component::Normal(_)))
        .collect();
    let by_tag = image.tags.iter().flat_map(|tag| {
        let repository = tag.repository.familiar();
        // The second spelling is for a tag whose name a repository has.
        [
            format!("images/{repository}/{}", tag.tag),
            format!("images/{repository}/:{}", tag.tag),
        ]
    });
    by_tag
        .chain(by_id(&image.id))
        .any(|tree| inside.starts_with(tree))
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
