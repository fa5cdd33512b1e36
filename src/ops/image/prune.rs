//! `image prune`: removes what nobody uses, in one step.
//!
//! Candidates are the images without a tag, with `all` every image, with `keep` every tag but the newest of each repository;
//! of those, what the filters pass. An image that somebody uses ([`users`]) is left alone with all its names. A dry run and
//! the removal make the same plan; what is freed is exactly what it says, as long as nobody else changes the store.

use std::collections::{BTreeMap, BTreeSet};

use crate::oci::{Digest, ImageId, Repository, TagRef};
use crate::store::containers::ContainerId;
use crate::store::{Event, ImageRecord, LeaseKind, LiveLease, Names, Store, Trash};

use crate::ops::image::ImageError;
use crate::ops::image::filter::{self, Bound, Filters, Labels};
use crate::ops::image::remove::{Pick, Plan};
use crate::ops::usage::images as users;
use crate::text::version;

/// What may go.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Images with tags too.
    pub all: bool,
    /// Only these.
    pub filters: Filters,
    /// Keep the newest of each repository; the others may go.
    pub keep: Option<Keep>,
    /// Only until the images take no more than so many bytes on disk, those that were used least recently first.
    pub max_size: Option<u64>,
    /// The trash is emptied as well, before: what it has in common with an image goes with that.
    pub empty_trash: bool,
    /// Containers that go before, and so use nothing.
    pub without: BTreeSet<ContainerId>,
}

/// How many images of each repository stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Images, each with all its tags in that repository.
    pub images: usize,
    /// What is new.
    pub by: Newest,
}

/// What makes a tag newer than another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Newest {
    /// Its image was made later.
    Date,
    /// Its version is higher, see [`version`].
    Version,
}

/// What goes, or has gone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pruned {
    /// Image by image.
    pub plans: Vec<Plan>,
    /// Disk space of what is freed; layers still open give theirs back when they are closed.
    pub bytes: u64,
}

impl Pruned {
    /// What will go, before it is asked for.
    pub fn outlook(&self) -> Vec<String> {
        let lines = self.plans.iter().flat_map(Plan::lines);
        let would = |line: String| match line.split_once(": ") {
            Some(("Untagged", rest)) => format!("would untag: {rest}"),
            Some(("Deleted", rest)) => format!("would delete: {}", brief(rest)),
            _ => line,
        };
        lines.map(would).collect()
    }

    /// docker's lines under `Deleted Images:`.
    pub fn lines(&self) -> Vec<String> {
        let lines = self.plans.iter().flat_map(Plan::lines);
        // The same as those of `rmi`, in lower case.
        let lower = |line: String| match line.split_once(": ") {
            Some((word, rest)) => format!("{}: {rest}", word.to_lowercase()),
            None => line,
        };
        lines.map(lower).collect()
    }

    /// The images concerned.
    pub fn images(&self) -> BTreeSet<ImageId> {
        self.plans.iter().map(|plan| plan.id).collect()
    }
}

/// A digest as tables show it: the whole would not fit on a line.
pub fn brief(digest: &str) -> &str {
    let digits = digest.strip_prefix("sha256:").unwrap_or(digest);
    digits.get(..12).unwrap_or(digits)
}

/// What [`prune`] would do. Changes nothing and needs no lock.
pub fn rehearse(store: &Store, options: &Options) -> Result<Pruned, ImageError> {
    store.read(|names| plan(store, names, &leases(store, options)?, options, None))
}

/// Who uses the store, but for the containers that go before.
fn leases(store: &Store, options: &Options) -> Result<Vec<LiveLease>, ImageError> {
    let mut leases = store.live_leases()?;
    leases.retain(|lease| match &lease.record.kind {
        LeaseKind::Run {
            container: Some(id),
            running: false,
            ..
        } => !options.without.contains(id),
        _ => true,
    });
    Ok(leases)
}

/// Removes in one step. With `shown`, only of these images: those that a user has agreed to. The mounts are for the caller to
/// notify.
pub fn prune(
    store: &Store,
    options: &Options,
    shown: Option<&BTreeSet<ImageId>>,
) -> Result<Pruned, ImageError> {
    store.await_freed();
    let lock = store.lock()?;
    let names = store.names()?;
    let pruned = plan(store, &names, &store.live_leases()?, options, shown)?;
    if pruned.plans.is_empty() {
        return Ok(pruned);
    }
    store.change_freeing(&lock, pruned.bytes, |names| {
        pruned.plans.iter().try_for_each(|plan| plan.edit(names))
    })?;
    let event = Event::now("image", "prune", "").with("reclaimed", pruned.bytes);
    store.note(&[event]);
    if let Err(error) = store.collect(&lock) {
        // As with a removal: the names are gone, durably.
        log::warn!("images were removed, but their space is not free yet: {error}; run `mica gc`");
    }
    Ok(pruned)
}

