//! Who uses an image: what makes a removal refuse unless it is forced.
//!
//! A user is attached through a mount of the store: its working or root directory is inside the image's tree, or some
//! part of the tree is mounted elsewhere; or it runs with a lease on the image. Files that are merely open do not count,
//! they stay readable. Only what this process may see in `/proc` is found.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Usage, UsageError, User};
use crate::mount_paths::{self, Inside};
use crate::oci::ImageId;
use crate::ops::engines;
use crate::store::{ImageRecord, LeaseId, LeaseKind, LiveLease, Names, notify};
use crate::sys::holders::{self, Depth, Held, Holders, How, Question};
use crate::sys::mountinfo::DeviceId;

/// The first user of an image found, looking at every live mount of its store, every lease, and what engines have on it. `own`: a
/// mount whose daemon asks, and looks itself.
pub fn of_image(
    leases: &[LiveLease],
    names: &Names,
    image: &ImageRecord,
    own: Option<&LeaseId>,
) -> Result<Option<User>, UsageError> {
    let others: Vec<&LiveLease> = leases
        .iter()
        .filter(|lease| Some(&lease.id) != own)
        .collect();
    let (found, attached) = attached(&others)?;
    let index = Index::of([image]);
    if let Some((_, user)) = attached
        .into_iter()
        .find(|(path, _)| index.at(path).is_some())
    {
        return Ok(Some(user));
    }
    let mut told = others.iter().flat_map(|lease| told_by(lease));
    if let Some((_, user)) = told.find(|(id, _)| *id == image.id) {
        return Ok(Some(user));
    }
    let mut runners = others.iter().filter(|lease| runs_on(lease, &image.id));
    if let Some(lease) = runners.next() {
        return Ok(Some(runner(lease)));
    }
    // On the stores of one's own mount too.
    let mut engines = engines::by_image(leases, names, &found.overlays)?;
    let who = engines.remove(&image.id).unwrap_or_default();
    Ok(who.into_iter().next().map(User::engine))
}

/// What engines have on images: whose container or image.
pub fn engines(
    leases: &[LiveLease],
    names: &Names,
) -> Result<BTreeMap<ImageId, Vec<String>>, UsageError> {
    let question = Question {
        overlays: true,
        ..Question::default()
    };
    let found = holders::holders(&question)?;
    Ok(engines::by_image(leases, names, &found.overlays)?)
}

/// The container that uses an image, one that runs if there is any.
pub fn container(leases: &[LiveLease], image: &ImageId) -> Option<User> {
    let of = |want: bool| {
        leases.iter().find(|lease| {
            runs_on(lease, image)
                && matches!(lease.record.kind, LeaseKind::Run { running, .. } if running == want)
        })
    };
    of(true).or_else(|| of(false)).map(runner)
}

/// Whether a lease is that of a container of an image.
pub(super) fn runs_on(lease: &LiveLease, id: &ImageId) -> bool {
    matches!(&lease.record.kind, LeaseKind::Run { image, .. } if image == id)
}

/// The users of all images that have any, at the cost of one look.
pub fn by_image(
    leases: &[LiveLease],
    names: &Names,
) -> Result<BTreeMap<ImageId, Vec<User>>, UsageError> {
    let mut users = seen_by_image(leases, names)?;
    for (id, user) in leases.iter().flat_map(told_by) {
        let of_image = users.entry(id).or_default();
        if !of_image.iter().any(|known| known.is_same(&user)) {
            of_image.push(user);
        }
    }
    Ok(users)
}

fn seen_by_image(
    leases: &[LiveLease],
    names: &Names,
) -> Result<BTreeMap<ImageId, Vec<User>>, UsageError> {
    let mut users: BTreeMap<ImageId, Vec<User>> = BTreeMap::new();
    for lease in leases {
        if let LeaseKind::Run { image, .. } = &lease.record.kind {
            users.entry(*image).or_default().push(runner(lease));
        }
    }
    let all: Vec<&LiveLease> = leases.iter().collect();
    let (found, attached) = attached(&all)?;
    for (id, who) in engines::by_image(leases, names, &found.overlays)? {
        let of_image = users.entry(id).or_default();
        of_image.extend(who.into_iter().map(User::engine));
    }
    if !attached.is_empty() {
        let index = Index::of(names.images.values());
        for (path, user) in attached {
            if let Some(id) = index.at(&path) {
                users.entry(id).or_default().push(user);
            }
        }
    }
    Ok(users)
}

/// As [`counts`], without asking the daemons of mounts what they know.
pub fn seen(leases: &[LiveLease], names: &Names) -> Result<BTreeMap<ImageId, usize>, UsageError> {
    let users = seen_by_image(leases, names)?.into_iter();
    Ok(users.map(|(id, users)| (id, users.len())).collect())
}

