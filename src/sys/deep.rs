//! Trees of any depth, such as a process in a container can make: removed, or looked at.
//!
//! A path has 4,095 bytes at most, a process some thousand descriptors, a thread some megabytes of stack: a tree can be deeper than
//! any of them. Here there is one descriptor, of the directory in hand; from there it goes down by name, never through a
//! symbolic link, and up by `..`, which has to be the directory it came from.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, chmod, fstat, openat, statat, unlinkat,
};
use rustix::io::Errno;

use crate::sys::fd;

/// Entries that any tree may have gained since it was begun to be looked at.
const SMALL: u64 = 100_000;
/// Where a file system does not say how many there are.
const MANY: u64 = 1 << 26;

/// A directory, and the way to it.
struct Descent {
    at: OwnedFd,
    /// Device and inode of those above.
    above: Vec<(u64, u64)>,
    /// Gives the owner the permissions that the owner has given up.
    opens_up: bool,
}

impl Descent {
    fn new(path: &Path, opens_up: bool) -> Result<Descent, Errno> {
        Ok(Descent::from(open(CWD, path, opens_up)?, opens_up))
    }

    fn from(at: OwnedFd, opens_up: bool) -> Descent {
        Descent {
            at,
            above: Vec::new(),
            opens_up,
        }
    }

    fn enter(&mut self, name: &CStr) -> Result<(), Errno> {
        let below = open(&self.at, name, self.opens_up)?;
        let stat = fstat(&self.at)?;
        self.above.push((stat.st_dev, stat.st_ino));
        self.at = below;
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Errno> {
        let above = open(&self.at, c"..", false)?;
        let stat = fstat(&above)?;
        if self.above.pop() != Some((stat.st_dev, stat.st_ino)) {
            // Somebody has moved it.
            return Err(Errno::STALE);
        }
        self.at = above;
        Ok(())
    }

    /// Calls with each name in the directory in hand, and whether it is a directory, until that answers false. Whoever made the
    /// tree has said how many there are: they are not kept.
    fn each(&self, mut call: impl FnMut(&CStr, bool) -> Result<bool, Errno>) -> Result<(), Errno> {
        for entry in Dir::read_from(&self.at)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let is_directory = match entry.file_type() {
                FileType::Unknown => match statat(&self.at, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => FileType::from_raw_mode(stat.st_mode).is_dir(),
                    Err(Errno::NOENT) => continue,
                    Err(error) => return Err(error),
                },
                kind => kind.is_dir(),
            };
            if !call(name, is_directory)? {
                return Ok(());
            }
        }
        Ok(())
    }
}

fn open(
    parent: impl AsFd,
    name: impl rustix::path::Arg + Copy,
    opens_up: bool,
) -> Result<OwnedFd, Errno> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(&parent, name, flags | OFlags::RDONLY, Mode::empty()) {
        Err(Errno::ACCESS) if opens_up => {
            let node = openat(&parent, name, flags | OFlags::PATH, Mode::empty())?;
            // The name could have become a link by now, the descriptor not.
            chmod(fd::path(&node), Mode::RWXU)?;
            openat(&parent, name, flags | OFlags::RDONLY, Mode::empty())
        }
        other => other,
    }
}

/// Removes a directory with all that is in it, whatever permissions its owner, who calls, has given up. What goes
/// meanwhile by somebody else's hand is no error, unless that is the directory itself.
pub fn remove(path: &Path) -> io::Result<()> {
    empty(Descent::new(path, true)?)?;
    Ok(rustix::fs::rmdir(path)?)
}

/// The same for what has that name in a directory; it need not be a directory itself.
pub fn remove_at(parent: impl AsFd, name: &CStr) -> io::Result<()> {
    match unlinkat(&parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        other => return Ok(other?),
    }
    empty(Descent::from(open(&parent, name, true)?, true))?;
    Ok(unlinkat(&parent, name, AtFlags::REMOVEDIR)?)
}

