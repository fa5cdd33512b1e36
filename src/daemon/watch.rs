//! Noticing that one of the store's indexes was replaced.
//!
//! The directory is watched, not the file: every change is a rename over it.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::inotify;

/// The tags and images, and the volumes.
const INDEXES: &[&[u8]] = &[b"index.json", b"volumes.json"];

/// A watch on one store.
#[derive(Debug)]
pub(super) struct Watch(OwnedFd);

impl Watch {
    pub(super) fn new(store: &Path) -> std::io::Result<Self> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let events = inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::CLOSE_WRITE
            | inotify::WatchFlags::ONLYDIR;
        inotify::add_watch(&fd, store, events)?;
        Ok(Watch(fd))
    }

    /// Takes all events that have come; true if an index is among them.
    pub(super) fn index_changed(&self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        let mut changed = false;
        // The only error to come is the one that says that no event waits.
        while let Ok(event) = reader.next() {
            changed |= event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW)
                || event
                    .file_name()
                    .is_some_and(|name| INDEXES.contains(&name.to_bytes()));
        }
        changed
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn replacing_the_index_is_seen_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let watch = Watch::new(dir.path()).unwrap();
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
