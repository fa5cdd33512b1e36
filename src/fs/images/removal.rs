//! Removal through the mount: `rmdir`, `rm -r`, `unlink` of an alias.
//!
//! The commit point is the rmdir of a root directory (or the unlink of `name:tag`): it calls the same `ops::image::remove` as
//! `mica rmi`. What `rm -r` does before that, unlinking all it has listed, is staged (`stages`): answered with success to a
//! process that has listed the root itself, with "read-only" to anybody else, and changes nothing. Users are looked for
//! before the commit and again behind it: somebody may have entered while it was written. While something is staged whoever
//! enters has to ask for the root directory's attributes, and then users are looked for again before more is staged. A process that the kernel
//! gave another's listing from its cache is known by the root directory that it has open.

mod pause;
mod stages;

use std::time::Instant;

pub(super) use stages::Stages;

use super::Superblock;
use super::inode::{Number, decode};
use super::namespace::{Found, prefixes, split};
use super::places::{Place, Subject};
use super::trees::DirNode;
use crate::fs::api::{Caller, FsError};
use crate::oci::ImageId;
use crate::ops::image::remove::{self, Plan, Removed, Target};
use crate::ops::usage::User;
use crate::sys::proc;
use stages::Verdict;

impl Superblock {
    /// Notes that a process lists a root directory: it may stage the removal of what is inside.
    pub(super) fn note_listing(&self, caller: &Caller, dir: &DirNode) {
        if dir.is_root() && dir.tree.subject().image().is_some() {
            self.stages.note_listing(dir.ino, caller.pid);
        }
    }

    /// unlink (`directory` false) or rmdir of `name` inside a tree.
    pub(super) fn stage(
        &self,
        caller: &Caller,
        dir: &DirNode,
        name: &[u8],
        directory: bool,
    ) -> Result<(), FsError> {
        let subject = dir.tree.subject();
        let Some(id) = subject.image() else {
            return Err(FsError::NotPermitted);
        };
        // Inside a tag nobody is told more than that it is read-only.
        self.may_change(caller).map_err(|_| FsError::ReadOnly)?;
        let root = dir.tree.root_ino();
        let process = self
            .stages
            .lister(root, caller.pid)
            .or_else(|| self.stages.holder(root, caller.pid))
            .ok_or(FsError::ReadOnly)?;
        if !self.trees.is_current(&dir.tree) {
            return Err(FsError::NotFound);
        }
        if let Subject::Tag(tag, _) = &subject
            && self.view().names.is_pinned(tag)
        {
            return Err(FsError::NotPermitted);
        }
        let child = self.staged_child(dir, name)?.ok_or(FsError::NotFound)?;
        match (directory, decode(child)) {
            (false, Number::Directory) => return Err(FsError::IsDirectory),
            (true, Number::Own | Number::Leaf(..)) => return Err(FsError::NotDirectory),
            _ => {}
        }
        match self.stages.verdict(root, process) {
            Verdict::Staged => {}
            Verdict::Entered => {
                if let Some(why) = self.obstacle(&subject, id, process.pid)? {
                    self.stages.withdraw(root, process);
                    self.stages.refuse(root, process, &why);
                    return Err(FsError::Busy(why));
                }
            }
            Verdict::Refused(why) => return Err(FsError::Busy(why)),
            Verdict::Unknown => {
                if let Some(why) = self.obstacle(&subject, id, process.pid)? {
                    self.stages.refuse(root, process, &why);
                    return Err(FsError::Busy(why));
                }
                self.stages.begin(root, process, self.describe(&subject))?;
            }
        }
        match decode(child) {
            Number::Directory => {
                // From now on the kernel takes this inode for dead.
                if let Some(node) = self.trees.get(child) {
                    self.trees.revive(&dir.tree, &node)?;
                }
            }
            Number::Leaf(..) => self.stages.add_leaf(root, process, child),
            Number::Own => {}
        }
        Ok(())
    }

