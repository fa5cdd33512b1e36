//! A new volume gets what the image has at its place, as docker does it.
//!
//! Others may have the volume mounted and change it meanwhile, with whatever ends they like, and this is root. So both sides
//! are descriptors: a name is one component of a directory that is open, no symbolic link is followed, and owner, mode,
//! attributes and times are set on what was made, not on what has its name by now. Nothing outside the volume can be changed
//! by any race, nothing outside the image's own file system be read.
//!
//! Starts of containers with the same volume come one after the other: the look whether it is empty and the copy are one step.

mod node;

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fmt::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{Mode, OFlags, Stat, fstat, openat};
use rustix::io::Errno;

use self::node::{Linked, attributes};
use crate::sys::beneath::{self, Host};
use crate::sys::deep;
use crate::sys::lock::{LockMode, lock};
use crate::sys::pause::pause;

/// How much is copied at most.
#[derive(Clone, Copy, Debug)]
struct Limits {
    entries: u64,
    /// Of content; holes are none.
    bytes: u64,
    depth: usize,
}

const LIMITS: Limits = Limits {
    // More than any image has, and a minute's work.
    entries: 4 << 20,
    // As much as one layer can hold.
    bytes: 64 << 30,
    // Each level takes two descriptors, of 1,024 that a process has as a rule.
    depth: 256,
};

/// So much is moved at once.
const PIECE: usize = 256 << 10;

/// Why a volume was not filled.
#[derive(Debug, thiserror::Error)]
pub(super) enum CopyError {
    #[error("{path}: {source}")]
    Entry { path: String, source: Errno },
    #[error("{0}: it was changed by somebody else meanwhile; try again")]
    Changed(String),
    #[error("more than {0} files and directories; mount it with :nocopy, and copy what is needed")]
    Entries(u64),
    #[error("more than {0} bytes; mount it with :nocopy, and copy what is needed")]
    Bytes(u64),
    #[error(
        "directories in directories, over {0} deep; mount it with :nocopy, and copy what is needed"
    )]
    Depth(usize),
}

