//! Who is attached to images through this mount: works inside, has a part mounted elsewhere, or runs with a lease.
//!
//! Nothing here asks the mount itself anything: a request handler may look.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::fs::face::{FsError, InodeNo};
use crate::fs::namespace::View;
use crate::fs::superblock::Superblock;
use crate::fs::trees::Subject;
use crate::oci::{DiffId, ImageId};
use crate::ops::usage::images::{self as users, Report};
use crate::store::{LeaseKind, LiveLease};
use crate::sys::mountinfo::DeviceId;
use crate::sys::proc::{self, Depth, Usage, User};

/// How old a look at `/proc` may be for the files that show users: `find info` asks once per tag.
const FRESH: Duration = Duration::from_millis(200);

/// The last look at `/proc`.
#[derive(Debug, Default)]
pub(in crate::fs) struct UsersCache(Mutex<Option<(Instant, Arc<Vec<User>>)>>);

impl Superblock {
    fn all_users(&self) -> Result<Arc<Vec<User>>, FsError> {
        let Some(device) = self.device() else {
            return Ok(Arc::default());
        };
        let mut cached = self.users.0.lock();
        if let Some((when, users)) = &*cached
            && when.elapsed() < FRESH
        {
            return Ok(users.clone());
        }
        let users = Arc::new(look(device)?);
        *cached = Some((Instant::now(), users.clone()));
        Ok(users)
    }

    /// The users of an image, one per line: pid, command, how.
    pub(super) fn users_of_image(&self, id: ImageId) -> Result<String, FsError> {
        let view = self.view();
        let mut text = String::new();
        for user in self.all_users()?.iter() {
            if self.image_used_by(&view, user) == Some(id) {
                line(&mut text, user);
            }
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
    pub(in crate::fs) fn attached(
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
            .find(|user| matches!(&user.usage, Usage::Mount { root, .. } if is_lost(&view, root)));
        if let Some(user) = lost {
            let mut orphans = self.trees.orphans().into_iter();
            if orphans.any(|dir| dir.tree.subject().image() == Some(id)) {
                return Ok(Some(user.to_string()));
            }
        }
        for user in users {
            let is_itself = user.pid == except && user.usage == Usage::WorkingDirectory;
            if !is_itself && self.image_used_by(&view, &user) == Some(id) {
                return Ok(Some(user.to_string()));
            }
        }
        // Leases, and mounts of the same store by other daemons.
        let own = self.options.lease.as_ref();
        let others = leases.iter().filter(|lease| Some(&lease.id) != own);
        let others: Vec<LiveLease> = others.cloned().collect();
        let user = match users::of_image(&others, &view.names, image)? {
            Some(user) => Some(user),
            // On the stores of this mount too.
            None => users::of_engines(leases, &view.names, image)?,
        };
        Ok(user.map(|user| user.to_string()))
    }

    /// The first user of the tree of a tag itself, not of its image by another name.
    pub(in crate::fs) fn attached_at(
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
        let is_in = |user: &User| match (&user.usage, user.inode) {
            (Usage::Mount { root, .. }, _) => paths.iter().any(|path| root.starts_with(path)),
            (Usage::WorkingDirectory, _) if user.pid == except => false,
            (Usage::WorkingDirectory | Usage::RootDirectory, Some(ino)) => {
                let dir = self.trees.get(InodeNo(ino));
                dir.is_some_and(|dir| tree.as_ref().is_some_and(|t| Arc::ptr_eq(&dir.tree, t)))
            }
            _ => false,
        };
        let users = look(device)?;
        Ok(users.iter().find(|user| is_in(user)).map(User::to_string))
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
        for user in users {
            let images: BTreeSet<ImageId> = match (&user.usage, self.image_used_by(&view, &user)) {
                (_, Some(id)) => BTreeSet::from([id]),
                // By a name that is gone: of those images any could be meant.
                (Usage::Mount { root, .. }, None) if is_lost(&view, root) => {
                    let orphans = self.trees.orphans().into_iter();
                    let images = orphans.filter_map(|dir| dir.tree.subject().image());
                    images
                        .filter(|id| view.names.images.contains_key(id))
                        .collect()
                }
                _ => continue,
            };
            for image in images {
                let (pid, name) = match &user.usage {
                    Usage::Mount { mount_point, .. } => (None, mount_point.to_string_lossy()),
                    _ => (Some(user.pid), user.name.as_str().into()),
                };
                let report = Report {
                    image,
                    pid,
                    text: name.into_owned(),
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
    fn image_used_by(&self, view: &View, user: &User) -> Option<ImageId> {
        match (&user.usage, user.inode) {
            (Usage::Mount { root, .. }, _) => image_at(view, root),
            (Usage::WorkingDirectory | Usage::RootDirectory, Some(ino)) => {
                // The name it came by may be gone while another keeps the image.
                self.trees.get(InodeNo(ino))?.tree.subject().image()
            }
            _ => None,
        }
    }
}

/// Not open files and mappings: `/proc/<pid>/maps` can wait for a page that we are to deliver.
fn look(device: DeviceId) -> Result<Vec<User>, FsError> {
    proc::users_of(device, Depth::Attached).map_err(|source| FsError::Io {
        context: "looking for users".to_owned(),
        source,
    })
}

/// The image that a path from the root of the tree lies in, as the kernel shows it: by listed names only.
fn image_at(view: &View, path: &Path) -> Option<ImageId> {
    let path = std::str::from_utf8(path.as_os_str().as_bytes()).ok()?;
    let path = path.strip_prefix('/')?;
    if path.ends_with("//deleted") {
        return None;
    }
    if let Some(rest) = path.strip_prefix("by-id/") {
        return view.by_id.entries.get(rest.split('/').next()?).copied();
    }
    let mut rest = path.strip_prefix("images/")?;
    if let Some(rest) = rest.strip_prefix(".dangling/") {
        return view.dangling.entries.get(rest.split('/').next()?).copied();
    }
    let mut dir = String::new();
    loop {
        let (name, below) = rest.split_once('/').unwrap_or((rest, ""));
        match view.dirs.get(dir.as_str())?.entries.get(name)? {
            crate::fs::namespace::Entry::Tag(entry) => return Some(entry.id),
            crate::fs::namespace::Entry::Dir => {
                dir = crate::fs::namespace::join(&dir, name);
                rest = below;
            }
        }
    }
}

/// Whether the path is of a directory that no listed name leads to any more: which image it is in cannot be told.
fn is_lost(view: &View, path: &Path) -> bool {
    let Some(path) = path.to_str() else {
        return true;
    };
    if path.ends_with("//deleted") {
        return true;
    }
    let in_images = path.strip_prefix("/images/");
    in_images.is_some_and(|dir| {
        image_at(view, Path::new(path)).is_none() && !view.dirs.contains_key(dir)
    })
}

fn line(text: &mut String, user: &User) {
    let how = match &user.usage {
        Usage::WorkingDirectory => "cwd",
        Usage::RootDirectory => "root",
        Usage::OpenFile => "open",
        Usage::Mapping => "map",
        Usage::Mount { .. } => "mount",
    };
    let path = user.path.to_string_lossy();
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "{}\t{}\t{how}\t{}",
        user.pid,
        user.name.escape_debug(),
        path.escape_debug()
    );
}
