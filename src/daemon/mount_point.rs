//! Whether a directory can be mounted on, and clearing away a dead mount of ours first.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::sys::mount::{FS_TYPE, MountError, MountPoint};
use crate::sys::proc;

/// A dead mount may hide another: one daemon after the other was killed. More than this is no accident.
const MAX_DEAD_MOUNTS: usize = 64;

/// Resolves and checks `path` for a mount of the store at `store` (which need not exist yet).
pub(super) fn prepare(path: &Path, store: &Path) -> anyhow::Result<MountPoint> {
    let store = resolve(store).with_context(|| format!("resolving {}", store.display()))?;
    for _ in 0..MAX_DEAD_MOUNTS {
        let point = MountPoint::open(path)?;
        if point.path().starts_with(&store) {
            bail!(
                "{}: lies inside the store {}; mount elsewhere",
                point.path().display(),
                store.display()
            );
        }
        if store.starts_with(point.path()) {
            bail!(
                "{}: the store {} lies inside and would be hidden; mount elsewhere",
                point.path().display(),
                store.display()
            );
        }
        let Some(mount) = point.mounted_here()?.filter(|m| m.fs_type == FS_TYPE) else {
            point.check_empty()?;
            return Ok(point);
        };
        if point.answers() {
            let daemon = proc::fuse_server(mount.device)
                .map(|pid| format!(" (process {pid})"))
                .unwrap_or_default();
            bail!(
                "{}: mica is mounted there already{daemon}; `mica umount` it first",
                point.path().display()
            );
        }
        log::warn!(
            "{}: taking away the mount of a daemon that died",
            point.path().display()
        );
        let dead = point.identify(&mount);
        // The descriptor would keep the dead mount busy.
        drop(point);
        dead.unmount(true)?;
    }
    bail!(
        "{}: too many dead mounts on top of each other",
        path.display()
    )
}

/// Takes away the dead mounts at `path`: of a server that has died, inside a mount that goes on.
pub(super) fn clear(path: &Path) -> anyhow::Result<()> {
    for _ in 0..MAX_DEAD_MOUNTS {
        let point = match MountPoint::open(path) {
            // Volumes beside their mount have no place while they are not mounted.
            Err(MountError::Missing(_)) => return Ok(()),
            point => point?,
        };
        let Some(mount) = point.mounted_here()?.filter(|m| m.fs_type == FS_TYPE) else {
            return Ok(());
        };
        if point.answers() {
            return Ok(());
        }
        let dead = point.identify(&mount);
        drop(point);
        dead.unmount(true)?;
    }
    Ok(())
}

/// The absolute path without symbolic links, of as much of it as exists.
fn resolve(path: &Path) -> std::io::Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    let mut missing = Vec::new();
    let mut existing = absolute.as_path();
    loop {
        match existing.canonicalize() {
            Ok(found) => {
                return Ok(missing
                    .iter()
                    .rev()
                    .fold(found, |path, name| path.join(name)));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let (Some(parent), Some(name)) = (existing.parent(), existing.file_name()) else {
                    return Err(error);
                };
                missing.push(name.to_owned());
                existing = parent;
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_and_mount_point_must_not_contain_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(dir.join("store/in")).unwrap();
        std::fs::create_dir(dir.join("m")).unwrap();
        std::os::unix::fs::symlink(dir.join("store"), dir.join("link")).unwrap();
        let message = |point: &str, store: &str| {
            prepare(&dir.join(point), &dir.join(store))
                .unwrap_err()
                .to_string()
        };
        assert!(message("store/in", "store").contains("inside the store"));
        assert!(message("link/in", "store").contains("inside the store"));
        assert!(message("store", "store").contains("inside the store"));
        assert!(message("m", "m/deep/er").contains("would be hidden"));
        assert!(message("", "m").contains("would be hidden"));
        prepare(&dir.join("m"), &dir.join("store")).unwrap();
        prepare(&dir.join("m"), &dir.join("not/yet")).unwrap();
    }
}
