//! The directories that hold the data of volumes.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;

use super::{StoreError, VolumeId};
use crate::store::layout::Layout;
use crate::store::privacy;
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

/// Makes the directory of a volume, durably. Nothing is left on failure.
pub(super) fn create(
    layout: &Layout,
    id: &VolumeId,
    ownership: Option<Ownership>,
) -> Result<(), StoreError> {
    let volumes = layout.volumes();
    match privacy::make_new_directory(&volumes) {
        Ok(()) => atomic::sync_dir(layout.root()).map_err(StoreError::io("sync", layout.root()))?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(StoreError::io("create", &volumes)(error)),
    }
    let (dir, data) = (layout.volume(id), layout.volume_data(id));
    let make = || {
        privacy::make_new_directory(&dir)?;
        privacy::make_new_directory(&data)?;
        if let Some(Ownership { uid, gid, .. }) = ownership {
            let me = (
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw(),
            );
            // An ordinary user cannot give a directory away, nor need he take his own.
            if (uid, gid) != me {
                chown(&data, Some(uid), Some(gid))?;
            }
        }
        // Not subject to the umask.
        let mode = ownership.map_or(0o755, |ownership| ownership.mode & 0o7777);
        fs::set_permissions(&data, Permissions::from_mode(mode))?;
        atomic::sync_dir(&data)?;
        atomic::sync_dir(&dir)?;
        atomic::sync_dir(&volumes)
    };
    make().map_err(|error| {
        discard_empty(layout, id);
        StoreError::io("create", &data)(error)
    })
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

/// Deletes a volume's directory with all that is in it, unless somebody else is doing so, or `is_meant` denies.
pub(super) fn delete(
    layout: &Layout,
    id: &VolumeId,
    is_meant: impl FnOnce() -> Result<bool, StoreError>,
) -> Result<(), StoreError> {
    let dir = layout.volume(id);
    let Some(handle) = crate::store::layout::open_if_there(&dir)? else {
        return Ok(());
    };
    let mine = lock::try_lock(&handle, LockMode::Exclusive);
    if !mine.map_err(StoreError::io("lock", &dir))? || !is_meant()? {
        return Ok(());
    }
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
