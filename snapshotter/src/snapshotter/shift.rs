//! Owners of other ids: for a container in a user namespace the trees below its snapshot are mounted once more, with their ids
//! mapped, and overlayfs is given these. Nothing is copied.
//!
//! `<socket>.ids/<store>/<ids>/<directory>`, each by a name made of it, is such a mount, of all that lies in the directory: of the chains in a mount
//! of the store, or of `snapshots`. It is there while a snapshot with these ids is, and is made again where it is not what it was
//! made of: a mount of the store that has been replaced. Other programs than ours see it, as they have to: containerd.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once, Weak};
use std::thread;
use std::time::Duration;

use mica::oci::Digest;
use mica::store::snapshots::{SnapshotKind, Snapshots};
use mica::sys::idmap::{IdMap, IdRange, to_inside, to_outside};
use mica::sys::idmapped;
use mica::sys::mountinfo::Watch;
use parking_lot::Mutex;

use crate::error::SnapshotError;

/// The ids of a user namespace, `inside:outside:count` between commas (containerd, `core/snapshots/snapshotter.go`).
const UIDS: &str = "containerd.io/snapshot/uidmapping";
const GIDS: &str = "containerd.io/snapshot/gidmapping";

/// Whose files a snapshot's are to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owners(IdMap);

impl Owners {
    /// What the labels say.
    pub(super) fn of(labels: &BTreeMap<String, String>) -> Result<Option<Owners>, SnapshotError> {
        let (uids, gids) = match (labels.get(UIDS), labels.get(GIDS)) {
            (None, None) => return Ok(None),
            (uids, gids) => (ranges(UIDS, uids)?, ranges(GIDS, gids)?),
        };
        Ok(Some(Owners(IdMap { uids, gids })))
    }

    /// Who root is.
    pub(super) fn root(&self) -> Option<(u32, u32)> {
        Some((to_outside(&self.0.uids, 0)?, to_outside(&self.0.gids, 0)?))
    }

    /// Whether a file is one of theirs already.
    pub(super) fn has(&self, file: &Metadata) -> bool {
        to_inside(&self.0.uids, file.uid()).is_some()
            && to_inside(&self.0.gids, file.gid()).is_some()
    }

    /// Whether a snapshot that can be mounted has them.
    pub(super) fn are_wanted(&self, snapshots: &Snapshots) -> bool {
        let has = |labels| matches!(Owners::of(labels), Ok(Some(other)) if other == *self);
        let is_mounted = |kind| kind != SnapshotKind::Committed;
        let mut all = snapshots.iter();
        all.any(|s| is_mounted(s.kind) && has(&s.labels))
    }

    fn name(&self) -> String {
        let digest = Digest::of(format!("{:?}", self.0).as_bytes());
        digest.short()
    }
}

fn ranges(label: &str, text: Option<&String>) -> Result<Vec<IdRange>, SnapshotError> {
    let range = |part: &str| {
        let mut fields = part.split(':').map(str::parse);
        match (fields.next(), fields.next(), fields.next(), fields.next()) {
            (Some(Ok(inside)), Some(Ok(outside)), Some(Ok(count)), None) => {
                let range = IdRange {
                    inside,
                    outside,
                    count,
                };
                let ends = |first: u32| first.checked_add(count).is_some();
                (count > 0 && ends(inside) && ends(outside)).then_some(range)
            }
            _ => None,
        }
    };
    let parts = text.into_iter().flat_map(|text| text.split(','));
    let ranges: Option<Vec<IdRange>> = parts.map(range).collect();
    let ranges = ranges.filter(|ranges| !ranges.is_empty());
    ranges.ok_or_else(|| {
        SnapshotError::Invalid(format!(
            "label {label:?} is no list of inside:outside:count: {:?}",
            text.map_or("", String::as_str)
        ))
    })
}

/// What is mounted where: the directory that it was made of, and which of several there one after the other.
type Made = Mutex<BTreeMap<PathBuf, (PathBuf, u64)>>;

/// The mounts with other owners. They end with the snapshotter, and with the mount of the store that they show: whoever runs goes
/// on, and what is asked for later is mounted again.
#[derive(Debug)]
pub(super) struct Shifts {
    directory: PathBuf,
    made: Arc<Made>,
    watched: Once,
}

impl Drop for Shifts {
    fn drop(&mut self) {
        self.drop_all();
    }
}

impl Shifts {
    /// Takes away what another run has left.
    pub(super) fn new(directory: &Path, store: &Path) -> Shifts {
        let shifts = Shifts {
            directory: directory.join(named(store)),
            made: Arc::default(),
            watched: Once::new(),
        };
        shifts.drop_all();
        shifts
    }

