//! Volumes: the one implementation behind `mica volume` and what a mount offers under `volumes/`.
//!
//! | command line | in a mount | here |
//! |---|---|---|
//! | `volume create NAME` | `mkdir` | [`create`], [`create_new`] |
//! | `volume create --bind` | `ln -s` | [`create`], [`create_new`] |
//! | `volume rm` | `rmdir` | [`remove`] |
//! | | `mv` | [`rename`] |
//! | `volume keep NAME` | `setfattr -x user.mica.ephemeral` | [`keep`] |
//! | | `setfattr -n user.mica.ephemeral -v 1` | [`demote`] |
//! | (by itself) | (by itself) | [`life`] |
//!
//! Every change is one replacement of `volumes.json` under the store's lock. Telling the mounts is for the caller, by a
//! function given as [`Tell`] where it has to happen in the middle.

pub mod activity;
pub mod ephemeral;
mod error;
pub mod list;
pub mod plugin;
pub mod prune;

use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::path::{Path, PathBuf};

use crate::store::{
    LiveLease, NewVolume, Ownership, Store, StoreError, StoreLock, Volume, VolumeKind, VolumeName,
};

use crate::ops::usage::volumes::{self as users, Look};
use crate::ops::usage::{Usage, User};
pub use error::{BindError, VolumeError};

/// Makes every mount show the volumes as they are now. Called without the lock.
pub type Tell<'a> = &'a dyn Fn();

/// For the command line.
pub fn tell(store: &Store) {
    store.publish();
}

/// What to make.
#[derive(Debug, Clone)]
pub struct Create {
    /// Its name; `None`: an anonymous one.
    pub name: Option<VolumeName>,
    /// Its kind.
    pub kind: CreateKind,
    /// docker's labels.
    pub labels: BTreeMap<String, String>,
    /// Whose its root directory is to be; `None`: ours.
    pub ownership: Option<Ownership>,
}

/// Kinds of volumes to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateKind {
    /// Stays.
    Persistent,
    /// Lives while it is used.
    Ephemeral,
    /// A directory or file of the host.
    Bind {
        /// Which; must exist. Absolute.
        source: PathBuf,
        /// Not to be written.
        read_only: bool,
    },
}

impl Create {
    /// A volume of that kind and name, without more.
    pub fn new(name: Option<VolumeName>, kind: CreateKind) -> Create {
        Create {
            name,
            kind,
            labels: BTreeMap::new(),
            ownership: None,
        }
    }
}

/// Makes a volume; one of that name and kind that is there is the answer.
pub fn create(store: &Store, create: &Create) -> Result<Volume, VolumeError> {
    if let Some(name) = &create.name
        && let Some(there) = store.volume(name)?
    {
        return match is_same(&create.kind, &there.kind) {
            true => Ok(there),
            false => Err(VolumeError::Conflict {
                name: name.clone(),
                kind: there.kind.word(),
            }),
        };
    }
    match create_new(store, create) {
        // Somebody else was as fast: then it is there now.
        Err(VolumeError::Store(StoreError::VolumeExists(name))) => {
            let there = store.volume(&name)?;
            there
                .filter(|there| is_same(&create.kind, &there.kind))
                .ok_or(VolumeError::Store(StoreError::VolumeExists(name)))
        }
        done => done,
    }
}

/// Makes a volume that must not be there.
pub fn create_new(store: &Store, create: &Create) -> Result<Volume, VolumeError> {
    let kind = match &create.kind {
        CreateKind::Persistent => VolumeKind::Persistent,
        CreateKind::Ephemeral => VolumeKind::ephemeral(),
        CreateKind::Bind { source, read_only } => {
            let (source, file) = check_bind(store, source)?;
            VolumeKind::Bind {
                source,
                read_only: *read_only,
                file,
            }
        }
    };
    let name = match &create.name {
        Some(name) => name.clone(),
        None => VolumeName::anonymous().map_err(VolumeError::Random)?,
    };
    let new = NewVolume {
        name,
        kind,
        labels: create.labels.clone(),
        anonymous: create.name.is_none(),
        ownership: create.ownership,
    };
    let lock = store.lock()?;
    Ok(store.create_volume(&lock, new)?)
}

