//! What builds have made: the cache of `mica build`, in `builds.json`.
//!
//! An entry says which layer a step made, by a key that stands for everything the step depends on. Entries are no images: no
//! name reaches their layers, they are a root of garbage collection of their own ([`as_lease`]). Only a build adds entries,
//! never a load or a pull. Losing the file costs time, nothing else: one that cannot be read counts as empty.
//!
//! `build/<64 hex>/` are the directories that RUN --mount=type=cache keeps: `data` is the directory, `lock` is held with flock
//! by the steps that have it mounted.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::error::StoreError;
use super::files::file_names;
use super::files::{self, open_if_there};
use super::ids::LeaseId;
use super::layout::Layout;
use super::lease::{LeaseKind, LeaseRecord, LiveLease};
use super::lock::StoreLock;
use super::{Store, read_limited};
use crate::oci::{DiffId, Digest};
use crate::sys::deep;
use crate::sys::lock::{self, LockMode};

/// The parent of the shared directories.
const CACHE_MOUNTS: &str = "build";
/// Another number is another layout of the file.
const FORMAT: u32 = 1;
/// A larger file is none: half a million entries.
const MAX_BYTES: u64 = 256 << 20;

/// One step that was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildEntry {
    /// What it depends on.
    pub key: Digest,
    /// The layer it made; `None`: none was needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<DiffId>,
    /// When it was done: what its image says.
    pub created: Timestamp,
    /// When it was last of use.
    pub used: Timestamp,
    /// The step, for people.
    pub step: String,
}

#[derive(Serialize, Deserialize)]
struct Document {
    format: u32,
    entries: Vec<BuildEntry>,
}

/// The cache as of one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Builds {
    /// By key.
    pub entries: BTreeMap<Digest, BuildEntry>,
}

impl Builds {
    /// All layers that entries name.
    pub fn layers(&self) -> impl Iterator<Item = DiffId> + '_ {
        self.entries.values().filter_map(|entry| entry.layer)
    }
}

/// A directory that steps of builds share, held while the value lives.
#[derive(Debug)]
pub struct CacheMount {
    /// Where it is.
    pub data: PathBuf,
    /// The same, seen from the store's directory.
    pub within: PathBuf,
    /// Nobody has put anything there yet.
    pub is_new: bool,
    _lock: File,
}

impl Store {
    /// The cache of builds as of now.
    pub fn builds(&self) -> Result<Builds, StoreError> {
        read(self.layout())
    }

    /// Changes the cache, durably, in one step. Collect garbage afterwards if something went.
    pub fn change_builds<T>(
        &self,
        _lock: &StoreLock,
        edit: impl FnOnce(&mut Builds) -> T,
    ) -> Result<T, StoreError> {
        self.writable()?;
        let before = self.builds()?;
        let mut builds = before.clone();
        let value = edit(&mut builds);
        if builds != before {
            let path = self.path().join(files::BUILDS_JSON);
            let document = Document {
                format: FORMAT,
                entries: builds.entries.into_values().collect(),
            };
            let mut bytes = serde_json::to_vec(&document)
                .map_err(io::Error::from)
                .map_err(StoreError::io("write", &path))?;
            bytes.push(b'\n');
            self.replace_document(files::BUILDS_JSON_NEW, files::BUILDS_JSON, &bytes)?;
        }
        Ok(value)
    }

    /// Opens the shared directory of that name, made if it is not there. `alone`: waits until nobody else has it.
    pub fn cache_mount(&self, id: &Digest, alone: bool) -> Result<CacheMount, StoreError> {
        self.writable()?;
        let mode = match alone {
            true => LockMode::Exclusive,
            false => LockMode::Shared,
        };
        let directory = cache_mounts(self.layout()).join(id.hex());
        loop {
            for path in [&cache_mounts(self.layout()), &directory] {
                match fs::DirBuilder::new().mode(0o700).create(path) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(StoreError::io("create", path)(error));
                    }
                    _ => {}
                }
            }
            let path = directory.join("lock");
            let file = File::options().append(true).create(true).open(&path);
            let file = match file {
                // Pruned between the two.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file.map_err(StoreError::io("open", &path))?,
            };
            lock::lock(&file, mode).map_err(StoreError::io("lock", &path))?;
            // Pruned while this waited: that file is no more, and what it locked neither.
            if !lock::is_named(&file, &path).map_err(StoreError::io("stat", &path))? {
                continue;
            }
            let data = directory.join("data");
            let is_new = match fs::create_dir(&data) {
                Ok(()) => true,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
                Err(error) => return Err(StoreError::io("create", &data)(error)),
            };
            return Ok(CacheMount {
                within: Path::new(CACHE_MOUNTS).join(id.hex()).join("data"),
                data,
                is_new,
                _lock: file,
            });
        }
    }

    /// The shared directories, with what each takes on disk.
    pub fn cache_mounts(&self) -> Result<Vec<(Digest, u64)>, StoreError> {
        let parent = cache_mounts(self.layout());
        let names = match file_names(&parent) {
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(Vec::new());
            }
            names => names?,
        };
        let mut found = Vec::new();
        for name in names {
            if let Ok(id) = Digest::from_hex(&name) {
                let mut bytes = 0;
                // What an ordinary user's step has closed to the user is not counted; it may also go meanwhile.
                let _ = deep::visit(&parent.join(&name), |stat| bytes += deep::allocated(stat));
                found.push((id, bytes));
            }
        }
        Ok(found)
    }

    /// Removes a shared directory that no step has mounted; whether it did.
    pub fn remove_cache_mount(&self, id: &Digest, _lock: &StoreLock) -> Result<bool, StoreError> {
        self.writable()?;
        let directory = cache_mounts(self.layout()).join(id.hex());
        let path = directory.join("lock");
        let Some(file) = open_if_there(&path)? else {
            return Ok(false);
        };
        if !lock::try_lock(&file, LockMode::Exclusive).map_err(StoreError::io("lock", &path))? {
            return Ok(false);
        }
        super::containers::remove_tree(&directory).map_err(StoreError::io("remove", &directory))?;
        Ok(true)
    }
}

