//! Volumes: which there are, what they are, and where their data lies.
//!
//! `volumes.json` names them; it is replaced whole, as `index.json` is, and a store without it has no volumes. The data of a
//! volume is the directory `volumes/<id>/_data`, so that a rename moves no data; a bind has none of its own.
//!
//! Invariants:
//! - A volume that is named has its directory, durably.
//! - Data is deleted only after `volumes.json` says so (`removed`): a directory that nothing names may be that of a volume
//!   which an older copy of the file does not know, and is reported, never deleted.
//! - While `volumes.json` is damaged nothing of it or of any data changes.
//! - A directory that is made for a volume is named before, in `making`: who has the lock and finds one there knows that its
//!   maker is dead, and takes it away.
//!
//! Who deletes data holds `flock` on the volume's directory, not the store's lock: that can take long.

mod changes;
mod data;
mod hold;
mod json;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value};

pub use super::ids::{VolumeId, VolumeName, VolumeNameError};
pub use data::{DataHold, Ownership};
pub use hold::VolumeHold;

use super::{Stamp, Store, StoreError, read_limited, stamp};

/// The directory in which ordinary users' volumes are mounted, or what its name begins with; see [`side_mount_name`].
pub const SIDE_MOUNTS: &str = "mica-volumes";
/// The largest `volumes.json` that is read: a hundred thousand volumes with labels.
const MAX_BYTES: u64 = 256 << 20;

/// What a volume is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeKind {
    /// Stays until it is removed.
    Persistent,
    /// Lives as long as somebody uses it.
    Ephemeral {
        /// Since when it is ephemeral: from then on it waits for its first user.
        since: Timestamp,
        /// Whether it has had a user.
        used: bool,
        /// Since when it is known to have none; only kept while no daemon watches.
        idle: Option<Timestamp>,
    },
    /// A directory or a file of the host.
    Bind {
        /// Which, absolute. Followed by path: what is there now counts.
        source: PathBuf,
        /// Not to be written through this volume.
        read_only: bool,
        /// It was a file, not a directory, when the volume was made.
        file: bool,
    },
}

impl VolumeKind {
    /// An ephemeral volume as of now.
    pub fn ephemeral() -> VolumeKind {
        VolumeKind::Ephemeral {
            since: Timestamp::now(),
            used: false,
            idle: None,
        }
    }

    /// `persistent`, `ephemeral` or `bind`.
    pub fn word(&self) -> &'static str {
        match self {
            VolumeKind::Persistent => "persistent",
            VolumeKind::Ephemeral { .. } => "ephemeral",
            VolumeKind::Bind { .. } => "bind",
        }
    }

    /// Whether its data lies in the store.
    pub fn is_ours(&self) -> bool {
        !matches!(self, VolumeKind::Bind { .. })
    }

    /// Whether it lives only as long as it is used.
    pub fn is_ephemeral(&self) -> bool {
        matches!(self, VolumeKind::Ephemeral { .. })
    }
}

/// One volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// What it is called now.
    pub name: VolumeName,
    /// What it is, for ever.
    pub id: VolumeId,
    /// Its kind.
    pub kind: VolumeKind,
    /// When it was made.
    pub created: Timestamp,
    /// docker's labels.
    pub labels: BTreeMap<String, String>,
    /// Nobody has chosen its name.
    pub anonymous: bool,
    /// Keys of a later version.
    other: Map<String, Value>,
}

/// A volume to be made.
#[derive(Debug, Clone)]
pub struct NewVolume {
    /// Its name, which must be free.
    pub name: VolumeName,
    /// Its kind.
    pub kind: VolumeKind,
    /// docker's labels.
    pub labels: BTreeMap<String, String>,
    /// Nobody has chosen its name.
    pub anonymous: bool,
    /// Whose the data directory is to be, and its mode; `None`: ours, 0755.
    pub ownership: Option<Ownership>,
}

/// All volumes of a store, as of one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Volumes {
    by_name: BTreeMap<VolumeName, Volume>,
    /// Whose data is being deleted.
    removed: BTreeSet<VolumeId>,
    /// Whose directory is being made.
    making: BTreeSet<VolumeId>,
    /// Ephemeral ones that have ended by themselves, and when; for a while.
    ended: BTreeMap<VolumeName, Timestamp>,
    /// Keys of a later version.
    other: Map<String, Value>,
}

