//! Changing volumes: making, removing, ending, renaming, and deleting data.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::{SignedDuration, Timestamp};
use serde_json::Map;

use super::{
    DataHold, NewVolume, Ownership, Volume, VolumeId, VolumeKind, VolumeName, Volumes,
    VolumesSnapshot, data, json,
};
use crate::store::events::{Event, FACTS};
use crate::store::files::file_names;
use crate::store::files::{self, is_there};
use crate::store::lock::{SharedLock, StoreLock};
use crate::store::{Lease, LeaseKind, Store, StoreError, stamp};

/// How long it is known that an ephemeral volume has ended: whoever still means to use it is told.
const ENDED: SignedDuration = SignedDuration::from_secs(60);
/// Of so many it is known; the file is written with each change.
const MOST_ENDED: usize = 100;

/// Whether an ephemeral volume has ended not long ago, by a clock that may have been set.
fn recent(ended: Timestamp, now: Timestamp) -> bool {
    let ago: SignedDuration = now.duration_since(ended);
    ago.abs() < ENDED
}

/// What a change was, for the log of events.
fn changes(before: &Volumes, after: &Volumes) -> Vec<Event> {
    let event = |action: &str, volume: &Volume| {
        let labels = volume.labels.iter();
        let labels = labels.filter(|(key, _)| !FACTS.contains(&key.as_str()));
        let event = Event::now("volume", action, volume.name.as_str()).with("driver", "local");
        labels.fold(event, |event, (key, value)| event.with(key, value))
    };
    let gone = before.iter().filter(|v| after.get(&v.name).is_none());
    let new = after.iter().filter(|v| before.get(&v.name).is_none());
    let gone = gone.map(|volume| event("destroy", volume));
    gone.chain(new.map(|volume| event("create", volume)))
        .collect()
}

impl Store {
    /// Makes a volume, durably. Mounts are for the caller to notify, without the lock.
    pub fn create_volume(&self, lock: &StoreLock, new: NewVolume) -> Result<Volume, StoreError> {
        let name = new.name.clone();
        let made = self.create_volumes(lock, vec![new])?.into_iter().next();
        made.ok_or(StoreError::NoSuchVolume(name))
    }

    /// As [`Store::create_volume`] for many: all or none of them.
    pub fn create_volumes(
        &self,
        lock: &StoreLock,
        new: Vec<NewVolume>,
    ) -> Result<Vec<Volume>, StoreError> {
        self.writable()?;
        let there = self.volume_set()?;
        let now = Timestamp::now();
        let mut made: Vec<(Volume, Option<Ownership>)> = Vec::new();
        for new in new {
            let twice = made.iter().any(|(other, _)| other.name == new.name);
            if twice || there.get(&new.name).is_some() {
                return Err(StoreError::VolumeExists(new.name));
            }
            let id = VolumeId::new().map_err(StoreError::io("read", "/dev/urandom".as_ref()))?;
            let volume = Volume {
                name: new.name,
                id,
                kind: new.kind,
                created: now,
                labels: new.labels,
                anonymous: new.anonymous,
                other: Map::new(),
            };
            made.push((volume, new.ownership));
        }
        let own = |volume: &Volume| !matches!(volume.kind, VolumeKind::Bind { .. });
        let ids: BTreeSet<VolumeId> = made
            .iter()
            .filter(|(volume, _)| own(volume))
            .map(|(volume, _)| volume.id.clone())
            .collect();
        if !ids.is_empty() {
            data::create_parent(self.layout())?;
            self.change_volumes(lock, |volumes| {
                volumes.making.extend(ids.iter().cloned());
                Ok(())
            })?;
        }
        let directories = || {
            for (volume, ownership) in made.iter().filter(|(volume, _)| own(volume)) {
                data::create(self.layout(), &volume.id, *ownership)?;
            }
            match ids.is_empty() {
                true => Ok(()),
                false => data::sync_parent(self.layout()),
            }
        };
        let added = directories().and_then(|()| {
            self.change_volumes(lock, |volumes| {
                volumes.making.retain(|id| !ids.contains(id));
                for (volume, _) in &made {
                    volumes.ended.remove(&volume.name);
                    volumes.by_name.insert(volume.name.clone(), volume.clone());
                }
                Ok(())
            })
        });
        if let Err(error) = added {
            // What cannot be done now is done by the next who takes the lock.
            if let Err(error) = self.unmake_volumes(lock) {
                log::warn!("taking back volumes that could not be made: {error}");
            }
            return Err(error);
        }
        Ok(made.into_iter().map(|(volume, _)| volume).collect())
    }

