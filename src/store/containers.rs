//! Containers: what `run` has made of an image and some volumes, as files.
//!
//! ```text
//! containers/<64 hex>/          0700
//!   config.json                 the record; written once, replaced by a rename
//!   state.json                  what became of the process so far
//!   lock                        held with flock while the container runs; one byte: the exit code of its last run
//!   upper/  work/               what the container has changed: upper and work directory of an overlayfs
//!   root/                       empty: what its processes see is mounted here, in their own namespace only
//!   log                         what a detached container has printed
//!   paused                      while its processes stand still: which
//! ```
//!
//! A container runs as long as `lock` is locked; the kernel unlocks it when the supervisor ends, in whatever way, and the
//! container ends with its supervisor. A record that says "running" without the lock is one whose supervisor was killed.
//! Who waits for a container holds its lock file open, and reads the exit code from it when the container itself has gone.
//! A container keeps the layers of its image from garbage collection, running or not ([`as_leases`]).

mod record;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

pub use record::{
    ContainerConfig, ContainerRecord, ContainerState, MountSource, MountUse, Pause, Seccomp,
    Security, Status, Ulimit, VERSION as RECORD_VERSION,
};

use super::error::StoreError;
use super::events::{self, Event};
use super::files::file_names;
use super::files::{self, open_if_there};
pub use super::ids::ContainerId;
use super::ids::LeaseId;
use super::layout::Layout;
use super::lease::{LeaseKind, LeaseRecord, LiveLease};
use super::lock::StoreLock;
use super::{Store, read_limited};
use crate::oci::Digest;
use crate::sys::lock::{self, LockMode};
use crate::sys::{atomic, deep};

/// A record or state larger than this is none.
const MAX_RECORD_BYTES: u64 = 16 << 20;

/// How often, a millisecond apart, it is tried to lock what nobody runs and others look at.
const LOOKERS: u32 = 1000;

const CONFIG: &str = "config.json";
const STATE: &str = "state.json";
const PAUSED: &str = "paused";

/// The exit code of what was killed with its supervisor: that of SIGKILL.
const KILLED: u8 = 137;

/// A container as found.
#[derive(Debug, Clone)]
pub struct Container {
    /// What it is.
    pub record: ContainerRecord,
    /// How it stands.
    pub state: ContainerState,
    /// Which of its processes were stopped, if it runs and is paused.
    pub pause: Option<Pause>,
    directory: PathBuf,
}

/// Proof that nobody else runs or removes a container. Released on drop, and by the kernel when the holder dies.
#[derive(Debug)]
pub struct ContainerLock {
    file: File,
}

impl ContainerLock {
    /// Leaves to those who wait what they learn when this lock goes: without a further word, that it was killed.
    fn tell(&self, status: &Status) -> io::Result<()> {
        let code = match status {
            Status::Exited { code, .. } => *code,
            Status::Created | Status::Running { .. } => KILLED,
        };
        self.file.write_all_at(&[code], 0)
    }
}

impl Container {
    /// Its directory in the store.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What its processes have changed: the upper directory of an overlayfs. Whiteouts are character devices 0:0, opaque
    /// directories carry `trusted.overlay.opaque` or, made by an ordinary user, `user.overlay.opaque`. Owners are those of
    /// the host: see [`ContainerRecord::ids`].
    pub fn upper(&self) -> PathBuf {
        self.directory.join("upper")
    }

    /// The overlayfs' work directory.
    pub fn work(&self) -> PathBuf {
        self.directory.join("work")
    }

    /// Where its tree is mounted for its own processes.
    pub fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// What it has printed, if it runs detached.
    pub fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// Whether its process lives.
    pub fn is_running(&self) -> bool {
        matches!(self.state.status, Status::Running { .. })
    }

    /// Whether its processes stand still.
    pub fn is_paused(&self) -> bool {
        self.pause.is_some()
    }

    /// Writes down that its processes stand still, or do no more. Not made durable: after a power cut it does not run.
    pub fn write_pause(&mut self, pause: Option<Pause>) -> Result<(), StoreError> {
        match &pause {
            Some(pause) => put(&self.directory, PAUSED, pause, false)?,
            None => {
                let path = self.directory.join(PAUSED);
                atomic::remove_if_there(&path).map_err(StoreError::io("remove", &path))?;
            }
        }
        self.pause = pause;
        Ok(())
    }

