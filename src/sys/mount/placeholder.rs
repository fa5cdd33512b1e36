//! What stands in a mount point while nothing is mounted on it: an empty `stores/containers`.
//!
//! podman and its like do nothing at all, not even with images of their own, when a directory of images that their
//! configuration names is missing. An empty one is a store without images to them. They make lock files in it, so a mount point
//! with that much in it is as good as an empty one.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

/// Everything that may be there, directories (`true`) before what is in them.
const ALL: [(&str, bool); 8] = [
    ("stores", true),
    ("stores/containers", true),
    ("stores/containers/overlay", true),
    ("stores/containers/overlay-images", true),
    ("stores/containers/overlay-images/images.lock", false),
    ("stores/containers/overlay-layers", true),
    ("stores/containers/overlay-layers/layers.lock", false),
    ("stores/containers/storage.lock", false),
];
/// How many of them we make.
const MADE: usize = 2;

/// The directory that the mount at `path` hides, or the one that is there.
///
/// # Errors
/// EPERM: only root may look below a mount.
pub fn below(path: &Path) -> io::Result<OwnedFd> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::INVAL.into());
    };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    // A copy of what the parent lies on, without anything mounted inside.
    let parent = open_tree(CWD, parent, flags)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(&parent, name, flags, Mode::empty())?)
}

/// Makes it in an empty directory.
pub fn make(dir: impl AsFd) -> io::Result<()> {
    for (name, _) in ALL.iter().take(MADE) {
        match mkdirat(&dir, *name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Removes it, if nothing else has come to be there.
pub fn remove(dir: impl AsFd) -> io::Result<()> {
    if !is_all(dir.as_fd())? {
        return Ok(());
    }
    for (name, directory) in ALL.iter().rev() {
        let flags = match directory {
            true => AtFlags::REMOVEDIR,
            false => AtFlags::empty(),
        };
        match unlinkat(&dir, *name, flags) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Whether there is nothing in the directory but this, or nothing at all.
pub(super) fn is_all(dir: impl AsFd) -> io::Result<bool> {
    let top = crate::sys::fd::path(&dir);
    let listed = std::iter::once("").chain(ALL.iter().filter(|(_, dir)| *dir).map(|(n, _)| *n));
    for below in listed {
        let entries = match fs::read_dir(Path::new(&top).join(below)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let name = Path::new(below).join(entry.file_name());
            let known = ALL.iter().find(|(known, _)| Path::new(known) == name);
            let fits = match known {
                Some((_, true)) => entry.file_type()?.is_dir(),
                Some((_, false)) => entry.metadata().is_ok_and(|m| m.is_file() && m.len() <= 64),
                None => false,
            };
            if !fits {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_else_passes_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let fd = fs::File::open(dir.path()).unwrap();
        assert!(is_all(&fd).unwrap());
        make(&fd).unwrap();
        make(&fd).unwrap();
        let containers = dir.path().join("stores/containers");
        fs::create_dir(containers.join("overlay-images")).unwrap();
        let lock = containers.join("overlay-images/images.lock");
        fs::write(&lock, "").unwrap();
        assert!(is_all(&fd).unwrap());
        for other in ["data", "stores/data", "stores/containers/overlay/data"] {
            let other = dir.path().join(other);
            fs::create_dir_all(&other).unwrap();
            assert!(!is_all(&fd).unwrap(), "{other:?}");
            remove(&fd).unwrap();
            assert!(other.is_dir() && lock.exists());
            fs::remove_dir(&other).unwrap();
        }
        fs::write(&lock, vec![0; 65]).unwrap();
        assert!(!is_all(&fd).unwrap());
        fs::remove_file(&lock).unwrap();
        std::os::unix::fs::symlink("/etc", &lock).unwrap();
        assert!(!is_all(&fd).unwrap());
        fs::remove_file(&lock).unwrap();
        remove(&fd).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
