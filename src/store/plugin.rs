//! `plugin.json`: which volumes container engines have mounted through the volume plugin, and under which ids.
//!
//! An engine mounts once and does not ask again when the plugin is started anew; so what is mounted is on disk before the engine
//! is told. After a restart of the machine nothing is mounted any more: the file names the boot it is of.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::files;
use super::ids::LeaseId;
use super::lease::{LeaseKind, LeaseRecord, LiveLease};
use super::lock::StoreLock;
use super::volumes::VolumeName;
use super::{Store, StoreError, read_limited};

const MAX_BYTES: u64 = 64 << 20;

/// What engines have mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginHolds {
    boot: String,
    volumes: BTreeMap<String, BTreeSet<String>>,
}

impl PluginHolds {
    /// The volumes that are mounted, as far as their names are any.
    pub fn volumes(&self) -> impl Iterator<Item = VolumeName> {
        let names = self.volumes.keys();
        names.filter_map(|name| VolumeName::parse(name).ok())
    }

    /// How often a volume is mounted.
    pub fn count(&self, name: &VolumeName) -> usize {
        self.volumes.get(name.as_str()).map_or(0, BTreeSet::len)
    }

    /// Adds a mount; whether it is new.
    pub fn add(&mut self, name: &VolumeName, id: &str) -> bool {
        let ids = self.volumes.entry(name.as_str().to_owned()).or_default();
        ids.insert(id.to_owned())
    }

    /// Takes a mount away; whether it was there.
    pub fn remove(&mut self, name: &VolumeName, id: &str) -> bool {
        let Some(ids) = self.volumes.get_mut(name.as_str()) else {
            return false;
        };
        let was = ids.remove(id);
        if ids.is_empty() {
            self.volumes.remove(name.as_str());
        }
        was
    }
}

impl Store {
    /// What is mounted, of this boot.
    pub fn plugin_holds(&self) -> Result<PluginHolds, StoreError> {
        let path = self.path().join(files::PLUGIN_JSON);
        let fresh = PluginHolds {
            boot: boot(),
            ..PluginHolds::default()
        };
        let Some(file) = super::files::open_if_there(&path)? else {
            return Ok(fresh);
        };
        let stat = file.metadata().map_err(StoreError::io("stat", &path))?;
        let bytes = read_limited(&file, &stat, MAX_BYTES, &path)?;
        let holds: PluginHolds =
            serde_json::from_slice(&bytes).map_err(|error| StoreError::MetaDamaged {
                path,
                reason: error.to_string(),
            })?;
        Ok(match holds.boot == fresh.boot {
            true => holds,
            false => fresh,
        })
    }

    /// What is mounted, as a user of those volumes: also while no plugin runs, since engines do not ask again.
    pub(super) fn plugin_lease(&self) -> Result<Option<LiveLease>, StoreError> {
        let volumes: Vec<VolumeName> = self.plugin_holds()?.volumes().collect();
        if volumes.is_empty() {
            return Ok(None);
        }
        Ok(Some(LiveLease {
            id: LeaseId::of_plugin(),
            record: LeaseRecord {
                kind: LeaseKind::Volume { volumes },
                pid: 0,
                since: jiff::Timestamp::now(),
            },
            held: BTreeSet::new(),
            socket: PathBuf::new(),
        }))
    }

    /// Writes down what is mounted; on disk when this returns.
    pub fn write_plugin_holds(
        &self,
        holds: &PluginHolds,
        _lock: &StoreLock,
    ) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec_pretty(holds)
            .map_err(std::io::Error::from)
            .map_err(StoreError::io("write", self.path()))?;
        self.replace_document(files::PLUGIN_JSON_NEW, files::PLUGIN_JSON, &bytes)?;
        Ok(())
    }
}

fn boot() -> String {
    // Without it every start counts as the same boot: a volume is held too long, never too short.
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}