    /// What keeps the tree from being removed.
    fn obstacle(&self, subject: &Subject, id: ImageId, by: u32) -> Result<Option<String>, FsError> {
        let view = self.view();
        let image = view.names.images.get(&id).ok_or(FsError::NotFound)?;
        match (subject, image.tags.first()) {
            (Subject::Tag(..), _) if image.tags.len() > 1 => return self.attached_at(subject, by),
            (Subject::ById(_), Some(tag)) => return Ok(Some(format!("the image is tagged {tag}"))),
            _ => {}
        }
        self.attached(id, by, &self.store.live_leases()?)
    }

    fn describe(&self, subject: &Subject) -> String {
        match subject {
            Subject::Tag(tag, _) => tag.to_string(),
            Subject::ById(id) | Subject::Dangling(id) => id.to_string(),
            Subject::Layer(layer) | Subject::Chained(_, layer) => layer.to_string(),
            Subject::Chain(chain, _) => chain.to_string(),
        }
    }

    pub(super) fn own_unlink(
        &self,
        caller: &Caller,
        place: &Place,
        name: &[u8],
    ) -> Result<(), FsError> {
        let Place::Repo(path) = place else {
            return Err(FsError::NotPermitted);
        };
        let view = self.view();
        let name = std::str::from_utf8(name).map_err(|_| FsError::NotFound)?;
        match view.resolve(path, name) {
            Some(Found::Link(_, Some(tag))) => {
                let entry = view.tag(&tag).ok_or(FsError::NotFound)?;
                self.remove_subject(caller, &Subject::Tag(tag, entry.id))
            }
            Some(Found::Link(_, None) | Found::Image(..)) => Err(FsError::NotPermitted),
            Some(Found::Dir(_) | Found::Tag(_) | Found::Dangling) => Err(FsError::IsDirectory),
            None => Err(FsError::NotFound),
        }
    }

    pub(super) fn own_rmdir(
        &self,
        caller: &Caller,
        place: &Place,
        name: &[u8],
    ) -> Result<(), FsError> {
        let view = self.view();
        let name = std::str::from_utf8(name).map_err(|_| FsError::NotFound)?;
        match place {
            Place::Repo(path) => match view.resolve(path, name) {
                Some(Found::Tag(entry)) => {
                    let subject = Subject::Tag(entry.tag.clone(), entry.id);
                    let by = proc::thread_group(caller.pid).unwrap_or(0);
                    // The kernel takes a directory that rmdir has removed for dead, wherever it is mounted, even if another
                    // tag keeps the image.
                    if !view.names.is_pinned(&entry.tag)
                        && let Some(user) = self.attached_at(&subject, by)?
                    {
                        return Err(FsError::Busy(user));
                    }
                    self.remove_subject(caller, &subject)
                }
                Some(Found::Dir(path)) => self.remove_repository(caller, &path),
                Some(Found::Dangling) => Err(FsError::NotPermitted),
                Some(Found::Link(..) | Found::Image(..)) => Err(FsError::NotDirectory),
                None => Err(FsError::NotFound),
            },
            Place::Dangling => {
                let id = view.dangling.entries.get(name).ok_or(FsError::NotFound)?;
                self.remove_subject(caller, &Subject::Dangling(*id))
            }
            Place::ById => {
                let id = view.by_id.entries.get(name).ok_or(FsError::NotFound)?;
                self.remove_subject(caller, &Subject::ById(*id))
            }
            _ => Err(FsError::NotPermitted),
        }
    }

    /// Removes an empty repository directory.
    fn remove_repository(&self, caller: &Caller, path: &str) -> Result<(), FsError> {
        self.may_change(caller)?;
        let changing = self.changing();
        let view = self.view();
        let dir = view.dirs.get(path).ok_or(FsError::NotFound)?;
        if !dir.entries.is_empty() {
            return Err(FsError::NotEmpty);
        }
        self.kept.lock().remove(path);
        let above: Vec<Box<str>> = prefixes(split(path).0).skip(1).map(Into::into).collect();
        self.take_in(&changing, &above)
    }

