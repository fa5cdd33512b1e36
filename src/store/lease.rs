//! Leases: who uses the store right now.
//!
//! A lease is a file `leases/<id>.json` held by `flock`; whoever can lock it knows that its holder is dead.
//! Nothing is guessed from process ids or ages. The file is JSON, one value per line: first the
//! [`LeaseRecord`], then one line per blob that the holder needs beyond what the names reach. It only grows.
//! It is written under the shared store lock and read by garbage collection under the exclusive one.
//!
//! A process that forks after taking a lease shares it with its child: take leases after daemonising.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::error::StoreError;
use super::files::{self, file_names, open_if_there, path_text};
use super::ids::{ContainerId, LeaseId, VolumeName};
use super::layout::Layout;
use super::lock::{SharedLock, StoreLock};
use super::partial::{self, Partials};
use crate::oci::Digest;
use crate::sys::atomic;
use crate::sys::lock::{self, LockMode};

/// Why somebody holds a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum LeaseKind {
    /// A mount. Its daemon listens on [`Lease::socket_path`].
    Daemon {
        /// Where, absolute.
        #[serde(with = "path_text")]
        mountpoint: PathBuf,
    },
    /// An import in flight.
    Import,
    /// A check in progress.
    Check,
    /// A container: see [`super::containers`]. Its lease is no file of its own.
    Run {
        /// What it was made from.
        image: crate::oci::ImageId,
        /// Which one.
        container: Option<ContainerId>,
        /// Whether its process lives.
        running: bool,
    },
    /// A container engine that was connected: see [`super::engines`]. Its lease is no file of its own.
    Engine {
        /// Its storage.
        #[serde(with = "path_text")]
        graphroot: PathBuf,
    },
    /// A snapshot of containerd's: see [`super::snapshots`]. Its lease is no file of its own.
    Snapshot {
        /// The layers that it is, or stands on.
        chain: crate::oci::ChainId,
        /// Its name.
        name: String,
    },
    /// The cache of builds: see [`super::builds`]. Its lease is no file.
    Builds,
    /// A program that needs volumes.
    Volume {
        /// Which.
        volumes: Vec<VolumeName>,
    },
}

impl LeaseKind {
    fn word(&self) -> &'static str {
        match self {
            LeaseKind::Daemon { .. } => "daemon",
            LeaseKind::Import => "import",
            LeaseKind::Check => "check",
            LeaseKind::Run { .. } => "run",
            LeaseKind::Engine { .. } => "engine",
            LeaseKind::Snapshot { .. } => "snapshot",
            LeaseKind::Builds => "builds",
            LeaseKind::Volume { .. } => "volume",
        }
    }
}

/// What a lease says of its holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// Why.
    #[serde(flatten)]
    pub kind: LeaseKind,
    /// The holder, for messages only.
    pub pid: u32,
    /// Since when.
    pub since: jiff::Timestamp,
}

/// A lease found alive.
#[derive(Debug, Clone)]
pub struct LiveLease {
    /// Its name.
    pub id: LeaseId,
    /// Who and why.
    pub record: LeaseRecord,
    /// Blobs it holds.
    pub held: BTreeSet<Digest>,
    /// Where a daemon with this lease listens.
    pub socket: PathBuf,
}

impl LiveLease {
    /// Where the mount is, if a daemon has this lease.
    pub fn mountpoint(&self) -> Option<&Path> {
        match &self.record.kind {
            LeaseKind::Daemon { mountpoint } => Some(mountpoint),
            _ => None,
        }
    }

    /// Whether a daemon has it, which listens.
    pub fn is_daemon(&self) -> bool {
        self.mountpoint().is_some()
    }
}

/// A lease of ours; ends when dropped, and when the process dies.
#[derive(Debug)]
pub struct Lease {
    id: LeaseId,
    layout: Layout,
    file: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    file: File,
    blobs: BTreeSet<Digest>,
}

impl Lease {
    /// Takes a lease. Waits for a garbage collection in progress.
    pub(super) fn take(layout: &Layout, kind: LeaseKind) -> Result<Lease, StoreError> {
        Lease::take_locked(layout, kind, &SharedLock::take(layout)?)
    }

