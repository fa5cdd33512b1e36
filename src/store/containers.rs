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

mod files;
mod making;
mod record;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

pub use record::{
    ContainerConfig, ContainerRecord, ContainerState, MountSource, MountUse, Pause, Seccomp,
    Security, Status, Ulimit, VERSION as RECORD_VERSION,
};

use self::files::put;
pub(super) use self::files::{as_leases, remove_tree, without_record};
use super::error::StoreError;
use super::events::{self, Event};
use super::files::open_if_there;
pub use super::ids::ContainerId;
use super::lock::StoreLock;
use crate::sys::atomic;
use crate::sys::lock::{self, LockMode};

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

#[cfg(test)]
mod tests;
