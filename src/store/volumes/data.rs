//! The directories that hold the data of volumes.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;

use super::{StoreError, VolumeId};
use crate::store::files;
use crate::store::layout::Layout;
use crate::sys::lock::{self, LockMode};
use crate::sys::{atomic, deep};

/// Whose the root directory of a volume is, and its mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ownership {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

/// Makes the directory of all volumes, durably, if it is not there.
pub(super) fn create_parent(layout: &Layout) -> Result<(), StoreError> {
    let volumes = layout.volumes();
    match files::make_new_directory(&volumes) {
        Ok(()) => atomic::sync_dir(layout.root()).map_err(StoreError::io("sync", layout.root()))?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(StoreError::io("create", &volumes)(error)),
    }
    Ok(())
}

/// Makes the directory of a volume, durably but for its name: [`sync_parent`]. Nothing is left on failure.
pub(super) fn create(
    layout: &Layout,
    id: &VolumeId,
    ownership: Option<Ownership>,
) -> Result<(), StoreError> {
    let (dir, data) = (layout.volume(id), layout.volume_data(id));
    let make = || {
        files::make_new_directory(&dir)?;
        files::make_new_directory(&data)?;
        if let Some(Ownership { uid, gid, .. }) = ownership {
            let me = (
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw(),
            );
            // An ordinary user cannot give a directory away, and need not take what is already owned.
            if (uid, gid) != me {
                chown(&data, Some(uid), Some(gid))?;
            }
        }
        // Not subject to the umask.
        let mode = ownership.map_or(0o755, |ownership| ownership.mode & 0o7777);
        fs::set_permissions(&data, Permissions::from_mode(mode))?;
        atomic::sync_dir(&data)?;
        atomic::sync_dir(&dir)
    };
    make().map_err(|error| {
        discard_empty(layout, id);
        StoreError::io("create", &data)(error)
    })
}

/// Makes the names of volumes' directories durable.
pub(super) fn sync_parent(layout: &Layout) -> Result<(), StoreError> {
    let volumes = layout.volumes();
    atomic::sync_dir(&volumes).map_err(StoreError::io("sync", &volumes))
}

/// Removes a directory that was made and not named. Never anything in it.
pub(super) fn discard_empty(layout: &Layout, id: &VolumeId) {
    for dir in [layout.volume_data(id), layout.volume(id)] {
        match fs::remove_dir(&dir) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => log::warn!("cannot remove {}: {error}", dir.display()),
        }
    }
}

/// The right to delete the data of a volume, or to put the volume back: whoever has it decides, others leave the data alone.
#[derive(Debug)]
pub struct DataHold(File);

/// Takes the right; `None`: somebody else has it, or the directory is gone.
pub(super) fn hold(layout: &Layout, id: &VolumeId) -> Result<Option<DataHold>, StoreError> {
    let dir = layout.volume(id);
    let Some(handle) = crate::store::files::open_if_there(&dir)? else {
        return Ok(None);
    };
    let mine = lock::try_lock(&handle, LockMode::Exclusive);
    let mine = mine.map_err(StoreError::io("lock", &dir))?;
    Ok(mine.then_some(DataHold(handle)))
}

/// Deletes a volume's directory with all that is in it, unless somebody else is doing so, or `is_meant` denies.
pub(super) fn delete(
    layout: &Layout,
    id: &VolumeId,
    is_meant: impl FnOnce() -> Result<bool, StoreError>,
) -> Result<(), StoreError> {
    match hold(layout, id)? {
        Some(hold) if is_meant()? => delete_held(layout, id, &hold),
        Some(_) | None => Ok(()),
    }
}

/// The same by who has the right.
pub(super) fn delete_held(
    layout: &Layout,
    id: &VolumeId,
    DataHold(_handle): &DataHold,
) -> Result<(), StoreError> {
    let dir = layout.volume(id);
    match remove_tree(&dir) {
        // Somebody else had just finished.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.map_err(StoreError::io("remove", &dir)),
    }
}

/// Removes a directory tree, also what belongs to others of this user's ids.
fn remove_tree(dir: &Path) -> io::Result<()> {
    match deep::remove(dir) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            crate::sys::userns::remove_tree(dir)
        }
        done => done,
    }
}
