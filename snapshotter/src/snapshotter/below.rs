//! What a snapshot stands on, and how that is mounted.

use std::fs;
use std::path::{Path, PathBuf};

use mica::oci::ChainId;
use mica::store::snapshots::{Snapshot, SnapshotKind, SnapshotLog};

use super::shift::Owners;
use super::{Snapshotter, chain_path};
use crate::error::SnapshotError;
use crate::proto::Mount;

/// What options of overlayfs cannot carry in a path, as containerd writes them.
const SEPARATORS: [char; 4] = [',', ':', '\\', '"'];

/// Whether overlayfs can be given a path.
///
/// # Errors
/// It cannot.
pub fn fits(path: &Path) -> anyhow::Result<()> {
    let fits = path.to_str().is_some_and(|text| !text.contains(SEPARATORS));
    anyhow::ensure!(
        fits,
        "{}: containerd cannot be given a path with commas, colons, quotes or backslashes; put the store elsewhere",
        path.display()
    );
    Ok(())
}

/// What others stand on.
#[derive(Debug)]
pub(super) enum Tree {
    /// The store's layers.
    Chain(ChainId),
    /// An upper directory.
    Own(PathBuf),
}

/// What stands below whatever has this parent, top first.
pub(super) fn below(log: &SnapshotLog, parent: Option<&Snapshot>) -> Vec<Tree> {
    let mut trees = Vec::new();
    let Some(parent) = parent else {
        return trees;
    };
    for snapshot in log.snapshots().chain(&parent.name) {
        if let Some(chain) = snapshot.chain {
            trees.push(Tree::Chain(chain));
            break;
        }
        trees.push(Tree::Own(log.path(snapshot.number).join("fs")));
    }
    trees
}

impl Snapshotter {
    /// The lower directories of whatever stands on these, top first. The store's layers are one, the last. With `owners` their
    /// files belong to the ids of the host that theirs are. Without the log's lock: a mount of the store may not answer.
    pub(super) fn lower(
        &self,
        below: Vec<Tree>,
        owners: Option<&Owners>,
    ) -> Result<Vec<PathBuf>, SnapshotError> {
        let mut lower = Vec::new();
        // containerd's own copy with other owners, where it makes one: that is over everything below it.
        let mut is_copied = false;
        for tree in below {
            let (tree, is_own) = match tree {
                Tree::Chain(chain) => (self.mounted(&chain)?, false),
                Tree::Own(path) => (path, true),
            };
            let is_copy = owners.is_some_and(|owners| {
                is_own && fs::metadata(&tree).is_ok_and(|root| owners.has(&root))
            });
            lower.push(match owners {
                Some(owners) if !is_copy => match self.shifts.shifted(&tree, owners) {
                    Err(_) if is_copied => tree,
                    other => other?,
                },
                _ => tree,
            });
            is_copied |= is_copy;
        }
        Ok(lower)
    }

    /// The tree of a chain in a mount of the store.
    fn mounted(&self, chain: &ChainId) -> Result<PathBuf, SnapshotError> {
        let mut missing = false;
        for again in [false, true] {
            if again {
                // A mount may not have seen yet what has just been pulled.
                self.store.notify_mounts();
            }
            for mount in self.store.mount_points()? {
                let chains = mount.join("stores/chains");
                let tree = chain_path(&chains, chain);
                if fits(&tree).is_ok() && chains.is_dir() {
                    missing = true;
                    if tree.is_dir() {
                        return Ok(tree);
                    }
                }
            }
            if !missing {
                break;
            }
        }
        Err(SnapshotError::Unavailable(match missing {
            true => format!("no mount of the store shows the layers {chain}; run `mica check`"),
            false => format!(
                "the store {} is not mounted by root; `mica mount DIRECTORY` it",
                self.store.path().display()
            ),
        }))
    }

    /// The mounts of a snapshot.
    pub(super) fn mounts_on(
        &self,
        log: &SnapshotLog,
        snapshot: &Snapshot,
        lower: &[PathBuf],
    ) -> Vec<Mount> {
        let own = log.path(snapshot.number);
        let upper = own.join("fs");
        let bind = |source: &Path, mode: &str| Mount {
            r#type: "bind".to_owned(),
            source: source.display().to_string(),
            target: String::new(),
            options: vec![mode.to_owned(), "rbind".to_owned()],
        };
        let writable = snapshot.kind == SnapshotKind::Active;
        let mount = match (lower, writable) {
            ([], true) => bind(&upper, "rw"),
            ([], false) => bind(&upper, "ro"),
            ([one], false) => bind(one, "ro"),
            (lower, writable) => {
                let mut options = Vec::new();
                if self.index {
                    options.push("index=off".to_owned());
                }
                if writable {
                    options.push(format!("workdir={}", own.join("work").display()));
                    options.push(format!("upperdir={}", upper.display()));
                }
                let lower = lower.iter().map(|path| path.display().to_string());
                let lower: Vec<String> = lower.collect();
                options.push(format!("lowerdir={}", lower.join(":")));
                Mount {
                    r#type: "overlay".to_owned(),
                    source: "overlay".to_owned(),
                    target: String::new(),
                    options,
                }
            }
        };
        vec![mount]
    }
}
