//! Who is attached to images through this mount: works inside, has a part mounted elsewhere, or runs with a lease.
//!
//! Nothing here asks the mount itself anything: a request handler may look.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::fs::api::{FsError, InodeNo};
use crate::fs::images::Superblock;
use crate::fs::images::namespace::{Entry, View};
use crate::fs::images::places::Subject;
use crate::mount_paths::{self, Inside};
use crate::oci::{DiffId, ImageId};
use crate::ops::usage::User;
use crate::ops::usage::images::{self as users, Report};
use crate::store::{LeaseKind, LiveLease};
use crate::sys::holders::{self, Depth, Held, How, Question};
use crate::sys::mountinfo::DeviceId;
use crate::sys::proc;

/// How old a look at `/proc` may be for the files that show users: `find info` asks once per tag.
const FRESH: Duration = Duration::from_millis(200);

/// The last look at `/proc`.
#[derive(Debug, Default)]
pub(in crate::fs::images) struct UsersCache(Mutex<Option<(Instant, Found)>>);

/// What was seen then.
#[derive(Clone, Debug, Default)]
struct Found {
    held: Arc<Vec<Held>>,
    /// What engines have, running or not.
    engines: Arc<BTreeMap<ImageId, Vec<String>>>,
}

impl Superblock {
    fn all_users(&self) -> Result<Found, FsError> {
        let Some(device) = self.device() else {
            return Ok(Found::default());
        };
        let mut cached = self.users.0.lock();
        if let Some((when, users)) = &*cached
            && when.elapsed() < FRESH
        {
            return Ok(users.clone());
        }
        let engines = users::engines(&self.store.live_leases()?, &self.view().names)?;
        let found = Found {
            held: Arc::new(look(device)?),
            engines: Arc::new(engines),
        };
        *cached = Some((Instant::now(), found.clone()));
        Ok(found)
    }

    /// The users of an image, one per line: pid, command, how.
    pub(super) fn users_of_image(&self, id: ImageId) -> Result<String, FsError> {
        let view = self.view();
        let mut text = String::new();
        let found = self.all_users()?;
        for user in found.held.iter() {
            if self.image_used_by(&view, user) == Some(id) {
                line(&mut text, user);
            }
        }
        for who in found.engines.get(&id).into_iter().flatten() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "--\t{}\tengine", who.escape_debug());
        }
        for lease in self.store.live_leases()? {
            if matches!(lease.record.kind, LeaseKind::Run { image, .. } if image == id) {
                let pid = lease.record.pid;
                let name = proc::name(pid).unwrap_or_default();
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{pid}\t{}\trun", name.escape_debug());
            }
        }
        Ok(text)
    }

    /// The users of the images that have a layer.
    pub(super) fn users_of_layer(&self, layer: &DiffId) -> Result<String, FsError> {
        let view = self.view();
        let mut text = String::new();
        for image in view.names.images.values() {
            if image.layers.contains(layer) {
                text += &self.users_of_image(image.id)?;
            }
        }
        Ok(text)
    }

    /// The first user that keeps image `id` from being removed: somebody whose working or root directory is inside, or who has
    /// mounted a part of it elsewhere, or runs with a lease on it. `except`: a process that is no obstacle to itself.
    pub(in crate::fs::images) fn attached(
        &self,
        id: ImageId,
        except: u32,
        leases: &[LiveLease],
    ) -> Result<Option<String>, FsError> {
        let view = self.view();
        let Some(image) = view.names.images.get(&id) else {
            return Ok(None);
        };
        let Some(device) = self.device() else {
            return Ok(None);
        };
        let users = look(device)?;
        // A tag that was renamed elsewhere, or whose image had another tag then, leaves such mounts behind.
        let lost = users
            .iter()
            .find(|held| shown_root(held).is_some_and(|root| is_lost(&view, root)));
        if let Some(held) = lost {
            let mut orphans = self.trees.orphans().into_iter();
            if orphans.any(|dir| dir.tree.subject().image() == Some(id)) {
                return Ok(Some(User::of(held).detail()));
            }
        }
        for held in users {
            let is_itself = held.pid == except && held.how == How::Cwd;
            if !is_itself && self.image_used_by(&view, &held) == Some(id) {
                return Ok(Some(User::of(&held).detail()));
            }
        }
        // Leases, engines, and mounts of the same store by other daemons.
        let own = self.options.lease.as_ref();
        let user = users::of_image(leases, &view.names, image, own)?;
        Ok(user.map(|user| user.to_string()))
    }

    /// The first user of the tree of a tag itself, not of its image by another name.
    pub(in crate::fs::images) fn attached_at(
        &self,
        subject: &Subject,
        except: u32,
    ) -> Result<Option<String>, FsError> {
        let (Some(device), Subject::Tag(tag, _)) = (self.device(), subject) else {
            return Ok(None);
        };
        let repository = tag.repository.familiar();
        let paths = ["", ":"].map(|colon| format!("/images/{repository}/{colon}{}", tag.tag));
        let tree = self.trees.find(subject);
        let is_in = |held: &&Held| match (held.how, held.inode) {
            (How::Mount | How::Overlay, _) => {
                let root = held.place.path();
                root.is_some_and(|root| paths.iter().any(|path| root.starts_with(path)))
            }
            (How::Cwd, _) if held.pid == except => false,
            (How::Cwd | How::Root, Some(ino)) => {
                let dir = self.trees.get(InodeNo(ino));
                dir.is_some_and(|dir| tree.as_ref().is_some_and(|t| Arc::ptr_eq(&dir.tree, t)))
            }
            _ => false,
        };
        let users = look(device)?;
        let user = users.iter().find(is_in).map(User::of);
        Ok(user.map(|user| user.detail()))
    }

    /// Who is attached to which image, a JSON object per line: for verbs, which may see less.
    pub fn users_report(&self) -> String {
        let Some(device) = self.device() else {
            return String::new();
        };
        let view = self.view();
        let users = look(device).unwrap_or_else(|error| {
            log::warn!("{error}");
            Vec::new()
        });
        let mut text = String::new();
        for held in users {
            let images: BTreeSet<ImageId> = match (self.image_used_by(&view, &held), &held) {
                (Some(id), _) => BTreeSet::from([id]),
                // By a name that is gone: of those images any could be meant.
                (None, held) if shown_root(held).is_some_and(|root| is_lost(&view, root)) => {
                    let orphans = self.trees.orphans().into_iter();
                    let images = orphans.filter_map(|dir| dir.tree.subject().image());
                    images
                        .filter(|id| view.names.images.contains_key(id))
                        .collect()
                }
                _ => continue,
            };
            for image in images {
                let (pid, name) = match held.how {
                    How::Mount | How::Overlay => (None, held.shown.to_string_lossy().into_owned()),
                    _ => (Some(held.pid), User::of(&held).command),
                };
                let report = Report {
                    image,
                    pid,
                    text: name,
                };
                // Texts and numbers are always JSON.
                if let Ok(line) = serde_json::to_string(&report) {
                    text += &line;
                    text.push('\n');
                }
            }
        }
        text
    }

    /// The image whose tree a user is in.
    fn image_used_by(&self, view: &View, held: &Held) -> Option<ImageId> {
        match (held.how, held.inode) {
            (How::Mount | How::Overlay, _) => image_at(view, held.place.path()?),
            (How::Cwd | How::Root, Some(ino)) => {
                // The name it came by may be gone while another keeps the image.
                self.trees.get(InodeNo(ino))?.tree.subject().image()
            }
            _ => None,
        }
    }
}

