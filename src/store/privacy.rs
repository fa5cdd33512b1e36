//! A store is its owner's alone.
//!
//! Containers leave set-id files and device nodes in volumes, and layers hold what images keep secret: nobody else may get as far.
//! So a store's directory is 0700 and belongs to whoever opens it; then nobody else can put anything below it, and what somebody
//! may have put there while it was open to others (links that lead elsewhere) is found here, before any of it is used.
//!
//! Of `volumes/*/_data` and `containers/*/upper` nothing is asked: they belong to whom the containers' programs are.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::error::StoreError;
use super::files::{DIRECTORY, FILE, INDEX_JSON, NUMBERS, VOLUMES_JSON};
use super::layout::{Layout, Meta, OpenMode};

/// The largest `meta.json` that is one.
const MAX_META: u64 = 64 << 10;
/// What others may not have.
const OTHERS: u32 = 0o077;

/// The directories below the root, each after the one it lies in.
const DIRECTORIES: [&str; 8] = [
    "blobs",
    "blobs/sha256",
    "layers",
    "leases",
    "tmp",
    "containers",
    "partial",
    "volumes",
];
/// The files on top.
const FILES: [&str; 12] = [
    INDEX_JSON,
    VOLUMES_JSON,
    "meta.json",
    "oci-layout",
    "settings.json",
    "lock",
    NUMBERS,
    "reserve",
    "events.log",
    "events.log.1",
    "daemon.log",
    "daemon.log.old",
];

/// Whose the directory of a store is, if it is there: anybody's but ours is refused.
pub(super) fn check_owner(root: &Path) -> Result<(), StoreError> {
    match open(CWD, root, OFlags::PATH | OFlags::DIRECTORY) {
        Ok(directory) => owned(root, &stat(&directory, root)?),
        // There is no store, which is for others to say.
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
        Err(errno) => Err(StoreError::io("open", root)(errno.into())),
    }
}

/// Checks a store that is there, and shuts it if it is open to others.
pub(super) fn admit(layout: &Layout, mode: OpenMode) -> Result<(), StoreError> {
    let root = layout.root();
    let top = match open(CWD, root, OFlags::PATH | OFlags::DIRECTORY) {
        Ok(top) => top,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        Err(errno) => return Err(StoreError::io("open", root)(errno.into())),
    };
    // What is no store is for others to say, and nothing in it is ours to change.
    if !is_store(&top) {
        return Ok(());
    }
    let found = stat(&top, root)?;
    owned(root, &found)?;
    let shut = Shut {
        mends: mode != OpenMode::ReadOnly,
    };
    // First: from here on nobody else gets below.
    if shut.directory(CWD, root, &found, OFlags::empty())? {
        log::warn!(
            "{}: this store was open to other users (mode {:04o}); it is its owner's alone now",
            root.display(),
            found.st_mode & 0o7777
        );
    }
    for name in DIRECTORIES {
        shut.below(&top, root, name, FileType::Directory)?;
    }
    for name in FILES {
        shut.below(&top, root, name, FileType::RegularFile)?;
    }
    Ok(())
}

/// Whether the directory has what makes it one: `meta.json`, as we write it. A link in its place is looked at further.
fn is_store(top: &OwnedFd) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    match open(top, Path::new("meta.json"), flags) {
        Ok(file) => {
            let mut bytes = Vec::new();
            let read = File::from(file).take(MAX_META).read_to_end(&mut bytes);
            read.is_ok() && serde_json::from_slice::<Meta>(&bytes).is_ok()
        }
        // A link, or shut to us: whose it is says what to do.
        Err(errno) => matches!(errno, Errno::LOOP | Errno::ACCESS),
    }
}