/// How many users each image has, of those that have any.
pub fn counts(leases: &[LiveLease], names: &Names) -> Result<BTreeMap<ImageId, usize>, UsageError> {
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
        return User {
            pid: lease.record.pid,
            command: String::new(),
            usage: Usage::Container { running: *running },
            path: PathBuf::from(id.as_str()),
        };
    }
    User::leased(lease)
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
    if !lease.is_daemon() {
        return Vec::new();
    }
    let told = notify::users(lease).unwrap_or_else(|error| {
        // It ends, or hangs: what we see is what there is.
        log::debug!("mount {}: {error}", lease.id.as_str());
        String::new()
    });
    let user = |line: &str| {
        let Report { image, pid, text } = serde_json::from_str(line).ok()?;
        let user = match pid {
            Some(pid) => User {
                pid,
                command: text,
                usage: Usage::Cwd,
                path: PathBuf::new(),
            },
            None => User {
                pid: 0,
                command: String::new(),
                usage: Usage::Mount,
                path: text.into(),
            },
        };
        Some((image, user))
    };
    told.lines().filter_map(user).collect()
}

/// The devices of the mounts that daemons have, as far as they are mounted where we are.
pub(in crate::ops) fn devices<'a>(
    leases: impl IntoIterator<Item = &'a LiveLease>,
) -> Result<Vec<DeviceId>, UsageError> {
    let mut devices = Vec::new();
    for lease in leases {
        if let Some(mountpoint) = lease.mountpoint() {
            devices.extend(super::mounted_on(mountpoint)?);
        }
    }
    Ok(devices)
}

/// Who is attached through the mounts of a store, and where below their roots; and all else that the look has found.
fn attached(leases: &[&LiveLease]) -> Result<(Holders, Vec<(PathBuf, User)>), UsageError> {
    let devices = devices(leases.iter().copied())?;
    let question = Question {
        whole: &devices,
        depth: match devices.is_empty() {
            true => Depth::Mounts,
            false => Depth::Attached,
        },
        overlays: true,
        ..Question::default()
    };
    let found = holders::holders(&question)?;
    let users = found.held.iter().filter_map(of_held).collect();
    Ok((found, users))
}

/// What is held, if that attaches it, and where.
pub fn of_held(held: &Held) -> Option<(PathBuf, User)> {
    match held.how {
        How::Mount | How::Overlay => {}
        // What is seen through a bind mount is found as that.
        How::Cwd | How::Root if !held.through_part => {}
        How::Cwd | How::Root | How::Open | How::OpenDirectory | How::Mapped => return None,
    }
    Some((held.place.path()?.to_owned(), User::of(held)))
}

/// Images by every path below a mount that can lead into their trees.
pub(in crate::ops) struct Index {
    /// By repository and tag.
    tags: BTreeMap<(String, String), ImageId>,
    by_id: BTreeMap<String, ImageId>,
    dangling: BTreeMap<String, ImageId>,
}

impl Index {
    pub(in crate::ops) fn of<'a>(images: impl IntoIterator<Item = &'a ImageRecord>) -> Index {
        let mut index = Index {
            tags: BTreeMap::new(),
            by_id: BTreeMap::new(),
            dangling: BTreeMap::new(),
        };
        for image in images {
            for tag in &image.tags {
                let repository = tag.repository.familiar().to_string();
                // The second spelling is for a tag whose name a repository has.
                for name in [tag.tag.to_string(), format!(":{}", tag.tag)] {
                    index.tags.insert((repository.clone(), name), image.id);
                }
            }
            index.by_id.insert(image.id.hex(), image.id);
            index.dangling.insert(image.id.short(), image.id);
        }
        index
    }

    /// The image whose tree a path is in, from the root of a mount. Of two readings of a path the longer name counts.
    pub(in crate::ops) fn at(&self, path: &Path) -> Option<ImageId> {
        match mount_paths::inside(path) {
            Inside::ById(hex) => self.by_id.get(hex).copied(),
            Inside::Dangling(short) => self.dangling.get(short).copied(),
            Inside::Named(rest) => {
                let mut splits = mount_paths::splits(rest).rev();
                splits.find_map(|(dir, name)| {
                    let name = (dir.to_owned(), name.to_owned());
                    self.tags.get(&name).copied()
                })
            }
            Inside::Nothing => None,
        }
    }
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
            ("/images/org/app/x//deleted".to_owned(), true),
            (format!("by-id/{full}/etc"), true),
            (format!("images/.dangling/{short}"), true),
            ("images/nginx/1.2".to_owned(), false),
            ("images/nginx/1.211".to_owned(), false),
            ("images/nginx".to_owned(), false),
            ("/".to_owned(), false),
            ("layers/nginx/1.21".to_owned(), false),
        ];
        let index = Index::of([&image]);
        for (path, expected) in table {
            let at = index.at(Path::new(&path));
            assert_eq!(at == Some(image.id), expected, "{path}");
        }
    }
}
