//! `snapshots/`: the snapshots that containerd has of this store, kept by `mica-snapshotter`.
//!
//! | path | content |
//! |---|---|
//! | `snapshots/log` | what has happened to them, a line each; locked by the snapshotter while it runs |
//! | `snapshots/<number>/fs`, `work` | an upper directory of overlayfs: what was written into a snapshot that is no image's |
//!
//! A line is 16 hex digits of XXH3 over the rest, a blank, and a JSON list of [`Change`]s that happen together. It is on disk
//! before containerd hears of it. The last line may have been cut short by a crash: it counts as not written. A damaged line with
//! others behind it is damage. Now and then the log is replaced by one that says the same in fewer lines.
//!
//! A snapshot with a [`Snapshot::chain`] has no directory: its content is the store's own, `M/stores/chains/<chain>`. It keeps
//! the image that has these layers from being removed, whether a snapshotter runs or not.

mod log;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::log::SnapshotLog;
use self::log::{read, replay};
use super::ids::LeaseId;
use super::layout::Layout;
use super::lease::{LeaseKind, LeaseRecord, LiveLease};
use super::{Store, StoreError, files};
use crate::oci::ChainId;

const DIRECTORY: &str = "snapshots";
const LOG: &str = "log";

/// What a snapshot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotKind {
    /// Read-only, for looking at its parent.
    View,
    /// Can be written.
    Active,
    /// Can be a parent.
    Committed,
}

/// Disk space of a snapshot, without its parents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotUsage {
    /// Bytes.
    pub size: u64,
    /// Files and directories.
    pub inodes: u64,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its name; no other has it.
    pub name: String,
    /// The name of the committed snapshot that it stands on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// What it is.
    pub kind: SnapshotKind,
    /// The number of its directory; never given twice.
    pub number: u64,
    /// The layers of the store that it and its parents are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<ChainId>,
    /// Since when.
    pub created: Timestamp,
    /// When its labels changed last.
    pub updated: Timestamp,
    /// containerd's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Of one that does not change any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<SnapshotUsage>,
}

/// What happens to the snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// There is one, or it is another than before.
    Put(Box<Snapshot>),
    /// It is gone.
    Remove(String),
    /// Numbers below this one have been given.
    Next(u64),
}

/// All snapshots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshots {
    by_name: BTreeMap<String, Snapshot>,
    children: BTreeMap<String, BTreeSet<String>>,
    next: u64,
}

impl Snapshots {
    /// The snapshot of that name.
    pub fn get(&self, name: &str) -> Option<&Snapshot> {
        self.by_name.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Snapshot> {
        self.by_name.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Those that stand on it.
    pub fn children(&self, name: &str) -> impl Iterator<Item = &Snapshot> {
        let names = self.children.get(name).into_iter().flatten();
        names.filter_map(|name| self.get(name))
    }

    /// The snapshot and those it stands on, nearest first. Ends where the log is wrong.
    pub fn chain<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Snapshot> {
        let parent = |snapshot: &&'a Snapshot| self.get(snapshot.parent.as_deref()?);
        // A circle would have more.
        std::iter::successors(self.get(name), parent).take(self.len())
    }

    /// The number of the next directory.
    pub fn next(&self) -> u64 {
        self.next
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Put(snapshot) => {
                self.remove(&snapshot.name);
                self.next = self.next.max(snapshot.number.saturating_add(1));
                if let Some(parent) = &snapshot.parent {
                    let children = self.children.entry(parent.clone()).or_default();
                    children.insert(snapshot.name.clone());
                }
                self.by_name.insert(snapshot.name.clone(), *snapshot);
            }
            Change::Remove(name) => self.remove(&name),
            Change::Next(next) => self.next = self.next.max(next),
        }
    }

    fn remove(&mut self, name: &str) {
        let Some(parent) = self.by_name.remove(name).and_then(|gone| gone.parent) else {
            return;
        };
        if let Some(children) = self.children.get_mut(&parent) {
            children.remove(name);
            if children.is_empty() {
                self.children.remove(&parent);
            }
        }
    }

    /// Who keeps which layers of the store: one entry per snapshot that is the end of what it has of them.
    fn users(&self) -> Vec<(ChainId, String)> {
        let mut users = Vec::new();
        for snapshot in self.iter() {
            let Some(chain) = snapshot.chain else {
                continue;
            };
            let mut over = self.children(&snapshot.name).peekable();
            if over.peek().is_none() {
                users.push((chain, snapshot.name.clone()));
            }
            for child in over.filter(|child| child.chain.is_none()) {
                users.push((chain, child.name.clone()));
            }
        }
        users
    }
}

fn directory(layout: &Layout) -> PathBuf {
    layout.root().join(DIRECTORY)
}

/// What containerd's snapshots keep.
pub(super) fn as_leases(layout: &Layout) -> Result<Vec<LiveLease>, StoreError> {
    let path = directory(layout).join(LOG);
    let Some(bytes) = read(&path)? else {
        return Ok(Vec::new());
    };
    let (snapshots, ..) = replay(&path, &bytes)?;
    let users = snapshots.users().into_iter().enumerate();
    let lease = |(n, (chain, name))| LiveLease {
        id: LeaseId::of_snapshot(n),
        record: LeaseRecord {
            kind: LeaseKind::Snapshot { chain, name },
            pid: 0,
            since: Timestamp::now(),
        },
        held: BTreeSet::new(),
        socket: PathBuf::new(),
    };
    Ok(users.map(lease).collect())
}

impl Store {
    /// The snapshots as they are now.
    ///
    /// # Errors
    /// The log is damaged.
    pub fn snapshots(&self) -> Result<Snapshots, StoreError> {
        let path = directory(self.layout()).join(LOG);
        let bytes = read(&path)?.unwrap_or_default();
        Ok(replay(&path, &bytes)?.0)
    }
}

/// What is wrong with the snapshots, for a check: each a sentence.
pub(super) fn faults(
    layout: &Layout,
    has: impl Fn(&ChainId) -> bool,
) -> Result<Vec<String>, StoreError> {
    let directory = directory(layout);
    let path = directory.join(LOG);
    let Some(bytes) = read(&path)? else {
        return Ok(Vec::new());
    };
    let (snapshots, ..) = match replay(&path, &bytes) {
        Ok(state) => state,
        Err(error @ StoreError::MetaDamaged { .. }) => return Ok(vec![error.to_string()]),
        Err(error) => return Err(error),
    };
    let mut faults = Vec::new();
    for snapshot in snapshots.iter() {
        let name = snapshot.name.escape_debug();
        if let Some(parent) = &snapshot.parent
            && !snapshots
                .get(parent)
                .is_some_and(|parent| parent.kind == SnapshotKind::Committed)
        {
            faults.push(format!(
                "snapshot {name}: its parent {} is not there",
                parent.escape_debug()
            ));
        }
        match &snapshot.chain {
            Some(chain) if !has(chain) => {
                faults.push(format!("snapshot {name}: no image has the layers {chain}"));
            }
            Some(_) => {}
            None if snapshot.kind == SnapshotKind::View => {}
            None => {
                let upper = directory.join(snapshot.number.to_string()).join("fs");
                if !files::is_there(&upper)? {
                    faults.push(format!("snapshot {name}: {} is missing", upper.display()));
                }
            }
        }
    }
    Ok(faults)
}

#[cfg(test)]
mod tests;
