//! Where things are in a store.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::files::{INDEX_JSON, VOLUMES_JSON};
use super::ids::VolumeId;
use crate::oci::{DiffId, Digest};

/// The on-disk format that this program writes.
pub const FORMAT: u32 = 1;

/// How a store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// Make it if it is not there; for reading and writing.
    Create,
    /// It must be there; for reading and writing, as far as the system and its features allow.
    Existing,
    /// It must be there; nothing is ever written, not even locks or leases.
    ReadOnly,
}

/// `meta.json`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Meta {
    /// Layout of the store as a whole; another number is another layout.
    pub format: u32,
    /// What the store uses beyond the format.
    #[serde(default)]
    pub features: Features,
}

/// Feature names by what a program that does not know them must do.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Features {
    /// Nothing special.
    #[serde(default)]
    pub compatible: Vec<String>,
    /// Write nothing.
    #[serde(default)]
    pub read_only_compatible: Vec<String>,
    /// Keep out.
    #[serde(default)]
    pub incompatible: Vec<String>,
}

/// The paths of one store. Only validated values (digests, lease ids) become parts of paths.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout of the store at `root`.
    pub fn new(root: PathBuf) -> Layout {
        Layout { root }
    }
    /// The store's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }
    /// Names: the tags and images.
    pub fn index_json(&self) -> PathBuf {
        self.root.join(INDEX_JSON)
    }
    /// The volumes.
    pub fn volumes_json(&self) -> PathBuf {
        self.root.join(VOLUMES_JSON)
    }
    /// Directory of the volumes' data; made with the first volume.
    pub fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }
    /// One volume's directory.
    pub fn volume(&self, id: &VolumeId) -> PathBuf {
        self.volumes().join(id.as_str())
    }
    /// The root directory of a volume.
    pub fn volume_data(&self, id: &VolumeId) -> PathBuf {
        self.volume(id).join("_data")
    }
    /// Format and features.
    pub fn meta_json(&self) -> PathBuf {
        self.root.join("meta.json")
    }
    /// The OCI marker.
    pub fn oci_layout(&self) -> PathBuf {
        self.root.join("oci-layout")
    }
    /// What [`super::StoreLock`] locks.
    pub fn lock_file(&self) -> PathBuf {
        self.root.join("lock")
    }
    /// Space to give up when the disk is full.
    pub fn reserve(&self) -> PathBuf {
        self.root.join("reserve")
    }
    /// Directory of all blobs.
    pub fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }
    /// One blob.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }
    /// Directory of the layer indexes.
    pub fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }
    /// One layer's index.
    pub fn layer_index(&self, layer: &DiffId) -> PathBuf {
        self.layers().join(format!("{}.idx", layer.hex()))
    }
    /// Mark that a layer's tar was found damaged: an import writes it anew instead of relying on it.
    pub fn layer_mark(&self, layer: &DiffId) -> PathBuf {
        self.layers().join(format!("{}.bad", layer.hex()))
    }
    /// Leases and their sockets.
    pub fn leases(&self) -> PathBuf {
        self.root.join("leases")
    }
    /// One directory per import in flight.
    pub fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// One directory per container; not there before the first one.
    pub fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// Downloads that broke off, by blob; made when there is one.
    pub fn partial(&self) -> PathBuf {
        self.root.join("partial")
    }

    pub(super) fn directories(&self) -> [PathBuf; 4] {
        [self.blobs(), self.layers(), self.leases(), self.tmp()]
    }
}

/// The store that is meant when none is named: `MICA_STORE`, else `/var/lib/mica` for root, else
/// `$XDG_DATA_HOME/mica` or `~/.local/share/mica`.
pub fn default_path() -> PathBuf {
    let var = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(path) = var("MICA_STORE") {
        return path.into();
    }
    if rustix::process::geteuid().is_root() {
        return "/var/lib/mica".into();
    }
    if let Some(data) = var("XDG_DATA_HOME").filter(|data| Path::new(data).is_absolute()) {
        return Path::new(&data).join("mica");
    }
    let home = var("HOME").unwrap_or_else(|| "/".into());
    Path::new(&home).join(".local/share/mica")
}