    /// The same, unless somebody has the store's lock for longer than `patience`.
    pub(super) fn take_within(
        layout: &Layout,
        kind: LeaseKind,
        patience: Duration,
    ) -> Result<Option<Lease>, StoreError> {
        let shared = SharedLock::take_within(layout, patience)?;
        let lease = shared.map(|shared| Lease::take_locked(layout, kind, &shared));
        lease.transpose()
    }

    fn take_locked(
        layout: &Layout,
        kind: LeaseKind,
        _lock: &SharedLock,
    ) -> Result<Lease, StoreError> {
        let id = LeaseId::new(kind.word());
        let path = record_path(layout, &id);
        let record = LeaseRecord {
            kind,
            pid: std::process::id(),
            since: jiff::Timestamp::now(),
        };
        let mut line = serde_json::to_vec(&record)
            .map_err(io::Error::from)
            .map_err(StoreError::io("write", &path))?;
        line.push(b'\n');

        let file = File::options()
            .append(true)
            .create_new(true)
            .mode(files::FILE)
            .open(&path)
            .map_err(StoreError::io("create", &path))?;
        // From here on the drop of `lease` removes the file.
        let lease = Lease {
            id,
            layout: layout.clone(),
            file: Mutex::new(Held {
                file,
                blobs: BTreeSet::new(),
            }),
        };
        {
            let mut held = lease.file.lock();
            lock::lock(&held.file, LockMode::Exclusive).map_err(StoreError::io("lock", &path))?;
            held.file
                .write_all(&line)
                .map_err(StoreError::io("write", &path))?;
        }
        Ok(lease)
    }

    /// Takes over the lease of this kind whose holder has died, for one who has no room for a file of his own. `None`: there is
    /// none, or somebody has the store's lock for longer than `patience`.
    pub(super) fn take_over(
        layout: &Layout,
        kind: &LeaseKind,
        patience: Duration,
    ) -> Result<Option<Lease>, StoreError> {
        // Nobody removes what dead holders have left meanwhile.
        let Some(_shared) = SharedLock::take_within(layout, patience)? else {
            return Ok(None);
        };
        for id in ids(layout)? {
            let path = record_path(layout, &id);
            let mut file = match File::options().read(true).write(true).open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.map_err(StoreError::io("open", &path))?,
            };
            if !lock::try_lock(&file, LockMode::Exclusive).map_err(StoreError::io("lock", &path))? {
                continue;
            }
            let mut text = String::new();
            let read = file.read_to_string(&mut text);
            read.map_err(StoreError::io("read", &path))?;
            let Ok(left) = parse(id.clone(), &text) else {
                continue;
            };
            if left.record.kind != *kind {
                continue;
            }
            let record = LeaseRecord {
                pid: std::process::id(),
                since: jiff::Timestamp::now(),
                ..left.record
            };
            renew(&file, &record, &text).map_err(StoreError::io("write", &path))?;
            return Ok(Some(Lease {
                id,
                layout: layout.clone(),
                file: Mutex::new(Held {
                    file,
                    blobs: left.held,
                }),
            }));
        }
        Ok(None)
    }

    /// Its name.
    pub fn id(&self) -> &LeaseId {
        &self.id
    }

    /// Where a daemon listens for [`super::Store::notify_mounts`]. Removed with the lease. May be longer than
    /// a socket address allows: bind and connect through a descriptor of the directory.
    pub fn socket_path(&self) -> PathBuf {
        socket_path(&self.layout, &self.id)
    }

    /// Leaves the lease to the program that this process becomes with `exec`, and to its children: it ends with the last of
    /// them. The next change of the store removes its file.
    pub fn keep_over_exec(self) -> io::Result<()> {
        let held = self.file.lock();
        rustix::io::fcntl_setfd(&held.file, rustix::io::FdFlags::empty())?;
        drop(held);
        std::mem::forget(self);
        Ok(())
    }

    /// Keeps blobs from garbage collection, whether they exist yet or not, until the lease ends. After this
    /// returns, a blob that is there stays there. Waits for a garbage collection in progress.
    pub fn hold(&self, blobs: &[Digest]) -> Result<(), StoreError> {
        let mut held = self.file.lock();
        if blobs.iter().all(|blob| held.blobs.contains(blob)) {
            return Ok(());
        }
        let _shared = SharedLock::take(&self.layout)?;
        self.write_held(&mut held, blobs)
    }

    /// As [`Lease::hold`], for a caller that has the lock.
    pub fn hold_locked(&self, blobs: &[Digest], _lock: &StoreLock) -> Result<(), StoreError> {
        self.write_held(&mut self.file.lock(), blobs)
    }

    fn write_held(&self, held: &mut Held, blobs: &[Digest]) -> Result<(), StoreError> {
        let new: Vec<Digest> = blobs
            .iter()
            .filter(|blob| !held.blobs.contains(blob))
            .copied()
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        let path = record_path(&self.layout, &self.id);
        let lines: String = new.iter().map(|blob| format!("\"{blob}\"\n")).collect();
        let before = held
            .file
            .metadata()
            .map_err(StoreError::io("stat", &path))?
            .len();
        if let Err(error) = held.file.write_all(lines.as_bytes()) {
            // Half a line would make the lease unreadable, and with it every garbage collection fail.
            if let Err(error) = held.file.set_len(before) {
                log::warn!("cannot truncate {}: {error}", path.display());
            }
            return Err(StoreError::io("write", &path)(error));
        }
        held.blobs.extend(new);
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        atomic::discard(&self.socket_path());
        atomic::discard(&record_path(&self.layout, &self.id));
    }
}

