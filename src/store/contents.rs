//! What is in the store, verified as it is read: documents, layers, and what they take on disk.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use super::files;
use super::{DiskUsage, ImageRecord, MAX_DOCUMENT_BYTES, Store, StoreError, read_limited, usage};
use crate::layer::{IndexError, LayerFile, LayerIndex};
use crate::oci::{DiffId, Digest, ImageConfig, ImageId};

impl Store {
    /// An image's config, verified against its ID.
    pub fn config(&self, id: &ImageId) -> Result<Arc<ImageConfig>, StoreError> {
        if let Some(config) = self.0.configs.lock().get(id).and_then(Weak::upgrade) {
            return Ok(config);
        }
        let bytes = self.blob(&id.0)?;
        let config = ImageConfig::parse(&bytes).map_err(|error| StoreError::Document {
            digest: id.0,
            reason: error.to_string(),
        })?;
        let config = Arc::new(config);
        let mut configs = self.0.configs.lock();
        configs.retain(|_, config| config.strong_count() > 0);
        configs.insert(*id, Arc::downgrade(&config));
        Ok(config)
    }

    /// The manifest in this store (uncompressed layers), verified.
    pub fn manifest_bytes(&self, image: &ImageRecord) -> Result<Vec<u8>, StoreError> {
        self.blob(&image.manifest.digest)
    }

    /// A small blob (config, manifest), verified against its digest.
    pub fn blob(&self, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        let path = self.blob_path(digest);
        let file = files::open_if_there(&path)?.ok_or(StoreError::BlobMissing(*digest))?;
        let stat = file.metadata().map_err(StoreError::io("stat", &path))?;
        let bytes = read_limited(&file, &stat, MAX_DOCUMENT_BYTES, &path)?;
        let found = Digest::of(&bytes);
        if found == *digest {
            Ok(bytes)
        } else {
            Err(StoreError::BlobDamaged {
                digest: *digest,
                found,
            })
        }
    }

    /// Where a blob is.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.layout().blob(digest)
    }

    /// A layer, open: shared by all who have it open in this process. It stays readable after a removal.
    pub fn open_layer(&self, layer: &DiffId) -> Result<Arc<LayerFile>, StoreError> {
        let path = self.blob_path(&layer.0);
        let blob = files::open_if_there(&path)?.ok_or(StoreError::LayerMissing(*layer))?;
        let stat = blob.metadata().map_err(StoreError::io("stat", &path))?;
        let identity = (stat.dev(), stat.ino());
        if let Some((open, of)) = self.0.layers.lock().get(layer)
            && *of == identity
            && let Some(open) = open.upgrade()
        {
            return Ok(open);
        }
        let index = self.layer_index(layer)?;
        if index.tar_size() != stat.size() {
            return Err(StoreError::LayerDamaged {
                diff_id: *layer,
                expected: index.tar_size(),
                found: stat.size(),
            });
        }
        let open = Arc::new(LayerFile::open(index, blob).map_err(StoreError::Layer)?);
        let mut layers = self.0.layers.lock();
        layers.retain(|_, (open, _)| open.strong_count() > 0);
        layers.insert(*layer, (Arc::downgrade(&open), identity));
        Ok(open)
    }

    /// A layer's index.
    pub fn layer_index(&self, layer: &DiffId) -> Result<Arc<LayerIndex>, StoreError> {
        // The layer may have gone and come back between the look at its index and that at its blob.
        for _ in 0..3 {
            match self.try_layer_index(layer) {
                Err(StoreError::IndexMissing(_)) => {}
                found => return found,
            }
        }
        Err(StoreError::IndexMissing(*layer))
    }

    fn try_layer_index(&self, layer: &DiffId) -> Result<Arc<LayerIndex>, StoreError> {
        let path = self.layout().layer_index(layer);
        match LayerIndex::open(&path, layer) {
            Ok(index) => Ok(Arc::new(index)),
            Err(IndexError::Version { .. }) => self.reindex(layer).map(Arc::new),
            // The layer is gone as a whole.
            Err(_) if !files::is_there(&self.blob_path(&layer.0))? => {
                Err(StoreError::LayerMissing(*layer))
            }
            Err(IndexError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Err(StoreError::IndexMissing(*layer))
            }
            Err(error) => Err(StoreError::Index(error)),
        }
    }

    /// What the store takes on disk.
    pub fn disk_usage(&self) -> Result<DiskUsage, StoreError> {
        usage::measure(self)
    }

    /// Disk space of every blob, by digest; a layer's index counts with its blob.
    pub fn blob_sizes(&self) -> Result<HashMap<Digest, u64>, StoreError> {
        usage::blobs(self)
    }

    /// Disk space of some layers (tar and index) and documents.
    pub fn size_on_disk<'a>(
        &self,
        layers: impl IntoIterator<Item = &'a DiffId>,
        documents: impl IntoIterator<Item = &'a Digest>,
    ) -> Result<u64, StoreError> {
        usage::size_of(self, layers, documents)
    }
}
