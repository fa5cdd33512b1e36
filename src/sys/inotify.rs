//! Watching one name in a directory for being replaced.

use std::ffi::OsString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::inotify;

/// Reports when a name of a directory was created, renamed onto, exchanged or removed.
///
/// The descriptor can be polled; [`NameWatch::changed`] never blocks.
#[derive(Debug)]
pub struct NameWatch {
    fd: OwnedFd,
    name: OsString,
}

impl NameWatch {
    /// Starts watching `name` in `dir`.
    pub fn new(dir: &Path, name: &str) -> io::Result<NameWatch> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let events = inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::MOVED_FROM
            | inotify::WatchFlags::DELETE
            | inotify::WatchFlags::CLOSE_WRITE
            | inotify::WatchFlags::ONLYDIR;
        inotify::add_watch(&fd, dir, events)?;
        Ok(NameWatch {
            fd,
            name: name.into(),
        })
    }

    /// Drains the queue; whether any event was about the name (or events were lost).
    pub fn changed(&self) -> io::Result<bool> {
        let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.fd, &mut buffer);
        let mut changed = false;
        loop {
            match reader.next() {
                Ok(event) => {
                    let ours = event
                        .file_name()
                        .is_some_and(|name| name.to_bytes() == self.name.as_bytes());
                    changed |= ours || event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW);
                }
                Err(rustix::io::Errno::AGAIN) => return Ok(changed),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl AsFd for NameWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_an_atomic_replacement_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        crate::sys::atomic::replace(dir.path(), "t", "index.json", b"1").unwrap();
        let watch = NameWatch::new(dir.path(), "index.json").unwrap();
        assert!(!watch.changed().unwrap());
        std::fs::write(dir.path().join("other"), b"x").unwrap();
        assert!(!watch.changed().unwrap());
        crate::sys::atomic::replace(dir.path(), "t", "index.json", b"2").unwrap();
        assert!(watch.changed().unwrap());
        assert!(!watch.changed().unwrap());
    }
}