/// Writes another record over that of a lease file, which is never shorter or half of either for who reads it meanwhile; what is
/// appended comes behind.
fn renew(file: &File, record: &LeaseRecord, text: &str) -> io::Result<()> {
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let line = serde_json::to_string(record)?;
    let all = format!("{line:width$}\n{rest}", width = first.len());
    file.write_all_at(all.as_bytes(), 0)?;
    Ok(rustix::fs::fcntl_setfl(file, rustix::fs::OFlags::APPEND)?)
}

pub(super) fn record_path(layout: &Layout, id: &LeaseId) -> PathBuf {
    layout.leases().join(format!("{}.json", id.as_str()))
}

pub(super) fn socket_path(layout: &Layout, id: &LeaseId) -> PathBuf {
    layout.leases().join(format!("{}.sock", id.as_str()))
}

/// All leases whose holders live. One that is being taken or given back at this moment may be missing, unless
/// the caller holds the store lock.
pub(super) fn live(layout: &Layout) -> Result<Vec<LiveLease>, StoreError> {
    let mut found = Vec::new();
    for id in ids(layout)? {
        let path = record_path(layout, &id);
        let Some(file) = open_if_there(&path)? else {
            continue;
        };
        if lock::is_free(&file, LockMode::Shared).map_err(StoreError::io("lock", &path))? {
            continue;
        }
        let bytes = io::read_to_string(file).map_err(StoreError::io("read", &path))?;
        // Taken this moment: nothing is written, so nothing is held.
        if bytes.is_empty() {
            continue;
        }
        let socket = socket_path(layout, &id);
        let lease = parse(id, &bytes).map_err(|reason| StoreError::MetaDamaged { path, reason })?;
        found.push(LiveLease { socket, ..lease });
    }
    Ok(found)
}

fn parse(id: LeaseId, text: &str) -> Result<LiveLease, String> {
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let record = serde_json::from_str(first).map_err(|error| error.to_string())?;
    let held = lines
        .map(|line| serde_json::from_str::<Digest>(line).map_err(|error| error.to_string()))
        .collect::<Result<_, _>>()?;
    Ok(LiveLease {
        id,
        record,
        held,
        socket: PathBuf::new(),
    })
}

/// The names of all leases, alive or dead, sorted.
fn ids(layout: &Layout) -> Result<Vec<LeaseId>, StoreError> {
    let mut ids = Vec::new();
    for name in file_names(&layout.leases())? {
        if let Some(id) = name.strip_suffix(".json") {
            ids.push(LeaseId::found(id));
        }
    }
    ids.sort();
    Ok(ids)
}

