//! The snapshots: what containerd asks for, done.
//!
//! A snapshot is one of two kinds. The layers of an image that the store has are the store's: such a snapshot is a line in the
//! log, and is mounted from `M/stores/chains`. Anything else has an upper directory in the store, as containerd's own overlayfs
//! snapshotter has. A private one may stand on the store's, never the other way round: the name of a chain says what all of it
//! is, so a snapshot of the store has all its layers from there.
//!
//! Lock order: the store's lock or that of the mounts with other owners, then the log.

mod below;
mod provide;
mod shift;
mod usage;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use mica::oci::ChainId;
use mica::registry;
use mica::store::Store;
use mica::store::snapshots::{
    Change, Snapshot, SnapshotKind, SnapshotLog, SnapshotUsage, Snapshots,
};
use mica::sys::deep;
use parking_lot::Mutex;

use crate::error::{SnapshotError, shown};
use crate::filter::Filters;
use crate::proto::{Info, Kind, Mount, Timestamp};

/// containerd's own limit on a label, name and value together.
const MAX_LABEL: usize = 4096;
/// Longer names than containerd or anybody makes.
const MAX_NAME: usize = 4096;
/// Labels of one snapshot, together.
const MAX_LABELS: usize = 256 << 10;

/// What a request creates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// `Prepare`
    Active,
    /// `View`
    View,
}

/// See the module.
#[derive(Debug)]
pub struct Snapshotter {
    store: Store,
    log: Mutex<SnapshotLog>,
    known: Mutex<Option<provide::Known>>,
    pulls: Mutex<HashMap<String, Arc<Mutex<Option<Instant>>>>>,
    registry: registry::Options,
    shifts: shift::Shifts,
    /// Whether overlayfs knows `index`, which must be off where upper directories are used again.
    index: bool,
}

impl Snapshotter {
    /// The snapshots of a store; nobody else may have them. In `ids` trees are mounted with other owners.
    ///
    /// # Errors
    /// The log is damaged, or another snapshotter runs.
    pub fn open(
        store: Store,
        registry: registry::Options,
        ids: PathBuf,
    ) -> anyhow::Result<Snapshotter> {
        below::fits(store.path())?;
        below::fits(&ids)?;
        let log = store.snapshot_log()?;
        let log = log.ok_or_else(|| anyhow::anyhow!("a snapshotter of this store runs already"))?;
        Ok(Snapshotter {
            // After the log: nobody else's.
            shifts: shift::Shifts::new(&ids, store.path()),
            store,
            log: Mutex::new(log),
            known: Mutex::default(),
            pulls: Mutex::default(),
            registry,
            index: Path::new("/sys/module/overlay/parameters/index").exists(),
        })
    }

