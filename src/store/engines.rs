//! `engines.json`: the storage of container engines that stand on images of this store.
//!
//! An engine that reads `M/stores` keeps nothing there: what its stopped containers and the images it has built need can be seen
//! in its own storage only. `mica system connect` notes where that is. The file is replaced whole; a store without it knows no
//! engine. It is read with the leases ([`super::LeaseKind::Engine`]), so that every removal sees it.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::files;
use super::ids::LeaseId;
use super::layout::Layout;
use super::lease::{LeaseKind, LeaseRecord, LiveLease};
use super::lock::StoreLock;
use super::{Store, StoreError, read_limited};

/// More engines than anybody has.
const MAX_BYTES: u64 = 1 << 20;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Document {
    engines: Vec<Engine>,
}

/// An engine that was connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Engine {
    /// Its `graphroot`, absolute.
    #[serde(with = "super::files::path_text")]
    pub graphroot: PathBuf,
    /// Since when.
    pub since: Timestamp,
}

fn read(layout: &Layout) -> Result<Document, StoreError> {
    let path = layout.root().join(files::ENGINES_JSON);
    let Some(file) = super::files::open_if_there(&path)? else {
        return Ok(Document::default());
    };
    let stat = file.metadata().map_err(StoreError::io("stat", &path))?;
    let bytes = read_limited(&file, &stat, MAX_BYTES, &path)?;
    serde_json::from_slice(&bytes).map_err(|error| StoreError::MetaDamaged {
        path,
        reason: error.to_string(),
    })
}

/// The engines as users of the store.
pub(super) fn as_leases(layout: &Layout) -> Result<Vec<LiveLease>, StoreError> {
    let engines = read(layout)?.engines.into_iter();
    let lease = |(n, engine): (usize, Engine)| LiveLease {
        id: LeaseId::of_engine(n),
        record: LeaseRecord {
            kind: LeaseKind::Engine {
                graphroot: engine.graphroot,
            },
            pid: 0,
            since: engine.since,
        },
        held: Default::default(),
        socket: PathBuf::new(),
    };
    Ok(engines.enumerate().map(lease).collect())
}

impl Store {
    /// The engines that are connected.
    pub fn engines(&self) -> Result<Vec<Engine>, StoreError> {
        Ok(read(self.layout())?.engines)
    }

    /// Notes that an engine with this storage stands on the store's images; whether that is new. On disk when this returns.
    pub fn connect_engine(&self, graphroot: &Path, lock: &StoreLock) -> Result<bool, StoreError> {
        let mut document = read(self.layout())?;
        if document.engines.iter().any(|e| e.graphroot == graphroot) {
            return Ok(false);
        }
        document.engines.push(Engine {
            graphroot: graphroot.to_owned(),
            since: Timestamp::now(),
        });
        self.write_engines(&document, lock)?;
        Ok(true)
    }

    /// Forgets an engine; whether it was known.
    pub fn disconnect_engine(
        &self,
        graphroot: &Path,
        lock: &StoreLock,
    ) -> Result<bool, StoreError> {
        let mut document = read(self.layout())?;
        let before = document.engines.len();
        document.engines.retain(|e| e.graphroot != graphroot);
        if document.engines.len() == before {
            return Ok(false);
        }
        self.write_engines(&document, lock)?;
        Ok(true)
    }

    fn write_engines(&self, document: &Document, _lock: &StoreLock) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec_pretty(document)
            .map_err(std::io::Error::from)
            .map_err(StoreError::io("write", self.layout().root()))?;
        self.replace_document(files::ENGINES_JSON_NEW, files::ENGINES_JSON, &bytes)?;
        Ok(())
    }
}
