//! A file that has no name before it is whole: killed at any moment, its writer leaves nothing behind.
//!
//! `O_TMPFILE`, then a link. A name that exists is replaced in one step, by way of a name that is there for the moment
//! between two system calls; one that a killed writer has left just then is removed by the next writer of the same file.
//! File systems without `O_TMPFILE` get a file under that kind of name from the beginning.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat};
use rustix::io::Errno;
use xxhash_rust::xxh3::xxh3_64;

use super::atomic::{discard, remove_if_there, sync_dir};
use super::lock::{self, LockMode};

use crate::sys::fd;

/// Readable and writable by its owner only, from the beginning.
const MODE: u32 = 0o600;
/// Writers of the same file that may be between the two steps at once.
const NAMES: u32 = 100;

/// A file being written.
#[derive(Debug)]
pub struct NewFile {
    file: File,
    path: PathBuf,
    /// Where the file system cannot do without a name.
    temp: Option<PathBuf>,
}

impl NewFile {
    /// Begins a file that is to be `path`, on the file system of its directory.
    pub fn create(path: &Path) -> io::Result<NewFile> {
        let path = path.to_owned();
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        if let Ok(file) = rustix::fs::open(directory(&path), flags, Mode::from_raw_mode(MODE)) {
            return Ok(NewFile {
                file: file.into(),
                path,
                temp: None,
            });
        }
        // Whatever was wrong: the plain way works too, or says why not.
        for number in 0..NAMES {
            let temp = side_name(&path, number)?;
            remove_dead(&temp)?;
            let made = File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(MODE)
                .open(&temp);
            match made {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
                Ok(file) => {
                    claim(&file);
                    return Ok(NewFile {
                        file,
                        path,
                        temp: Some(temp),
                    });
                }
            }
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }

    /// To write to.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Makes the bytes durable, gives the file its name, in place of a file that had it, and makes that durable too, as far as
    /// the directory lets itself be synced: the file is there then, whole, and that is no failure.
    pub fn persist(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        match self.temp.take() {
            Some(temp) => fs::rename(&temp, &self.path).inspect_err(|_| discard(&temp))?,
            None => self.link()?,
        }
        if let Err(error) = sync_dir(directory(&self.path)) {
            let path = self.path.display();
            log::warn!("{path} is there, but may be gone after a power cut: {error}");
        }
        Ok(())
    }

    fn link(&self) -> io::Result<()> {
        match self.link_to(&self.path) {
            Err(Errno::EXIST) => {}
            done => return Ok(done?),
        }
        // Whoever finds this lock free knows that the writer is dead.
        claim(&self.file);
        for number in 0..NAMES {
            let temp = side_name(&self.path, number)?;
            remove_dead(&temp)?;
            match self.link_to(&temp) {
                Err(Errno::EXIST) => continue,
                Err(errno) => return Err(errno.into()),
                Ok(()) => return fs::rename(&temp, &self.path).inspect_err(|_| discard(&temp)),
            }
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }

    fn link_to(&self, path: &Path) -> rustix::io::Result<()> {
        match linkat(
            CWD,
            fd::path(&self.file),
            CWD,
            path,
            AtFlags::SYMLINK_FOLLOW,
        ) {
            // No /proc: root may do this.
            Err(Errno::NOENT) => linkat(&self.file, "", CWD, path, AtFlags::EMPTY_PATH),
            done => done,
        }
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(temp) = &self.temp {
            discard(temp);
        }
    }
}

/// Whether the file is now ours. A file system without locks says no: nothing is removed there then.
fn claim(file: &File) -> bool {
    lock::try_lock(file, LockMode::Exclusive).unwrap_or(false)
}

/// Removes a name left behind by a writer that was killed before it had used it.
fn remove_dead(temp: &Path) -> io::Result<()> {
    let file = match File::open(temp) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    // Under its lock nobody else removes it, and what the name leads to now was not made since it was opened.
    let dead = claim(&file);
    let own = file.metadata()?;
    let same = |now: fs::Metadata| (now.dev(), now.ino()) == (own.dev(), own.ino());
    if dead && fs::symlink_metadata(temp).is_ok_and(same) {
        remove_if_there(temp)?;
    }
    Ok(())
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// `.mica-save-<hash of the name>` beside the file; `number` tells writers apart.
fn side_name(path: &Path, number: u32) -> io::Result<PathBuf> {
    let name: &OsStr = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let hash = xxh3_64(name.as_bytes());
    Ok(directory(path).join(format!(".mica-save-{hash:016x}-{number}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    fn names(dir: &Path) -> usize {
        fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn it_has_a_name_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        for content in ["one", "two"] {
            let new = NewFile::create(&path).unwrap();
            new.file().write_all(content.as_bytes()).unwrap();
            assert!(names(dir.path()) <= 1);
            new.persist().unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
            assert_eq!(names(dir.path()), 1);
        }
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        drop(NewFile::create(&path).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(names(dir.path()), 1);
    }

    #[test]
    fn what_a_killed_writer_left_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "old").unwrap();
        fs::write(side_name(&path, 0).unwrap(), "left").unwrap();
        let new = NewFile::create(&path).unwrap();
        new.file().write_all(b"new").unwrap();
        new.persist().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(names(dir.path()), 1);
    }

    #[test]
    fn many_writers_of_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::thread::scope(|scope| {
            for number in 0..8 {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..20 {
                        let new = NewFile::create(path).unwrap();
                        new.file().write_all(&[b'0' + number; 100]).unwrap();
                        new.persist().unwrap();
                    }
                });
            }
        });
        let content = fs::read(&path).unwrap();
        assert!(content.len() == 100 && content.iter().all(|byte| *byte == content[0]));
        assert_eq!(names(dir.path()), 1);
    }
}
