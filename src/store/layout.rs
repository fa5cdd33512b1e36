//! Where things are in a store, how one is created, and whether this program may touch it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::StoreError;
use super::lock::StoreLock;
use super::privacy;
use super::volumes::VolumeId;
use crate::oci::{DiffId, Digest};
use crate::sys::atomic;

/// The on-disk format that this program writes.
pub const FORMAT: u32 = 1;

/// Features that this program knows, by name. None exist yet.
const KNOWN_FEATURES: &[&str] = &[];

const OCI_LAYOUT: &[u8] = b"{\"imageLayoutVersion\":\"1.0.0\"}";

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
        self.root.join(super::volumes::VOLUMES_JSON)
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
    /// What [`StoreLock`] locks.
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

    fn directories(&self) -> [PathBuf; 4] {
        [self.blobs(), self.layers(), self.leases(), self.tmp()]
    }
}

/// Name of the file that holds all names.
pub const INDEX_JSON: &str = "index.json";
/// Where its replacement is written.
pub const INDEX_JSON_NEW: &str = "index.json.new";

/// Makes a store at `layout`, or completes one whose creation was cut short. `meta.json` comes last: without
/// it there is no store.
pub fn create(layout: &Layout, empty_index: &[u8]) -> Result<(), StoreError> {
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
        privacy::make_directory(&dir).map_err(StoreError::io("create", &dir))?;
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
    super::reserve::keep(layout, 0);
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
pub fn admit(layout: &Layout) -> Result<Option<String>, StoreError> {
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

/// Whether `path` is there. Not being able to tell is an error, never "no".
pub(crate) fn is_there(path: &Path) -> Result<bool, StoreError> {
    path.try_exists().map_err(StoreError::io("stat", path))
}

/// Opens a file of the store for reading; `None` if it is not there.
pub(crate) fn open_if_there(path: &Path) -> Result<Option<File>, StoreError> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("open", path)(error)),
    }
}
