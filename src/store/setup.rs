//! How a store is made, and whether this program may touch it.

use std::fs;
use std::io;
use std::path::Path;

use super::error::StoreError;
use super::files::{INDEX_JSON, is_there, make_directory};
use super::layout::{FORMAT, Features, Layout, Meta};
use super::lock::StoreLock;
use super::{privacy, reserve};
use crate::sys::atomic;

/// Features that this program knows, by name. None exist yet.
const KNOWN_FEATURES: &[&str] = &[];

const OCI_LAYOUT: &[u8] = b"{\"imageLayoutVersion\":\"1.0.0\"}";

/// Makes a store at `layout`, or completes one whose creation was cut short. `meta.json` comes last: without
/// it there is no store.
pub(super) fn create(layout: &Layout, empty_index: &[u8]) -> Result<(), StoreError> {
    let root = layout.root();
    privacy::make_root(root)?;
    let begun = is_there(&layout.lock_file())? && privacy::is_unfinished(root)?;
    if !begun && !is_empty(root)? {
        return Err(StoreError::NotEmpty {
            path: root.to_owned(),
        });
    }
    privacy::shut_root(root)?;
    let _lock = StoreLock::exclusive(layout, true)?;
    if is_there(&layout.meta_json())? {
        return Ok(());
    }
    let blobs = root.join("blobs");
    for dir in [blobs.clone()].into_iter().chain(layout.directories()) {
        make_directory(&dir).map_err(StoreError::io("create", &dir))?;
        atomic::sync_dir(&dir).map_err(StoreError::io("sync", &dir))?;
    }
    atomic::sync_dir(&blobs).map_err(StoreError::io("sync", &blobs))?;
    let put = |name: &str, bytes: &[u8]| {
        atomic::replace(root, &format!("{name}.new"), name, bytes)
            .map_err(StoreError::io("write", &root.join(name)))
    };
    if !is_there(&layout.index_json())? {
        put(INDEX_JSON, empty_index)?;
    }
    put("oci-layout", OCI_LAYOUT)?;
    reserve::keep(layout, 0);
    let meta = Meta {
        format: FORMAT,
        features: Features::default(),
    };
    let meta = serde_json::to_vec_pretty(&meta)
        .map_err(io::Error::from)
        .map_err(StoreError::io("write", &layout.meta_json()))?;
    put("meta.json", &meta)?;
    if let Some(parent) = root.parent() {
        atomic::sync_dir(parent).map_err(StoreError::io("sync", parent))?;
    }
    Ok(())
}

/// Checks `meta.json`. The answer is why the store must not be written to, if so.
pub(super) fn admit(layout: &Layout) -> Result<Option<String>, StoreError> {
    let path = layout.meta_json();
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(StoreError::NotAStore {
                path: layout.root().to_owned(),
            });
        }
        Err(error) => return Err(StoreError::io("read", &path)(error)),
    };
    let meta: Meta = serde_json::from_slice(&bytes).map_err(|error| StoreError::MetaDamaged {
        path: path.clone(),
        reason: error.to_string(),
    })?;
    let too_new = |what: String| StoreError::TooNew {
        path: layout.root().to_owned(),
        what,
    };
    if meta.format != FORMAT {
        return Err(too_new(format!("format {}", meta.format)));
    }
    let unknown = |names: &[String]| {
        names
            .iter()
            .find(|name| !KNOWN_FEATURES.contains(&name.as_str()))
            .cloned()
    };
    if let Some(name) = unknown(&meta.features.incompatible) {
        return Err(too_new(format!("the feature {name:?}")));
    }
    Ok(unknown(&meta.features.read_only_compatible)
        .map(|name| format!("it has the feature {name:?}, which this mica cannot write")))
}

/// Whether nothing is in a directory but what a new file system begins with.
fn is_empty(dir: &Path) -> Result<bool, StoreError> {
    for entry in fs::read_dir(dir).map_err(StoreError::io("read", dir))? {
        let entry = entry.map_err(StoreError::io("read", dir))?;
        if entry.file_name() != "lost+found" {
            return Ok(false);
        }
    }
    Ok(true)
}
