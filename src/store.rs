//! The store: images on disk, their names, and who uses them.
//!
//! `doc/STORE.md` is the format. What this module promises:
//! - **Visible means complete.** `index.json` names an image only after every byte of it is durable; names
//!   change by one atomic replacement of that file.
//! - **Nothing reachable is deleted.** Garbage collection marks from the names and the live leases, under the
//!   exclusive lock.
//! - **Nothing a dead process left survives the next change**: taking the lock sweeps it.
//! - **A failed change changes nothing visible.**
//!
//! Reading needs no lock. A reader may see its snapshot overtaken by a removal: [`Store::read`] tries again.
//! Changing needs a [`StoreLock`]; the bytes of an image come in through an [`Import`].

pub mod builds;
mod change;
pub mod check;
pub mod containers;
mod contents;
mod difference;
pub mod engines;
pub mod error;
pub mod events;
mod files;
pub mod freeing;
pub mod gc;
pub mod ids;
mod image_record;
pub mod import;
mod index_json;
pub mod layout;
pub mod lease;
mod lock;
pub mod names;
pub mod notify;
pub mod numbers;
pub mod partial;
pub mod plugin;
mod privacy;
mod reindex;
mod reserve;
mod settings;
mod setup;
pub mod snapshots;
mod sum;
mod table;
pub mod trash;
mod usage;
pub mod used;
pub mod volumes;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;

pub use builds::{BuildEntry, Builds, CacheMount};
pub use difference::differences;
pub use error::StoreError;
pub use events::{Cause, Event, EventReader};
pub use gc::GcPlan;
pub use ids::{LeaseId, VolumeId, VolumeName, VolumeNameError};
pub use image_record::{ImageRecord, Origin};
pub use import::{Committed, CommittedImage, Import, LayerSink, NewImage, NewOrigin};
pub use layout::{Layout, OpenMode, default_path};
pub use lease::{Lease, LeaseKind, LeaseRecord, LiveLease};
pub use lock::StoreLock;
pub use names::{Names, TagRecord, Untagged};
pub use numbers::{NumberLimits, Numbered, Numbers};
pub use partial::{Partial, Partials};
pub use table::{Set, Table};
pub use trash::{Trash, Trashed};
pub use usage::DiskUsage;
pub use volumes::{DataHold, NewVolume, Ownership, Volume, VolumeHold, VolumeKind, Volumes};

use crate::layer::LayerFile;
use crate::oci::{DiffId, ImageConfig, ImageId};

/// The largest `index.json` that is read: 1 GiB is a million tags.
const MAX_INDEX_BYTES: u64 = 1 << 30;
/// The largest blob that is read whole: configs and manifests are at most 16 MiB by `oci`'s limits.
const MAX_DOCUMENT_BYTES: u64 = 64 << 20;

/// An open store. Cheap to clone.
#[derive(Clone)]
pub struct Store(Arc<Inner>, Cause);

struct Inner {
    layout: Layout,
    /// Why this store must not be changed, if so.
    read_only: Option<String>,
    names: Arc<Mutex<Option<Snapshot>>>,
    volumes: Mutex<Option<volumes::VolumesSnapshot>>,
    layers: Mutex<HashMap<DiffId, OpenLayer>>,
    configs: Mutex<HashMap<ImageId, Weak<ImageConfig>>>,
    /// How long removals through this handle can be undone, if it was told.
    trash: Mutex<Option<Duration>>,
    /// Held while an index is made anew: one at a time.
    reindexing: Mutex<()>,
    /// In a daemon.
    freeing: OnceLock<Arc<freeing::Freeing>>,
    /// Files that were removed and are not let go of yet.
    held: Mutex<Vec<freeing::Holder>>,
    /// Mounts show it differently now, and have not been told.
    untold: AtomicBool,
}

impl Inner {
    fn new(layout: Layout, read_only: Option<String>) -> Inner {
        Inner {
            layout,
            read_only,
            names: Arc::default(),
            volumes: Mutex::default(),
            layers: Mutex::default(),
            configs: Mutex::default(),
            trash: Mutex::default(),
            reindexing: Mutex::default(),
            freeing: OnceLock::new(),
            held: Mutex::default(),
            untold: AtomicBool::default(),
        }
    }
}

/// The last `index.json` read. The file stays open, so that its inode number cannot come back as another
/// file's; the stamp also tells writing in place, which mica never does.
struct Snapshot {
    file: Arc<File>,
    stamp: Stamp,
    names: Arc<Names>,
}

type Stamp = (u64, u64, u64, i64, i64, i64, i64);

fn stamp(stat: &fs::Metadata) -> Stamp {
    (
        stat.dev(),
        stat.ino(),
        stat.size(),
        stat.mtime(),
        stat.mtime_nsec(),
        stat.ctime(),
        stat.ctime_nsec(),
    )
}

