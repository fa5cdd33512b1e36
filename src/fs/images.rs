//! The tree of images: M itself, and `M/stores` on a connection of its own.
//!
//! [`Superblock`] is what answers. Its methods stand in the files of what they are about: `own_..` of nodes of our own (directories
//! of names, files about images), `tree_..` of directories of images and layers, `leaf_..` of files in them. Where to start reading:
//!
//! | module | what |
//! |---|---|
//! | `dispatch` | each operation, by kind of node |
//! | `inode` | what an inode number says |
//! | `namespace` | the names of the store as directories, aliases, and what differs between two moments; pure |
//! | `places` | what a node or a tree is of |
//! | `nodes`, `names_dir`, `info` | nodes of our own: directories of names, files about images |
//! | `trees`, `open_layers`, `image_dir` | trees of images and layers, and the layers that are open |
//! | `removal`, `renaming`, `pins` | what changes the store |
//! | `last_use` | noticing that an image is used |
//! | `lasting`, `again` | what the next server of the same connection knows of this one, and how it answers |
//! | `stores` | the images as an additional image store of podman and its kin, on a connection of its own |
//! | `refresh` | the way of a change from the store into the kernel's caches |
//!
//! Locks, in order: `changing` (held over a change of the store and the view that follows), `kept`, `view`, then those inside
//! the tables. Requests that only look take `view` and tables, each for a moment; so `catch_up` and a removal
//! waiting for the store lock never stop them. Nothing here waits for the kernel.

mod again;
mod attr;
mod dispatch;
mod image_dir;
mod info;
mod inode;
mod last_use;
mod lasting;
mod names_dir;
mod namespace;
mod nodes;
mod open_layers;
mod orphans;
mod pins;
mod places;
mod probes;
mod refresh;
mod removal;
mod renaming;
mod space;
mod stores;
#[cfg(test)]
mod tests;
mod trees;

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};

use self::again::WaysUp;
use self::info::{Events, Measured, UsersCache};
use self::inode::KEPT;
pub use self::lasting::Lasting;
use self::namespace::View;
use self::nodes::Nodes;
use self::open_layers::OpenLayers;
use self::orphans::Orphans;
use self::probes::Probes;
use self::removal::Stages;
use self::stores::Catalogs;
use self::trees::Trees;
use super::api::{FsError, KernelCache, RmPolicy, Timestamp};
use super::peers::PeerNotifier;
use crate::oci::ImageId;
use crate::store::{LeaseId, Names, Numbers, Store};
use crate::sys::idmap::Shift;
use crate::sys::mountinfo::DeviceId;
use crate::tree::Attributes;

/// Which tree a connection shows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shape {
    /// M: images, layers, facts.
    Images,
    /// `M/stores`: nothing in it can be changed.
    Stores,
}

/// How a mount behaves.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FsOptions {
    /// Which tree.
    pub shape: Shape,
    /// M has a directory for the stores of engines to be mounted on.
    pub stores: bool,
    /// Nothing can be changed through the mount.
    pub read_only: bool,
    /// Who may remove, rename and tag.
    pub rm: RmPolicy,
    /// The user whose mount it is: owner of the directories that are not an image's.
    pub uid: u32,
    /// The user's group.
    pub gid: u32,
    /// Where the tree will be mounted, absolute: the target of `ln -s` may be a path through it.
    pub mount_point: PathBuf,
    /// Everything belongs to root: for who has no other id to show.
    pub squash: bool,
    /// Owners are shown as somebody's user namespace has them, and M itself has the stores for that user's engines.
    pub shift: Option<Shift>,
    /// Files have one link more than in their image: for those who count shared ones by that.
    pub shared_links: bool,
    /// The daemon's own lease: it need not notify itself of what it has done.
    pub lease: Option<LeaseId>,
}

/// The tree of one mount.
pub struct Superblock {
    store: Store,
    options: FsOptions,
    cache: Arc<dyn KernelCache>,
    /// Held while the store is changed and the view after it.
    changing: Mutex<()>,
    /// Repositories that stay though they are empty, by path.
    kept: Mutex<BTreeSet<Box<str>>>,
    view: RwLock<Arc<View>>,
    nodes: Nodes,
    trees: Arc<Trees>,
    slots: OpenLayers,
    numbers: Arc<Numbers>,
    lasting: Option<Arc<Lasting>>,
    ways_up: WaysUp,
    stages: Arc<Stages>,
    events: Events,
    peers: PeerNotifier,
    orphans: Orphans,
    users: UsersCache,
    measured: Measured,
    catalogs: Catalogs,
    probes: Probes,
    /// Attributes of the root directories of images, which `stat` of a tag directory shows.
    roots: Mutex<HashMap<ImageId, Attributes>>,
    device: OnceLock<DeviceId>,
    /// Where the volumes are mounted, if not inside.
    volumes: OnceLock<PathBuf>,
    started: Timestamp,
    clock: std::time::Instant,
}

