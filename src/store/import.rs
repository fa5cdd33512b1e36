//! Bringing images in.
//!
//! An import is a lease, a private directory `tmp/<lease>/` and what it has put into `blobs/` and `layers/`
//! so far, which no name reaches until [`Import::commit`]. Order of durability: each tar and index is synced
//! before it is renamed into place; then the documents; then the directories; then `index.json`. Dropped
//! without commit, it removes what it made. Killed, its lease dies with it and the next change removes it.

mod room;
mod sink;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use serde::Serialize;

pub use sink::LayerSink;

use super::error::StoreError;
use super::files::is_there;
use super::image_record::{ImageRecord, Origin};
use super::layout::Layout;
use super::lease::{Lease, LeaseKind};
use super::lock::StoreLock;
use super::names::{Names, manifest_descriptor};
use super::{Store, gc};
use crate::layer::merged;
use crate::oci::{DiffId, Digest, ImageConfig, ImageId, MediaType, Repository, TagRef};
use crate::sys::atomic;

/// An import in flight. All methods may be called from several threads at once.
#[derive(Debug)]
pub struct Import {
    store: Store,
    lease: Lease,
    dir: PathBuf,
    next_file: AtomicU64,
    room: room::Room,
    /// Files put into place that no name reaches yet.
    placed: Mutex<BTreeSet<PathBuf>>,
}

/// An image whose layers are all in the store.
#[derive(Debug)]
pub struct NewImage {
    /// The config, with its exact bytes.
    pub config: ImageConfig,
    /// Its layers, bottom first; must be those of the config.
    pub layers: Vec<DiffId>,
    /// Tags to put on it; may be none (the image is then dangling).
    pub tags: Vec<TagRef>,
    /// Manifests it came by.
    pub origins: Vec<NewOrigin>,
}

/// A manifest to keep byte for byte.
#[derive(Debug, Clone)]
pub struct NewOrigin {
    /// Repository it was served for, if it was.
    pub repository: Option<Repository>,
    /// As served.
    pub media_type: String,
    /// As served.
    pub bytes: Vec<u8>,
    /// Positions of layers whose blob in this manifest nobody has seen, see [`Origin::unproved`].
    pub unproved: Vec<u16>,
}

/// What a commit did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// One for each [`NewImage`], in order.
    pub images: Vec<CommittedImage>,
}

/// What a commit did with one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedImage {
    /// The image.
    pub id: ImageId,
    /// Whether it was in the store before.
    pub existed: bool,
    /// Its tags, each with the other image that had it before.
    pub tags: Vec<(TagRef, Option<ImageId>)>,
}

impl Import {
    pub(super) fn begin(store: &Store) -> Result<Import, StoreError> {
        let lease = store.lease(LeaseKind::Import)?;
        let dir = store.layout().tmp().join(lease.id().as_str());
        super::files::make_new_directory(&dir).map_err(StoreError::io("create", &dir))?;
        Ok(Import {
            store: store.clone(),
            lease,
            dir,
            next_file: AtomicU64::new(0),
            room: room::Room::default(),
            placed: Mutex::default(),
        })
    }

    /// Whether the layer is there whole, so that it need not be written. From then on it stays there while
    /// this import lives. A layer that was found damaged is not there: write it again.
    pub fn has_layer(&self, layer: &DiffId) -> Result<bool, StoreError> {
        self.lease.hold(&[layer.0])?;
        if is_there(&self.store.layout().layer_mark(layer))? {
            return Ok(false);
        }
        Ok(self.store.open_layer(layer).is_ok())
    }

