//! Many names in one step: what a glob or a filter has picked.
//!
//! One look at the users, one commit, one collection, however many names. What each image loses is planned together; the answer
//! is as if the names had been removed one after the other: what cannot go is refused alone, and of an image that is in use the
//! last name stays.

use std::collections::BTreeMap;

use crate::oci::{ImageId, TagRef};
use crate::ops::image::ImageError;
use crate::ops::image::remove::references::References;
use crate::ops::image::remove::{How, Plan, Removed, Target};
use crate::ops::usage::{Usage, images as users};
use crate::store::{Names, Store, StoreError};

/// What became of many.
#[derive(Debug, Default)]
pub struct Many {
    /// Per image.
    pub removed: Vec<Removed>,
    /// What stays, and why.
    pub refused: Vec<ImageError>,
}

/// What is to go of one image.
#[derive(Default)]
struct Group {
    tags: Vec<TagRef>,
    /// It has none, and goes itself.
    untagged: bool,
}

/// Removes tags ([`Target::TagOf`]) and images without one ([`Target::Untagged`]), in one commit.
pub fn remove_names(store: &Store, how: How, targets: Vec<Target>) -> Result<Many, ImageError> {
    let lock = store.lock()?;
    let mut names = Names::clone(&*store.names()?);
    let many = rehearse_names(store, &mut names, how, targets)?;
    if many.removed.is_empty() {
        return Ok(many);
    }
    let bytes = many.removed.iter().map(|removed| removed.bytes).sum();
    store.change_freeing(&lock, bytes, |now| {
        *now = names;
        Ok::<_, StoreError>(())
    })?;
    if let Err(error) = store.collect_soon(&lock) {
        // The names are gone, durably: what is left behind is garbage for the next `gc`.
        log::warn!(
            "the names are removed, but their space is not free yet: {error}; run `mica gc`"
        );
    }
    Ok(many)
}

/// What [`remove_names`] would do, with `names` changed accordingly.
pub fn rehearse_names(
    store: &Store,
    names: &mut Names,
    how: How,
    targets: Vec<Target>,
) -> Result<Many, ImageError> {
    let leases = store.live_leases()?;
    let trash = store.trash_time()?;
    let mut many = Many::default();
    let (order, mut groups) = group(names, targets, &mut many.refused);
    let used = match how.force {
        true => BTreeMap::new(),
        false => users::by_image(&leases, names)?,
    };
    let mut removals = Vec::new();
    for id in order {
        let (Some(group), Some(image)) = (groups.remove(&id), names.images.get(&id)) else {
            continue;
        };
        let mut rest = References::of(image);
        for tag in &group.tags {
            rest.untag(tag);
        }
        if group.untagged {
            rest.drop_all();
        }
        if how.force && rest.is_empty() {
            match users::container(&leases, &id) {
                Some(_) if !group.untagged => rest.kept = true,
                Some(user) if user.usage == (Usage::Container { running: true }) => {
                    many.refused.push(ImageError::InUse { id, user });
                    continue;
                }
                _ => {}
            }
        }
        let user = used.get(&id).and_then(|users| users.first());
        if let (true, Some(user)) = (rest.is_empty(), user) {
            // All but the last could go.
            let Some((last, others)) = group.tags.split_last() else {
                let user = user.clone();
                many.refused.push(ImageError::InUse { id, user });
                continue;
            };
            many.refused.push(ImageError::ReferenceInUse {
                reference: last.to_string(),
                id,
                user: user.clone(),
            });
            rest = References::of(image);
            others.iter().for_each(|tag| rest.untag(tag));
            if others.is_empty() {
                continue;
            }
        }
        removals.push((id, rest));
    }
    // What several have goes with the last of them.
    removals.reverse();
    let mut plans = Plan::complete(names, &leases, removals, trash);
    plans.reverse();
    for plan in &mut plans {
        if !how.keep_parents {
            plan.take_parents(names, &leases)?;
        }
        plan.edit(names)?;
    }
    for plan in plans {
        let bytes = plan.bytes(store)?;
        many.removed.push(Removed { plan, bytes });
    }
    Ok(many)
}

/// The targets by image, and the images in the order in which they come; without what cannot go.
fn group(
    names: &Names,
    targets: Vec<Target>,
    refused: &mut Vec<ImageError>,
) -> (Vec<ImageId>, BTreeMap<ImageId, Group>) {
    let mut order = Vec::new();
    let mut groups: BTreeMap<ImageId, Group> = BTreeMap::new();
    for target in targets {
        let wrong = match &target {
            Target::TagOf(tag, id) => match names.tags.get(tag) {
                None => Some(ImageError::NoSuch(tag.to_string())),
                Some(record) if record.id != *id => Some(ImageError::TagMoved(tag.clone())),
                Some(record) if record.pinned => Some(StoreError::Pinned(tag.clone()).into()),
                Some(_) => None,
            },
            Target::Untagged(id) => match names.images.get(id) {
                None => Some(ImageError::NoSuch(id.to_string())),
                Some(image) if !image.tags.is_empty() => Some(ImageError::ManyReferences(*id)),
                Some(_) => None,
            },
            Target::Tag(_) | Target::Digest(..) | Target::Image(_) | Target::Whole(_) => None,
        };
        if let Some(error) = wrong {
            refused.push(error);
            continue;
        }
        let (id, tag) = match target {
            Target::TagOf(tag, id) => (id, Some(tag)),
            Target::Untagged(id) => (id, None),
            // Not for many: these mean something else each time a name goes.
            Target::Tag(_) | Target::Digest(..) | Target::Image(_) | Target::Whole(_) => continue,
        };
        let group = groups.entry(id).or_insert_with(|| {
            order.push(id);
            Group::default()
        });
        match tag {
            Some(tag) => group.tags.push(tag),
            None => group.untagged = true,
        }
    }
    (order, groups)
}
