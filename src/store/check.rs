//! Checking a store, and mending what can be proven.
//!
//! Every blob is hashed, every layer's tar is read again and its index built anew and compared, every document
//! is parsed and compared with what `index.json` says of it. A check holds a lease on everything it looks at
//! instead of the lock, so the store stays usable. A layer found damaged is marked, so that the next import of
//! an image with that layer writes it anew instead of relying on it; a mark on a layer found good goes.
//!
//! Repair rebuilds indexes from tars that hash to their names, and removes what nothing reaches. It invents
//! nothing: a damaged blob comes back by loading its image again, `index.json` only from a backup.

mod finding;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

pub use finding::{Finding, Problem, Role};

use super::error::StoreError;
use super::files::file_names;
use super::gc::{self, allocated};
use super::lease::{Lease, LeaseKind};
use super::lock::StoreLock;
use super::names::Names;
use super::volumes::VolumeKind;
use super::{Layout, Store};
use crate::oci::{ChainId, DiffId, Digest, ImageId};
use crate::sys::{atomic, threads};
use verify::{LayerState, Rebuilt};

/// How many threads hash: more only compete for the disk.
const MAX_THREADS: usize = 4;

/// Checks everything. An error is only what keeps the check from being done; what it finds is the answer.
pub fn run(store: &Store, repair: bool) -> Result<Vec<Finding>, StoreError> {
    let mut check = Check::begin(store, repair)?;
    check.images()?;
    check.finish(repair)
}

/// Where an index built anew waits to be put into place, and what it replaces.
struct Mended {
    layer: DiffId,
    finding: usize,
    file: PathBuf,
}

struct Check<'a> {
    store: &'a Store,
    names: Arc<Names>,
    /// `None` on a store that cannot be written: then nothing is protected from removal meanwhile.
    lease: Option<CheckLease>,
    findings: Vec<Finding>,
    mended: Vec<Mended>,
}

/// The lease of a check and its private directory.
struct CheckLease {
    lease: Lease,
    dir: PathBuf,
}

impl CheckLease {
    fn take(store: &Store) -> Result<CheckLease, StoreError> {
        let lease = store.lease(LeaseKind::Check)?;
        let dir = store.layout().tmp().join(lease.id().as_str());
        super::files::make_new_directory(&dir).map_err(StoreError::io("create", &dir))?;
        Ok(CheckLease { lease, dir })
    }
}

impl Drop for CheckLease {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            log::warn!("cannot remove {}: {error}", self.dir.display());
        }
    }
}

