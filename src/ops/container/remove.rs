//! The end of containers: removal, and what goes with it.

use std::time::Duration;

use crate::ops::container::run::RunError;
use crate::ops::volume::ephemeral::{self as life, Times};
use crate::store::containers::{Container, ContainerLock, MountSource};
use crate::store::{LeaseKind, LiveLease, Store, Volume, VolumeName};
use crate::sys::proc::Process;

/// How long a killed container may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between the two looks at a volume that nobody holds a lease on.
const MOMENT: Duration = Duration::from_millis(20);

/// How to remove.
#[derive(Debug, Clone, Copy, Default)]
pub struct RemoveOptions {
    /// Kill it first if it runs.
    pub force: bool,
    /// Remove the volumes without a name too.
    pub volumes: bool,
}

/// Removes the container that `text` means.
pub fn remove(store: &Store, text: &str, options: RemoveOptions) -> Result<(), RunError> {
    let (container, lock) = crate::ops::container::take(store, text)?;
    let lock = match lock {
        Some(lock) => lock,
        None if !options.force => {
            return Err(RunError::Running {
                name: container.record.name.clone(),
                paused: container.is_paused(),
            });
        }
        None => {
            kill(&container)?;
            match wait_for_lock(&container)? {
                Some(lock) => lock,
                // It was removed at its end, by its supervisor.
                None => return Ok(()),
            }
        }
    };
    drop_container(store, &container, lock)?;
    if options.volumes {
        evaporate(store, &container)?;
    }
    Ok(())
}

/// Kills the process of a container.
fn kill(container: &Container) -> Result<(), RunError> {
    let Some(pid) = container.state.status.pid() else {
        return Ok(());
    };
    let process = Process::open(pid).map_err(RunError::io("looking for the process"))?;
    if let Some(process) = process
        && !container.is_gone()?
    {
        match process.signal(libc::SIGKILL) {
            // It has ended by itself.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            sent => sent.map_err(RunError::io("killing the process"))?,
        }
    }
    Ok(())
}

/// Waits for the supervisor to end; `None` if it has removed the container.
fn wait_for_lock(container: &Container) -> Result<Option<ContainerLock>, RunError> {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let record = container.directory().join("config.json").try_exists();
        if !record.map_err(RunError::io("looking for the container"))? {
            return Ok(None);
        }
        match container.try_lock() {
            Ok(Some(lock)) => return Ok(Some(lock)),
            Ok(None) if std::time::Instant::now() < deadline => {}
            Ok(None) => {
                return Err(RunError::Refused(format!(
                    "cannot remove container \"{}\": it does not end",
                    container.record.name
                )));
            }
            // Removed between the two looks.
            Err(error) if error.is_missing() => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Takes a container out of the store.
fn drop_container(
    store: &Store,
    container: &Container,
    lock: ContainerLock,
) -> Result<(), RunError> {
    store.remove_container(container, lock)?;
    Ok(())
}

/// What follows the end of a container's process: if it was to go, it goes, and its anonymous volumes go with their last
/// user.
pub fn finish(store: &Store, container: &Container, lock: ContainerLock) -> Result<(), RunError> {
    if container.record.auto_remove {
        drop_container(store, container, lock)?;
    } else {
        drop(lock);
    }
    evaporate(store, container)
}

/// What follows for those volumes of a container that are ephemeral and that nobody uses any more. Those without a name go now;
/// one that somebody has named has its time, as after any other user.
fn evaporate(store: &Store, container: &Container) -> Result<(), RunError> {
    let names: Vec<VolumeName> = container
        .record
        .mounts
        .iter()
        .filter_map(|mount| match &mount.source {
            MountSource::Volume { name, .. } => VolumeName::parse(name).ok(),
            _ => None,
        })
        .collect();
    if names.is_empty() {
        return Ok(());
    }
    let all = store.volume_set()?;
    let ephemeral = names
        .iter()
        .filter_map(|name| all.get(name).filter(|volume| volume.kind.is_ephemeral()));
    let (volumes, named): (Vec<Volume>, Vec<Volume>) =
        ephemeral.cloned().partition(|volume| volume.anonymous);
    if !named.is_empty() {
        // A daemon sees it; without one, this is the first look that finds nobody.
        life::sweep(store, Times::default())?;
    }
    if volumes.is_empty() {
        return Ok(());
    }
    // A mount that does not answer is told by its own watch.
    let tell = || store.publish();
    life::evaporate(store, &volumes, None, &tell)?;
    if unheld(store, &volumes)?.is_empty() {
        return Ok(());
    }
    if container.record.ids.is_none() {
        // The kernel may take a moment to drop the mounts of processes that have ended. Whoever else is there is a user.
        std::thread::sleep(MOMENT);
        life::evaporate(store, &volumes, None, &tell)?;
        return Ok(());
    }
    // Into directories of other ids an ordinary user cannot look, so whoever is there could be anywhere. Without a mount only
    // containers get at the volume, and they hold leases.
    let removed = {
        let lock = store.lock()?;
        let leases = store.live_leases()?;
        if leases.iter().any(LiveLease::is_daemon) {
            return Ok(());
        }
        let names: Vec<VolumeName> = unheld(store, &volumes)?;
        store.end_volumes(&lock, &names)?
    };
    for volume in &removed {
        store.delete_volume_data(volume)?;
    }
    Ok(())
}

/// Those of some volumes that are still there, ephemeral, and not held by a lease.
fn unheld(store: &Store, volumes: &[Volume]) -> Result<Vec<VolumeName>, RunError> {
    let (now, leases) = (store.volume_set()?, store.live_leases()?);
    let held = |name: &VolumeName| {
        leases.iter().any(|lease| {
            matches!(&lease.record.kind, LeaseKind::Volume { volumes } if volumes.contains(name))
        })
    };
    let left = volumes.iter().filter_map(|volume| now.by_id(&volume.id));
    let left = left.filter(|volume| volume.kind.is_ephemeral() && !held(&volume.name));
    Ok(left.map(|volume| volume.name.clone()).collect())
}

/// Removes what killed supervisors left. Cheap if there is nothing. What keeps that from being done keeps nobody from anything
/// else.
pub fn sweep(store: &Store) {
    let warn = |error: RunError| log::warn!("what a killed container has left: {error}");
    match store.containers() {
        Ok(containers) => containers
            .iter()
            .filter_map(|container| end(store, container).err())
            .for_each(warn),
        Err(error) => warn(error.into()),
    }
    if let Err(error) = store.sweep_containers() {
        warn(error.into());
    }
}

/// Removes a container that was to go with its process, if that has ended.
fn end(store: &Store, container: &Container) -> Result<(), RunError> {
    if !container.record.auto_remove || container.is_running() {
        return Ok(());
    }
    match container.try_lock() {
        Ok(Some(lock)) => finish(store, container, lock),
        Ok(None) => Ok(()),
        Err(error) if error.is_missing() => Ok(()),
        Err(error) => Err(error.into()),
    }
}
