//! The log of the snapshots: reading it, writing lines, writing it anew.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use xxhash_rust::xxh3::xxh3_64;

use super::{Change, LOG, Snapshots, directory};
use crate::store::{Store, StoreError, files};
use crate::sys::atomic;
use crate::sys::lock::{self, LockMode};

const LOG_NEW: &str = "log.new";
/// Some hundred thousand snapshots.
const MAX_BYTES: u64 = 1 << 30;
/// A log with this many lines more than it needs is written anew.
pub(super) const SLACK: usize = 1024;
/// Room on the disk that is kept for lines of removals: where it is full, that is how it becomes less so. A thousand of them.
const RESERVE: u64 = 64 << 10;

fn damaged(path: &Path, line: usize) -> StoreError {
    StoreError::MetaDamaged {
        path: path.to_owned(),
        reason: format!("line {line} is not what was written"),
    }
}

/// A log's state, its lines, and the bytes of them that count.
pub(super) fn replay(path: &Path, bytes: &[u8]) -> Result<(Snapshots, usize, usize), StoreError> {
    let mut state = Snapshots::default();
    let (mut lines, mut good) = (0, 0);
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        let Some(changes) = parse(line) else {
            // Cut short, and nothing was written after it.
            let rest = bytes.get(good + line.len()..).unwrap_or_default();
            let mut behind = rest.split_inclusive(|&byte| byte == b'\n');
            match behind.any(|line| parse(line).is_some()) {
                true => return Err(damaged(path, lines + 1)),
                false => break,
            }
        };
        changes.into_iter().for_each(|change| state.apply(change));
        lines += 1;
        good += line.len();
    }
    Ok((state, lines, good))
}

fn parse(line: &[u8]) -> Option<Vec<Change>> {
    let line = line.strip_suffix(b"\n")?;
    let (sum, text) = (line.get(..16)?, line.get(16..)?.strip_prefix(b" ")?);
    let expected = format!("{:016x}", xxh3_64(text));
    match sum == expected.as_bytes() {
        true => serde_json::from_slice(text).ok(),
        false => None,
    }
}

fn line(changes: &[Change]) -> io::Result<Vec<u8>> {
    let text = serde_json::to_vec(changes)?;
    let mut line = format!("{:016x} ", xxh3_64(&text)).into_bytes();
    line.extend(text);
    line.push(b'\n');
    Ok(line)
}

pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(file) = files::open_if_there(path)? else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    // Its length is what is read: a snapshotter may be writing.
    file.take(MAX_BYTES)
        .read_to_end(&mut bytes)
        .map_err(StoreError::io("read", path))?;
    Ok(Some(bytes))
}

/// The snapshots, and the right to change them.
#[derive(Debug)]
pub struct SnapshotLog {
    directory: PathBuf,
    file: File,
    /// Where the next line goes.
    end: u64,
    /// Up to where the file has its room on the disk.
    room: u64,
    lines: usize,
    /// The file has been replaced, and the disk may not know it.
    unsynced: bool,
    snapshots: Snapshots,
}

impl Store {
    /// Opens the log for changes; `None` if somebody else has it open. Removes directories of snapshots that do not exist.
    ///
    /// # Errors
    /// The log is damaged, or the store read-only.
    pub fn snapshot_log(&self) -> Result<Option<SnapshotLog>, StoreError> {
        self.writable()?;
        let directory = directory(self.layout());
        files::make_directory(&directory).map_err(StoreError::io("create", &directory))?;
        let path = directory.join(LOG);
        loop {
            let mut options = File::options();
            options.read(true).write(true).create(true);
            let file = options
                .mode(files::FILE)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&path)
                .map_err(StoreError::io("open", &path))?;
            if !lock::try_lock(&file, LockMode::Exclusive).map_err(StoreError::io("lock", &path))? {
                return Ok(None);
            }
            // Another has replaced it before it was locked.
            if !lock::is_named(&file, &path).map_err(StoreError::io("stat", &path))? {
                continue;
            }
            let bytes = read(&path)?.unwrap_or_default();
            let (snapshots, lines, good) = replay(&path, &bytes)?;
            if good < bytes.len() {
                log::warn!("{}: the last line was cut short", path.display());
            }
            let end = u64::try_from(good).unwrap_or(u64::MAX);
            // Not without need: with it goes the room behind the end.
            let cut = match good < bytes.len() {
                true => file.set_len(end),
                false => Ok(()),
            };
            cut.and_then(|()| file.sync_all())
                .and_then(|()| atomic::sync_dir(&directory))
                .map_err(StoreError::io("write", &path))?;
            let mut log = SnapshotLog {
                directory,
                file,
                end,
                room: end,
                lines,
                unsynced: false,
                snapshots,
            };
            log.sweep()?;
            // Where there is none, nothing can be added.
            let _ = log.make_room(0);
            log.shorten()?;
            return Ok(Some(log));
        }
    }
}

