//! Whole-file advisory locks (`flock`).
//!
//! A lock belongs to the open file description: two opens of one file exclude each other even within a
//! process, and the lock goes with the last descriptor, whatever way its holder ends.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// How much a lock excludes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Excludes exclusive holders only.
    Shared,
    /// Excludes everybody.
    Exclusive,
}

/// Waits for the lock.
pub fn lock(file: &File, mode: LockMode) -> io::Result<()> {
    let operation = match mode {
        LockMode::Shared => FlockOperation::LockShared,
        LockMode::Exclusive => FlockOperation::LockExclusive,
    };
    loop {
        match flock(file, operation) {
            Err(Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Takes the lock if nobody is in the way; `false` if somebody is.
pub fn try_lock(file: &File, mode: LockMode) -> io::Result<bool> {
    let operation = match mode {
        LockMode::Shared => FlockOperation::NonBlockingLockShared,
        LockMode::Exclusive => FlockOperation::NonBlockingLockExclusive,
    };
    loop {
        match flock(file, operation) {
            Ok(()) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Whether nobody is in the way of such a lock. It is given back by name: a process that another thread is just starting has a copy
/// of every descriptor until its exec, and closing ours alone would leave the lock with that copy.
pub fn is_free(file: &File, mode: LockMode) -> io::Result<bool> {
    let free = try_lock(file, mode)?;
    if free {
        unlock(file)?;
    }
    Ok(free)
}

/// Gives it back before the file is closed.
pub fn unlock(file: &File) -> io::Result<()> {
    Ok(flock(file, FlockOperation::Unlock)?)
}

/// Whether `path` is still the name of `file`: who waits for a lock may get that of a file which somebody has replaced. A failed look
/// is an error, never "no", on which a caller tries again.
pub fn is_named(file: &File, path: &Path) -> io::Result<bool> {
    let identity = |stat: &std::fs::Metadata| (stat.dev(), stat.ino());
    let own = identity(&file.metadata()?);
    match std::fs::metadata(path) {
        Ok(there) => Ok(identity(&there) == own),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The process that has a lock on `file`, as far as this pid namespace can tell.
pub fn holder(file: &File) -> Option<u32> {
    let inode = file.metadata().ok()?.ino();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| holder_in(line, inode))
}

/// `1: FLOCK  ADVISORY  WRITE 708 fe:02:1234 0 EOF`; those who wait have `->` after the number. The device is the file system's own,
/// which `stat` does not always show.
fn holder_in(line: &str, inode: u64) -> Option<u32> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, "FLOCK", _, _, pid, place, ..] = words.as_slice() else {
        return None;
    };
    let of = place.rsplit(':').next()?.parse::<u64>().ok()?;
    pid.parse().ok().filter(|pid| of == inode && *pid > 0)
}

/// Whether `error`, from [`lock`], means that the file system has no such locks at all.
pub fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::NOLCK | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_opens_exclude_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let one = File::create(&path).unwrap();
        let two = File::open(&path).unwrap();
        lock(&one, LockMode::Exclusive).unwrap();
        assert!(!try_lock(&two, LockMode::Shared).unwrap());
        drop(one);
        assert!(try_lock(&two, LockMode::Exclusive).unwrap());
    }

    /// A child between fork and exec has such a copy.
    #[test]
    fn regression_a_look_leaves_no_lock_with_a_copy_of_the_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let one = File::create(&path).unwrap();
        let copy = one.try_clone().unwrap();
        assert!(is_free(&one, LockMode::Shared).unwrap());
        drop(one);
        let two = File::open(&path).unwrap();
        assert!(is_free(&two, LockMode::Exclusive).unwrap());
        drop(copy);
    }

    /// A failed look is no reason to try again for ever.
    #[test]
    fn regression_a_name_that_cannot_be_looked_up_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let file = File::create(&path).unwrap();
        assert!(is_named(&file, &path).unwrap());
        std::fs::remove_file(&path).unwrap();
        assert!(!is_named(&file, &path).unwrap());
        drop(File::create(&path).unwrap());
        assert!(!is_named(&file, &path).unwrap());
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&path, &path).unwrap();
        assert!(is_named(&file, &path).is_err());
    }

    #[test]
    fn who_holds_a_lock_can_be_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join("lock")).unwrap();
        assert_eq!(holder(&file), None);
        lock(&file, LockMode::Exclusive).unwrap();
        assert_eq!(holder(&file), Some(std::process::id()));
        let waiting = "1: -> FLOCK  ADVISORY  WRITE 708 fe:02:1234 0 EOF";
        assert_eq!(holder_in(waiting, 1234), None);
        assert_eq!(holder_in(&waiting.replace("-> ", ""), 1234), Some(708));
    }

    #[test]
    fn shared_holders_live_together() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let one = File::create(&path).unwrap();
        let two = File::open(&path).unwrap();
        assert!(try_lock(&one, LockMode::Shared).unwrap());
        assert!(try_lock(&two, LockMode::Shared).unwrap());
        assert!(!try_lock(&two, LockMode::Exclusive).unwrap());
    }
}
