//! Layers that the store has, or can get: they need not be unpacked.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mica::layer::Limits;
use mica::oci::{ChainId, DiffId, Digest, Reference};
use mica::ops::transfer::pull::{self, Options, Silent};
use mica::registry::Client;
use mica::store::snapshots::{Change, Snapshot, SnapshotKind, SnapshotUsage, Snapshots};
use mica::store::{Names, StoreLock};
use parking_lot::Mutex;

use super::{Snapshotter, active, committed};
use crate::error::SnapshotError;

/// The chain ID of what is about to be unpacked (containerd, `snapshots.go`).
const TARGET: &str = "containerd.io/snapshot.ref";
/// The image that it is of, and its manifest (containerd, `pkg/snapshotters/annotations.go`; `ctr-remote images rpull` says the
/// first by a name of its own).
const IMAGE: [&str; 2] = [
    "containerd.io/snapshot/cri.image-ref",
    "containerd.io/snapshot/remote/stargz.reference",
];
const MANIFEST: &str = "containerd.io/snapshot/cri.manifest-digest";
/// A pull that has failed is not tried again for the next layer of the same image.
const AFTER_FAILURE: Duration = Duration::from_secs(30);
/// Images that pulls are remembered of.
const MAX_PULLS: usize = 256;

/// The chains of the store's images: for each the topmost layer, and how many there are.
#[derive(Debug)]
pub(super) struct Known {
    names: Arc<Names>,
    chains: HashMap<ChainId, (DiffId, usize)>,
}

/// What a client wants to unpack, if it says so.
pub(super) fn target(labels: &BTreeMap<String, String>) -> Option<ChainId> {
    labels.get(TARGET)?.parse().ok()
}

/// The same by the key that containerd's client unpacks with, `extract-<anything> <chain ID>`, behind what its own database adds.
pub(super) fn target_of_key(key: &str) -> Option<ChainId> {
    let (before, chain) = key.rsplit_once(' ')?;
    let name = before.rsplit('/').next()?;
    name.starts_with("extract-").then(|| chain.parse().ok())?
}

