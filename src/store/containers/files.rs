//! The files of containers: how they are read, written and removed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::{
    CONFIG, Container, ContainerId, ContainerRecord, ContainerState, KILLED, PAUSED, Pause,
    RECORD_VERSION, STATE, Status,
};
use crate::oci::Digest;
use crate::store::files::{self, file_names, is_there, open_if_there};
use crate::store::ids::LeaseId;
use crate::store::layout::Layout;
use crate::store::lease::{LeaseKind, LeaseRecord, LiveLease};
use crate::store::{StoreError, read_limited};
use crate::sys::lock::{self, LockMode};
use crate::sys::{atomic, deep};

/// A record or state larger than this is none.
const MAX_RECORD_BYTES: u64 = 16 << 20;

/// Directories of containers that are being made or removed; with the store's lock held, by somebody who was killed.
pub(in crate::store) fn without_record(layout: &Layout) -> Result<Vec<PathBuf>, StoreError> {
    let parent = layout.containers();
    let mut found = Vec::new();
    for id in ids(layout)? {
        let directory = parent.join(id.as_str());
        if !is_there(&directory.join(CONFIG))? {
            found.push(directory);
        }
    }
    Ok(found)
}

/// Removes a directory with everything in it, also what belongs to others of this user's ids.
pub(in crate::store) fn remove_tree(directory: &Path) -> io::Result<()> {
    let removed = match deep::remove(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            crate::sys::userns::remove_tree(directory).map_err(|_| error)
        }
        other => other,
    }
}

/// Containers as what they are for images: somebody who needs them. A stopped one does as much as one that runs.
pub(in crate::store) fn as_leases(layout: &Layout) -> Result<Vec<LiveLease>, StoreError> {
    let mut found = Vec::new();
    for id in ids(layout)? {
        let Some(container) = read(layout, &id)? else {
            continue;
        };
        let running = container.is_running();
        let record = container.record;
        let mut held: BTreeSet<Digest> = record.layers.iter().map(|layer| layer.0).collect();
        held.insert(record.image.0);
        found.push(LiveLease {
            id: LeaseId::of_container(&record.id),
            record: LeaseRecord {
                kind: LeaseKind::Run {
                    image: record.image,
                    container: Some(record.id),
                    running,
                },
                pid: container.state.status.pid().unwrap_or(0),
                since: record.created,
            },
            held,
            socket: PathBuf::new(),
        });
    }
    Ok(found)
}

/// The identifiers of all containers' directories.
pub(super) fn ids(layout: &Layout) -> Result<Vec<ContainerId>, StoreError> {
    match file_names(&layout.containers()) {
        Ok(names) => Ok(names.iter().filter_map(|name| name.parse().ok()).collect()),
        Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

/// Reads one container; `None` if it is not there, or not yet, or not any more.
pub(super) fn read(layout: &Layout, id: &ContainerId) -> Result<Option<Container>, StoreError> {
    let directory = layout.containers().join(id.as_str());
    let Some(record) = get::<ContainerRecord>(&directory.join(CONFIG))? else {
        return Ok(None);
    };
    if record.version != RECORD_VERSION || record.id != *id {
        return Err(StoreError::MetaDamaged {
            path: directory.join(CONFIG),
            reason: "it is another container's, or of another version".to_owned(),
        });
    }
    // Looked at before the state is read: a container that ends between the two has then written how.
    let lock_path = directory.join("lock");
    let runs = match open_if_there(&lock_path)? {
        Some(file) => {
            !lock::is_free(&file, LockMode::Shared).map_err(StoreError::io("lock", &lock_path))?
        }
        None => false,
    };
    let mut state: ContainerState = get(&directory.join(STATE))?.unwrap_or_default();
    if let Status::Running { started, .. } = state.status
        && !runs
    {
        // Its supervisor was killed, and its processes with it.
        state.status = Status::Exited {
            code: KILLED,
            started,
            finished: started,
        };
    }
    let pause = match state.status.pid() {
        Some(pid) => get::<Pause>(&directory.join(PAUSED))?.filter(|pause| pause.pid == pid),
        None => None,
    };
    Ok(Some(Container {
        record,
        state,
        pause,
        directory,
    }))
}

fn get<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    let Some(file) = open_if_there(path)? else {
        return Ok(None);
    };
    let stat = file.metadata().map_err(StoreError::io("stat", path))?;
    let bytes = read_limited(&file, &stat, MAX_RECORD_BYTES, path)?;
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| StoreError::MetaDamaged {
            path: path.to_owned(),
            reason: error.to_string(),
        })
}

/// Replaces `directory/name`: readers see the old one or the new one.
pub(super) fn put(
    directory: &Path,
    name: &str,
    value: &impl serde::Serialize,
    durable: bool,
) -> Result<(), StoreError> {
    let path = directory.join(name);
    let mut bytes = serde_json::to_vec(value)
        .map_err(io::Error::from)
        .map_err(StoreError::io("write", &path))?;
    bytes.push(b'\n');
    let temp = format!("{name}.new");
    let written = match durable {
        true => atomic::replace(directory, &temp, name, &bytes).map(drop),
        false => {
            let temp = directory.join(&temp);
            private_file(&temp, false)
                .and_then(|mut file| file.write_all(&bytes))
                .and_then(|()| fs::rename(&temp, &path))
        }
    };
    written.map_err(StoreError::io("write", &path))
}

pub(super) fn make_private(directory: &Path) -> Result<(), StoreError> {
    files::make_directory(directory).map_err(StoreError::io("create", directory))
}

/// A new file, or one emptied.
pub(super) fn private_file(path: &Path, new: bool) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).mode(files::FILE);
    match new {
        true => options.create_new(true).open(path),
        false => options.create(true).truncate(true).open(path),
    }
}