impl Superblock {
    /// The tree of `store`. Reads the names, opens no image.
    pub fn new(
        store: Store,
        options: FsOptions,
        cache: Arc<dyn KernelCache>,
    ) -> Result<Superblock, FsError> {
        let names = store.names()?;
        Ok(Superblock::with_names(store, names, options, cache))
    }

    /// The tree of `store`, whose memory outlives this process.
    pub fn lasting(
        store: Store,
        options: FsOptions,
        cache: Arc<dyn KernelCache>,
        lasting: Arc<Lasting>,
    ) -> Result<Superblock, FsError> {
        let (names, file) = store.names_and_file()?;
        lasting.names(file);
        Ok(Superblock::made(
            store,
            names,
            options,
            cache,
            Some(lasting),
        ))
    }

    /// The tree as an earlier process showed it, made of that one's memory. `shown` are the names that it has shown and that
    /// the kernel may know things by, oldest first, and at least one. What has changed since then is told to the kernel.
    pub fn inherited(
        store: Store,
        options: FsOptions,
        cache: Arc<dyn KernelCache>,
        lasting: Arc<Lasting>,
        shown: &[File],
    ) -> Result<Superblock, FsError> {
        let mut shown = shown.iter();
        let (names, file) = store.names_and_file()?;
        let first = shown
            .next()
            .map_or(Ok(names), |file| store.names_of(file))?;
        let tree = Superblock::made(store, first, options, cache, Some(lasting));
        {
            let changing = tree.changing();
            for names in shown {
                let names = tree.store.names_of(names)?;
                tree.take_these(&changing, names, &[]);
            }
        }
        // Before anything that has been removed meanwhile is let go of.
        tree.slots.open_referred();
        if let Some(lasting) = &tree.lasting {
            lasting.names(file);
        }
        tree.catch_up()?;
        Ok(tree)
    }

    /// A tree of other names than the store's present ones, which it takes in only when told to.
    pub fn with_names(
        store: Store,
        names: Arc<Names>,
        options: FsOptions,
        cache: Arc<dyn KernelCache>,
    ) -> Superblock {
        Superblock::made(store, names, options, cache, None)
    }

    fn made(
        store: Store,
        names: Arc<Names>,
        options: FsOptions,
        cache: Arc<dyn KernelCache>,
        lasting: Option<Arc<Lasting>>,
    ) -> Superblock {
        let kept = lasting.iter().flat_map(|lasting| lasting.kept()).collect();
        let view = View::new(names, &kept, None);
        let trees = Arc::new(Trees::new(lasting.clone()));
        // What serves a single container neither keeps numbers nor waits for a disk to do so.
        let numbers = Numbers::new(store.clone(), KEPT, options.lease.is_some());
        let numbers = Arc::new(numbers);
        Superblock {
            slots: OpenLayers::new(store.clone(), numbers.clone(), lasting.clone()),
            numbers,
            changing: Mutex::default(),
            kept: Mutex::new(kept),
            view: RwLock::new(Arc::new(view)),
            orphans: Orphans::start(trees.clone(), cache.clone()),
            nodes: Nodes::new(lasting.clone()),
            trees,
            stages: Stages::new(cache.clone(), lasting.clone()),
            lasting,
            ways_up: WaysUp::default(),
            cache,
            events: Events::default(),
            peers: PeerNotifier::start(store.clone(), options.lease.clone()),
            users: UsersCache::default(),
            measured: Measured::default(),
            catalogs: Catalogs::default(),
            probes: Probes::default(),
            roots: Mutex::default(),
            device: OnceLock::new(),
            volumes: OnceLock::new(),
            started: Timestamp::now(),
            clock: std::time::Instant::now(),
            store,
            options,
        }
    }

    /// Tells the device number. Until then nobody is found to be attached.
    fn set_device(&self, device: DeviceId) {
        if self.device.set(device).is_err() {
            log::warn!("a second device number, {device}, for one mount");
        }
    }

    /// Makes `volumes` a symbolic link to where they are mounted. Before the first request.
    pub fn link_volumes(&self, path: PathBuf) {
        if self.volumes.set(path).is_err() {
            log::warn!("a second place for the volumes of one mount");
        }
    }

    fn volumes_link(&self) -> Option<&PathBuf> {
        self.volumes.get()
    }

    /// When this mount began: the time of what never changes in it.
    fn started(&self) -> Timestamp {
        self.started
    }

    /// How long this mount has been there.
    fn age(&self) -> std::time::Duration {
        self.clock.elapsed()
    }

    /// `st_dev` of every file in the tree, when it is mounted.
    fn device(&self) -> Option<DeviceId> {
        self.device.get().copied()
    }
}

impl std::fmt::Debug for Superblock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Superblock")
            .field("store", &self.store)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
