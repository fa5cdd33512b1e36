//! Removal: names go first, then images that nothing names, then the bytes nothing reaches.
//!
//! The one implementation behind `mica rmi` and behind `rmdir` of a tag directory or an image in a mount. A [`Plan`] is
//! worked out from a snapshot of the names, pure; [`remove`] makes it and carries it out under one store lock, so that
//! what was planned is what happens. Which names an argument takes away, and when an ID is not enough, is docker's
//! classic engine (`daemon/images/image_delete.go`). The lines of a plan are docker's output.
//!
//! Whoever calls [`remove`] notifies the mounts afterwards, without holding a lock.

use crate::oci::{Digest, ImageId, Repository, TagRef};
use crate::store::{LiveLease, Names, Store, StoreError};

use crate::ops::image::ImageError;
use crate::ops::image::resolve::{self, Resolved};
use crate::ops::usage::images as users;

mod asked;
mod many;
mod plan;
mod references;

pub use crate::ops::image::remove::asked::{Done, Request, remove_all};
pub use crate::ops::image::remove::many::{Many, rehearse_names, remove_names};
pub use crate::ops::image::remove::plan::Plan;

/// What is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// One tag; the image with it if that was its last name.
    Tag(TagRef),
    /// One tag, if it still names this image: what a removal through a mount has seen.
    TagOf(TagRef, ImageId),
    /// One digest of a repository; the image with it if that was its last name.
    Digest(ImageId, Repository, Digest),
    /// An image and its name, if it has but one.
    Image(ImageId),
    /// An image with all its names.
    Whole(ImageId),
    /// An image that no tag names; never one that has any.
    Untagged(ImageId),
}

/// How much of an image is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pick {
    /// All its names, and so the image.
    Whole,
    /// These tags; the image with them if it has no other name.
    Tags(Vec<TagRef>),
}

/// A removal carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// What was done.
    pub plan: Plan,
    /// Disk space of what was freed; layers still open give theirs back when they are closed.
    pub bytes: u64,
}

impl From<Resolved> for Target {
    fn from(resolved: Resolved) -> Target {
        match resolved.how {
            resolve::How::Tag(tag) => Target::TagOf(tag, resolved.id),
            resolve::How::Digest(repository, digest) => {
                Target::Digest(resolved.id, repository, digest)
            }
            resolve::How::Id => Target::Image(resolved.id),
        }
    }
}

/// Permits a removal unless it would delete an image that somebody uses ([`users`]). For [`remove`].
pub fn unless_used(
    names: &Names,
    leases: &[LiveLease],
    target: &Target,
    plan: &Plan,
) -> Result<(), ImageError> {
    match names.images.get(&plan.id) {
        Some(image) if plan.deletes_image => match users::of_image(leases, names, image, None)? {
            Some(user) => Err(plan.in_use(target, user)),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

/// How far a removal goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct How {
    /// `rmi -f`: an ID takes all names with it.
    pub force: bool,
    /// `rmi --no-prune`: untagged images it was made from stay.
    pub keep_parents: bool,
}

impl From<bool> for How {
    fn from(force: bool) -> How {
        How {
            force,
            ..How::default()
        }
    }
}

/// What [`remove`] would do, with `names` changed accordingly: for one removal after another without carrying them out.
pub fn rehearse(
    store: &Store,
    names: &mut Names,
    how: impl Into<How>,
    choose: impl FnOnce(&Names) -> Result<Target, ImageError>,
    permit: impl FnOnce(&Names, &[LiveLease], &Target, &Plan) -> Result<(), ImageError>,
) -> Result<Removed, ImageError> {
    let how = how.into();
    let leases = store.live_leases()?;
    let target = choose(names)?;
    let mut plan = Plan::with_trash(names, &leases, &target, how.force, store.trash_time()?)?;
    permit(names, &leases, &target, &plan)?;
    if !how.keep_parents {
        plan.take_parents(names, &leases)?;
    }
    let bytes = plan.bytes(store)?;
    plan.edit(names)?;
    Ok(Removed { plan, bytes })
}

/// Removes what `choose` picks from the names as they are under the lock. `permit` sees the plan before anything
/// happens and may refuse it, for instance because the image is in use.
pub fn remove(
    store: &Store,
    how: impl Into<How>,
    choose: impl FnOnce(&Names) -> Result<Target, ImageError>,
    permit: impl FnOnce(&Names, &[LiveLease], &Target, &Plan) -> Result<(), ImageError>,
) -> Result<Removed, ImageError> {
    remove_unless_entered(store, how, choose, permit, |_, _| Ok(()))
}

/// As [`remove`], with a second look when the names are gone, durably, and before anything is freed: who has come in since the
/// first one keeps theirs. If `again` refuses, the names are put back and its refusal is the answer.
pub fn remove_unless_entered(
    store: &Store,
    how: impl Into<How>,
    choose: impl FnOnce(&Names) -> Result<Target, ImageError>,
    permit: impl FnOnce(&Names, &[LiveLease], &Target, &Plan) -> Result<(), ImageError>,
    again: impl FnOnce(&Target, &Plan) -> Result<(), ImageError>,
) -> Result<Removed, ImageError> {
    let how = how.into();
    let lock = store.lock()?;
    let names = store.names()?;
    let leases = store.live_leases()?;
    let target = choose(&names)?;
    let mut plan = Plan::with_trash(&names, &leases, &target, how.force, store.trash_time()?)?;
    permit(&names, &leases, &target, &plan)?;
    if !how.keep_parents {
        plan.take_parents(&names, &leases)?;
    }
    let bytes = plan.bytes(store)?;
    store.change_freeing(&lock, bytes, |names| plan.edit(names))?;
    if let Err(refused) = again(&target, &plan) {
        let restored = store.change(&lock, |now| {
            *now = Names::clone(&names);
            Ok::<_, StoreError>(())
        });
        match restored {
            Ok(()) => return Err(refused),
            // The removal stands; whoever came in loses.
            Err(error) => log::error!("{refused}, but its name cannot be put back: {error}"),
        }
    }
    if let Err(error) = store.collect_soon(&lock) {
        // The names are gone, durably: the removal has happened. What is left behind is garbage for the next `gc`.
        log::warn!(
            "removed {}, but its space is not free yet: {error}; run `mica gc`",
            plan.id
        );
    }
    Ok(Removed { plan, bytes })
}

#[cfg(test)]
mod tests;
