//! Noticing that one of the store's indexes was replaced.
//!
//! The directory is watched, not the file: every change is a rename over it.

use std::ffi::{CStr, OsStr};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fs::inotify;

/// The tags and images, and the volumes.
const INDEXES: &[&CStr] = &[c"index.json", c"volumes.json"];

/// How often a store is looked at that cannot be watched.
const LOOK: Duration = Duration::from_secs(1);

/// A watch on one store.
#[derive(Debug)]
pub(super) enum Watch {
    /// The kernel tells.
    Told(OwnedFd),
    /// It cannot: a user has only so many watches. The indexes are looked at now and then.
    Looked {
        store: PathBuf,
        last: Mutex<Vec<Stamp>>,
    },
}

/// What changes with a file, if it is there.
type Stamp = Option<(u64, u64, i64, i64)>;

impl Watch {
    pub(super) fn new(store: &Path) -> Watch {
        match Watch::told(store) {
            Ok(watch) => watch,
            Err(error) => {
                let store = store.to_owned();
                log::warn!("cannot watch {}: {error}: looking", store.display());
                Watch::looked(store)
            }
        }
    }

    fn told(store: &Path) -> std::io::Result<Self> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let events = inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::CLOSE_WRITE
            | inotify::WatchFlags::ONLYDIR;
        inotify::add_watch(&fd, store, events)?;
        Ok(Watch::Told(fd))
    }

    fn looked(store: PathBuf) -> Watch {
        let last = Mutex::new(stamps(&store));
        Watch::Looked { store, last }
    }

    /// Takes all events that have come; true if an index is among them.
    pub(super) fn index_changed(&self) -> bool {
        let fd = match self {
            Watch::Told(fd) => fd,
            Watch::Looked { store, last } => {
                let now = stamps(store);
                return std::mem::replace(&mut *last.lock(), now.clone()) != now;
            }
        };
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(fd, &mut buffer);
        let mut changed = false;
        // The only error to come is the one that says that no event waits.
        while let Ok(event) = reader.next() {
            changed |= event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW)
                || event
                    .file_name()
                    .is_some_and(|name| INDEXES.contains(&name));
        }
        changed
    }

    /// What becomes readable with a change.
    pub(super) fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Watch::Told(fd) => Some(fd.as_fd()),
            Watch::Looked { .. } => None,
        }
    }

    /// After what time to ask although nothing has become readable.
    pub(super) fn look_after(&self) -> Option<Duration> {
        match self {
            Watch::Told(_) => None,
            Watch::Looked { .. } => Some(LOOK),
        }
    }
}

fn stamps(store: &Path) -> Vec<Stamp> {
    let stamp = |name: &&CStr| {
        let stat = std::fs::metadata(store.join(OsStr::from_bytes(name.to_bytes()))).ok()?;
        Some((stat.ino(), stat.len(), stat.mtime(), stat.mtime_nsec()))
    };
    INDEXES.iter().map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn replacing_the_index_is_seen_and_nothing_else() {
        for told in [true, false] {
            replaced(told);
        }
    }

    fn replaced(told: bool) {
        let dir = tempfile::tempdir().unwrap();
        let watch = match told {
            true => Watch::told(dir.path()).unwrap(),
            false => Watch::looked(dir.path().to_owned()),
        };
        assert_eq!(watch.event_fd().is_some(), watch.look_after().is_none());
        assert!(!watch.index_changed());
        fs::write(dir.path().join("other"), "x").unwrap();
        assert!(!watch.index_changed());
        fs::rename(dir.path().join("other"), dir.path().join("index.json")).unwrap();
        assert!(watch.index_changed());
        assert!(!watch.index_changed());
        fs::write(dir.path().join("volumes.json"), "x").unwrap();
        assert!(watch.index_changed());
    }
}
