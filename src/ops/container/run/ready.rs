//! From a container that was made, or has ended, to one that a supervisor can start.

use crate::ops::container as containers;
use crate::ops::container::run::mounts::{self, ReadyMount};
use crate::ops::container::run::{Created, RunError, create};
use crate::store::Store;
use crate::store::containers::{Container, ContainerLock, ContainerRecord};
use crate::store::volumes::VolumeName;

/// A container that can start.
#[derive(Debug)]
pub struct Ready {
    /// The container.
    pub container: Container,
    /// The right to run it.
    pub lock: ContainerLock,
    /// What to mount, parents first.
    pub mounts: Vec<ReadyMount>,
    /// Volumes among that, to be held.
    pub volumes: Vec<VolumeName>,
}

/// A new container. If it cannot start, what follows its end follows now.
pub fn ready(store: &Store, created: Created) -> Result<Ready, RunError> {
    let Created {
        container,
        lock,
        fresh,
    } = created;
    let is_fresh = create::is_fresh(&fresh);
    match mounts::ready(store, &container.record.mounts, &is_fresh) {
        Ok((mounts, volumes)) => Ok(Ready {
            container,
            lock,
            mounts,
            volumes,
        }),
        Err(error) => {
            containers::finish(store, &container, lock)?;
            Err(error)
        }
    }
}

/// The container that `text` means, to be looked into as it is; the second: it does not run, and stays so meanwhile. Volumes that
/// went with its end are places in memory.
pub fn as_it_is(store: &Store, text: &str) -> Result<(Container, Option<Ready>), RunError> {
    let (container, lock) = containers::take(store, text)?;
    let Some(lock) = lock else {
        return Ok((container, None));
    };
    let uses = mounts::lasting(store, &container.record.mounts)?;
    let (mounts, volumes) = mounts::ready(store, &uses, &|_| false)?;
    let ready = Ready {
        container: container.clone(),
        lock,
        mounts,
        volumes,
    };
    Ok((container, Some(ready)))
}

/// The container that `text` means, with anonymous volumes anew where the old ones are gone; `None`: it runs.
pub fn again(store: &Store, text: &str) -> Result<Option<Ready>, RunError> {
    let (mut container, lock) = containers::take(store, text)?;
    let Some(lock) = lock else {
        if container.is_paused() {
            let text = "cannot start a paused container, try unpause instead";
            return Err(RunError::Refused(text.to_owned()));
        }
        return Ok(None);
    };
    let (uses, fresh) = create::renew_volumes(store, &container)?;
    if uses != container.record.mounts {
        let held = store.lock()?;
        let record = ContainerRecord {
            mounts: uses,
            ..container.record.clone()
        };
        container.write_record(record, &held)?;
    }
    let is_fresh = create::is_fresh(&fresh);
    let (mounts, volumes) = mounts::ready(store, &container.record.mounts, &is_fresh)?;
    Ok(Some(Ready {
        container,
        lock,
        mounts,
        volumes,
    }))
}