/// Whether a directory has nothing but what a creation that was cut short leaves.
pub(super) fn is_unfinished(root: &Path) -> Result<bool, StoreError> {
    let cannot = |errno: Errno| StoreError::io("read", root)(errno.into());
    let directory = open(CWD, root, OFlags::RDONLY | OFlags::DIRECTORY).map_err(cannot)?;
    for entry in rustix::fs::Dir::read_from(&directory).map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        let name = entry.file_name().to_string_lossy();
        let name = name.strip_suffix(".new").unwrap_or(&name);
        let ours = DIRECTORIES.contains(&name) || FILES.contains(&name);
        if !ours && !matches!(name, "." | ".." | "lost+found") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes a new store's directory, or an empty one that is to become a store, private.
pub(super) fn make_root(root: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let mut builder = std::fs::DirBuilder::new();
    let made = builder.recursive(true).mode(DIRECTORY).create(root);
    made.map_err(StoreError::io("create", root))?;
    check_owner(root)
}

/// An empty directory that becomes a store, whatever mode it was made with.
pub(super) fn shut_root(root: &Path) -> Result<(), StoreError> {
    let directory = open(CWD, root, OFlags::RDONLY | OFlags::DIRECTORY)
        .map_err(|errno| StoreError::io("open", root)(errno.into()))?;
    rustix::fs::fchmod(&directory, Mode::from_raw_mode(DIRECTORY))
        .map_err(|errno| StoreError::io("close to others", root)(errno.into()))
}

struct Shut {
    /// Whether what is too open is to be shut, or only looked at.
    mends: bool,
}

impl Shut {
    /// Looks at an entry that must be of that kind, and ours, if it is there.
    fn below(
        &self,
        top: &OwnedFd,
        root: &Path,
        name: &str,
        kind: FileType,
    ) -> Result<(), StoreError> {
        let path = root.join(name);
        let found = match rustix::fs::statat(top, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => found,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(StoreError::io("stat", &path)(errno.into())),
        };
        if FileType::from_raw_mode(found.st_mode) != kind {
            return Err(StoreError::Planted { path });
        }
        owned(&path, &found)?;
        if kind != FileType::Directory {
            return self.file(top, &path, name, &found);
        }
        if self.directory(top, Path::new(name), &found, OFlags::NOFOLLOW)?
            && found.st_mode & 0o022 != 0
        {
            check_entries(top, &path, name)?;
        }
        Ok(())
    }

    /// Shuts a directory; whether it had to be.
    fn directory(
        &self,
        at: impl AsFd,
        path: &Path,
        found: &Stat,
        flags: OFlags,
    ) -> Result<bool, StoreError> {
        if found.st_mode & OTHERS == 0 || !self.mends {
            return Ok(false);
        }
        let shut = open(at, path, OFlags::RDONLY | OFlags::DIRECTORY | flags).and_then(|open| {
            let mode = Mode::from_raw_mode(found.st_mode & DIRECTORY);
            rustix::fs::fchmod(&open, mode)
        });
        shut_or_unwritable(path, shut)
    }

    fn file(&self, top: &OwnedFd, path: &Path, name: &str, found: &Stat) -> Result<(), StoreError> {
        if found.st_mode & OTHERS == 0 || !self.mends {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let shut = open(top, Path::new(name), flags)
            .and_then(|open| rustix::fs::fchmod(&open, Mode::from_raw_mode(found.st_mode & FILE)));
        shut_or_unwritable(path, shut).map(drop)
    }
}

/// A disk that cannot be written to stays as it is: nobody can put anything there either.
fn shut_or_unwritable(path: &Path, shut: rustix::io::Result<()>) -> Result<bool, StoreError> {
    match shut {
        Ok(()) => Ok(true),
        // Replaced or removed at this moment by another of ours, who makes them private.
        Err(Errno::ROFS | Errno::NOENT) => Ok(false),
        Err(errno) => Err(StoreError::io("close to others", path)(errno.into())),
    }
}

/// Others could write to this directory: whatever is not ours, or leads elsewhere, is not touched but refused.
fn check_entries(top: &OwnedFd, path: &Path, name: &str) -> Result<(), StoreError> {
    let cannot = |errno: Errno| StoreError::io("read", path)(errno.into());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let directory = open(top, Path::new(name), flags).map_err(cannot)?;
    for entry in rustix::fs::Dir::read_from(&directory).map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        if matches!(entry.file_name().to_bytes(), b"." | b"..") {
            continue;
        }
        let shown = || path.join(entry.file_name().to_string_lossy().as_ref());
        let found = rustix::fs::statat(&directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW);
        let found = match found {
            Ok(found) => found,
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(StoreError::io("stat", &shown())(errno.into())),
        };
        if FileType::from_raw_mode(found.st_mode) == FileType::Symlink
            || found.st_uid != rustix::process::geteuid().as_raw()
        {
            return Err(StoreError::Planted { path: shown() });
        }
    }
    Ok(())
}

fn owned(path: &Path, found: &Stat) -> Result<(), StoreError> {
    let me = rustix::process::geteuid().as_raw();
    if found.st_uid == me {
        return Ok(());
    }
    Err(StoreError::Foreign {
        path: path.to_owned(),
        owner: found.st_uid,
        me,
    })
}

fn open(at: impl AsFd, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(at, path, flags | OFlags::CLOEXEC, Mode::empty())
}

fn stat(directory: &OwnedFd, path: &Path) -> Result<Stat, StoreError> {
    rustix::fs::fstat(directory).map_err(|errno| StoreError::io("stat", path)(errno.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    use std::path::PathBuf;

    fn mode(path: &Path) -> u32 {
        path.symlink_metadata().unwrap().mode() & 0o7777
    }

    fn made() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("store");
        super::super::Store::open(&root, OpenMode::Create).unwrap();
        (dir, root)
    }

    fn set(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn everything_new_is_private() {
        let (_dir, root) = made();
        assert_eq!(mode(&root), 0o700);
        for name in DIRECTORIES.iter().filter(|name| root.join(name).exists()) {
            assert_eq!(mode(&root.join(name)), 0o700, "{name}");
        }
        for name in FILES.iter().filter(|name| root.join(name).exists()) {
            assert_eq!(mode(&root.join(name)), 0o600, "{name}");
        }
    }

    #[test]
    fn what_is_open_to_others_is_shut() {
        let (_dir, root) = made();
        set(&root, 0o775);
        set(&root.join("leases"), 0o777);
        set(&root.join("lock"), 0o666);
        let reading = super::super::Store::open(&root, OpenMode::ReadOnly);
        reading.unwrap();
        assert_eq!(mode(&root), 0o775, "nothing is ever written");
        super::super::Store::open(&root, OpenMode::Existing).unwrap();
        assert_eq!(mode(&root), 0o700);
        assert_eq!(mode(&root.join("leases")), 0o700);
        assert_eq!(mode(&root.join("lock")), 0o600);
    }

    #[test]
    fn links_in_the_way_are_refused() {
        for name in ["leases", "lock", "blobs", "volumes.json"] {
            let (dir, root) = made();
            let aside = dir.path().join("aside");
            if root.join(name).exists() {
                std::fs::rename(root.join(name), &aside).unwrap();
            }
            symlink(&aside, root.join(name)).unwrap();
            let refused = super::super::Store::open(&root, OpenMode::Existing);
            let refused = refused.unwrap_err();
            assert!(matches!(refused, StoreError::Planted { .. }), "{refused}");
        }
    }

    #[test]
    fn links_in_a_directory_that_was_open_to_others_are_refused() {
        let (_dir, root) = made();
        symlink("/etc/passwd", root.join("leases/import-1-1-1.json")).unwrap();
        super::super::Store::open(&root, OpenMode::Existing).unwrap();
        set(&root.join("leases"), 0o777);
        let refused = super::super::Store::open(&root, OpenMode::Existing);
        let refused = refused.unwrap_err();
        assert!(matches!(refused, StoreError::Planted { .. }), "{refused}");
    }
}