    /// A place to write a layer's uncompressed tar to.
    pub fn new_layer(&self) -> Result<LayerSink<'_>, StoreError> {
        LayerSink::create(self)
    }

    /// The private directory, for whatever else an import must put on disk (an archive from a pipe).
    pub fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    fn next_path(&self) -> PathBuf {
        let number = self.next_file.fetch_add(1, Ordering::Relaxed);
        self.dir.join(format!("store.{number}"))
    }

    /// Puts the images under their names, all in one step. A tag that named another image is moved; that
    /// image may become dangling. Takes the store lock.
    pub fn commit(self, images: Vec<NewImage>) -> Result<Committed, StoreError> {
        self.commit_from(None, images)
    }

    /// The same for images that were made from a local one: it is shown in their history, and removed with the last of them
    /// once it has no name.
    pub fn commit_from(
        self,
        parent: Option<ImageId>,
        images: Vec<NewImage>,
    ) -> Result<Committed, StoreError> {
        for image in &images {
            if image.config.diff_ids != image.layers {
                return Err(StoreError::LayersDisagree {
                    id: image.config.id,
                    expected: image.config.diff_ids.len(),
                    given: image.layers.len(),
                });
            }
            let layers: Vec<Digest> = image.layers.iter().map(|layer| layer.0).collect();
            self.lease.hold(&layers)?;
        }
        let lock = self.store.lock()?;
        let mut records = Vec::with_capacity(images.len());
        for image in &images {
            records.push(self.place_documents(image)?);
        }
        let layout = self.store.layout();
        for dir in [layout.blobs(), layout.layers()] {
            atomic::sync_dir(&dir).map_err(StoreError::io("sync", &dir))?;
        }
        let now = SystemTime::now();
        let committed = self.store.change(&lock, |names| {
            let mut done = Vec::with_capacity(images.len());
            for (image, mut record) in images.iter().zip(records) {
                record.parent = parent.filter(|parent| *parent != record.id);
                done.push(enter(names, image, record, now)?);
            }
            Ok::<_, StoreError>(Committed { images: done })
        })?;
        let names = self.store.names();
        for image in committed.images.iter().filter(|image| image.existed) {
            if let Ok(names) = &names
                && let Some(record) = names.images.get(&image.id)
            {
                self.store.note_use(record);
            }
        }
        // Now they have names, but for what no image turned out to need.
        let placed = std::mem::take(&mut *self.placed.lock());
        if let Err(error) = self.remove_unreached(&placed, &lock) {
            log::warn!("cannot remove what an import did not need: {error}");
        }
        Ok(committed)
    }

    /// Writes config, manifest and origins of an image whose layers are there.
    fn place_documents(&self, image: &NewImage) -> Result<ImageRecord, StoreError> {
        let mut size = 0u64;
        let mut layers = Vec::with_capacity(image.layers.len());
        let mut open = Vec::with_capacity(image.layers.len());
        for layer in &image.layers {
            let file = self.store.open_layer(layer)?;
            size = size.saturating_add(file.index.content_size());
            layers.push(Reference {
                media_type: MediaType::oci_layer(),
                digest: layer.0,
                size: file.index.tar_size(),
            });
            open.push(file);
        }
        merged::Image::new(open)
            .and_then(|stack| stack.verify_lower_links())
            .map_err(StoreError::Index)?;
        let id = image.config.id;
        self.place_document(id.0, &image.config.bytes)?;
        let manifest = manifest_bytes(&image.config, layers)?;
        let digest = Digest::of(&manifest);
        self.place_document(digest, &manifest)?;
        let mut origins = Vec::with_capacity(image.origins.len());
        for origin in &image.origins {
            let digest = Digest::of(&origin.bytes);
            self.place_document(digest, &origin.bytes)?;
            origins.push(Origin {
                repository: origin.repository.clone(),
                digest,
                media_type: origin.media_type.clone(),
                unproved: origin.unproved.clone(),
            });
        }
        let created = image.config.created.as_deref();
        Ok(ImageRecord {
            id,
            manifest: manifest_descriptor(
                digest,
                manifest.len() as u64,
                Some(image.config.platform.clone()),
            ),
            layers: image.layers.clone(),
            created: created.and_then(|text| text.parse().ok()),
            size,
            added: SystemTime::now(),
            origins,
            parent: None,
            tags: Default::default(),
        })
    }

    /// One small blob. One that is there whole is left alone, a damaged one is replaced.
    fn place_document(&self, digest: Digest, bytes: &[u8]) -> Result<(), StoreError> {
        if self.store.blob(&digest).is_ok() {
            return Ok(());
        }
        let temp = self.next_path();
        atomic::write_new(&temp, bytes).map_err(StoreError::io("write", &temp))?;
        self.place(temp, self.store.blob_path(&digest))
    }

    /// Removes those of `placed` that neither a name nor another lease reaches.
    fn remove_unreached(
        &self,
        placed: &BTreeSet<PathBuf>,
        lock: &StoreLock,
    ) -> Result<(), StoreError> {
        let mut reached = self.store.names()?.blobs();
        for lease in self.store.live_leases()? {
            if lease.id != *self.lease.id() {
                reached.extend(lease.held);
            }
        }
        gc::remove_unreached(placed, &reached, lock)
    }

    /// Renames a synced file into place. The caller holds what makes it safe from garbage collection.
    fn place(&self, temp: PathBuf, path: PathBuf) -> Result<(), StoreError> {
        let existed = is_there(&path)?;
        fs::rename(&temp, &path).map_err(StoreError::io("rename", &temp))?;
        if !existed {
            self.placed.lock().insert(path);
        }
        Ok(())
    }
}