fn empty(mut descent: Descent) -> io::Result<()> {
    // The directories left to do, of that in hand and of each above; the one being done is still the last.
    let mut todo = vec![clear(&descent)?];
    while let Some(names) = todo.last_mut() {
        if let Some(name) = names.last().cloned() {
            match descent.enter(&name) {
                Ok(()) => todo.push(clear(&descent)?),
                Err(Errno::NOENT) => drop(names.pop()),
                Err(error) => return Err(error.into()),
            }
            continue;
        }
        todo.pop();
        if let Some(name) = todo.last_mut().and_then(Vec::pop) {
            descent.leave()?;
            unlink(&descent, &name, AtFlags::REMOVEDIR)?;
        }
    }
    Ok(())
}

/// Removes what is no directory; the directories.
fn clear(descent: &Descent) -> Result<Vec<CString>, Errno> {
    let mut directories = Vec::new();
    let mut removed = false;
    descent.each(|name, is_directory| {
        match is_directory {
            true => directories.push(name.to_owned()),
            false => {
                unlink(descent, name, AtFlags::empty())?;
                removed = true;
            }
        }
        Ok(true)
    })?;
    // A file system may pass something over while names go before it.
    if removed {
        directories.clear();
        descent.each(|name, is_directory| {
            match is_directory {
                true => directories.push(name.to_owned()),
                false => unlink(descent, name, AtFlags::empty())?,
            }
            Ok(true)
        })?;
    }
    Ok(directories)
}

