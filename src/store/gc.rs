//! Garbage collection: mark from the names and the live leases, sweep the rest.
//!
//! Runs under the exclusive store lock from marking to the last unlink, so no lease can start to rely on
//! something between the two. What it removes has no name, so a collection cut short anywhere loses nothing
//! and the next one ends it. It never touches a file whose name is not one it would have given.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use parking_lot::Mutex;

use super::Store;
use super::containers;
use super::error::StoreError;
use super::files::file_names;
use super::lease::{self, LiveLease};
use super::lock::StoreLock;
use super::names::Names;
use super::partial::{self, Partials};
use crate::oci::{DiffId, Digest, ImageId};
use crate::sys::lock::LockMode;
use crate::sys::{atomic, deep};

/// Threads that remove files at once, at most, and how many bytes each must have to do.
const REMOVERS: u64 = 4;
const BYTES_PER_REMOVER: u64 = 32 << 20;

/// What a collection would remove.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcPlan {
    /// Blobs that nothing reaches.
    pub blobs: Vec<Digest>,
    /// Layers whose index (or mark) nothing reaches.
    pub indexes: Vec<DiffId>,
    /// Leases, sockets and private files of dead processes.
    pub leavings: Vec<PathBuf>,
    /// Disk space all of that takes.
    pub bytes: u64,
}

impl GcPlan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.blobs.is_empty() && self.indexes.is_empty() && self.leavings.is_empty()
    }
}

/// What only a set of images keeps in the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exclusive {
    /// Layers, without order.
    pub layers: BTreeSet<DiffId>,
    /// Configs, manifests and original manifests.
    pub documents: BTreeSet<Digest>,
}

/// What would be unreferenced if `images` went. Pure; measure it with [`Store::size_on_disk`].
pub fn only_reached_by(
    names: &Names,
    leases: &[LiveLease],
    images: &BTreeSet<ImageId>,
) -> Exclusive {
    let mut kept: BTreeSet<Digest> = leases
        .iter()
        .flat_map(|lease| &lease.held)
        .copied()
        .collect();
    kept.extend(names.trash.blobs());
    for image in names.images.values() {
        if !images.contains(&image.id) {
            kept.extend(image.blobs());
        }
    }
    let mut only = Exclusive::default();
    for image in names.images.values().filter(|i| images.contains(&i.id)) {
        let layers = image.layers.iter().filter(|layer| !kept.contains(&layer.0));
        only.layers.extend(layers);
        only.documents
            .extend(image.documents().filter(|d| !kept.contains(d)));
    }
    only
}

/// What a collection would remove if `names` were the names: those of [`Store::names`], or for a dry run
/// those a verb is about to commit.
pub fn plan(store: &Store, names: &Names, lock: &StoreLock) -> Result<GcPlan, StoreError> {
    plan_with(store, names, lock, Partials::Expired)
}

/// As [`plan`], with a choice of downloads that broke off.
pub fn plan_with(
    store: &Store,
    names: &Names,
    _lock: &StoreLock,
    partials: Partials,
) -> Result<GcPlan, StoreError> {
    let layout = store.layout();
    let mut reached = names.blobs();
    for lease in store.live_leases()? {
        reached.extend(lease.held);
    }
    let mut plan = GcPlan::default();
    for name in file_names(&layout.blobs())? {
        if let Ok(digest) = Digest::from_hex(&name)
            && !reached.contains(&digest)
        {
            plan.bytes += allocated(&layout.blob(&digest))?;
            plan.blobs.push(digest);
        }
    }
    let mut indexes = BTreeSet::new();
    for name in file_names(&layout.layers())? {
        let stem = name.strip_suffix(".idx").or(name.strip_suffix(".bad"));
        if let Some(Ok(digest)) = stem.map(Digest::from_hex)
            && !reached.contains(&digest)
        {
            plan.bytes += allocated(&layout.layers().join(&name))?;
            indexes.insert(DiffId(digest));
        }
    }
    plan.blobs.sort();
    plan.indexes.extend(indexes);
    for (path, bytes) in leavings(store, partials, LockMode::Exclusive)? {
        plan.bytes += bytes;
        plan.leavings.push(path);
    }
    Ok(plan)
}

/// What interrupted work has left as far as it can be told without a lock: work that begins or ends this moment may be among it,
/// or not. For figures only.
pub fn estimate(store: &Store) -> Result<Vec<(PathBuf, u64)>, StoreError> {
    leavings(store, Partials::All, LockMode::Shared)
}

