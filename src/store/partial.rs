//! Downloads that broke off.
//!
//! `partial/<digest>` holds the first bytes of a blob, as they came. Whoever downloads that blob has the file locked
//! (`flock`) and goes on from its end; a second one at the same time downloads for itself. Nothing vouches for the bytes
//! but the digest of the whole blob, once it is there: a file that turns out wrong is thrown away and everything is
//! fetched anew. They are no part of any image, no name reaches them.
//!
//! A file that nobody has locked is kept for [`KEEP`] after it was last written to, or until the next `gc`. All of this is
//! a convenience: what goes wrong here only costs downloading again.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::Duration;

use super::Store;
use super::error::StoreError;
use super::files::file_names;
use super::files::open_if_there;
use super::layout::Layout;
use crate::oci::Digest;
use crate::sys::atomic;
use crate::sys::lock::{self, LockMode};

/// How long a download that broke off is kept.
pub const KEEP: Duration = Duration::from_secs(24 * 3600);
/// Blobs smaller than this are downloaded again in less time than it takes to think about them.
const SMALLEST: u64 = 1 << 20;
/// How often the room on the disk is looked at.
const LOOK: u64 = 4 << 20;
/// The rest of a blob needs room here, and most often three times as much unpacked; where there is less, that comes first.
const ROOM: u64 = 4;

/// Which partial downloads a collection takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partials {
    /// Those that were kept long enough.
    Expired,
    /// All that no pull is at work on.
    All,
}

/// The first bytes of a blob, locked for this process.
#[derive(Debug)]
pub struct Partial {
    file: File,
    path: PathBuf,
    size: u64,
    length: u64,
    /// At which length the room on the disk was looked at.
    looked: Option<u64>,
}

impl Store {
    /// What is there of a blob of `size` bytes, to read and to add to. `None`: it is not worth it, somebody else is
    /// downloading it now, or this store cannot keep it.
    pub fn partial(&self, blob: &Digest, size: u64) -> Option<Partial> {
        if size < SMALLEST || self.read_only().is_some() {
            return None;
        }
        let dir = self.layout().partial();
        let opened = super::files::make_directory(&dir)
            .and_then(|()| open(dir.join(blob.hex()), size))
            .map_err(|error| log::debug!("cannot keep a download in {}: {error}", dir.display()));
        opened.ok().flatten()
    }
}

impl Store {
    /// What is there of a blob that has come another way: nobody needs it any more. `None`: nothing, or somebody is at work
    /// on it.
    pub fn partial_left(&self, blob: &Digest) -> Option<Partial> {
        let path = self.layout().partial().join(blob.hex());
        match path.exists() {
            true => open(path, u64::MAX).ok().flatten(),
            false => None,
        }
    }
}

fn open(path: PathBuf, size: u64) -> io::Result<Option<Partial>> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(super::files::FILE)
        .open(&path)?;
    if !lock::try_lock(&file, LockMode::Exclusive)? {
        return Ok(None);
    }
    let stat = file.metadata()?;
    // A collection took it away between the opening and the locking.
    if stat.nlink() == 0 {
        return Ok(None);
    }
    let mut length = stat.len();
    if length > size {
        file.set_len(0)?;
        length = 0;
    }
    Ok(Some(Partial {
        file,
        path,
        size,
        length,
        looked: None,
    }))
}

impl Partial {
    /// Bytes that are there.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Reads what is there.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    /// Adds what came next. `false`: there is no room for keeping it; throw it away and go on without.
    #[must_use]
    pub fn add(&mut self, bytes: &[u8]) -> bool {
        let fresh = |looked| self.length.saturating_sub(looked) < LOOK;
        if !self.looked.is_some_and(fresh) {
            self.looked = Some(self.length);
            if !self.has_room() {
                return false;
            }
        }
        let offset = self.length;
        self.length += bytes.len() as u64;
        self.file.write_all_at(bytes, offset).is_ok()
    }

    fn has_room(&self) -> bool {
        let rest = self.size.saturating_sub(self.length);
        match rustix::fs::fstatvfs(&self.file) {
            Ok(stat) => stat.f_bavail.saturating_mul(stat.f_frsize) / ROOM >= rest,
            Err(_) => false,
        }
    }

    /// Throws everything away and begins anew.
    pub fn clear(&mut self) -> bool {
        (self.length, self.looked) = (0, None);
        self.file
            .set_len(0)
            .and_then(|()| self.file.flush())
            .is_ok()
    }

    /// Throws it away for good.
    pub fn discard(self) {
        atomic::discard(&self.path);
    }
}

/// The files that nobody is at work on, of these.
pub(super) fn abandoned(
    layout: &Layout,
    which: Partials,
    probe: LockMode,
) -> Result<Vec<PathBuf>, StoreError> {
    let dir = layout.partial();
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for name in file_names(&dir)? {
        let path = dir.join(&name);
        let Some(file) = open_if_there(&path)?.filter(|_| Digest::from_hex(&name).is_ok()) else {
            continue;
        };
        if !lock::is_free(&file, probe).map_err(StoreError::io("lock", &path))? {
            continue;
        }
        let stat = file.metadata().map_err(StoreError::io("stat", &path))?;
        // A time in the future is one of a clock that was wrong.
        let age = stat.modified().ok().and_then(|time| time.elapsed().ok());
        if which == Partials::All || age.is_none_or(|age| age >= KEEP) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
