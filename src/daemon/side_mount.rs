//! Where the volumes of an ordinary user's mount are mounted.
//!
//! An ordinary user cannot have it inside: `fusermount3` runs as root, and the kernel lets nobody but the user into the
//! mount, not even to mount something there (unless with `allow_other`). The user's volumes are mounted beside, in a directory of
//! `$XDG_RUNTIME_DIR` that belongs to this mount point, and `M/volumes` is a symbolic link there.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::MountPlan;
use crate::store::volumes::{SIDE_MOUNTS, side_mount_name};
use crate::sys::mount::{self, MountPoint};

/// As for a mount itself: more is no accident.
const MAX_DEAD_MOUNTS: usize = 64;

/// A directory outside the mount to have the volumes mounted on; removed when dropped.
#[derive(Debug)]
pub(super) struct SideMount(PathBuf);

impl SideMount {
    /// That of the process before.
    pub(super) fn inherited(path: PathBuf) -> SideMount {
        SideMount(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SideMount {
    fn drop(&mut self) {
        // A mount that was detached leaves it empty; anything else in it is not ours to remove.
        if let Err(error) = fs::remove_dir(&self.0) {
            log::debug!("{}: {error}", self.0.display());
        }
    }
}

/// Where the volumes of a mount at `path` go if they cannot go inside; what a daemon that died has left there is taken away.
pub(super) fn prepare(plan: &MountPlan, path: &Path) -> anyhow::Result<Option<SideMount>> {
    let options = &plan.options;
    let others = options.allow_other.unwrap_or(false) && !options.read_only;
    let inside = rustix::process::geteuid().is_root() || others;
    if inside {
        return Ok(None);
    }
    let base = base()?;
    let place = base.join(side_mount_name(path));
    for _ in 0..MAX_DEAD_MOUNTS {
        match fs::DirBuilder::new().mode(0o700).create(&place) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| place.display().to_string()),
        }
        let point = MountPoint::open(&place).context("a place for the volumes")?;
        let Some(dead) = point
            .mounted_here()?
            .filter(|m| m.fs_type == mount::FS_TYPE)
        else {
            return Ok(Some(SideMount(place)));
        };
        if point.answers() {
            bail!("{}: volumes are mounted there already", place.display());
        }
        let dead = point.identify(&dead);
        drop(point);
        dead.unmount(true)?;
    }
    bail!(
        "{}: too many dead mounts on top of each other",
        place.display()
    )
}

/// The user's own directory for mounts of volumes.
fn base() -> anyhow::Result<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let uid = rustix::process::getuid().as_raw();
    let base = match runtime.filter(|dir| dir.is_absolute() && dir.is_dir()) {
        Some(dir) => dir.join(SIDE_MOUNTS),
        None => std::env::temp_dir().join(format!("{SIDE_MOUNTS}-{uid}")),
    };
    match fs::DirBuilder::new().mode(0o700).create(&base) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error).with_context(|| base.display().to_string()),
    }
    let stat = fs::symlink_metadata(&base).with_context(|| base.display().to_string())?;
    if !stat.is_dir() || stat.uid() != uid || stat.mode() & 0o022 != 0 {
        bail!(
            "{}: must be a directory of your own that nobody else can write to",
            base.display()
        );
    }
    base.canonicalize()
        .with_context(|| base.display().to_string())
}