    /// The right to run or remove it; `None` while it runs.
    pub fn try_lock(&self) -> Result<Option<ContainerLock>, StoreError> {
        let path = self.directory.join("lock");
        let file = File::options()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        for _ in 0..LOOKERS {
            if lock::try_lock(&file, LockMode::Exclusive).map_err(StoreError::io("lock", &path))? {
                return Ok(Some(ContainerLock { file }));
            }
            // Who only looks whether it runs holds the lock for a moment, and shares it.
            if !lock::is_free(&file, LockMode::Shared).map_err(StoreError::io("lock", &path))? {
                return Ok(None);
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        Ok(None)
    }

    /// Whether it does not run any more: who reads its process id has to ask again after taking hold of the process.
    pub fn is_gone(&self) -> Result<bool, StoreError> {
        let path = self.directory.join("lock");
        match open_if_there(&path)? {
            Some(file) => {
                lock::is_free(&file, LockMode::Shared).map_err(StoreError::io("lock", &path))
            }
            None => Ok(true),
        }
    }

    /// Waits until it does not run; how it has ended, also if it was removed thereupon. `None`: it has gone already.
    pub fn wait(&self) -> Result<Option<u8>, StoreError> {
        let path = self.directory.join("lock");
        let Some(file) = open_if_there(&path)? else {
            return Ok(None);
        };
        lock::lock(&file, LockMode::Shared).map_err(StoreError::io("lock", &path))?;
        let mut byte = [KILLED];
        file.read_at(&mut byte, 0)
            .map_err(StoreError::io("read", &path))?;
        let [code] = byte;
        Ok(Some(code))
    }

    /// Writes down how it stands. Not made durable: after a power cut it does not run.
    pub fn write_state(
        &mut self,
        state: ContainerState,
        lock: &ContainerLock,
    ) -> Result<(), StoreError> {
        let path = self.directory.join("lock");
        lock.tell(&state.status)
            .map_err(StoreError::io("write", &path))?;
        put(&self.directory, STATE, &state, false)?;
        match (&self.state.status, &state.status) {
            (Status::Running { .. }, Status::Running { .. }) => {}
            (_, Status::Running { .. }) => self.note(|event| event, "start"),
            (Status::Running { .. }, Status::Exited { code, .. }) => {
                self.note(|event| event.with("exitCode", code), "die");
            }
            _ => {}
        }
        self.state = state;
        Ok(())
    }

    /// Notes in the store's log what has happened to it.
    fn note(&self, complete: impl FnOnce(Event) -> Event, action: &str) {
        // `<store>/containers/<id>`.
        if let Some(root) = self.directory.ancestors().nth(2) {
            let record = &self.record;
            let event = Event::now("container", action, record.id.as_str())
                .with("image", &record.image_name)
                .with("name", &record.name);
            events::note_in(root, &[complete(event)]);
        }
    }

    /// Replaces its record.
    pub fn write_record(
        &mut self,
        record: ContainerRecord,
        _lock: &StoreLock,
    ) -> Result<(), StoreError> {
        put(&self.directory, CONFIG, &record, true)?;
        self.record = record;
        Ok(())
    }
}

impl Store {
    /// All containers, the newest first. One that is being made or removed at this moment may be missing.
    pub fn containers(&self) -> Result<Vec<Container>, StoreError> {
        let mut found = Vec::new();
        for id in ids(self.layout())? {
            found.extend(read(self.layout(), &id)?);
        }
        found.sort_by(|a: &Container, b| {
            (b.record.created, &b.record.id).cmp(&(a.record.created, &a.record.id))
        });
        Ok(found)
    }

    /// One container.
    pub fn container(&self, id: &ContainerId) -> Result<Option<Container>, StoreError> {
        read(self.layout(), id)
    }

    /// Makes a container's directory. It is there as a whole or not at all; it is not running. The caller has looked, under
    /// this lock, that its name is free and its image is in the store.
    pub fn create_container(
        &self,
        record: ContainerRecord,
        _lock: &StoreLock,
    ) -> Result<(Container, ContainerLock), StoreError> {
        self.writable()?;
        let parent = self.layout().containers();
        make_private(&parent)?;
        let directory = parent.join(record.id.as_str());
        let made = (|| {
            make_private(&directory)?;
            for name in ["upper", "work", "root"] {
                make_private(&directory.join(name))?;
            }
            // The root directory of what its processes see, whatever our umask is.
            let path = directory.join("upper");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
                .map_err(StoreError::io("open", &path))?;
            let path = directory.join("lock");
            let file = private_file(&path, true).map_err(StoreError::io("create", &path))?;
            lock::lock(&file, LockMode::Exclusive).map_err(StoreError::io("lock", &path))?;
            let state = ContainerState::default();
            put(&directory, STATE, &state, false)?;
            // The record comes last: without it there is no container. One that goes with its process need not survive
            // a power cut.
            put(&directory, CONFIG, &record, !record.auto_remove)?;
            Ok((state, ContainerLock { file }))
        })();
        match made {
            Ok((state, lock)) => {
                let container = Container {
                    record,
                    state,
                    pause: None,
                    directory,
                };
                container.note(|event| event, "create");
                if let Ok(names) = self.names()
                    && let Some(image) = names.images.get(&container.record.image)
                {
                    self.note_use(image);
                }
                Ok((container, lock))
            }
            Err(error) => {
                if let Err(error) = fs::remove_dir_all(&directory) {
                    log::warn!("cannot remove {}: {error}", directory.display());
                }
                Err(error)
            }
        }
    }
}

impl Store {
    /// Removes a container: first its record, then what it has changed. What cannot be removed now goes with the next sweep.
    pub fn remove_container(
        &self,
        container: &Container,
        lock: ContainerLock,
    ) -> Result<(), StoreError> {
        self.writable()?;
        let config = container.directory.join(CONFIG);
        atomic::remove_if_there(&config).map_err(StoreError::io("remove", &config))?;
        // It does not come back, as what it was made of may go now. One that goes with its process was never durable.
        if !container.record.auto_remove {
            let directory = &container.directory;
            match atomic::sync_dir(directory) {
                // Another verb has swept what has no record any more.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => log::warn!(
                    "container {} is removed, but may be back after a power cut: cannot sync {}: {error}",
                    container.record.name,
                    directory.display()
                ),
                Ok(()) => {}
            }
        }
        container.note(|event| event, "destroy");
        let removed = remove_tree(&container.directory);
        drop(lock);
        if let Err(error) = removed {
            // It is gone. The next verb that looks removes the rest.
            let directory = container.directory.display();
            log::warn!(
                "container {} is removed, but not yet {directory}: {error}",
                container.record.name
            );
        }
        Ok(())
    }

    /// Removes the directories of containers that were being made or removed by somebody who was killed.
    pub fn sweep_containers(&self) -> Result<(), StoreError> {
        let halves = || without_record(self.layout());
        if halves()?.is_empty() {
            return Ok(());
        }
        // Nobody makes one now.
        let _lock = self.lock_unswept()?;
        let mut done = Ok(());
        for directory in halves()? {
            let removed = remove_tree(&directory);
            done = done.and(removed.map_err(StoreError::io("remove", &directory)));
        }
        done
    }
}

/// Directories of containers that are being made or removed; with the store's lock held, by somebody who was killed.
pub(super) fn without_record(layout: &Layout) -> Result<Vec<PathBuf>, StoreError> {
    let parent = layout.containers();
    let directories = ids(layout)?.into_iter().map(|id| parent.join(id.as_str()));
    Ok(directories
        .filter(|dir| !dir.join(CONFIG).exists())
        .collect())
}

/// Removes a directory with everything in it, also what belongs to others of this user's ids.
pub(super) fn remove_tree(directory: &Path) -> io::Result<()> {
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
pub(super) fn as_leases(layout: &Layout) -> Result<Vec<LiveLease>, StoreError> {
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
fn ids(layout: &Layout) -> Result<Vec<ContainerId>, StoreError> {
    match file_names(&layout.containers()) {
        Ok(names) => Ok(names.iter().filter_map(|name| name.parse().ok()).collect()),
        Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

/// Reads one container; `None` if it is not there, or not yet, or not any more.
fn read(layout: &Layout, id: &ContainerId) -> Result<Option<Container>, StoreError> {
    let directory = layout.containers().join(id.as_str());
    let Some(record) = get::<ContainerRecord>(&directory.join(CONFIG))? else {
        return Ok(None);
    };
    if record.version != record::VERSION || record.id != *id {
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
fn put(
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

fn make_private(directory: &Path) -> Result<(), StoreError> {
    files::make_directory(directory).map_err(StoreError::io("create", directory))
}

/// A new file, or one emptied.
fn private_file(path: &Path, new: bool) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).mode(files::FILE);
    match new {
        true => options.create_new(true).open(path),
        false => options.create(true).truncate(true).open(path),
    }
}

#[cfg(test)]
mod tests;
