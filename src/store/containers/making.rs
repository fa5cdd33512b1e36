//! Containers of a store: finding, making and removing them.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;

use super::files::{ids, make_private, private_file, put, read, remove_tree, without_record};
use super::{
    CONFIG, Container, ContainerId, ContainerLock, ContainerRecord, ContainerState, STATE,
};
use crate::store::{Store, StoreError, StoreLock};
use crate::sys::atomic;
use crate::sys::lock::{self, LockMode};

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