    /// Refuses a name under which an ephemeral volume has ended a moment ago: who uses it, and has not asked for it to be made,
    /// means that volume. To be asked under the lock.
    pub fn check_not_ended(&self, name: &VolumeName) -> Result<(), StoreError> {
        let now = Timestamp::now();
        match self.volume_set()?.ended.get(name) {
            Some(at) if recent(*at, now) => Err(StoreError::VolumeEnded(name.clone())),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether somebody has died while making volumes; to be asked under the lock.
    pub(in crate::store) fn has_unmade_volumes(&self) -> bool {
        // A list that cannot be read is for those who need it to report.
        self.volume_set()
            .is_ok_and(|volumes| !volumes.making.is_empty())
    }

    /// Takes the directories away that were made for volumes and not named: nobody is making any, since we have the lock.
    pub(in crate::store) fn unmake_volumes(&self, lock: &StoreLock) -> Result<(), StoreError> {
        for id in &self.volume_set()?.making {
            data::discard_empty(self.layout(), id);
        }
        self.change_volumes(lock, |volumes| {
            volumes.making.clear();
            Ok(())
        })
    }

    /// Takes a volume out of the list, durably. Its data is still there: delete it with
    /// [`Store::delete_volume_data`] without the lock, or put the volume back with [`Store::restore_volume`].
    pub fn remove_volume(&self, lock: &StoreLock, name: &VolumeName) -> Result<Volume, StoreError> {
        let removed = self.remove_volumes(lock, std::slice::from_ref(name))?;
        let removed = removed.into_iter().next();
        removed.ok_or_else(|| StoreError::NoSuchVolume(name.clone()))
    }

    /// As [`Store::remove_volume`] for several, in one step.
    pub fn remove_volumes(
        &self,
        lock: &StoreLock,
        names: &[VolumeName],
    ) -> Result<Vec<Volume>, StoreError> {
        self.remove_volumes_with(lock, names, None)
    }

    fn remove_volumes_with(
        &self,
        lock: &StoreLock,
        names: &[VolumeName],
        ended: Option<Timestamp>,
    ) -> Result<Vec<Volume>, StoreError> {
        self.change_volumes(lock, |volumes| {
            let remove = |name: &VolumeName| {
                let removed = volumes.by_name.remove(name);
                let removed = removed.ok_or_else(|| StoreError::NoSuchVolume(name.clone()))?;
                if !matches!(removed.kind, VolumeKind::Bind { .. }) {
                    volumes.removed.insert(removed.id.clone());
                }
                if let Some(ended) = ended.filter(|_| !removed.anonymous) {
                    volumes.ended.insert(name.clone(), ended);
                }
                Ok(removed)
            };
            names.iter().map(remove).collect()
        })
    }

    /// As [`Store::remove_volumes`], of ephemeral ones whose time has come: for a while it is known that they were there.
    pub fn end_volumes(
        &self,
        lock: &StoreLock,
        names: &[VolumeName],
    ) -> Result<Vec<Volume>, StoreError> {
        let removed = self.remove_volumes_with(lock, names, Some(Timestamp::now()))?;
        Ok(removed)
    }

    /// Puts a volume back that [`Store::remove_volume`] gave, before its data was deleted: by who has held that data since before.
    pub fn restore_volume(&self, lock: &StoreLock, volume: Volume) -> Result<(), StoreError> {
        self.change_volumes(lock, |volumes| {
            if volumes.by_name.contains_key(&volume.name) {
                return Err(StoreError::VolumeExists(volume.name));
            }
            volumes.removed.remove(&volume.id);
            volumes.ended.remove(&volume.name);
            volumes.by_name.insert(volume.name.clone(), volume);
            Ok(())
        })
    }

    /// Deletes the data of a removed volume; does nothing to one that is still there. What cannot be deleted is tried again
    /// by [`Store::delete_removed_volumes`].
    pub fn delete_volume_data(&self, removed: &Volume) -> Result<(), StoreError> {
        self.writable()?;
        data::delete(self.layout(), &removed.id, || {
            Ok(self.volume_set()?.removed.contains(&removed.id))
        })
    }

    /// Takes the right to delete the data of a volume or to put the volume back, before it is removed. `None`: it is not there.
    pub fn hold_volume_data(&self, volume: &Volume) -> Result<Option<DataHold>, StoreError> {
        data::hold(self.layout(), &volume.id)
    }

    /// As [`Store::delete_volume_data`] by who has held it since before the volume was removed.
    pub fn delete_held_volume_data(
        &self,
        removed: &Volume,
        hold: &DataHold,
    ) -> Result<(), StoreError> {
        self.writable()?;
        match self.volume_set()?.removed.contains(&removed.id) {
            true => data::delete_held(self.layout(), &removed.id, hold),
            false => Ok(()),
        }
    }

    /// Deletes the data of every volume that was removed and whose remover did not get to it. Call it without the lock.
    pub fn delete_removed_volumes(&self) -> Result<(), StoreError> {
        self.writable()?;
        for id in &self.volume_set()?.removed {
            data::delete(self.layout(), id, || {
                Ok(self.volume_set()?.removed.contains(id))
            })?;
        }
        Ok(())
    }

    /// Renames a volume; never onto one that is there.
    pub fn rename_volume(
        &self,
        lock: &StoreLock,
        from: &VolumeName,
        to: &VolumeName,
    ) -> Result<(), StoreError> {
        self.change_volumes(lock, |volumes| {
            if volumes.by_name.contains_key(to) {
                return Err(StoreError::VolumeExists(to.clone()));
            }
            let volume = volumes.by_name.remove(from);
            let mut volume = volume.ok_or_else(|| StoreError::NoSuchVolume(from.clone()))?;
            volume.name = to.clone();
            // Somebody has chosen this name.
            volume.anonymous = false;
            volumes.ended.remove(to);
            volumes.by_name.insert(to.clone(), volume);
            Ok(())
        })
    }

    /// Changes what a volume is.
    pub fn set_volume_kind(
        &self,
        lock: &StoreLock,
        name: &VolumeName,
        kind: VolumeKind,
    ) -> Result<(), StoreError> {
        self.change_volumes(lock, |volumes| {
            volumes.get_mut(name)?.kind = kind;
            Ok(())
        })
    }

    fn change_volumes<T>(
        &self,
        _lock: &StoreLock,
        edit: impl FnOnce(&mut Volumes) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.writable()?;
        let before = self.volume_set()?;
        let mut volumes = Volumes::clone(&before);
        let value = edit(&mut volumes)?;
        if volumes == *before {
            return Ok(value);
        }
        // Those whose data is gone need not be remembered any longer. Not worth a change of its own.
        let layout = self.layout();
        let may_be_there = |id: &VolumeId| layout.volume(id).try_exists().unwrap_or(true);
        volumes
            .removed
            .retain(|id| !before.removed.contains(id) || may_be_there(id));
        let now = Timestamp::now();
        volumes.ended.retain(|_, at| recent(*at, now));
        while volumes.ended.len() > MOST_ENDED {
            let first = volumes.ended.iter().min_by_key(|(_, at)| **at);
            let Some(first) = first.map(|(name, _)| name.clone()) else {
                break;
            };
            volumes.ended.remove(&first);
        }
        let bytes = json::write(&volumes).map_err(|reason| self.damaged(reason))?;
        let file = self.replace_document(files::VOLUMES_JSON_NEW, files::VOLUMES_JSON, &bytes)?;
        self.0.untold.store(true, Ordering::Relaxed);
        self.note(&changes(&before, &volumes));
        *self.0.volumes.lock() = file.metadata().ok().map(|stat| VolumesSnapshot {
            file: Some((file, stamp(&stat))),
            volumes: Arc::new(volumes),
        });
        Ok(value)
    }

    /// Takes a lease on volumes: none of them is removed, renamed or evaporates until it ends. They must be there.
    /// Must not be called with a [`StoreLock`] held.
    pub fn lease_volumes(&self, names: &[VolumeName]) -> Result<Lease, StoreError> {
        self.writable()?;
        let lease = Lease::take(
            self.layout(),
            LeaseKind::Volume {
                volumes: names.to_vec(),
            },
        )?;
        // A removal under way sees the lease, or we see the removal.
        let volumes = {
            let _shared = SharedLock::take(self.layout())?;
            self.volume_set()?
        };
        let mut fresh = false;
        for name in names {
            let volume = volumes
                .get(name)
                .ok_or_else(|| StoreError::NoSuchVolume(name.clone()))?;
            let settled = matches!(
                volume.kind,
                VolumeKind::Ephemeral {
                    used: true,
                    idle: None,
                    ..
                }
            );
            fresh |= volume.kind.is_ephemeral() && !settled;
        }
        if fresh {
            let lock = self.lock()?;
            self.mark_volumes_used(&lock, names)?;
        }
        Ok(lease)
    }

    /// Remembers that ephemeral volumes have had a user.
    pub fn mark_volumes_used(
        &self,
        lock: &StoreLock,
        names: &[VolumeName],
    ) -> Result<(), StoreError> {
        self.change_volumes(lock, |volumes| {
            for name in names {
                if let Some(volume) = volumes.by_name.get_mut(name)
                    && let VolumeKind::Ephemeral { used, idle, .. } = &mut volume.kind
                {
                    (*used, *idle) = (true, None);
                }
            }
            Ok(())
        })
    }

    /// Directories under `volumes/` that nothing names.
    pub(in crate::store) fn stray_volumes(&self) -> Result<Vec<PathBuf>, StoreError> {
        let volumes = self.volume_set()?;
        let dir = self.layout().volumes();
        if !is_there(&dir)? {
            return Ok(Vec::new());
        }
        let known = |name: &str| {
            VolumeId::parse(name).is_some_and(|id| {
                let dead = volumes.removed.contains(&id) || volumes.making.contains(&id);
                dead || volumes.by_id(&id).is_some()
            })
        };
        let names = file_names(&dir)?;
        let strays = names.iter().filter(|name| !known(name));
        Ok(strays.map(|name| dir.join(name)).collect())
    }
}