/// Private files of dead processes and what has no record, each with the disk space it takes.
fn leavings(
    store: &Store,
    partials: Partials,
    probe: LockMode,
) -> Result<Vec<(PathBuf, u64)>, StoreError> {
    let layout = store.layout();
    let mut found = lease::leavings(layout, probe)?;
    let mut paths = Vec::new();
    if partials == Partials::All {
        found.partials = partial::abandoned(layout, partials, probe)?;
        paths = containers::without_record(layout)?;
        // A list that cannot be read is for those who need it to report.
        if let Ok(volumes) = store.volume_set() {
            let removed = volumes.removed().map(|id| layout.volume(id));
            paths.extend(removed.filter(|path| path.exists()));
        }
    }
    paths.extend(found.into_paths());
    let measured = paths.into_iter().map(|path| {
        let bytes = tree_allocated(&path)?;
        Ok((path, bytes))
    });
    measured.collect()
}

/// Removes what a plan made under the same lock says. Goes on after an error and reports the first one. `held`: somebody else frees
/// the large files, and to take their names away is no work for threads.
pub fn apply(
    store: &Store,
    plan: &GcPlan,
    _lock: &StoreLock,
    held: bool,
) -> Result<(), StoreError> {
    let layout = store.layout();
    // Blobs before indexes: a reader that finds a blob without its index may call that damage.
    let blobs: Vec<PathBuf> = plan.blobs.iter().map(|blob| layout.blob(blob)).collect();
    let indexes = plan.indexes.iter();
    let indexes: Vec<PathBuf> = indexes
        .flat_map(|layer| [layout.layer_index(layer), layout.layer_mark(layer)])
        .collect();
    let mut first = remove_all(&blobs, if held { 0 } else { plan.bytes });
    first = first.or(remove_all(&indexes, 0));
    // Leases come last in the list: a sweep cut short is done again.
    for path in &plan.leavings {
        if let Err(error) = remove_tree(path) {
            first.get_or_insert(StoreError::io("remove", path)(error));
        }
    }
    first.map_or(Ok(()), Err)
}

/// Removes files on a few threads: what takes the time is the file system, giving back pages and blocks of one file after the
/// other (230 ms for 8 files of 88 MB on ext4, 140 ms by two threads). Goes on after an error and returns the first one.
fn remove_all(paths: &[PathBuf], bytes: u64) -> Option<StoreError> {
    let next = AtomicUsize::new(0);
    let first = Mutex::new(None);
    let work = || {
        while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = atomic::remove_if_there(path) {
                first
                    .lock()
                    .get_or_insert(StoreError::io("remove", path)(error));
            }
        }
    };
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let threads = (bytes / BYTES_PER_REMOVER).clamp(1, REMOVERS);
    let threads = usize::try_from(threads).map_or(1, |threads| threads.min(processors));
    thread::scope(|scope| {
        for n in 1..threads.min(paths.len()) {
            // What does not start is done by those who did.
            let _ = thread::Builder::new()
                .name(format!("mica-remove-{n}"))
                .spawn_scoped(scope, work);
        }
        work();
    });
    first.into_inner()
}

fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(stat) if stat.is_dir() => containers::remove_tree(path),
        _ => atomic::remove_if_there(path).map(drop),
    }
}

/// Disk space of a file, or of the files in a directory, hard links once. Directories themselves count in containers only, which
/// can be nothing but directories.
pub(super) fn tree_allocated(path: &Path) -> Result<u64, StoreError> {
    match fs::symlink_metadata(path) {
        Ok(stat) if stat.is_dir() => {
            let above = path.parent().and_then(Path::file_name);
            let bytes = match above.is_some_and(|name| name == "containers") {
                true => deep::tree_allocated(path),
                false => deep::files_allocated(path),
            };
            bytes.map_err(StoreError::io("read", path))
        }
        _ => allocated(path),
    }
}

/// Disk space of one file; 0 if it is gone.
pub(super) fn allocated(path: &Path) -> Result<u64, StoreError> {
    match fs::symlink_metadata(path) {
        Ok(stat) => Ok(stat.blocks() * 512),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(StoreError::io("stat", path)(error)),
    }
}

/// Removes those of `files` (paths of blobs and indexes) whose digest is not in `reached`.
pub(super) fn remove_unreached(
    files: &BTreeSet<PathBuf>,
    reached: &BTreeSet<Digest>,
    _lock: &StoreLock,
) -> Result<(), StoreError> {
    for path in files {
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        if let Some(Ok(digest)) = stem.map(Digest::from_hex)
            && !reached.contains(&digest)
        {
            atomic::remove_if_there(path).map_err(StoreError::io("remove", path))?;
        }
    }
    Ok(())
}