    /// Removes a tag, or an image without one. The image goes with its last name, and with it the layers nothing else needs.
    fn remove_subject(&self, caller: &Caller, subject: &Subject) -> Result<(), FsError> {
        self.may_change(caller)?;
        let target = match subject {
            Subject::Tag(tag, id) => Target::TagOf(tag.clone(), *id),
            Subject::ById(id) | Subject::Dangling(id) => Target::Untagged(*id),
            Subject::Layer(_) => return Err(FsError::NotPermitted),
            Subject::Chained(..) | Subject::Chain(..) => return Err(FsError::ReadOnly),
        };
        let by = proc::thread_group(caller.pid).unwrap_or(0);
        pause::at("begun");
        let changing = self.changing();
        let mut busy = None;
        let tree = self.trees.find(subject);
        let mut going = None;
        let mut entered = None;
        let removed = remove::remove_unless_entered(
            &self.store.on_behalf_of(caller.cause()),
            false,
            |_| Ok(target.clone()),
            |_, leases, target, plan| {
                if !plan.deletes_image {
                    return Ok(());
                }
                let user = match self.attached(plan.id, by, leases) {
                    Ok(None) => return Ok(()),
                    Ok(Some(user)) => user,
                    Err(error) => error.to_string(),
                };
                busy = Some(user.clone());
                Err(plan.in_use(target, User::engine(user)))
            },
            |target, plan| {
                pause::at("committed");
                // From here on who enters has to ask us first (where the kernel checks permissions), and waits for what comes of
                // it; who is inside is found.
                if let Some(tree) = &tree {
                    going = Some(tree.settled.write());
                    self.cache.invalidate_attributes_now(tree.root_ino());
                }
                pause::at("closed");
                let user = match self.entered(subject, plan, by) {
                    Ok(None) => return Ok(()),
                    Ok(Some(user)) => user,
                    Err(error) => error.to_string(),
                };
                entered = Some(user.clone());
                Err(plan.in_use(target, User::engine(user)))
            },
        );
        pause::at("looked");
        let removed = match (removed, busy.or(entered)) {
            (Ok(removed), _) => removed,
            (Err(_), Some(user)) => return Err(FsError::Busy(user)),
            (Err(error), None) => return Err(error.into()),
        };
        self.note_removal(caller, &removed);
        if let Some(tree) = self.trees.find(subject) {
            self.stages.finish(tree.root_ino());
        }
        let stay: Vec<Box<str>> = match subject {
            Subject::Tag(tag, _) => {
                let path = tag.repository.familiar();
                prefixes(&path).skip(1).map(Into::into).collect()
            }
            _ => Vec::new(),
        };
        if let Err(error) = self.take_in(&changing, &stay) {
            // The tag is gone, durably; the next change shows it here too.
            log::error!(
                "removed {}, but cannot read the names: {error}",
                self.describe(subject)
            );
        }
        // Nobody of this mount has it open any more but the kernel.
        self.store.let_go();
        if let Some(mut settled) = going {
            *settled = Some(Instant::now());
        }
        drop(changing);
        self.notify_others();
        Ok(())
    }

    /// Who is in the tree, or in the image if that goes.
    fn entered(&self, subject: &Subject, plan: &Plan, by: u32) -> Result<Option<String>, FsError> {
        if let Some(user) = self.attached_at(subject, by)? {
            return Ok(Some(user));
        }
        match plan.deletes_image {
            true => self.attached(plan.id, by, &self.store.live_leases()?),
            false => Ok(None),
        }
    }

    fn note_removal(&self, caller: &Caller, removed: &Removed) {
        for line in removed.plan.lines() {
            self.events.note(Some(caller), &line);
        }
        if removed.plan.frees_image() {
            let text = format!("Freed: {} bytes of {}", removed.bytes, removed.plan.id);
            self.events.note(Some(caller), &text);
        }
    }
}