/// Not open files and mappings: `/proc/<pid>/maps` can wait for a page that we are to deliver.
fn look(device: DeviceId) -> Result<Vec<Held>, FsError> {
    let question = Question {
        whole: &[device],
        depth: Depth::Attached,
        ..Question::default()
    };
    let found = holders::holders(&question).map_err(|source| FsError::Io {
        context: "looking for users".to_owned(),
        source,
    })?;
    Ok(found.held)
}

/// The directory that a mount shows.
fn shown_root(held: &Held) -> Option<&Path> {
    held.place.path().filter(|_| held.how == How::Mount)
}

/// The image that a path from the root of the tree lies in, as the kernel shows it: by listed names only.
fn image_at(view: &View, path: &Path) -> Option<ImageId> {
    if mount_paths::is_deleted(path) {
        return None;
    }
    match mount_paths::inside(path) {
        Inside::ById(hex) => view.by_id.entries.get(hex).copied(),
        Inside::Dangling(short) => view.dangling.entries.get(short).copied(),
        Inside::Named(rest) => {
            for (dir, name) in mount_paths::splits(rest) {
                match view.dirs.get(dir)?.entries.get(name)? {
                    Entry::Tag(entry) => return Some(entry.id),
                    Entry::Dir => {}
                }
            }
            None
        }
        Inside::Nothing => None,
    }
}

/// Whether the path is of a directory that no listed name leads to any more: which image it is in cannot be told.
fn is_lost(view: &View, path: &Path) -> bool {
    if path.to_str().is_none() || mount_paths::is_deleted(path) {
        return true;
    }
    match mount_paths::inside(path) {
        Inside::Named(dir) => image_at(view, path).is_none() && !view.dirs.contains_key(dir),
        Inside::ById(_) | Inside::Dangling(_) | Inside::Nothing => false,
    }
}

fn line(text: &mut String, held: &Held) {
    let user = User::of(held);
    let path = user.path.to_string_lossy();
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "{}\t{}\t{}\t{}",
        user.pid,
        user.command.escape_debug(),
        user.usage,
        path.escape_debug()
    );
}
