//! The layers of one image on their way into the store, three at a time.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::oci::{Descriptor, DiffId, Digest, ImageConfig, Manifest, Repository};
use crate::ops::transfer::blob_map as proven;
use crate::ops::transfer::ingest::{self as intake, IntakeError, Pumped};
use crate::registry::{Client, RegistryError};
use crate::store::{Import, Partial, Store, StoreError};
use crate::sys::threads;

use crate::ops::transfer::pull::download::Download;
use crate::ops::transfer::pull::{Event, Options, PullError, Sink};

/// Layers in flight at once, as in docker: more does not make a disk faster and a server friendlier.
const PARALLEL: usize = 3;

/// What was done.
pub(super) struct Taken {
    /// Whether any layer had to be downloaded.
    pub(super) downloaded: bool,
    /// Positions of layers that were here already and that no blob was ever seen to be.
    pub(super) unproved: Vec<u16>,
    /// Downloads that are kept until the image is there.
    pub(super) kept: Vec<Partial>,
}

/// The layers of one image on their way into the store.
pub(super) struct Work<'a> {
    store: &'a Store,
    client: &'a Client,
    import: &'a Import,
    repository: &'a Repository,
    options: &'a Options,
    progress: &'a dyn Sink,
    /// One has failed: the others need not go on.
    stop: AtomicBool,
    kept: Mutex<Vec<Partial>>,
}

impl<'a> Work<'a> {
    pub(super) fn new(
        store: &'a Store,
        client: &'a Client,
        import: &'a Import,
        repository: &'a Repository,
        options: &'a Options,
        progress: &'a dyn Sink,
    ) -> Self {
        Work {
            store,
            client,
            import,
            repository,
            options,
            progress,
            stop: AtomicBool::new(false),
            kept: Mutex::default(),
        }
    }

    /// Brings in every layer that is not here.
    pub(super) fn layers(
        self,
        manifest: &Manifest,
        config: &ImageConfig,
    ) -> Result<Taken, PullError> {
        let limit = self.options.limits.max_tar_bytes;
        let mut seen = BTreeSet::new();
        let mut skipped = BTreeSet::new();
        let mut todo = VecDeque::new();
        for (blob, layer) in manifest.layers.iter().zip(&config.diff_ids) {
            if !seen.insert((blob.digest, *layer)) {
                continue;
            }
            if self.import.has_layer(layer)? {
                self.progress.event(Event::Exists { blob: blob.digest });
                skipped.insert((blob.digest, *layer));
                // Whatever an interrupted pull has left of it.
                self.kept
                    .lock()
                    .extend(self.store.partial_left(&blob.digest));
                continue;
            }
            // Compression never makes a layer half as long again.
            if blob.size / 3 * 2 > limit {
                return Err(PullError::TooLarge {
                    blob: blob.digest,
                    size: blob.size,
                    limit,
                });
            }
            self.progress.event(Event::Waiting { blob: blob.digest });
            todo.push_back((blob, *layer));
        }
        // Before anything is fetched; what they unpack to is found out only then.
        let together = todo
            .iter()
            .map(|(blob, _): &(&Descriptor, _)| blob.size / 3 * 2);
        let together = together.fold(0u64, u64::saturating_add);
        self.import.expect(together, &self.options.limits)?;
        let downloaded = !todo.is_empty();
        let workers = PARALLEL.min(todo.len());
        let todo = Mutex::new(todo);
        let first_error = Mutex::new(None);
        threads::share("pull", workers, || {
            while !self.stop.load(Ordering::Relaxed) {
                let Some((blob, layer)) = todo.lock().pop_front() else {
                    return;
                };
                if let Err(error) = self.layer(blob, layer) {
                    self.stop.store(true, Ordering::Relaxed);
                    self.progress.event(Event::Failed { blob: blob.digest });
                    first_error.lock().get_or_insert(error);
                }
            }
        });
        let kept = self.kept.into_inner();
        if let Some(error) = first_error.into_inner() {
            if !error.may_pass() {
                kept.into_iter().for_each(Partial::discard);
            }
            return Err(error);
        }
        let unproved = unproved(self.store, manifest, config, &skipped)?;
        Ok(Taken {
            downloaded,
            unproved,
            kept,
        })
    }

