//! Files that are there whole or not at all.
//!
//! Rules: a file's bytes are on disk before its name is; a name is on disk before anybody is told of it. A
//! failed `fsync` is final: the kernel may have dropped the dirty pages, so a second one that succeeds proves
//! nothing. The file is removed and the caller starts over from its source.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

/// Makes the names in `dir` durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Creates `path` with `bytes`, for its owner only, and makes the bytes durable (not yet the name). Nothing is left on failure.
pub fn write_new(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let mut file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    match file.write_all(bytes).and_then(|()| file.sync_all()) {
        Ok(()) => Ok(file),
        Err(error) => {
            discard(path);
            Err(error)
        }
    }
}

/// Replaces `dir/name` by `bytes` in one step that survives a power cut, going through `dir/temp`.
///
/// Returns the new file, open. On failure the old content is back in place: the two names are exchanged, not
/// overwritten, so that a directory `fsync` that fails can be answered by exchanging them again. (A file
/// system without `RENAME_EXCHANGE` gets a plain rename; there a failed directory `fsync` leaves the new
/// content, whole.)
pub fn replace(dir: &Path, temp: &str, name: &str, bytes: &[u8]) -> io::Result<File> {
    let temp = dir.join(temp);
    let target = dir.join(name);
    remove_if_there(&temp)?;
    let file = write_new(&temp, bytes)?;
    let step = match swap_in(&temp, &target) {
        Ok(step) => step,
        Err(error) => {
            discard(&temp);
            return Err(error);
        }
    };
    if let Err(error) = sync_dir(dir) {
        match step {
            // Best effort: the caller learns of the failure either way, and both contents are whole.
            Step::Exchanged => {
                if exchange(&temp, &target).is_ok() {
                    discard(&temp);
                }
            }
            Step::Created => discard(&target),
            Step::Overwritten => {}
        }
        return Err(error);
    }
    if let Step::Exchanged = step {
        discard(&temp);
    }
    Ok(file)
}

enum Step {
    Exchanged,
    Created,
    Overwritten,
}

fn exchange(one: &Path, two: &Path) -> rustix::io::Result<()> {
    renameat_with(CWD, one, CWD, two, RenameFlags::EXCHANGE)
}

fn swap_in(temp: &Path, target: &Path) -> io::Result<Step> {
    match exchange(temp, target) {
        Ok(()) => Ok(Step::Exchanged),
        Err(Errno::NOENT) => {
            fs::rename(temp, target)?;
            Ok(Step::Created)
        }
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            fs::rename(temp, target)?;
            Ok(Step::Overwritten)
        }
        Err(errno) => Err(errno.into()),
    }
}

/// Asks the kernel to begin writing a range of `file` to disk, without waiting and without any promise: a later
/// `fsync` has less left to do. An error is one of writing. File systems that cannot are fine.
#[allow(unsafe_code)]
pub fn start_writeback(file: &File, offset: u64, length: u64) -> io::Result<()> {
    let (Ok(offset), Ok(length)) = (i64::try_from(offset), i64::try_from(length)) else {
        return Ok(());
    };
    // SAFETY: the descriptor is open for the length of the call, and no memory is passed.
    let done = unsafe {
        libc::sync_file_range(
            file.as_raw_fd(),
            offset,
            length,
            libc::SYNC_FILE_RANGE_WRITE,
        )
    };
    if done == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EINVAL | libc::ENOSYS | libc::ESPIPE | libc::EOPNOTSUPP) => Ok(()),
        _ => Err(error),
    }
}

/// Unlinks `path`; a path that is not there is fine.
pub fn remove_if_there(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Unlinks `path` on a way out that already has an error to report, or where a later sweep does it again.
pub fn discard(path: &Path) {
    if let Err(error) = remove_if_there(path) {
        log::warn!("cannot remove {}: {error}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replace_creates_and_replaces() {
        let dir = tempfile::tempdir().unwrap();
        replace(dir.path(), "t", "n", b"one").unwrap();
        assert_eq!(fs::read(dir.path().join("n")).unwrap(), b"one");
        fs::write(dir.path().join("t"), b"left by a crash").unwrap();
        replace(dir.path(), "t", "n", b"two").unwrap();
        assert_eq!(fs::read(dir.path().join("n")).unwrap(), b"two");
        assert!(!dir.path().join("t").exists());
    }

    #[test]
    fn write_new_never_overwrites() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        write_new(&path, b"a").unwrap();
        let again = write_new(&path, b"b").unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"a");
    }
}