impl Snapshotter {
    /// Makes the committed snapshot of a chain out of the store's layers, pulling the image if the labels name one. False if the
    /// store has not got it: then the client may unpack it.
    pub(super) fn provide(
        &self,
        target: &ChainId,
        parent: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<bool, SnapshotError> {
        if self.is_provided(target, parent) {
            return Ok(true);
        }
        if self.known(target)?.is_none() {
            self.pull(target, labels);
        }
        // Nothing else to be done under the store's lock.
        if self.known(target)?.is_none() {
            return Ok(false);
        }
        let lock = self.store.lock_unswept()?;
        let Some(snapshot) = self.of_store(target, parent, &lock)? else {
            return Ok(false);
        };
        let mut log = self.log.lock();
        committed(log.snapshots(), parent)?;
        if provided(log.snapshots(), target, parent).is_some() {
            return Ok(true);
        }
        let names = [target.to_string(), second_name(target, parent)];
        let free = |name: &String| log.snapshots().get(name).is_none();
        let Some(name) = names.into_iter().find(free) else {
            return Ok(false);
        };
        let snapshot = Snapshot {
            name,
            number: log.snapshots().next(),
            labels: labels.clone(),
            ..snapshot
        };
        log.change(vec![Change::Put(Box::new(snapshot))])?;
        Ok(true)
    }

    /// Commits `before` as `name` without keeping what was unpacked, if the store has the same.
    pub(super) fn replace(
        &self,
        before: &Snapshot,
        name: &str,
        target: &ChainId,
        labels: &BTreeMap<String, String>,
    ) -> Result<bool, SnapshotError> {
        if self.known(target)?.is_none() {
            return Ok(false);
        }
        let lock = self.store.lock_unswept()?;
        let parent = before.parent.as_deref().unwrap_or_default();
        let Some(snapshot) = self.of_store(target, parent, &lock)? else {
            return Ok(false);
        };
        let path = {
            let mut log = self.log.lock();
            if active(log.snapshots(), name, &before.name)? != before {
                return Ok(false);
            }
            let snapshot = Snapshot {
                name: name.to_owned(),
                number: before.number,
                labels: labels.clone(),
                ..snapshot
            };
            log.change(vec![
                Change::Remove(before.name.clone()),
                Change::Put(Box::new(snapshot)),
            ])?;
            log.path(before.number)
        };
        drop(lock);
        super::discard(&path);
        Ok(true)
    }

    fn is_provided(&self, target: &ChainId, parent: &str) -> bool {
        provided(self.log.lock().snapshots(), target, parent).is_some()
    }

    /// A committed snapshot of a chain that the store has, to be given a name. While the lock is held no layer of it goes.
    fn of_store(
        &self,
        target: &ChainId,
        parent: &str,
        _lock: &StoreLock,
    ) -> Result<Option<Snapshot>, SnapshotError> {
        let Some((top, count)) = self.known(target)? else {
            return Ok(None);
        };
        let below = {
            let log = self.log.lock();
            let parent = committed(log.snapshots(), parent)?;
            let depth = parent.map_or(0, |parent| log.snapshots().chain(&parent.name).count());
            // As many layers below as the chain has, or it is not what the client thinks.
            if depth + 1 != count {
                return Ok(None);
            }
            parent.and_then(|parent| parent.chain)
        };
        if let Some(below) = below {
            let both = Digest::of(format!("{below} {top}").as_bytes());
            if both != target.0 {
                return Ok(None);
            }
        }
        let index = self.store.layer_index(&top)?;
        let now = jiff::Timestamp::now();
        Ok(Some(Snapshot {
            name: String::new(),
            parent: (!parent.is_empty()).then(|| parent.to_owned()),
            kind: SnapshotKind::Committed,
            number: 0,
            chain: Some(*target),
            created: now,
            updated: now,
            labels: BTreeMap::new(),
            usage: Some(SnapshotUsage {
                size: index.tar_size(),
                inodes: u64::from(index.node_count()),
            }),
        }))
    }

    /// The topmost layer of a chain and the number of its layers, if an image has it.
    fn known(&self, chain: &ChainId) -> Result<Option<(DiffId, usize)>, SnapshotError> {
        let names = self.store.names()?;
        let mut known = self.known.lock();
        let known = match &mut *known {
            Some(known) if Arc::ptr_eq(&known.names, &names) => known,
            other => {
                let mut chains = HashMap::new();
                for image in names.images.values() {
                    let each = ChainId::chain(&image.layers).into_iter();
                    let layers = image.layers.iter().copied().zip(1..);
                    chains.extend(each.zip(layers));
                }
                other.insert(Known { names, chains })
            }
        };
        Ok(known.chains.get(chain).copied())
    }

    /// Pulls the image that the labels name. Whatever comes of it, the store is asked again; what goes wrong is the log's, since
    /// the client can fetch the layer itself.
    fn pull(&self, target: &ChainId, labels: &BTreeMap<String, String>) {
        let Some(image) = IMAGE.iter().find_map(|&label| labels.get(label)) else {
            return;
        };
        // One pull at a time for an image: its layers are asked for one by one, and by several clients.
        let failed = {
            let mut pulls = self.pulls.lock();
            if pulls.len() >= MAX_PULLS {
                pulls.retain(|_, pull| Arc::strong_count(pull) > 1);
            }
            let pull: &Arc<Mutex<Option<Instant>>> = pulls.entry(image.clone()).or_default();
            Arc::clone(pull)
        };
        let mut failed = failed.lock();
        if failed.is_some_and(|when| when.elapsed() < AFTER_FAILURE) {
            return;
        }
        let mut exact = None;
        if let Some(manifest) = labels.get(MANIFEST) {
            let name = image.split('@').next().unwrap_or_default();
            exact = Some(format!("{name}@{manifest}"));
        }
        // The tag first, so that the image has its name here; if it means another image by now, what was asked for.
        for reference in [Some(image.clone()), exact].into_iter().flatten() {
            if matches!(self.known(target), Ok(Some(_))) {
                return;
            }
            match self.pull_one(&reference) {
                Ok(()) => *failed = None,
                Err(error) => {
                    log::warn!("{reference}: {error}; containerd fetches it itself");
                    *failed = Some(Instant::now());
                }
            }
        }
    }

    fn pull_one(&self, reference: &str) -> Result<(), SnapshotError> {
        let reference = Reference::parse(reference)
            .map_err(|error| SnapshotError::Invalid(error.to_string()))?;
        // As of now: no restart for a new mirror.
        let settings = mica::registry::settings();
        let mut registry = self.registry.clone();
        registry.insecure.extend(settings.insecure);
        registry.mirrors.extend(settings.mirrors);
        let options = Options {
            platform: None,
            limits: Limits::default(),
            registry,
        };
        let pull = |client: Client| {
            pull::pull(&self.store, &client, &reference, &options, &Silent)?;
            self.store.publish();
            Ok(())
        };
        let repository = &reference.repository;
        for mirror in Client::mirrors(repository, &options.registry) {
            let client = Client::connect_to_mirror(mirror, repository, &options.registry);
            match client.map_err(pull::PullError::from).and_then(pull) {
                Ok(()) => return Ok(()),
                Err(error) => log::warn!("{mirror}: {error}; the registry itself is asked"),
            }
        }
        let client = Client::connect(repository, &options.registry);
        Ok(client.map_err(pull::PullError::from).and_then(pull)?)
    }
}

/// The committed snapshot of the store's layers on that parent.
fn provided<'a>(snapshots: &'a Snapshots, target: &ChainId, parent: &str) -> Option<&'a Snapshot> {
    let is_it = |s: &&Snapshot| {
        s.chain == Some(*target) && s.parent.as_deref().unwrap_or_default() == parent
    };
    let names = [target.to_string(), second_name(target, parent)];
    names
        .iter()
        .filter_map(|name| snapshots.get(name))
        .find(is_it)
}

/// Other namespaces of containerd's may have the same chain on a parent that was unpacked.
fn second_name(target: &ChainId, parent: &str) -> String {
    format!("{target} on {}", Digest::of(parent.as_bytes()).short())
}