/// A layer that somebody may have open, with the device and inode of its blob: one that was written anew is
/// another.
type OpenLayer = (Weak<LayerFile>, (u64, u64));

impl Store {
    /// Opens the store at `path`, see [`OpenMode`].
    pub fn open(path: &Path, mode: OpenMode) -> Result<Store, StoreError> {
        let absolute = std::path::absolute(path).map_err(StoreError::io("resolve", path))?;
        let layout = Layout::new(absolute);
        privacy::admit(&layout, mode)?;
        if mode == OpenMode::Create && !files::is_there(&layout.meta_json())? {
            let empty = index_json::write(&Names::default())
                .map_err(|reason| damaged_names(&layout, reason))?;
            setup::create(&layout, &empty)?;
        }
        let mut read_only = setup::admit(&layout)?;
        if mode == OpenMode::ReadOnly {
            read_only.get_or_insert_with(|| "it was opened for reading".to_owned());
        }
        let inner = Arc::new(Inner::new(layout, read_only));
        Ok(Store(inner, Cause::default()))
    }

    /// The same store, only to be read, with layers of its own: each handle closes what it has opened. Names that one of both has
    /// read are known to the other.
    pub fn for_reading(&self) -> Store {
        let inner = Inner {
            names: Arc::clone(&self.0.names),
            ..Inner::new(
                self.layout().clone(),
                Some("it was opened for reading".to_owned()),
            )
        };
        Store(Arc::new(inner), Cause::default())
    }

    /// The same store for changes that somebody else asked for: their events say who.
    pub fn on_behalf_of(&self, cause: Cause) -> Store {
        Store(Arc::clone(&self.0), cause)
    }

    /// The store that is meant when none is named.
    pub fn default_path() -> PathBuf {
        default_path()
    }

    /// Where it is, absolute.
    pub fn path(&self) -> &Path {
        self.layout().root()
    }

    /// Where everything in it is.
    pub fn layout(&self) -> &Layout {
        &self.0.layout
    }

    /// Why this store cannot be changed, if so.
    pub fn read_only(&self) -> Option<&str> {
        self.0.read_only.as_deref()
    }

    fn writable(&self) -> Result<(), StoreError> {
        match &self.0.read_only {
            None => Ok(()),
            Some(reason) => Err(StoreError::ReadOnly {
                path: self.path().to_owned(),
                reason: reason.clone(),
            }),
        }
    }

    /// The names as of now. Costs one `stat` while they do not change.
    pub fn names(&self) -> Result<Arc<Names>, StoreError> {
        Ok(self.names_and_file()?.0)
    }

    /// The names in a file that [`Store::names_and_file`] gave, in whatever process.
    pub fn names_of(&self, file: &File) -> Result<Arc<Names>, StoreError> {
        let path = self.layout().index_json();
        let stat = file.metadata().map_err(StoreError::io("stat", &path))?;
        let length = usize::try_from(stat.len().min(MAX_INDEX_BYTES)).unwrap_or(0);
        let mut bytes = vec![0; length];
        // Not from where somebody else has stopped to read.
        file.read_exact_at(&mut bytes, 0)
            .map_err(StoreError::io("read", &path))?;
        let names =
            index_json::parse(&bytes).map_err(|reason| damaged_names(self.layout(), reason))?;
        Ok(Arc::new(names))
    }