/// Copies the directory `image`, with its own attributes, to the directory `volume`, if that is empty.
pub(super) fn fill(image: &OwnedFd, volume: &OwnedFd, single_id: bool) -> Result<(), CopyError> {
    let at = |errno| error(".", errno);
    // Containers see the volume's root, and could hold a lock on it for ever.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let beside = openat(volume, c"..", flags, Mode::empty()).map_err(at)?;
    let beside = std::fs::File::from(beside);
    lock(&beside, LockMode::Exclusive)
        .map_err(|error| at(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
    fill_within(image, volume, single_id, LIMITS)
}

fn fill_within(
    image: &OwnedFd,
    volume: &OwnedFd,
    single_id: bool,
    limits: Limits,
) -> Result<(), CopyError> {
    let at = |errno| error(".", errno);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let from = openat(image, c".", flags, Mode::empty()).map_err(at)?;
    let to = openat(volume, c".", flags, Mode::empty()).map_err(at)?;
    if !names(&to).map_err(at)?.is_empty() {
        return Ok(());
    }
    pause("copy-up");
    let mut copy = Copy {
        host: Host::new().map_err(at)?,
        root: &to,
        single_id,
        limits,
        entries: 0,
        bytes: 0,
        path: Vec::new(),
        links: HashMap::new(),
        buffer: vec![0; PIECE],
        top: Vec::new(),
    };
    let done = copy.tree(&from, &to);
    if done.is_err() {
        // A part of it would be taken for the whole the next time.
        for name in &copy.top {
            if let Err(error) = deep::remove_at(&to, name) {
                log::warn!(
                    "taking back what was copied: {}: {error}",
                    name.to_string_lossy()
                );
            }
        }
    }
    done
}

fn error(path: &str, source: Errno) -> CopyError {
    CopyError::Entry {
        path: path.to_owned(),
        source,
    }
}

/// What a directory has in it.
fn names(directory: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let mut found = Vec::new();
    beneath::list(directory.as_fd(), 0, &mut |entry| {
        if entry.name != c"." && entry.name != c".." {
            found.push(entry.name.to_owned());
        }
        true
    })?;
    Ok(found)
}

struct Copy<'v> {
    host: Host,
    root: &'v OwnedFd,
    single_id: bool,
    limits: Limits,
    entries: u64,
    bytes: u64,
    /// The names that lead to what is in hand.
    path: Vec<CString>,
    /// By device and inode of the image.
    links: HashMap<(u64, u64), Linked>,
    buffer: Vec<u8>,
    /// What was made in the volume's root.
    top: Vec<CString>,
}

/// A directory of which something is still to be copied.
struct Level {
    from: OwnedFd,
    to: OwnedFd,
    stat: Stat,
    left: Vec<CString>,
}

impl Copy<'_> {
    fn shown(&self, name: Option<&CStr>) -> String {
        let mut text = String::new();
        for part in self.path.iter().map(CString::as_c_str).chain(name) {
            // Writing to a string does not fail.
            let _ = write!(text, "/{}", part.to_string_lossy().escape_debug());
        }
        text
    }

    fn at<'a>(&'a self, name: Option<&'a CStr>) -> impl Fn(Errno) -> CopyError + 'a {
        move |errno| error(&self.shown(name), errno)
    }

    fn tree(&mut self, from: &OwnedFd, to: &OwnedFd) -> Result<(), CopyError> {
        let again = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 3);
        let at = |errno| error(".", errno);
        let top = Level {
            stat: fstat(from).map_err(at)?,
            left: names(from).map_err(at)?,
            from: again(from).map_err(at)?,
            to: again(to).map_err(at)?,
        };
        let mut levels = vec![top];
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.left.pop() else {
                attributes(
                    &level.from,
                    &level.to,
                    &level.stat,
                    self.single_id,
                    &mut self.buffer,
                )
                .map_err(self.at(None))?;
                levels.pop();
                self.path.pop();
                continue;
            };
            self.entries = self.entries.saturating_add(1);
            if self.entries > self.limits.entries {
                return Err(CopyError::Entries(self.limits.entries));
            }
            if let Some(below) = self.one(&level.from, &level.to, &name)? {
                if levels.len() >= self.limits.depth {
                    return Err(CopyError::Depth(self.limits.depth));
                }
                levels.push(below);
                self.path.push(name);
            }
        }
        Ok(())
    }

    /// Copies what has that name; of a directory only itself.
    fn one(
        &mut self,
        from: &OwnedFd,
        to: &OwnedFd,
        name: &CStr,
    ) -> Result<Option<Level>, CopyError> {
        let made = self.make(from, to, name);
        match made {
            Ok(made) => Ok(made),
            // Another process was faster, and the file is its.
            Err(Errno::EXIST) => Ok(None),
            Err(Errno::DQUOT | Errno::FBIG | Errno::NOSPC) if self.bytes > self.limits.bytes => {
                Err(CopyError::Bytes(self.limits.bytes))
            }
            Err(Errno::STALE | Errno::LOOP | Errno::NOTDIR | Errno::NOENT) => {
                Err(CopyError::Changed(self.shown(Some(name))))
            }
            Err(errno) => Err(self.at(Some(name))(errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn open(path: &std::path::Path) -> OwnedFd {
        fs::create_dir_all(path).unwrap();
        fs::File::open(path).unwrap().into()
    }

    /// What is too much ends the copy, and the volume is as empty as it was; holes are not counted.
    #[test]
    fn a_copy_ends_at_its_limits_and_takes_itself_back() {
        let dir = tempfile::tempdir().unwrap();
        let (image, volume) = (dir.path().join("image"), dir.path().join("volume"));
        let (from, to) = (open(&image), open(&volume));
        for name in ["one", "two", "three"] {
            fs::write(image.join(name), vec![7; 100_000]).unwrap();
        }
        let sparse = fs::File::create(image.join("sparse")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        fs::create_dir_all(image.join("a/b/c")).unwrap();
        let enough = Limits {
            entries: 7,
            bytes: 300_000,
            depth: 4,
        };
        let filled = |limits| {
            let done = fill_within(&from, &to, true, limits);
            (done, fs::read_dir(&volume).unwrap().count())
        };
        for (limits, want) in [
            (
                Limits {
                    bytes: 299_999,
                    ..enough
                },
                "more than 299999 bytes;",
            ),
            (
                Limits {
                    entries: 6,
                    ..enough
                },
                "more than 6 files",
            ),
            (Limits { depth: 3, ..enough }, "over 3 deep"),
        ] {
            let (done, left) = filled(limits);
            let text = done.unwrap_err().to_string();
            assert!(text.contains(want), "{text}");
            assert_eq!(left, 0, "{want}");
        }
        let (done, made) = filled(enough);
        done.unwrap();
        assert_eq!(made, 5);
    }
}
