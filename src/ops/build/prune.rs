//! `builder prune`: what of the cache goes, and what that frees.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::oci::{DiffId, Digest, ImageId};
use crate::store::containers::ContainerId;
use crate::store::{Builds, LeaseKind, Names, Store, StoreError};

/// Entries that nothing has asked for so long go with the next build, in seconds: 30 days.
const EXPIRES: i64 = 30 * 24 * 3600;
/// Entries beyond so many bytes go with the next build, the oldest first: 20 GB.
const MOST: u64 = 20_000_000_000;

/// What to prune.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Also what images have: only the memory of how it was made is lost. And the directories of RUN --mount=type=cache.
    pub all: bool,
    /// Only what was not used since.
    pub until: Option<Timestamp>,
    /// Keep the most recently used, up to so many bytes.
    pub keep: Option<u64>,
    /// Remove nothing.
    pub dry_run: bool,
    /// As if these images were gone.
    pub without_images: BTreeSet<ImageId>,
    /// As if these containers were gone.
    pub without_containers: BTreeSet<ContainerId>,
}

/// What is in the cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Entries with a layer, and directories.
    pub count: usize,
    /// Of these, those whose layer an image or container has.
    pub active: usize,
    /// Bytes that nothing else has.
    pub size: u64,
    /// Of these, bytes of directories.
    pub mounts: u64,
}

/// What was pruned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Layers and directories, by digest, with what each took that nothing else has.
    pub objects: Vec<(Digest, u64)>,
    /// Bytes freed.
    pub bytes: u64,
}

/// Layers that something beside the cache needs.
fn held(store: &Store, options: &Options) -> Result<BTreeSet<Digest>, StoreError> {
    let mut names = Names::clone(&*store.names()?);
    names
        .images
        .retain(|id, _| !options.without_images.contains(id));
    let mut held: BTreeSet<Digest> = names.blobs();
    for lease in store.live_leases()? {
        let counts = match &lease.record.kind {
            LeaseKind::Builds => false,
            LeaseKind::Run { container, .. } => container
                .as_ref()
                .is_none_or(|id| !options.without_containers.contains(id)),
            _ => true,
        };
        if counts {
            held.extend(lease.held);
        }
    }
    Ok(held)
}

/// What the cache takes.
pub fn usage(store: &Store) -> Result<Usage, StoreError> {
    let builds = store.builds()?;
    let held = held(store, &Options::default())?;
    let mut usage = Usage::default();
    for layer in builds.layers().collect::<BTreeSet<DiffId>>() {
        usage.count += 1;
        match held.contains(&layer.0) {
            true => usage.active += 1,
            false => usage.size += store.size_on_disk([&layer], [])?,
        }
    }
    for (_, bytes) in store.cache_mounts()? {
        usage.count += 1;
        usage.size += bytes;
        usage.mounts += bytes;
    }
    Ok(usage)
}

/// Removes what `options` say.
pub fn prune(store: &Store, options: &Options) -> Result<Pruned, StoreError> {
    let lock = match options.dry_run {
        true => store.lock_unswept()?,
        false => store.lock()?,
    };
    let builds = store.builds()?;
    let held = held(store, options)?;
    let mut going = choose(store, &builds, &held, options)?;
    let mut pruned = Pruned::default();
    let staying: BTreeSet<DiffId> = builds
        .entries
        .values()
        .filter(|entry| !going.contains(&entry.key))
        .filter_map(|entry| entry.layer)
        .collect();
    let layers: BTreeSet<DiffId> = builds
        .entries
        .values()
        .filter(|entry| going.contains(&entry.key))
        .filter_map(|entry| entry.layer)
        .filter(|layer| !staying.contains(layer))
        .collect();
    for layer in layers {
        let bytes = match held.contains(&layer.0) {
            true => 0,
            false => store.size_on_disk([&layer], [])?,
        };
        pruned.objects.push((layer.0, bytes));
        pruned.bytes += bytes;
    }
    if !options.dry_run {
        store.change_builds(&lock, |builds| {
            builds.entries.retain(|key, _| !going.remove(key));
        })?;
        store.collect(&lock)?;
    }
    if options.all && options.until.is_none() && options.keep.is_none() {
        for (id, bytes) in store.cache_mounts()? {
            if options.dry_run || store.remove_cache_mount(&id, &lock)? {
                pruned.objects.push((id, bytes));
                pruned.bytes += bytes;
            }
        }
    }
    Ok(pruned)
}

/// The keys of what goes.
fn choose(
    store: &Store,
    builds: &Builds,
    held: &BTreeSet<Digest>,
    options: &Options,
) -> Result<BTreeSet<Digest>, StoreError> {
    let mut entries: Vec<_> = builds.entries.values().collect();
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.used));
    let mut sizes: BTreeMap<DiffId, u64> = BTreeMap::new();
    let mut kept = 0u64;
    let mut going = BTreeSet::new();
    for entry in entries {
        let shared = entry.layer.is_some_and(|layer| held.contains(&layer.0));
        if options.until.is_some_and(|until| entry.used > until) {
            continue;
        }
        if !options.all && shared {
            continue;
        }
        if let Some(keep) = options.keep
            && let Some(layer) = entry.layer
            && !shared
        {
            if let std::collections::btree_map::Entry::Vacant(slot) = sizes.entry(layer) {
                kept = kept.saturating_add(*slot.insert(store.size_on_disk([&layer], [])?));
            }
            if kept <= keep {
                continue;
            }
        }
        going.insert(entry.key);
    }
    Ok(going)
}

/// The keys of what a build drops by itself: what was long of no use, and what is too much.
pub(super) fn expired(
    store: &Store,
    builds: &Builds,
    now: Timestamp,
) -> Result<BTreeSet<Digest>, StoreError> {
    let old = |used: Timestamp| now.as_second() - used.as_second() > EXPIRES;
    let entries = builds.entries.values().filter(|entry| old(entry.used));
    let mut going: BTreeSet<Digest> = entries.map(|entry| entry.key).collect();
    let layers: BTreeSet<DiffId> = builds.layers().collect();
    if store.size_on_disk(&layers, [])? > MOST {
        let options = Options {
            keep: Some(MOST),
            ..Options::default()
        };
        going.extend(choose(store, builds, &held(store, &options)?, &options)?);
    }
    Ok(going)
}