impl SnapshotLog {
    /// The snapshots.
    pub fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }

    /// Where a snapshot keeps what is its own.
    pub fn path(&self, number: u64) -> PathBuf {
        self.directory.join(number.to_string())
    }

    /// Changes the snapshots; on disk when this returns. After an error nothing has changed.
    ///
    /// # Errors
    /// The disk is full, or broken.
    pub fn change(&mut self, changes: Vec<Change>) -> Result<(), StoreError> {
        use std::os::unix::fs::FileExt as _;
        let path = self.directory.join(LOG);
        let line = line(&changes).map_err(StoreError::io("write", &path))?;
        if changes
            .iter()
            .any(|change| matches!(change, Change::Put(_)))
        {
            let room = self.make_room(line.len() as u64);
            room.map_err(StoreError::io("write", &path))?;
        }
        if self.unsynced {
            atomic::sync_dir(&self.directory).map_err(StoreError::io("write", &path))?;
            self.unsynced = false;
        }
        let written = self
            .file
            .write_all_at(&line, self.end)
            .and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // What is there counts as cut short, unless the end of it comes to the disk later.
            if let Err(error) = self.file.set_len(self.end) {
                log::error!("{}: {error}", path.display());
            }
            self.room = self.end;
            return Err(StoreError::io("write", &path)(error));
        }
        self.end += line.len() as u64;
        self.lines += 1;
        changes.into_iter().for_each(|c| self.snapshots.apply(c));
        if let Err(error) = self.shorten() {
            log::warn!("the log of snapshots stays long: {error}");
        }
        Ok(())
    }

    /// Sees to it that a line of that length fits, and removals after it.
    fn make_room(&mut self, line: u64) -> io::Result<()> {
        let needed = self.end.saturating_add(line).saturating_add(RESERVE);
        if needed <= self.room {
            return Ok(());
        }
        // Not for each line.
        for room in [needed.saturating_add(RESERVE / 4), needed] {
            let length = room.saturating_sub(self.end);
            match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.end, length) {
                Ok(()) | Err(Errno::OPNOTSUPP) => {
                    self.room = room;
                    return Ok(());
                }
                Err(Errno::NOSPC | Errno::DQUOT) if room > needed => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Writes the log anew if that makes it much shorter.
    fn shorten(&mut self) -> Result<(), StoreError> {
        if self.lines < 2 * self.snapshots.len() + SLACK {
            return Ok(());
        }
        let temp = self.directory.join(LOG_NEW);
        let failed = || StoreError::io("write", &temp);
        // Of a run that was killed.
        atomic::remove_if_there(&temp).map_err(failed())?;
        let mut options = File::options();
        let mut file = options
            .read(true)
            .write(true)
            .create_new(true)
            .mode(files::FILE)
            .open(&temp)
            .map_err(failed())?;
        let mut write = || -> io::Result<(u64, usize)> {
            let mut bytes = line(&[Change::Next(self.snapshots.next)])?;
            for snapshot in self.snapshots.iter() {
                bytes.extend(line(&[Change::Put(Box::new(snapshot.clone()))])?);
            }
            file.write_all(&bytes)?;
            file.sync_all()?;
            // Nobody else gets it between the rename and our next line.
            if !lock::try_lock(&file, LockMode::Exclusive)? {
                return Err(io::ErrorKind::ResourceBusy.into());
            }
            fs::rename(&temp, self.directory.join(LOG))?;
            Ok((bytes.len() as u64, self.snapshots.len() + 1))
        };
        match write() {
            Ok((end, lines)) => {
                (self.file, self.end, self.lines) = (file, end, lines);
                self.room = end;
                self.unsynced = true;
                atomic::sync_dir(&self.directory).map_err(failed())?;
                self.unsynced = false;
                Ok(())
            }
            Err(error) => {
                atomic::discard(&temp);
                Err(failed()(error))
            }
        }
    }

    /// Makes the directories of a new snapshot: `fs` looks like the root of the tree below it.
    ///
    /// # Errors
    /// The disk is full.
    pub fn make_directories(&self, number: u64) -> Result<PathBuf, StoreError> {
        let path = self.path(number);
        let make = |path: &Path, mode: u32| match fs::DirBuilder::new().mode(mode).create(path) {
            // After a power cut the log may know more than the directory.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        };
        let made = make(&path, files::DIRECTORY)
            .and_then(|()| make(&path.join("fs"), 0o755))
            .and_then(|()| make(&path.join("work"), 0o711));
        made.map_err(StoreError::io("create", &path))?;
        Ok(path)
    }

    /// Removes what belongs to no snapshot: left by a crash, or by a removal that failed.
    ///
    /// # Errors
    /// The directory cannot be read. What cannot be removed is logged.
    pub fn sweep(&self) -> Result<(), StoreError> {
        let known: BTreeSet<u64> = self.snapshots.iter().map(|s| s.number).collect();
        for path in strays(&self.directory, &known)? {
            if let Err(error) = crate::sys::deep::remove(&path) {
                log::warn!("removing {}: {error}", path.display());
            }
        }
        atomic::discard(&self.directory.join(LOG_NEW));
        Ok(())
    }
}

/// Directories of no snapshot.
fn strays(directory: &Path, known: &BTreeSet<u64>) -> Result<Vec<PathBuf>, StoreError> {
    let names = files::file_names(directory)?;
    let stray = |name: String| {
        let number: u64 = name.parse().ok()?;
        (!known.contains(&number)).then(|| directory.join(name))
    };
    Ok(names.into_iter().filter_map(stray).collect())
}