    /// `Prepare` and `View`. What is answered can be mounted.
    ///
    /// # Errors
    /// There is a snapshot of that name; or, [`SnapshotError::Exists`] too, the snapshot that was to be made of it (label
    /// `containerd.io/snapshot.ref`) is there, and the client has nothing to unpack.
    pub fn create(
        &self,
        what: Created,
        key: &str,
        parent: &str,
        labels: BTreeMap<String, String>,
    ) -> Result<Vec<Mount>, SnapshotError> {
        check_name(key)?;
        check_labels(&labels)?;
        let owners = shift::Owners::of(&labels)?;
        if self.log.lock().snapshots().get(key).is_some() {
            return Err(SnapshotError::exists(key));
        }
        if what == Created::Active
            && let Some(target) = provide::target(&labels)
            && self.provide(&target, parent, &labels)?
        {
            return Err(SnapshotError::exists(&target.to_string()));
        }
        let (below, before) = {
            let log = self.log.lock();
            let parent = committed(log.snapshots(), parent)?;
            (
                below::below(&log, parent),
                parent.map(|parent| parent.number),
            )
        };
        let lower = self.lower(below, owners.as_ref())?;
        let look = lower.first().map(fs::metadata).transpose();
        let root = look.map_err(SnapshotError::io("what it stands on"))?;
        let mut log = self.log.lock();
        if log.snapshots().get(key).is_some() {
            return Err(SnapshotError::exists(key));
        }
        let over = committed(log.snapshots(), parent)?;
        if over.map(|parent| parent.number) != before {
            let text = "the parent was replaced while something was made on it";
            return Err(SnapshotError::Precondition(text.to_owned()));
        }
        let now = jiff::Timestamp::now();
        let number = log.snapshots().next();
        let snapshot = Snapshot {
            name: key.to_owned(),
            parent: over.map(|parent| parent.name.clone()),
            kind: match what {
                Created::Active => SnapshotKind::Active,
                Created::View => SnapshotKind::View,
            },
            number,
            chain: None,
            created: now,
            updated: now,
            labels,
            usage: None,
        };
        let mounts = self.mounts_on(&log, &snapshot, &lower);
        // A look at something has nothing of its own; a look at nothing is one at an empty directory.
        let made = match &root {
            Some(_) if what == Created::View => Ok(()),
            root => make(&log, number, root.as_ref(), owners.as_ref()),
        };
        let done = made.and_then(|()| Ok(log.change(vec![Change::Put(Box::new(snapshot))])?));
        if done.is_err() {
            discard(&log.path(number));
        }
        done?;
        if owners.is_some() {
            let parent = committed(log.snapshots(), parent)?;
            let below = below::below(&log, parent);
            drop(log);
            // They may have been taken away while nobody knew of this one.
            self.lower(below, owners.as_ref())?;
        }
        Ok(mounts)
    }

    /// `Mounts`
    ///
    /// # Errors
    /// It is not there, or committed.
    pub fn mounts(&self, key: &str) -> Result<Vec<Mount>, SnapshotError> {
        let (snapshot, below) = {
            let log = self.log.lock();
            let snapshot = found(log.snapshots(), key)?;
            if snapshot.kind == SnapshotKind::Committed {
                return Err(SnapshotError::Precondition(format!(
                    "snapshot {} is committed; only an active one or a view can be mounted",
                    shown(key)
                )));
            }
            let parent = snapshot.parent.as_deref().unwrap_or_default();
            let parent = committed(log.snapshots(), parent)?;
            (snapshot.clone(), below::below(&log, parent))
        };
        let owners = shift::Owners::of(&snapshot.labels)?;
        let lower = self.lower(below, owners.as_ref())?;
        Ok(self.mounts_on(&self.log.lock(), &snapshot, &lower))
    }

    /// `Commit`: the active snapshot `key` becomes the committed one `name`.
    ///
    /// # Errors
    /// `name` is there already, or `key` is not an active snapshot.
    pub fn commit(
        &self,
        name: &str,
        key: &str,
        labels: BTreeMap<String, String>,
    ) -> Result<(), SnapshotError> {
        check_name(name)?;
        check_labels(&labels)?;
        let (before, path) = {
            let log = self.log.lock();
            let active = active(log.snapshots(), name, key)?;
            (active.clone(), log.path(active.number))
        };
        // What has just been unpacked may be what the store has: then nobody needs it twice.
        let target = provide::target(&before.labels).or_else(|| provide::target_of_key(key));
        if let Some(target) = target
            && self.replace(&before, name, &target, &labels)?
        {
            return Ok(());
        }
        // Without the lock: both may take long.
        let usage = usage::of(&path.join("fs"))?;
        sync(&path)?;
        let mut log = self.log.lock();
        if *active(log.snapshots(), name, key)? != before {
            let changed = format!(
                "snapshot {} was changed while it was being committed",
                shown(key)
            );
            return Err(SnapshotError::Precondition(changed));
        }
        let now = jiff::Timestamp::now();
        let after = Snapshot {
            name: name.to_owned(),
            kind: SnapshotKind::Committed,
            created: now,
            updated: now,
            labels,
            usage: Some(usage),
            ..before
        };
        let both = vec![Change::Remove(key.to_owned()), Change::Put(Box::new(after))];
        Ok(log.change(both)?)
    }