fn unlink(descent: &Descent, name: &CStr, flags: AtFlags) -> Result<(), Errno> {
    let done = match unlinkat(&descent.at, name, flags) {
        Err(Errno::ACCESS) if descent.opens_up => {
            rustix::fs::fchmod(&descent.at, Mode::RWXU)?;
            unlinkat(&descent.at, name, flags)
        }
        other => other,
    };
    match done {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

/// Looks at everything in a directory, itself not included. What goes meanwhile, or may not be looked at, is left out. It ends
/// whatever others do with the tree: one that grows faster than it is looked at, or is moved about, is not seen whole.
pub fn visit(path: &Path, see: impl FnMut(&Stat)) -> io::Result<()> {
    visit_at_most(path, most_entries(path), see)
}

/// More than there can be in a tree that nobody prolongs: all that is on its file system now, twice.
fn most_entries(path: &Path) -> u64 {
    match rustix::fs::statvfs(path) {
        Ok(found) if found.f_files > 0 => {
            let used = found.f_files.saturating_sub(found.f_ffree);
            used.saturating_mul(2).saturating_add(SMALL)
        }
        // Inodes are not counted there.
        Ok(_) | Err(_) => MANY,
    }
}

fn visit_at_most(path: &Path, most: u64, mut see: impl FnMut(&Stat)) -> io::Result<()> {
    let mut left = most;
    let quiet = |error: Errno| matches!(error, Errno::NOENT | Errno::ACCESS | Errno::PERM);
    let mut descent = match Descent::new(path, false) {
        Err(error) if quiet(error) => return Ok(()),
        other => other?,
    };
    let mut look = |descent: &Descent| -> Result<Vec<CString>, Errno> {
        let mut directories = Vec::new();
        descent.each(|name, is_directory| {
            if left == 0 {
                directories.clear();
                return Ok(false);
            }
            left -= 1;
            match statat(&descent.at, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => see(&stat),
                Err(error) if quiet(error) => return Ok(true),
                Err(error) => return Err(error),
            }
            if is_directory {
                directories.push(name.to_owned());
            }
            Ok(true)
        })?;
        Ok(directories)
    };
    let mut todo = vec![look(&descent)?];
    while let Some(names) = todo.last_mut() {
        match names.pop() {
            Some(name) => match descent.enter(&name) {
                Ok(()) => todo.push(look(&descent)?),
                Err(error) if quiet(error) => {}
                Err(error) => return Err(error.into()),
            },
            None => {
                todo.pop();
                if !todo.is_empty() {
                    match descent.leave() {
                        // Moved: the rest is not found from here.
                        Err(Errno::STALE) => return Ok(()),
                        other => other?,
                    }
                }
            }
        }
    }
    Ok(())
}

/// What the files in a directory take on disk, hard links once; directories count nothing, as docker has it. What goes meanwhile,
/// or may not be looked at, counts nothing.
pub fn files_allocated(path: &Path) -> io::Result<u64> {
    sum(path, false)
}

/// What a directory and all in it take on disk: what its removal gives back.
pub fn tree_allocated(path: &Path) -> io::Result<u64> {
    let own = match rustix::fs::lstat(path) {
        Ok(stat) => allocated(&stat),
        Err(Errno::NOENT | Errno::ACCESS | Errno::PERM) => return Ok(0),
        Err(error) => return Err(error.into()),
    };
    Ok(own.saturating_add(sum(path, true)?))
}

fn sum(path: &Path, directories: bool) -> io::Result<u64> {
    let mut seen = HashSet::new();
    let mut bytes = 0u64;
    visit(path, |stat| {
        let is_dir = FileType::from_raw_mode(stat.st_mode).is_dir();
        let again = !is_dir && stat.st_nlink > 1 && !seen.insert((stat.st_dev, stat.st_ino));
        if (directories || !is_dir) && !again {
            bytes = bytes.saturating_add(allocated(stat));
        }
    })?;
    Ok(bytes)
}

/// Bytes on disk.
pub fn allocated(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).map_or(0, |blocks| blocks.saturating_mul(512))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    /// Directories in directories, `depth` of them, with a file in the last.
    fn dig(top: &Path, depth: usize) {
        let mut at = open(CWD, top, false).unwrap();
        for _ in 0..depth {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = open(&at, "d", false).unwrap();
        }
        let flags = OFlags::CREATE | OFlags::WRONLY;
        drop(openat(&at, "file", flags, Mode::RUSR).unwrap());
    }

    #[test]
    fn depth_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        fs::create_dir(&top).unwrap();
        dig(&top, 5000);
        fs::create_dir(top.join("beside")).unwrap();
        let mut seen = 0;
        visit(&top, |_| seen += 1).unwrap();
        assert_eq!(seen, 5002);
        remove(&top).unwrap();
        assert!(!top.exists());
        assert_eq!(remove(&top).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn regression_a_look_at_a_tree_that_grows_meanwhile_ends() {
        let dir = tempfile::tempdir().unwrap();
        let mut end = dir.path().to_owned();
        let mut grow = || {
            end.push("d");
            fs::create_dir(&end).unwrap();
        };
        grow();
        let mut seen = 0;
        visit_at_most(dir.path(), 100, |_| {
            seen += 1;
            grow();
        })
        .unwrap();
        assert_eq!(seen, 100);
    }

    #[test]
    fn regression_a_look_at_a_tree_that_is_moved_ends() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b/c")).unwrap();
        fs::create_dir(dir.path().join("other")).unwrap();
        let mut seen = 0;
        visit(&dir.path().join("a"), |_| {
            seen += 1;
            if seen == 2 {
                fs::rename(dir.path().join("a/b"), dir.path().join("other/b")).unwrap();
            }
        })
        .unwrap();
        assert_eq!(seen, 2);
    }

    #[test]
    fn links_are_not_followed_and_permissions_do_not_matter() {
        let dir = tempfile::tempdir().unwrap();
        let (top, outside) = (dir.path().join("top"), dir.path().join("outside"));
        for path in [&top, &outside, &top.join("closed"), &top.join("closed/in")] {
            fs::create_dir(path).unwrap();
        }
        fs::write(outside.join("kept"), "").unwrap();
        std::os::unix::fs::symlink(&outside, top.join("link")).unwrap();
        for (path, mode) in [("closed/in", 0), ("closed", 0o500), ("", 0)] {
            fs::set_permissions(top.join(path), fs::Permissions::from_mode(mode)).unwrap();
        }
        remove(&top).unwrap();
        assert!(outside.join("kept").exists() && !top.exists());
        std::os::unix::fs::symlink(&outside, &top).unwrap();
        assert!(remove(&top).is_err());
        assert!(outside.join("kept").exists());
    }
}