fn is_same(wanted: &CreateKind, there: &VolumeKind) -> bool {
    match (wanted, there) {
        (CreateKind::Persistent, VolumeKind::Persistent)
        | (CreateKind::Ephemeral, VolumeKind::Ephemeral { .. }) => true,
        (
            CreateKind::Bind { source, read_only },
            VolumeKind::Bind {
                source: old,
                read_only: was,
                ..
            },
        ) => {
            let real = source.canonicalize();
            (source == old || real.is_ok_and(|real| real == *old)) && read_only == was
        }
        (CreateKind::Persistent | CreateKind::Ephemeral | CreateKind::Bind { .. }, _) => false,
    }
}

/// The source of a bind without symbolic links, and whether it is a file (true) or a directory, if it can be one. A link that
/// is put in its way later leads nowhere.
fn check_bind(store: &Store, source: &Path) -> Result<(PathBuf, bool), BindError> {
    if !source.is_absolute() {
        return Err(BindError::Relative(source.to_owned()));
    }
    let leases = store.live_leases().unwrap_or_default();
    let mounts = || leases.iter().filter_map(LiveLease::mountpoint);
    let in_mount = |path: &Path| mounts().any(|mount| path.starts_with(mount));
    // By name first: a daemon that makes the volume need not ask its own mount.
    if in_mount(source) {
        return Err(BindError::InMount(source.to_owned()));
    }
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            BindError::Missing(source.to_owned())
        }
        _ => BindError::Unreadable {
            path: source.to_owned(),
            source: error,
        },
    };
    let real = source.canonicalize().map_err(unreadable)?;
    if in_mount(&real) {
        return Err(BindError::InMount(source.to_owned()));
    }
    let root = store
        .path()
        .canonicalize()
        .unwrap_or_else(|_| store.path().to_owned());
    if real.starts_with(&root) {
        return Err(BindError::InStore(source.to_owned()));
    }
    let stat = real.metadata().map_err(unreadable)?;
    match (stat.is_dir(), stat.is_file()) {
        (true, _) => Ok((real, false)),
        (_, true) => Ok((real, true)),
        (false, false) => Err(BindError::Kind(source.to_owned())),
    }
}

/// How to remove.
#[derive(Debug, Clone, Copy, Default)]
pub struct Removal {
    /// Only if nothing is in it, as `rmdir` does. A bind is only taken away and may be of anything.
    pub only_empty: bool,
    /// How to look for users.
    pub look: Look,
    /// Files that the caller knows to be open, besides what is found.
    pub open_files: usize,
}

/// Removes a volume that nobody uses: the name, then, when the mounts have been told, the data. The data of a bind stays.
pub fn remove(
    store: &Store,
    name: &VolumeName,
    removal: &Removal,
    tell: Tell<'_>,
) -> Result<Volume, VolumeError> {
    let volume = there(store, name)?;
    let own = !matches!(volume.kind, VolumeKind::Bind { .. });
    let refuse_if_full = || match removal.only_empty && own {
        true if !is_empty(&store.volume_root(&volume))? => Err(VolumeError::NotEmpty(name.clone())),
        _ => Ok(()),
    };
    // Before the question for users, as rmdir(2) does: the kernel tells of a closed file only later.
    refuse_if_full()?;
    let before = store.live_leases()?;
    refuse_if_used(store, &before, &volume, "remove", removal)?;
    let (removed, hold) = {
        let lock = store.lock()?;
        unchanged(store, &volume, "remove")?;
        refuse_if_full()?;
        let hold = store.hold_volume_data(&volume)?;
        (store.remove_volume(&lock, name)?, hold)
    };
    tell();
    let leases = store.live_leases().map_err(VolumeError::from);
    let used =
        leases.and_then(|leases| refuse_if_used(store, &leases, &removed, "remove", removal));
    if let (Some(hold), Err(error)) = (&hold, used) {
        // A new user has come since, or none can be excluded: what that user found stays.
        let lock = store.lock()?;
        store.restore_volume(&lock, removed)?;
        drop((lock, hold));
        tell();
        return Err(error);
    }
    delete_data(
        &removed,
        match &hold {
            Some(hold) => store.delete_held_volume_data(&removed, hold),
            None => store.delete_volume_data(&removed),
        },
    );
    Ok(removed)
}