impl Volumes {
    /// The volume of that name.
    pub fn get(&self, name: &VolumeName) -> Option<&Volume> {
        self.by_name.get(name)
    }

    /// The volume of that id.
    pub fn by_id(&self, id: &VolumeId) -> Option<&Volume> {
        self.by_name.values().find(|volume| volume.id == *id)
    }

    /// These and some that have been removed.
    pub fn with(&self, removed: &[Volume]) -> Volumes {
        let mut all = self.clone();
        for volume in removed {
            let name = volume.name.clone();
            all.by_name.entry(name).or_insert_with(|| volume.clone());
        }
        all
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Volume> {
        self.by_name.values()
    }

    /// Whether any is ephemeral.
    pub fn has_ephemeral(&self) -> bool {
        self.iter().any(|volume| volume.kind.is_ephemeral())
    }

    /// Those that were removed and whose data may still be there.
    pub(super) fn removed(&self) -> impl Iterator<Item = &VolumeId> {
        self.removed.iter()
    }

    fn get_mut(&mut self, name: &VolumeName) -> Result<&mut Volume, StoreError> {
        let found = self.by_name.get_mut(name);
        found.ok_or_else(|| StoreError::NoSuchVolume(name.clone()))
    }
}

/// Name of the directory, below one whose name begins with [`SIDE_MOUNTS`], on which the volumes of a mount point are mounted where
/// they cannot be mounted inside it. One for each mount point: found again after a crash, and by those who look for users.
pub fn side_mount_name(mountpoint: &Path) -> String {
    let hex = crate::oci::Digest::of(mountpoint.as_os_str().as_bytes()).hex();
    hex.chars().take(16).collect()
}

/// The last `volumes.json` read; see [`super::Snapshot`].
pub(super) struct VolumesSnapshot {
    file: Option<(File, Stamp)>,
    volumes: Arc<Volumes>,
}

impl Store {
    /// All volumes, by name.
    pub fn volumes(&self) -> Result<Vec<Volume>, StoreError> {
        Ok(self.volume_set()?.iter().cloned().collect())
    }

    /// One volume.
    pub fn volume(&self, name: &VolumeName) -> Result<Option<Volume>, StoreError> {
        Ok(self.volume_set()?.get(name).cloned())
    }

    /// The volumes as of now. Costs one `stat` while they do not change.
    pub fn volume_set(&self) -> Result<Arc<Volumes>, StoreError> {
        let path = self.layout().volumes_json();
        let mut cached = self.0.volumes.lock();
        let stat = match fs::metadata(&path) {
            Ok(stat) => Some(stamp(&stat)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(StoreError::io("stat", &path)(error)),
        };
        if let Some(snapshot) = &*cached
            && snapshot.file.as_ref().map(|(_, stamp)| *stamp) == stat
        {
            return Ok(Arc::clone(&snapshot.volumes));
        }
        let (file, volumes) = match super::files::open_if_there(&path)? {
            None => (None, Volumes::default()),
            Some(file) => {
                let stat = file.metadata().map_err(StoreError::io("stat", &path))?;
                let bytes = read_limited(&file, &stat, MAX_BYTES, &path)?;
                let volumes = json::parse(&bytes).map_err(|reason| self.damaged(reason))?;
                (Some((file, stamp(&stat))), volumes)
            }
        };
        let volumes = Arc::new(volumes);
        *cached = Some(VolumesSnapshot {
            file,
            volumes: Arc::clone(&volumes),
        });
        Ok(volumes)
    }

    fn damaged(&self, reason: String) -> StoreError {
        StoreError::VolumesDamaged {
            path: self.layout().volumes_json(),
            reason,
        }
    }

    /// Where the data of a volume is on the host: its directory, or the source of a bind.
    pub fn volume_root(&self, volume: &Volume) -> PathBuf {
        match &volume.kind {
            VolumeKind::Bind { source, .. } => source.clone(),
            VolumeKind::Persistent | VolumeKind::Ephemeral { .. } => {
                self.layout().volume_data(&volume.id)
            }
        }
    }
}

#[cfg(test)]
mod tests;