    /// `Remove`
    ///
    /// # Errors
    /// It is not there, or others stand on it.
    pub fn remove(&self, key: &str) -> Result<(), SnapshotError> {
        let (path, unused) = {
            let mut log = self.log.lock();
            let snapshot = found(log.snapshots(), key)?;
            if let Some(child) = log.snapshots().children(key).next() {
                return Err(SnapshotError::Precondition(format!(
                    "cannot remove snapshot {}: {} stands on it",
                    shown(key),
                    shown(&child.name)
                )));
            }
            let path = snapshot.chain.is_none().then(|| log.path(snapshot.number));
            let owners = shift::Owners::of(&snapshot.labels).ok().flatten();
            log.change(vec![Change::Remove(key.to_owned())])?;
            let unused = owners.filter(|owners| !owners.are_wanted(log.snapshots()));
            (path, unused)
        };
        if let Some(owners) = unused {
            let are_wanted = || owners.are_wanted(self.log.lock().snapshots());
            self.shifts.drop_unless(&owners, are_wanted);
        }
        path.as_deref().into_iter().for_each(discard);
        Ok(())
    }

    /// `Stat`
    ///
    /// # Errors
    /// It is not there.
    pub fn stat(&self, key: &str) -> Result<Info, SnapshotError> {
        Ok(info(found(self.log.lock().snapshots(), key)?))
    }

    /// `Update`: nothing but labels can be changed. Without `fields` all of them are replaced.
    ///
    /// # Errors
    /// It is not there, or another field is meant.
    pub fn update(&self, new: Info, fields: &[String]) -> Result<Info, SnapshotError> {
        check_labels(&new.labels)?;
        let mut log = self.log.lock();
        let mut snapshot = found(log.snapshots(), &new.name)?.clone();
        // However often they are named.
        if fields.is_empty() || fields.iter().any(|field| field == "labels") {
            snapshot.labels = new.labels.clone();
        }
        for field in fields {
            match (field.as_str(), field.strip_prefix("labels.")) {
                ("labels", _) => {}
                (_, Some(label)) => match new.labels.get(label) {
                    Some(value) if !value.is_empty() => {
                        snapshot.labels.insert(label.to_owned(), value.clone());
                    }
                    _ => drop(snapshot.labels.remove(label)),
                },
                (field, None) => {
                    return Err(SnapshotError::Invalid(format!(
                        "cannot update {} of snapshot {}, only its labels",
                        shown(field),
                        shown(&new.name)
                    )));
                }
            }
        }
        check_labels(&snapshot.labels)?;
        snapshot.updated = jiff::Timestamp::now();
        let answer = info(&snapshot);
        log.change(vec![Change::Put(Box::new(snapshot))])?;
        Ok(answer)
    }

    /// `List`
    ///
    /// # Errors
    /// A filter is none.
    pub fn list(&self, filters: &[String]) -> Result<Vec<Info>, SnapshotError> {
        let filters = Filters::parse(filters)?;
        let log = self.log.lock();
        let all = log.snapshots().iter();
        Ok(all.filter(|s| filters.admits(s)).map(info).collect())
    }

    /// `Usage`: of what is the snapshot's own.
    ///
    /// # Errors
    /// It is not there.
    pub fn usage(&self, key: &str) -> Result<SnapshotUsage, SnapshotError> {
        let (known, upper) = {
            let log = self.log.lock();
            let snapshot = found(log.snapshots(), key)?;
            (snapshot.usage, log.path(snapshot.number).join("fs"))
        };
        match known {
            Some(usage) => Ok(usage),
            None => usage::of(&upper),
        }
    }

    /// `Cleanup`: takes away what removals that failed have left.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn cleanup(&self) -> Result<(), SnapshotError> {
        Ok(self.log.lock().sweep()?)
    }
}

fn found<'a>(snapshots: &'a Snapshots, name: &str) -> Result<&'a Snapshot, SnapshotError> {
    let found = snapshots.get(name);
    found.ok_or_else(|| SnapshotError::not_found(name))
}

/// A parent, by its name, which may be empty.
fn committed<'a>(
    snapshots: &'a Snapshots,
    name: &str,
) -> Result<Option<&'a Snapshot>, SnapshotError> {
    if name.is_empty() {
        return Ok(None);
    }
    let parent = found(snapshots, name)?;
    if parent.kind != SnapshotKind::Committed {
        let text = format!("parent {} is not a committed snapshot", shown(name));
        return Err(SnapshotError::Invalid(text));
    }
    Ok(Some(parent))
}