/// Under the lock: that a volume is what it was at a look before, and nobody has taken a lease since.
fn unchanged(store: &Store, volume: &Volume, verb: &'static str) -> Result<(), VolumeError> {
    let name = &volume.name;
    let now = store.volume_set()?;
    let same = now.get(name).is_some_and(|now| now.id == volume.id);
    if !same {
        return Err(StoreError::NoSuchVolume(name.clone()).into());
    }
    let mut users = users::leased(&now, &store.live_leases()?).of(volume);
    users.extend(list::containers(store, name)?);
    in_use(users, verb, name)
}

/// What cannot be deleted now is with the next verb on volumes; the volume is gone either way.
fn delete_data(removed: &Volume, deleted: Result<(), StoreError>) {
    if let Err(error) = deleted {
        log::warn!(
            "volume {} was removed, but its data is not deleted yet: {error}",
            removed.name
        );
    }
}

fn there(store: &Store, name: &VolumeName) -> Result<Volume, VolumeError> {
    let volume = store.volume(name)?;
    Ok(volume.ok_or_else(|| StoreError::NoSuchVolume(name.clone()))?)
}

/// Whether a directory is; one that is not there is as well.
fn is_empty(dir: &Path) -> Result<bool, VolumeError> {
    let cannot = |source| {
        VolumeError::Store(StoreError::Io {
            action: "read",
            path: dir.to_owned(),
            source,
        })
    };
    match std::fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().transpose().map_err(cannot)?.is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(cannot(error)),
    }
}

fn refuse_if_used(
    store: &Store,
    leases: &[LiveLease],
    volume: &Volume,
    verb: &'static str,
    removal: &Removal,
) -> Result<(), VolumeError> {
    let mut users = used_by(store, leases, volume, removal.look)?;
    if users.is_empty() && removal.open_files > 0 {
        users.push(User {
            pid: 0,
            command: "kernel".to_owned(),
            usage: Usage::Open,
            path: PathBuf::new(),
        });
    }
    in_use(users, verb, &volume.name)
}

fn in_use(users: Vec<User>, verb: &'static str, name: &VolumeName) -> Result<(), VolumeError> {
    match users.is_empty() {
        true => Ok(()),
        false => Err(VolumeError::InUse {
            verb,
            name: name.clone(),
            users,
        }),
    }
}

/// The users of one volume, stopped containers included.
fn used_by(
    store: &Store,
    leases: &[LiveLease],
    volume: &Volume,
    look: Look,
) -> Result<Vec<User>, VolumeError> {
    // It may have been removed.
    let volumes = store.volume_set()?.with(std::slice::from_ref(volume));
    let mut users = users::find_among(store, &volumes, leases, look)?.of(volume);
    users.extend(list::containers(store, &volume.name)?);
    Ok(users)
}

/// Renames a volume that nobody uses; never onto one that is there.
pub fn rename(
    store: &Store,
    from: &VolumeName,
    to: &VolumeName,
    removal: &Removal,
) -> Result<(), VolumeError> {
    let volume = there(store, from)?;
    if from == to {
        return Ok(());
    }
    refuse_if_used(store, &store.live_leases()?, &volume, "rename", removal)?;
    let lock = store.lock()?;
    unchanged(store, &volume, "rename")?;
    if store.volume(to)?.is_some() {
        return Err(StoreError::VolumeExists(to.clone()).into());
    }
    Ok(store.rename_volume(&lock, from, to)?)
}

/// Makes an ephemeral volume persistent; a persistent one stays as it is.
pub fn keep(store: &Store, name: &VolumeName) -> Result<(), VolumeError> {
    set_kind(store, name, VolumeKind::Persistent)
}

/// Makes a persistent volume ephemeral: from now on it waits for its first user, or is found to have some. An ephemeral one stays as
/// it is.
pub fn demote(store: &Store, name: &VolumeName) -> Result<(), VolumeError> {
    set_kind(store, name, VolumeKind::ephemeral())
}

fn set_kind(store: &Store, name: &VolumeName, kind: VolumeKind) -> Result<(), VolumeError> {
    let lock: StoreLock = store.lock()?;
    let volume = there(store, name)?;
    if matches!(volume.kind, VolumeKind::Bind { .. }) {
        return Err(VolumeError::BindHasNoLife(name.clone()));
    }
    if mem::discriminant(&volume.kind) == mem::discriminant(&kind) {
        return Ok(());
    }
    Ok(store.set_volume_kind(&lock, name, kind)?)
}

#[cfg(test)]
mod tests;