/// The parent of the shared directories.
fn cache_mounts(layout: &Layout) -> PathBuf {
    layout.root().join(CACHE_MOUNTS)
}

/// The cache as what it is for layers: somebody who needs them.
pub(super) fn as_lease(layout: &Layout) -> Result<Option<LiveLease>, StoreError> {
    let builds = read(layout)?;
    if builds.entries.is_empty() {
        return Ok(None);
    }
    Ok(Some(LiveLease {
        id: LeaseId::of_builds(),
        record: LeaseRecord {
            kind: LeaseKind::Builds,
            pid: 0,
            since: Timestamp::UNIX_EPOCH,
        },
        held: builds.layers().map(|layer| layer.0).collect(),
        socket: PathBuf::new(),
    }))
}

fn read(layout: &Layout) -> Result<Builds, StoreError> {
    let path = layout.root().join(files::BUILDS_JSON);
    let Some(file) = open_if_there(&path)? else {
        return Ok(Builds::default());
    };
    let stat = file.metadata().map_err(StoreError::io("stat", &path))?;
    let bytes = read_limited(&file, &stat, MAX_BYTES, &path)?;
    match serde_json::from_slice::<Document>(&bytes) {
        Ok(document) if document.format == FORMAT => {
            let entries = document.entries.into_iter();
            Ok(Builds {
                entries: entries.map(|entry| (entry.key, entry)).collect(),
            })
        }
        other => {
            let why = other.map_or_else(|error| error.to_string(), |_| "another format".to_owned());
            log::warn!("{}: {why}; no step of a build is cached", path.display());
            Ok(Builds::default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::OpenMode;

    fn entry(name: &str, layer: bool) -> BuildEntry {
        BuildEntry {
            key: Digest::of(name.as_bytes()),
            layer: layer.then(|| DiffId(Digest::of(name.as_bytes()))),
            created: Timestamp::UNIX_EPOCH,
            used: Timestamp::UNIX_EPOCH,
            step: name.to_owned(),
        }
    }

    #[test]
    fn entries_keep_their_layers_and_a_damaged_file_is_an_empty_cache() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s"), OpenMode::Create).unwrap();
        assert_eq!(store.builds().unwrap(), Builds::default());
        let lock = store.lock().unwrap();
        let (one, two) = (entry("one", true), entry("two", false));
        store
            .change_builds(&lock, |builds| {
                builds.entries.insert(one.key, one.clone());
                builds.entries.insert(two.key, two.clone());
            })
            .unwrap();
        let builds = store.builds().unwrap();
        assert_eq!(
            builds.entries.values().cloned().collect::<Vec<_>>().len(),
            2
        );
        assert_eq!(builds.entries[&one.key], one);
        let leases = store.live_leases().unwrap();
        assert_eq!(leases.len(), 1);
        assert!(leases[0].held.contains(&one.layer.unwrap().0));
        fs::write(store.path().join(files::BUILDS_JSON), "{").unwrap();
        assert_eq!(store.builds().unwrap(), Builds::default());
    }

    #[test]
    fn a_shared_directory_that_is_mounted_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s"), OpenMode::Create).unwrap();
        let id = Digest::of(b"id");
        let mount = store.cache_mount(&id, false).unwrap();
        assert!(mount.is_new);
        fs::write(mount.data.join("x"), "x").unwrap();
        let again = store.cache_mount(&id, false).unwrap();
        assert!(!again.is_new);
        let lock = store.lock().unwrap();
        assert!(!store.remove_cache_mount(&id, &lock).unwrap());
        drop((mount, again));
        assert_eq!(store.cache_mounts().unwrap().len(), 1);
        assert!(store.remove_cache_mount(&id, &lock).unwrap());
        assert_eq!(store.cache_mounts().unwrap(), []);
    }
}