impl Drop for Import {
    /// Without a commit: removes what this import put into place, unless a name or another lease reaches it
    /// by now. If the lock cannot be had soon the next collection does it.
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            log::warn!("cannot remove {}: {error}", self.dir.display());
        }
        let placed = std::mem::take(self.placed.get_mut());
        if placed.is_empty() {
            return;
        }
        let removed = lock_soon(self.store.layout())
            .and_then(|lock| lock.map_or(Ok(()), |lock| self.remove_unreached(&placed, &lock)));
        if let Err(error) = removed {
            log::warn!("cannot remove an unfinished import: {error}");
        }
    }
}

/// The lock, if it can be had within a second: a drop must not wait for a thread that waits for it.
fn lock_soon(layout: &Layout) -> Result<Option<StoreLock>, StoreError> {
    for _ in 0..100 {
        if let Some(lock) = StoreLock::try_exclusive(layout)? {
            return Ok(Some(lock));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(None)
}

/// Puts one image and its tags into the names.
fn enter(
    names: &mut Names,
    image: &NewImage,
    record: ImageRecord,
    now: SystemTime,
) -> Result<CommittedImage, StoreError> {
    let id = record.id;
    let existed = names.images.contains_key(&id);
    match names.images.get_mut(&id) {
        // A second import of an image adds origins; when it came and what it is stays.
        Some(old) => {
            for origin in record.origins {
                let same = |known: &&mut Origin| {
                    (&known.repository, known.digest, &known.media_type)
                        == (&origin.repository, origin.digest, &origin.media_type)
                };
                match old.origins.iter_mut().find(same) {
                    // What one of them has proved is proved.
                    Some(known) => known.unproved.retain(|at| origin.unproved.contains(at)),
                    None => old.origins.push(origin),
                }
            }
        }
        None => {
            names.images.insert(id, record);
        }
    }
    let mut tags = Vec::with_capacity(image.tags.len());
    for tag in &image.tags {
        tags.push((tag.clone(), names.tag(tag, id, now)?));
    }
    Ok(CommittedImage { id, existed, tags })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ManifestDocument {
    schema_version: u32,
    media_type: String,
    config: RawReference,
    layers: Vec<RawReference>,
}

struct Reference {
    media_type: MediaType,
    digest: Digest,
    size: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RawReference {
    media_type: String,
    digest: Digest,
    size: u64,
}

impl From<Reference> for RawReference {
    fn from(reference: Reference) -> Self {
        RawReference {
            media_type: reference.media_type.0,
            digest: reference.digest,
            size: reference.size,
        }
    }
}

/// The manifest of an image in a store. The same image has the same bytes in every store.
fn manifest_bytes(config: &ImageConfig, layers: Vec<Reference>) -> Result<Vec<u8>, StoreError> {
    let document = ManifestDocument {
        schema_version: 2,
        media_type: MediaType::oci_manifest().0,
        config: RawReference {
            media_type: MediaType::oci_config().0,
            digest: config.id.0,
            size: config.bytes.len() as u64,
        },
        layers: layers.into_iter().map(RawReference::from).collect(),
    };
    serde_json::to_vec(&document).map_err(|error| StoreError::Document {
        digest: config.id.0,
        reason: error.to_string(),
    })
}

#[cfg(test)]
impl Import {
    /// What a killed process leaves: the files, but not the lock on the lease.
    pub(super) fn die(self) {
        let import = std::mem::ManuallyDrop::new(self);
        import.lease.release_lock();
    }
}