fn plan(
    store: &Store,
    names: &Names,
    leases: &[LiveLease],
    options: &Options,
    shown: Option<&BTreeSet<ImageId>>,
) -> Result<Pruned, ImageError> {
    let mut without_trash;
    let names = match options.empty_trash {
        true => {
            without_trash = names.clone();
            without_trash.trash = Trash::default();
            &without_trash
        }
        false => names,
    };
    let used = users::by_image(leases, names)?;
    let labels = |id: &ImageId| filter::labels_of(store, id);
    let mut picks = pick(names, options, &labels)?;
    picks.retain(|(id, _)| !used.contains_key(id) && shown.is_none_or(|shown| shown.contains(id)));
    if let Some(max) = options.max_size {
        picks = until_it_fits(store, names, leases, picks, max)?;
    }
    let plans = Plan::several(names, leases, &picks);
    let layers = plans.iter().flat_map(|plan| &plan.layers);
    let documents = plans.iter().flat_map(|plan| &plan.documents);
    let bytes = store.size_on_disk(layers, documents)?;
    Ok(Pruned { plans, bytes })
}

/// Of `picks` the least recently used, one by one, until all images together take at most `max` bytes.
fn until_it_fits(
    store: &Store,
    names: &Names,
    leases: &[LiveLease],
    mut picks: Vec<(ImageId, Pick)>,
    max: u64,
) -> Result<Vec<(ImageId, Pick)>, ImageError> {
    let sizes = store.blob_sizes()?;
    let size = |digest: &Digest| sizes.get(digest).copied().unwrap_or(0);
    let blobs = |image: &ImageRecord| image.blobs().collect::<BTreeSet<Digest>>();
    let mut owners: BTreeMap<Digest, usize> = BTreeMap::new();
    for digest in names.images.values().flat_map(blobs) {
        *owners.entry(digest).or_default() += 1;
    }
    let mut total: u64 = owners.keys().map(size).sum();
    let held = leases.iter().flat_map(|l| &l.held).copied();
    let held: BTreeSet<Digest> = held.chain(names.trash.blobs()).collect();
    picks.sort_by_key(|(id, _)| (names.images.get(id).map(|i| store.last_used(i)), *id));
    let mut going = Vec::new();
    for (id, pick) in picks {
        if total <= max {
            break;
        }
        let Some(image) = names.images.get(&id).filter(|_| pick == Pick::Whole) else {
            continue;
        };
        for digest in blobs(image) {
            let count = owners.entry(digest).or_default();
            *count = count.saturating_sub(1);
            if *count == 0 && !held.contains(&digest) {
                total = total.saturating_sub(size(&digest));
            }
        }
        going.push((id, pick));
    }
    Ok(going)
}

/// What goes if nobody uses it, oldest image first.
pub fn pick(
    names: &Names,
    options: &Options,
    labels: &Labels<'_>,
) -> Result<Vec<(ImageId, Pick)>, ImageError> {
    let bound = options.filters.bind(names)?;
    let kept = options
        .keep
        .map(|keep| kept(names, keep))
        .unwrap_or_default();
    let mut images: Vec<&ImageRecord> = names.images.values().collect();
    images.sort_by_key(|image| (image.created, image.id));
    let mut picks = Vec::new();
    for image in images {
        if let Some(pick) = pick_of(names, image, options, &bound, &kept)
            && bound.image(image, labels)?
        {
            picks.push((image.id, pick));
        }
    }
    Ok(picks)
}

fn pick_of(
    names: &Names,
    image: &ImageRecord,
    options: &Options,
    bound: &Bound<'_>,
    kept: &BTreeSet<TagRef>,
) -> Option<Pick> {
    if image.tags.is_empty() {
        // It has no tag that a pattern could match, and retention is about tags.
        let meant = !options.filters.has_references() && options.keep.is_none();
        return meant.then_some(Pick::Whole);
    }
    if !options.all && options.keep.is_none() && options.max_size.is_none() {
        return None;
    }
    // It stays with all its names; only retention is about single tags.
    let pinned = |tag: &&TagRef| names.is_pinned(tag);
    if options.keep.is_none() && image.tags.iter().any(|tag| pinned(&tag)) {
        return None;
    }
    let meant = |tag: &&TagRef| bound.tag(tag) && !kept.contains(tag) && !pinned(tag);
    let tags: Vec<TagRef> = image.tags.iter().filter(meant).cloned().collect();
    match tags.len() {
        0 => None,
        n if n == image.tags.len() => Some(Pick::Whole),
        _ => Some(Pick::Tags(tags)),
    }
}

/// The tags of the newest images of each repository.
fn kept(names: &Names, keep: Keep) -> BTreeSet<TagRef> {
    let mut repositories: BTreeMap<&Repository, Vec<(&TagRef, &ImageRecord)>> = BTreeMap::new();
    for tag in names.tags.keys() {
        if let Some(image) = names.image_of(tag) {
            let of_repository = repositories.entry(&tag.repository).or_default();
            of_repository.push((tag, image));
        }
    }
    let mut kept = BTreeSet::new();
    for mut tags in repositories.into_values() {
        tags.sort_by(|(a, one), (b, two)| {
            let by_version = || version::compare(b.tag.as_str(), a.tag.as_str());
            match keep.by {
                Newest::Date => two.created.cmp(&one.created).then_with(by_version),
                Newest::Version => by_version(),
            }
        });
        let mut images: BTreeSet<ImageId> = BTreeSet::new();
        for (_, image) in &tags {
            if images.len() < keep.images {
                images.insert(image.id);
            }
        }
        let newest = tags.iter().filter(|(_, image)| images.contains(&image.id));
        kept.extend(newest.map(|(tag, _)| (*tag).clone()));
    }
    kept
}

#[cfg(test)]
mod tests;