/// What dead holders left: lease files, sockets, private directories, half-written top-level files. To be sure of it, hold the
/// store's lock and probe with an exclusive one; a shared probe is in nobody's way.
pub(super) fn leavings(layout: &Layout, probe: LockMode) -> Result<Leavings, StoreError> {
    let mut leavings = Leavings::default();
    let mut alive = BTreeSet::new();
    let mut names = file_names(&layout.leases())?;
    names.sort();
    for id in names.iter().filter_map(|name| name.strip_suffix(".json")) {
        let id = LeaseId::found(id);
        let path = record_path(layout, &id);
        let Some(file) = open_if_there(&path)? else {
            continue;
        };
        if lock::is_free(&file, probe).map_err(StoreError::io("lock", &path))? {
            leavings.leases.push(path);
        } else {
            alive.insert(id.as_str().to_owned());
        }
    }
    for name in names {
        if let Some(id) = name.strip_suffix(".sock")
            && !alive.contains(id)
        {
            leavings.sockets.push(layout.leases().join(name));
        }
    }
    for name in file_names(&layout.tmp())? {
        if !alive.contains(&name) {
            leavings.tmp.push(layout.tmp().join(name));
        }
    }
    for name in file_names(layout.root())? {
        if matches!(
            name.as_str(),
            files::INDEX_JSON_NEW
                | files::ENGINES_JSON_NEW
                | files::PLUGIN_JSON_NEW
                | files::VOLUMES_JSON_NEW
                | files::SETTINGS_NEW
                | files::NUMBERS_NEW
                | files::BUILDS_JSON_NEW
                | "meta.json.new"
                | "oci-layout.new"
        ) {
            leavings.tmp.push(layout.root().join(name));
        }
    }
    leavings.partials = partial::abandoned(layout, Partials::Expired, probe)?;
    Ok(leavings)
}

/// See [`leavings`].
#[derive(Debug, Default)]
pub(super) struct Leavings {
    pub(super) leases: Vec<PathBuf>,
    pub(super) sockets: Vec<PathBuf>,
    pub(super) tmp: Vec<PathBuf>,
    /// Downloads that broke off and were kept long enough.
    pub(super) partials: Vec<PathBuf>,
}

impl Leavings {
    /// Whether a holder died, as opposed to having ended.
    pub(super) fn is_empty(&self) -> bool {
        let Leavings {
            leases,
            sockets,
            tmp,
            partials,
        } = self;
        [leases, sockets, tmp, partials]
            .iter()
            .all(|paths| paths.is_empty())
    }

    /// Everything, the lease files last: while one is there, a sweep cut short is done again.
    pub(super) fn into_paths(self) -> impl Iterator<Item = PathBuf> {
        let first = self.partials.into_iter().chain(self.tmp);
        first.chain(self.sockets).chain(self.leases)
    }
}

#[cfg(test)]
impl Lease {
    /// What the kernel does when the holder dies.
    pub(super) fn release_lock(&self) {
        rustix::fs::flock(&self.file.lock().file, rustix::fs::FlockOperation::Unlock).unwrap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{OpenMode, Store};

    #[test]
    fn a_lease_that_was_left_is_taken_over_whole() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store"), OpenMode::Create).unwrap();
        let daemon = |point: &str| LeaseKind::Daemon {
            mountpoint: point.into(),
        };
        let left = |point| store.lease_left(&daemon(point), Duration::ZERO).unwrap();
        let before = store.lease(daemon("/m")).unwrap();
        let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
        before.hold(&[one]).unwrap();
        assert!(left("/m").is_none(), "its holder lives");
        before.release_lock();
        let id = before.id().clone();
        std::mem::forget(before);
        assert!(left("/another").is_none());
        let own = left("/m").unwrap();
        assert_eq!(own.id(), &id);
        own.hold(&[two]).unwrap();
        let live = store.live_leases().unwrap();
        let [lease] = live.as_slice() else {
            panic!("{live:?}");
        };
        assert_eq!(lease.record.pid, std::process::id());
        assert_eq!(lease.held, BTreeSet::from([one, two]));
        drop(own);
        assert!(store.live_leases().unwrap().is_empty());
        let files = std::fs::read_dir(store.path().join("leases")).unwrap();
        assert_eq!(files.count(), 0);
    }
}