impl<'a> Check<'a> {
    /// Looks at what is where, under the lock, and protects what will be read without it.
    fn begin(store: &'a Store, repair: bool) -> Result<Check<'a>, StoreError> {
        let writable = store.read_only().is_none();
        if repair {
            store.writable()?;
        }
        let lease = match writable.then(|| CheckLease::take(store)).transpose() {
            // A store of somebody else, a full disk: look all the same.
            Err(error) if repair => return Err(error),
            Err(_) => None,
            Ok(lease) => lease,
        };
        let mut check = Check {
            store,
            names: Arc::default(),
            lease,
            findings: Vec::new(),
            mended: Vec::new(),
        };
        let lock = match &check.lease {
            Some(_) => Some(StoreLock::exclusive(store.layout(), false)?),
            None => None,
        };
        check.volumes()?;
        match store.names() {
            Ok(names) => check.names = names,
            Err(StoreError::NamesDamaged { reason, .. }) => {
                check.find(Problem::NamesDamaged { reason });
                check.foreign_files()?;
                return Ok(check);
            }
            Err(error) => return Err(error),
        }
        check.foreign_files()?;
        check.snapshots()?;
        if let (Some(lock), Some(lease)) = (&lock, &check.lease) {
            let blobs: Vec<Digest> = check.names.blobs().into_iter().collect();
            lease.lease.hold_locked(&blobs, lock)?;
            // What is needed is not known as long as a log of snapshots cannot be read.
            if check.store.snapshots().is_ok() {
                check.leftovers(lock)?;
            }
        }
        Ok(check)
    }

    fn find(&mut self, problem: Problem) -> usize {
        self.findings.push(Finding {
            problem,
            repaired: false,
        });
        self.findings.len() - 1
    }

    /// What dead processes left and what nothing reaches.
    fn leftovers(&mut self, lock: &StoreLock) -> Result<(), StoreError> {
        let layout = self.store.layout();
        let plan = gc::plan(self.store, &self.names, lock)?;
        for path in plan.leavings {
            let is_lease = path.extension().is_some_and(|e| e == "json")
                && path.parent() == Some(&layout.leases());
            self.find(match is_lease {
                true => Problem::DeadLease { path },
                false => Problem::Leftover { path },
            });
        }
        let blobs = plan.blobs.iter().map(|blob| layout.blob(blob));
        let indexes = plan.indexes.iter().map(|layer| layout.layer_index(layer));
        for path in blobs.chain(indexes).filter(|path| path.exists()) {
            let bytes = allocated(&path)?;
            self.find(Problem::Unreferenced { path, bytes });
        }
        Ok(())
    }

    /// Whether every volume has its directory, and every directory its volume. What is in them is nobody's business.
    fn volumes(&mut self) -> Result<(), StoreError> {
        let volumes = match self.store.volumes() {
            Ok(volumes) => volumes,
            Err(StoreError::VolumesDamaged { reason, .. }) => {
                self.find(Problem::VolumesDamaged { reason });
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        for volume in volumes {
            // The source of a bind may come and go.
            let own = !matches!(volume.kind, VolumeKind::Bind { .. });
            let path = self.store.volume_root(&volume);
            if own && !super::files::is_there(&path)? {
                let name = volume.name;
                self.find(Problem::VolumeMissing { name, path });
            }
        }
        for path in self.store.stray_volumes()? {
            self.find(Problem::VolumeStray { path });
        }
        Ok(())
    }

    /// Whether what containerd's snapshots stand on is there.
    fn snapshots(&mut self) -> Result<(), StoreError> {
        let images = self.names.images.values();
        let known: BTreeSet<ChainId> = images
            .flat_map(|image| ChainId::chain(&image.layers))
            .collect();
        let layout = self.store.layout();
        for fault in super::snapshots::faults(layout, |chain| known.contains(chain))? {
            self.find(Problem::Snapshot { fault });
        }
        Ok(())
    }

    /// Files that mica would not have put where they are.
    fn foreign_files(&mut self) -> Result<(), StoreError> {
        let layout = self.store.layout();
        let is_hex = |stem: &str| Digest::from_hex(stem).is_ok();
        for name in file_names(&layout.blobs())? {
            if !is_hex(&name) {
                let path = layout.blobs().join(name);
                self.find(Problem::Foreign { path });
            }
        }
        for name in file_names(&layout.layers())? {
            let stem = name.strip_suffix(".idx").or(name.strip_suffix(".bad"));
            if !stem.is_some_and(is_hex) {
                let path = layout.layers().join(name);
                self.find(Problem::Foreign { path });
            }
        }
        Ok(())
    }

    /// Every image's documents and layers.
    fn images(&mut self) -> Result<(), StoreError> {
        let names = self.names.clone();
        let mut users: BTreeMap<DiffId, Vec<ImageId>> = BTreeMap::new();
        for image in names.images.values().chain(names.trash.images.values()) {
            for layer in &image.layers {
                let users = users.entry(*layer).or_default();
                if !users.contains(&image.id) {
                    users.push(image.id);
                }
            }
            for problem in verify::documents(self.store, image) {
                self.find(problem);
            }
        }
        let layers: Vec<DiffId> = users.keys().copied().collect();
        let states = self.layers(&layers);
        let mut sizes = BTreeMap::new();
        for (layer, state) in layers.iter().zip(states) {
            let images = users.remove(layer).unwrap_or_default();
            self.layer(layer, state?, images, &mut sizes)?;
        }
        for image in names.images.values() {
            let known: Option<u64> = image.layers.iter().map(|l| sizes.get(l).copied()).sum();
            if let Some(sum) = known.filter(|sum| *sum != image.size) {
                self.find(Problem::RecordWrong {
                    image: image.id,
                    reason: format!("its size is {sum} bytes, index.json says {}", image.size),
                });
            }
        }
        Ok(())
    }

    /// Reads all layers, on several threads; the states in the order of `layers`.
    fn layers(&self, layers: &[DiffId]) -> Vec<Result<LayerState, StoreError>> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let next = AtomicUsize::new(0);
        let done = Mutex::new(BTreeMap::new());
        let dir = self.lease.as_ref().map(|lease| lease.dir.as_path());
        threads::share(
            "check",
            processors.min(MAX_THREADS).min(layers.len()),
            || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(layer) = layers.get(number) else {
                        break;
                    };
                    let state = verify::layer(self.store, layer, dir);
                    done.lock().insert(number, state);
                }
            },
        );
        done.into_inner().into_values().collect()
    }

