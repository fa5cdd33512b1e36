//! What a store takes on disk.

use std::collections::{BTreeSet, HashMap};

use super::Store;
use super::error::StoreError;
use super::files::file_names;
use super::gc::{allocated, tree_allocated};
use crate::oci::{DiffId, Digest};

/// Disk space by what it is for, in bytes allocated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Stored layers.
    pub layers: u64,
    /// Bytes of their tars.
    pub layer_bytes: u64,
    /// Bytes of their indexes.
    pub index_bytes: u64,
    /// Bytes of configs, manifests and other small blobs.
    pub document_bytes: u64,
    /// Bytes of imports in flight, and of downloads that broke off.
    pub tmp_bytes: u64,
    /// Bytes of the files on top (`index.json` and the like).
    pub other_bytes: u64,
}

impl DiskUsage {
    /// Everything.
    pub fn total(&self) -> u64 {
        self.layer_bytes
            + self.index_bytes
            + self.document_bytes
            + self.tmp_bytes
            + self.other_bytes
    }
}

pub(super) fn measure(store: &Store) -> Result<DiskUsage, StoreError> {
    let layout = store.layout();
    let mut usage = DiskUsage::default();
    let mut layers = BTreeSet::new();
    for name in file_names(&layout.layers())? {
        usage.index_bytes += allocated(&layout.layers().join(&name))?;
        if let Some(Ok(digest)) = name.strip_suffix(".idx").map(Digest::from_hex) {
            layers.insert(digest);
        }
    }
    for name in file_names(&layout.blobs())? {
        let bytes = allocated(&layout.blobs().join(&name))?;
        if Digest::from_hex(&name).is_ok_and(|digest| layers.contains(&digest)) {
            usage.layers += 1;
            usage.layer_bytes += bytes;
        } else {
            usage.document_bytes += bytes;
        }
    }
    for import in file_names(&layout.tmp())? {
        usage.tmp_bytes += tree_allocated(&layout.tmp().join(import))?;
    }
    if layout.partial().is_dir() {
        for name in file_names(&layout.partial())? {
            usage.tmp_bytes += allocated(&layout.partial().join(name))?;
        }
    }
    for name in file_names(layout.root())? {
        let path = layout.root().join(name);
        if path.is_file() {
            usage.other_bytes += allocated(&path)?;
        }
    }
    Ok(usage)
}

/// Disk space of some layers (tar and index) and documents; what is not there counts nothing.
pub(super) fn size_of<'a>(
    store: &Store,
    layers: impl IntoIterator<Item = &'a DiffId>,
    documents: impl IntoIterator<Item = &'a Digest>,
) -> Result<u64, StoreError> {
    let layout = store.layout();
    let mut bytes = 0;
    for layer in layers {
        bytes += allocated(&layout.blob(&layer.0))?;
        bytes += allocated(&layout.layer_index(layer))?;
    }
    for document in documents {
        bytes += allocated(&layout.blob(document))?;
    }
    Ok(bytes)
}

/// Disk space of every blob, a layer's index included. What is there without a blob is under the digest of its name.
pub(super) fn blobs(store: &Store) -> Result<HashMap<Digest, u64>, StoreError> {
    let layout = store.layout();
    let mut sizes: HashMap<Digest, u64> = HashMap::new();
    for dir in [layout.blobs(), layout.layers()] {
        for name in file_names(&dir)? {
            let stem = name.split('.').next().unwrap_or(&name);
            if let Ok(digest) = Digest::from_hex(stem) {
                *sizes.entry(digest).or_default() += allocated(&dir.join(&name))?;
            }
        }
    }
    Ok(sizes)
}