    /// The names as of now, and the file that says so: it stays what it is when there are others.
    pub fn names_and_file(&self) -> Result<(Arc<Names>, Arc<File>), StoreError> {
        let path = self.layout().index_json();
        let mut cached = self.0.names.lock();
        if let Some(snapshot) = &*cached {
            let stat = fs::metadata(&path).map_err(StoreError::io("stat", &path))?;
            if stamp(&stat) == snapshot.stamp {
                return Ok((snapshot.names.clone(), snapshot.file.clone()));
            }
        }
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(damaged_names(self.layout(), "it is missing".to_owned()));
            }
            Err(error) => return Err(StoreError::io("open", &path)(error)),
        };
        let stat = file.metadata().map_err(StoreError::io("stat", &path))?;
        let bytes = read_limited(&file, &stat, MAX_INDEX_BYTES, &path)?;
        let names =
            index_json::parse(&bytes).map_err(|reason| damaged_names(self.layout(), reason))?;
        let (names, file) = (Arc::new(names), Arc::new(file));
        *cached = Some(Snapshot {
            file: file.clone(),
            stamp: stamp(&stat),
            names: names.clone(),
        });
        Ok((names, file))
    }

    /// Runs a reading `work` on a snapshot of the names. If it misses something and the names have changed
    /// meanwhile, runs it again on the new ones: a removal overtook it, nothing is damaged.
    pub fn read<T, E>(&self, mut work: impl FnMut(&Arc<Names>) -> Result<T, E>) -> Result<T, E>
    where
        E: From<StoreError> + MaybeMissing,
    {
        let mut names = self.names()?;
        loop {
            match work(&names) {
                Err(error) if error.is_missing() => {
                    let now = self.names()?;
                    if Arc::ptr_eq(&now, &names) {
                        return Err(error);
                    }
                    names = now;
                }
                done => return done,
            }
        }
    }

    /// Begins to bring images in. Must not be called with a [`StoreLock`] held: it waits for the lock.
    pub fn begin_import(&self) -> Result<Import, StoreError> {
        self.writable()?;
        match Import::begin(self) {
            Err(StoreError::Io { source, .. }) if self.is_room_by_now(&source) => {
                Import::begin(self)
            }
            begun => begun,
        }
    }

    /// Takes a lease that ends with the value. Must not be called with a [`StoreLock`] held.
    pub fn lease(&self, kind: LeaseKind) -> Result<Lease, StoreError> {
        self.writable()?;
        Lease::take(self.layout(), kind)
    }

    /// The same, unless somebody has the store's lock for longer than `patience`.
    pub fn lease_within(
        &self,
        kind: LeaseKind,
        patience: Duration,
    ) -> Result<Option<Lease>, StoreError> {
        self.writable()?;
        Lease::take_within(self.layout(), kind, patience)
    }

    /// The lease of this kind that a holder who has died has left: it takes no room. `None`: there is none, or somebody has the
    /// store's lock for longer than `patience`.
    pub fn lease_left(
        &self,
        kind: &LeaseKind,
        patience: Duration,
    ) -> Result<Option<Lease>, StoreError> {
        self.writable()?;
        Lease::take_over(self.layout(), kind, patience)
    }

    /// Who uses the store now; containers that do not run are users too, and so are engines that are connected.
    pub fn live_leases(&self) -> Result<Vec<LiveLease>, StoreError> {
        let mut leases = lease::live(self.layout())?;
        leases.extend(containers::as_leases(self.layout())?);
        leases.extend(engines::as_leases(self.layout())?);
        leases.extend(self.plugin_lease()?);
        leases.extend(builds::as_lease(self.layout())?);
        leases.extend(snapshots::as_leases(self.layout())?);
        Ok(leases)
    }

    /// Tells the mounts what was changed through this handle and its clones since they were told last, if anything was. Every verb
    /// ends with it; in between only who has to know that they show it. Call it without holding the lock.
    pub fn publish(&self) {
        if self.0.untold.swap(false, Ordering::Relaxed) {
            self.notify_mounts();
        }
    }

    /// Where it is mounted: the daemons that live.
    pub fn mount_points(&self) -> Result<Vec<PathBuf>, StoreError> {
        let leases = lease::live(self.layout())?;
        let points = leases.iter().filter_map(LiveLease::mountpoint);
        Ok(points.map(Path::to_owned).collect())
    }

    /// Makes every live mount show the names as they are now; waits at most 5 s for all together. The answer
    /// is the mounts that did not. What has been changed has been: neither they nor a failing look for them is a failure. Call
    /// it without holding the lock.
    pub fn notify_mounts(&self) -> Vec<LiveLease> {
        self.notify_all_but(None)
    }

    fn notify_all_but(&self, own: Option<&LeaseId>) -> Vec<LiveLease> {
        let leases = self.live_leases();
        let silent = match leases {
            Ok(leases) => notify::notify(&leases, own),
            Err(error) => {
                // They watch the store, too.
                log::warn!("the mounts of the store were not told: {error}");
                Vec::new()
            }
        };
        // They have closed what was removed: whoever holds it now is the last.
        self.let_go();
        silent
    }

    /// As [`Store::notify_mounts`], for a daemon that made the change itself and cannot wait for itself.
    pub fn notify_other_mounts(&self, own: &LeaseId) -> Vec<LiveLease> {
        self.notify_all_but(Some(own))
    }
}

/// Errors that can mean "it was removed meanwhile", see [`Store::read`].
pub trait MaybeMissing {
    /// Whether this one does.
    fn is_missing(&self) -> bool;
}

impl MaybeMissing for StoreError {
    fn is_missing(&self) -> bool {
        StoreError::is_missing(self)
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Store").field(&self.path()).finish()
    }
}

fn damaged_names(layout: &Layout, reason: String) -> StoreError {
    StoreError::NamesDamaged {
        path: layout.index_json(),
        reason,
    }
}

fn read_limited(
    file: &File,
    stat: &fs::Metadata,
    limit: u64,
    path: &Path,
) -> Result<Vec<u8>, StoreError> {
    let too_big = || StoreError::io("read", path)(io::ErrorKind::FileTooLarge.into());
    if stat.size() > limit {
        return Err(too_big());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(stat.size()).map_err(|_| too_big())?);
    let got = file
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(StoreError::io("read", path))?;
    debug_assert_eq!(got, bytes.len());
    Ok(bytes)
}

#[cfg(test)]
mod tests;