/// What is to be committed as `name`.
fn active<'a>(
    snapshots: &'a Snapshots,
    name: &str,
    key: &str,
) -> Result<&'a Snapshot, SnapshotError> {
    if snapshots.get(name).is_some() {
        return Err(SnapshotError::exists(name));
    }
    let active = found(snapshots, key)?;
    if active.kind != SnapshotKind::Active {
        let text = format!("snapshot {} is not active", shown(key));
        return Err(SnapshotError::Precondition(text));
    }
    Ok(active)
}

fn check_name(name: &str) -> Result<(), SnapshotError> {
    match name.len() {
        0 => Err(SnapshotError::Invalid("a snapshot needs a name".to_owned())),
        1..=MAX_NAME => Ok(()),
        long => Err(SnapshotError::Invalid(format!(
            "the name of a snapshot has {long} bytes; {MAX_NAME} are allowed"
        ))),
    }
}

fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), SnapshotError> {
    let size = |(name, value): (&String, &String)| name.len() + value.len();
    if let Some((name, _)) = labels.iter().find(|label| size(*label) > MAX_LABEL) {
        let start: String = name.chars().take(40).collect();
        return Err(SnapshotError::Invalid(format!(
            "label {start:?} and its value have more than {MAX_LABEL} bytes"
        )));
    }
    if labels.iter().map(size).sum::<usize>() > MAX_LABELS {
        let text = format!("labels have more than {MAX_LABELS} bytes together");
        return Err(SnapshotError::Invalid(text));
    }
    Ok(())
}

/// Makes the directories of a snapshot. Its root has owner and mode of the one below, as it will be seen in its place.
fn make(
    log: &SnapshotLog,
    number: u64,
    lower: Option<&fs::Metadata>,
    owners: Option<&shift::Owners>,
) -> Result<(), SnapshotError> {
    let upper = log.make_directories(number)?.join("fs");
    let (uid, gid, mode) = match (lower, owners.and_then(shift::Owners::root)) {
        (Some(root), _) => (root.uid(), root.gid(), root.mode()),
        (None, Some((uid, gid))) => (uid, gid, 0o755),
        (None, None) => return Ok(()),
    };
    let alike = || {
        std::os::unix::fs::chown(&upper, Some(uid), Some(gid))?;
        fs::set_permissions(&upper, fs::Permissions::from_mode(mode & 0o7777))
    };
    alike().map_err(SnapshotError::io(format!("{}", upper.display())))
}

/// What is left of it goes with the next clean-up.
fn discard(path: &Path) {
    if fs::symlink_metadata(path).is_ok()
        && let Err(error) = deep::remove(path)
    {
        log::warn!("removing {}: {error}", path.display());
    }
}

/// What is committed is what the name says, also after a power cut.
fn sync(path: &Path) -> Result<(), SnapshotError> {
    let done = fs::File::open(path).and_then(|dir| Ok(rustix::fs::syncfs(dir)?));
    done.map_err(SnapshotError::io(format!("{}", path.display())))
}

fn info(snapshot: &Snapshot) -> Info {
    let kind = match snapshot.kind {
        SnapshotKind::View => Kind::View,
        SnapshotKind::Active => Kind::Active,
        SnapshotKind::Committed => Kind::Committed,
    };
    let time = |time: jiff::Timestamp| Timestamp {
        seconds: time.as_second(),
        nanos: time.subsec_nanosecond(),
    };
    Info {
        name: snapshot.name.clone(),
        parent: snapshot.parent.clone().unwrap_or_default(),
        kind: kind.into(),
        created_at: Some(time(snapshot.created)),
        updated_at: Some(time(snapshot.updated)),
        labels: snapshot.labels.clone(),
    }
}

/// Where the store's layers are mounted.
fn chain_path(chains: &Path, chain: &ChainId) -> PathBuf {
    chains.join(chain.hex())
}