    fn layer(
        &mut self,
        layer: &DiffId,
        state: LayerState,
        images: Vec<ImageId>,
        sizes: &mut BTreeMap<DiffId, u64>,
    ) -> Result<(), StoreError> {
        let mark = self.store.layout().layer_mark(layer);
        let digest = layer.0;
        let role = Role::Layer;
        match state {
            LayerState::Missing => {
                self.find(Problem::BlobMissing {
                    digest,
                    role,
                    images,
                });
            }
            LayerState::Damaged { found } => {
                if self.lease.is_some() {
                    fs::write(&mark, b"").map_err(StoreError::io("write", &mark))?;
                }
                self.find(Problem::BlobDamaged {
                    digest,
                    role,
                    images,
                    found,
                });
            }
            LayerState::Unreadable { reason } => {
                self.find(Problem::LayerUnreadable {
                    layer: *layer,
                    reason,
                });
            }
            LayerState::Good { index, content } => {
                if self.lease.is_some() {
                    atomic::remove_if_there(&mark).map_err(StoreError::io("remove", &mark))?;
                }
                sizes.insert(*layer, content);
                if let Rebuilt::Different { reason, file } = index {
                    let layer = *layer;
                    let finding = self.find(Problem::IndexDamaged { layer, reason });
                    self.mended.extend(file.map(|file| Mended {
                        layer,
                        finding,
                        file,
                    }));
                }
            }
        }
        Ok(())
    }

    fn finish(mut self, repair: bool) -> Result<Vec<Finding>, StoreError> {
        if repair {
            self.repair()?;
        }
        if self.lease.is_none() {
            // Nothing protected what was read: what was missing may have been removed.
            let reached: BTreeSet<Digest> = match self.store.names() {
                Ok(names) => names.blobs(),
                Err(_) => BTreeSet::new(),
            };
            self.findings.retain(|finding| match &finding.problem {
                Problem::BlobMissing { digest, .. } => reached.contains(digest),
                _ => true,
            });
        }
        Ok(self.findings)
    }

    fn repair(&mut self) -> Result<(), StoreError> {
        let layout: &Layout = self.store.layout();
        let lock = StoreLock::exclusive(layout, false)?;
        for mended in &self.mended {
            let target = layout.layer_index(&mended.layer);
            fs::rename(&mended.file, &target).map_err(StoreError::io("rename", &mended.file))?;
        }
        let dir = layout.layers();
        atomic::sync_dir(&dir).map_err(StoreError::io("sync", &dir))?;
        for mended in &self.mended {
            if let Some(finding) = self.findings.get_mut(mended.finding) {
                finding.repaired = true;
            }
        }
        // Without the names nobody knows what is reached.
        if self.store.names().is_err() {
            return Ok(());
        }
        self.store.collect(&lock)?;
        for finding in &mut self.findings {
            if let Problem::DeadLease { path }
            | Problem::Leftover { path }
            | Problem::Unreferenced { path, .. } = &finding.problem
            {
                finding.repaired = path.try_exists().is_ok_and(|there| !there);
            }
        }
        Ok(())
    }
}