    /// Where a tree is mounted with these owners.
    pub(super) fn shifted(&self, tree: &Path, owners: &Owners) -> Result<PathBuf, SnapshotError> {
        // Those of a store lie beside each other: one mount for all of them.
        let (all, below) = match split(tree) {
            Some(both) => both,
            None => return Err(SnapshotError::Unavailable(tree.display().to_string())),
        };
        let place = self.directory.join(owners.name()).join(named(all));
        self.watched.call_once(|| watch(Arc::downgrade(&self.made)));
        let mut made = self.made.lock();
        if !made.contains_key(&place) || !is_of(&place, all) {
            mount(all, &place, owners).map_err(|error| {
                let text = format!(
                    "{} cannot be shown with other owners ({error}); without the label {UIDS:?}, or without the capability \"remap-ids\" in its configuration, containerd copies the layers",
                    all.display()
                );
                SnapshotError::Precondition(text)
            })?;
            static NEXT: AtomicU64 = AtomicU64::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            made.insert(place.clone(), (all.to_owned(), number));
        }
        Ok(place.join(below))
    }

    /// Takes the mounts with these owners away unless they are wanted, which is asked when nobody else can make or drop any.
    pub(super) fn drop_unless(&self, owners: &Owners, are_wanted: impl FnOnce() -> bool) {
        let own = self.directory.join(owners.name());
        let mut made = self.made.lock();
        if are_wanted() {
            return;
        }
        made.retain(|place, _| !place.starts_with(&own));
        drop_all(&own);
    }

    fn drop_all(&self) {
        let mut made = self.made.lock();
        made.clear();
        if let Ok(each) = fs::read_dir(&self.directory) {
            each.flatten().for_each(|entry| drop_all(&entry.path()));
        }
    }
}

/// Whether a place shows that directory, as it is mounted now.
fn is_of(place: &Path, all: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).map(|stat| (stat.dev(), stat.ino()));
    matches!((identity(place), identity(all)), (Ok(there), Ok(wanted)) if there == wanted)
}

fn mount(all: &Path, place: &Path, owners: &Owners) -> std::io::Result<()> {
    let users = idmapped::namespace(&owners.0)?;
    let mount = idmapped::shifted(all, users.as_fd())?;
    // Of a mount of the store that has been replaced.
    idmapped::detach(place)?;
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(place)?;
    idmapped::attach(mount, place)
}

/// Takes them away when the mount of the store goes that they show: they would keep its daemon.
fn watch(made: Weak<Made>) {
    let watching = move || -> std::io::Result<()> {
        let mounts = Watch::new()?;
        loop {
            mounts.wait()?;
            // A container makes some dozens of mounts.
            thread::sleep(Duration::from_millis(50));
            let Some(made) = made.upgrade() else {
                return Ok(());
            };
            // Without the lock: a mount may not answer.
            let all = made.lock().clone();
            for (place, made_of) in all.iter().filter(|(place, of)| !is_of(place, &of.0)) {
                let mut made = made.lock();
                if made.get(place) == Some(made_of) {
                    idmapped::detach(place)?;
                    made.remove(place);
                }
            }
        }
    };
    let report = move || {
        if let Err(error) = watching() {
            log::warn!("watching mounts: {error}");
        }
    };
    let started = thread::Builder::new()
        .name("mica-mounts".to_owned())
        .spawn(report);
    if let Err(error) = started {
        log::warn!("watching mounts: {error}");
    }
}

/// Unmounts what is in a directory of mounts.
fn drop_all(own: &Path) {
    let Ok(places) = fs::read_dir(own) else {
        return;
    };
    for place in places.flatten().map(|entry| entry.path()) {
        let gone = idmapped::detach(&place).and_then(|()| fs::remove_dir(&place));
        if let Err(error) = gone {
            log::warn!("unmounting {}: {error}", place.display());
        }
    }
    if let Err(error) = fs::remove_dir(own) {
        log::warn!("removing {}: {error}", own.display());
    }
}

fn named(path: &Path) -> String {
    let digest = Digest::of(path.as_os_str().as_encoded_bytes());
    digest.short()
}

/// A directory that has all of the store's trees of that kind, and the tree below it.
fn split(tree: &Path) -> Option<(&Path, &Path)> {
    let up = match tree.file_name()? == "fs" {
        true => tree.parent()?.parent()?,
        false => tree.parent()?,
    };
    Some((up, tree.strip_prefix(up).ok()?))
}