    fn layer(&self, blob: &Descriptor, expected: DiffId) -> Result<(), PullError> {
        let mut download =
            Download::resume(self.store, self.client, self.repository, blob, &self.stop);
        self.progress.event(Event::Begin {
            blob: blob.digest,
            size: blob.size,
            kept: download.kept(),
        });
        let mut result = self.take_in(blob, expected, &mut download);
        // What an earlier pull has left may be no good; that is not to be the end of all pulls.
        if let Err(error) = &result
            && download.is_resumed()
            && !error.may_pass()
            && !matches!(error, PullError::Store(_))
        {
            log::warn!(
                "layer {}: what was kept of it is no good, fetching it anew",
                blob.digest
            );
            download = download.restart(self.client, self.repository, blob);
            result = self.take_in(blob, expected, &mut download);
        }
        self.kept.lock().extend(download.into_partial());
        result?;
        // It must be found by the commit whatever happens to its file meanwhile.
        self.store.open_layer(&expected)?;
        self.progress.event(Event::Complete { blob: blob.digest });
        Ok(())
    }

    fn take_in(
        &self,
        blob: &Descriptor,
        expected: DiffId,
        content: &mut Download<'_>,
    ) -> Result<Pumped, PullError> {
        let advance = |bytes| {
            self.progress.event(Event::Advance {
                blob: blob.digest,
                bytes,
            });
        };
        let limits = &self.options.limits;
        let (pumped, _) = intake::write(self.import, limits, &advance, content)
            .map_err(|error| failed(blob.digest, error))?;
        if pumped.blob != blob.digest {
            return Err(PullError::BlobDigest {
                expected: blob.digest,
                found: pumped.blob,
            });
        }
        if pumped.diff_id != expected {
            return Err(PullError::DiffId {
                blob: blob.digest,
                expected,
                found: pumped.diff_id,
            });
        }
        Ok(pumped)
    }
}

/// Positions of the layers that were not downloaded and whose blob no earlier import has seen either.
fn unproved(
    store: &Store,
    manifest: &Manifest,
    config: &ImageConfig,
    skipped: &BTreeSet<(Digest, DiffId)>,
) -> Result<Vec<u16>, StoreError> {
    let mut proved = HashSet::new();
    let names = store.names()?;
    let shares = |layer: &DiffId| skipped.iter().any(|(_, skipped)| skipped == layer);
    for image in names.images.values() {
        if !image.layers.iter().any(shares) {
            continue;
        }
        for (origin, manifest, _) in proven::manifests(store, image) {
            let pairs = proven::pairs(origin, &manifest, image);
            proved.extend(pairs.map(|(blob, layer)| (blob.digest, layer)));
        }
    }
    let pairs = manifest.layers.iter().map(|blob| blob.digest);
    let pairs = pairs.zip(config.diff_ids.iter().copied());
    let unproved = pairs.enumerate().filter(|(_, pair)| {
        // An uncompressed blob is its layer by its name.
        skipped.contains(pair) && !proved.contains(pair) && pair.0 != pair.1.0
    });
    // A config has at most some thousand layers.
    Ok(unproved
        .filter_map(|(at, _)| u16::try_from(at).ok())
        .collect())
}

fn failed(blob: Digest, error: IntakeError) -> PullError {
    match error {
        IntakeError::Read(error) => match RegistryError::from_io(error) {
            Ok(error) => PullError::Registry(error),
            Err(source) => PullError::Damaged { blob, source },
        },
        IntakeError::Layer(source) => PullError::Layer { blob, source },
        // Only a layer that is here already is held to a length.
        IntakeError::TooLong(layer) => PullError::DiffId {
            blob,
            expected: layer,
            found: layer,
        },
        IntakeError::Store(error) => PullError::Store(error),
    }
}
