//! The whole of one mount: its view of the names, its tables of nodes, and how a change of the store becomes one of the view.
//!
//! Locks, in order: `changing` (held over a change of the store and the view that follows), `kept`, `view`, then those inside
//! the tables. Requests that only look take `view` and tables, each for a moment; so `catch_up` and a removal
//! waiting for the store lock never stop them. Nothing here waits for the kernel.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, MutexGuard, RwLock};

use super::again::WaysUp;
use super::info::{Events, Measured, UsersCache};
use super::inode::KEPT;
use super::lasting::Lasting;
use super::namespace::{Change, View, changes};
use super::nodes::{Nodes, Place};
use super::open_layers::OpenLayers;
use super::orphans::Orphans;
use super::probes::Probes;
use super::removal::Stages;
use super::stores::Catalogs;
use super::trees::{Subject, Tree, Trees};
use crate::fs::api::{Caller, FsError, InodeNo, KernelCache, RmPolicy, Timestamp};
use crate::fs::peers::PeerNotifier;
use crate::oci::{DiffId, Digest, ImageId};
use crate::store::{LeaseId, Names, Numbered, Numbers, Store};
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
    /// His group.
    pub gid: u32,
    /// Where the tree will be mounted, absolute: the target of `ln -s` may be a path through it.
    pub mount_point: PathBuf,
    /// Everything belongs to root: for who has no other id to show.
    pub squash: bool,
    /// Owners are shown as somebody's user namespace has them, and M itself has the stores for his engines.
    pub shift: Option<Shift>,
    /// Files have one link more than in their image: for those who count shared ones by that.
    pub shared_links: bool,
    /// The daemon's own lease: it need not notify itself of what it has done.
    pub lease: Option<LeaseId>,
}

/// The tree of one mount.
pub struct Superblock {
    pub(super) store: Store,
    pub(super) options: FsOptions,
    pub(super) cache: Arc<dyn KernelCache>,
    /// Held while the store is changed and the view after it.
    changing: Mutex<()>,
    /// Repositories that stay though they are empty, by path.
    pub(super) kept: Mutex<BTreeSet<Box<str>>>,
    view: RwLock<Arc<View>>,
    pub(super) nodes: Nodes,
    pub(super) trees: Arc<Trees>,
    pub(super) slots: OpenLayers,
    pub(super) numbers: Arc<Numbers>,
    pub(super) lasting: Option<Arc<Lasting>>,
    pub(super) ways_up: WaysUp,
    pub(super) stages: Arc<Stages>,
    pub(super) events: Events,
    peers: PeerNotifier,
    orphans: Orphans,
    pub(super) users: UsersCache,
    pub(super) measured: Measured,
    pub(super) catalogs: Catalogs,
    pub(super) probes: Probes,
    /// Attributes of the root directories of images, which `stat` of a tag directory shows.
    pub(super) roots: Mutex<HashMap<ImageId, Attributes>>,
    device: OnceLock<DeviceId>,
    /// Where the volumes are mounted, if not inside.
    volumes: OnceLock<PathBuf>,
    started: Timestamp,
    clock: std::time::Instant,
}

/// The right to change the view.
pub(super) struct Changing<'a>(#[allow(dead_code)] MutexGuard<'a, ()>);

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
    pub(super) fn set_device(&self, device: DeviceId) {
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

    pub(super) fn volumes_link(&self) -> Option<&PathBuf> {
        self.volumes.get()
    }

    /// When this mount began: the time of what never changes in it.
    pub(super) fn started(&self) -> Timestamp {
        self.started
    }

    /// How long this mount has been there.
    pub(super) fn age(&self) -> std::time::Duration {
        self.clock.elapsed()
    }

    /// `st_dev` of every file in the tree, when it is mounted.
    pub(super) fn device(&self) -> Option<DeviceId> {
        self.device.get().copied()
    }

    pub(super) fn view(&self) -> Arc<View> {
        self.view.read().clone()
    }

    /// Whether the kernel may know names of the stores of engines by this tree.
    pub(super) fn has_stores(&self) -> bool {
        self.options.shape == Shape::Stores || self.options.shift.is_some()
    }

    /// Takes in what others have changed in the store, and tells the kernel exactly that. On return every lookup gives the
    /// new names; what the kernel has cached goes when the [`KernelCache`] has done its work.
    pub(super) fn catch_up(&self) -> Result<(), FsError> {
        let changing = self.changing();
        // This mount's own changes are taken in by whoever makes them.
        if Arc::ptr_eq(&self.store.names()?, &self.view().names) {
            return Ok(());
        }
        self.take_in(&changing, &[])
    }

    pub(super) fn changing(&self) -> Changing<'_> {
        Changing(self.changing.lock())
    }

    /// Makes the present names of the store the view. Of the directories `stay`, those that would vanish become empty ones.
    pub(super) fn take_in(
        &self,
        changing: &Changing<'_>,
        stay: &[Box<str>],
    ) -> Result<(), FsError> {
        let names = match &self.lasting {
            Some(lasting) => {
                let (names, file) = self.store.names_and_file()?;
                if !Arc::ptr_eq(&names, &self.view().names) {
                    lasting.names(file);
                }
                names
            }
            None => self.store.names()?,
        };
        self.take_these(changing, names, stay);
        self.let_go();
        Ok(())
    }

    /// Makes `names` the view, and tells the kernel of what is different. What they do not have is still known by its number.
    fn take_these(&self, _changing: &Changing<'_>, names: Arc<Names>, stay: &[Box<str>]) {
        let old = self.view();
        let new = {
            let mut kept = self.kept.lock();
            let view = View::new(names.clone(), &kept, Some(&old));
            let gone = stay.iter().filter(|path| !view.dirs.contains_key(&***path));
            let gone: Vec<Box<str>> = gone.cloned().collect();
            match gone.is_empty() {
                true => view,
                false => {
                    kept.extend(gone);
                    View::new(names, &kept, Some(&old))
                }
            }
        };
        if let Some(lasting) = &self.lasting {
            lasting.put_kept(self.kept.lock().iter().map(|path| &**path));
        }
        let new = Arc::new(new);
        *self.view.write() = new.clone();
        for change in changes(&old, &new) {
            self.tell(&change);
        }
        self.tell_engines(&old.names, &new.names);
    }

    /// Lets go of what the view does not have any more.
    fn let_go(&self) {
        let view = self.view();
        if self.trees.retain(|subject| exists(&view, subject)) {
            self.orphans.look();
        }
        self.roots
            .lock()
            .retain(|id, _| view.names.images.contains_key(id));
        let stored = view.names.layers();
        self.slots.retain(&stored);
        self.ways_up.retain(&stored);
    }

    /// The tree of a subject, with the number that the store keeps for it.
    pub(super) fn tree(&self, subject: &Subject) -> Result<Arc<Tree>, FsError> {
        let all = || {
            let view = self.view();
            let tags = view.names.tags.iter();
            let tags = tags.map(|(tag, record)| Numbered::Tag(tag.clone(), record.id));
            let images = view.names.images.keys().map(|id| Numbered::ById(*id));
            let dangling = view.dangling.entries.values();
            let dangling = dangling.map(|id| Numbered::Dangling(*id));
            let layers = view.names.layers().into_iter().map(Numbered::LayerTree);
            tags.chain(images).chain(dangling).chain(layers).collect()
        };
        self.trees
            .tree(subject, || self.numbers.get(&subject.numbered(), all))
    }

    /// Tells the kernel of one change, if it knows the place.
    fn tell(&self, change: &Change) {
        let name = |place: Place, name: &str| {
            if let Some(node) = self.nodes.find(&place) {
                self.cache.invalidate_tree(node.ino, name.as_bytes());
            }
        };
        let listing = |place: Place| {
            if let Some(node) = self.nodes.find(&place) {
                self.cache.invalidate_inode(node.ino, false);
            }
        };
        match change {
            Change::Name(dir, entry) => {
                name(Place::Repo(dir.clone()), entry);
                name(Place::InfoRepo(dir.clone()), entry);
            }
            Change::Listing(dir) => {
                listing(Place::Repo(dir.clone()));
                listing(Place::InfoRepo(dir.clone()));
            }
            Change::Tagged(entry) => {
                if let Some(tree) = self.trees.find(&Subject::Tag(entry.tag.clone(), entry.id)) {
                    self.cache.invalidate_inode(tree.root_ino(), true);
                }
            }
            Change::DanglingName(entry) => name(Place::Dangling, entry),
            Change::DanglingListing => listing(Place::Dangling),
            Change::IdName(entry) => name(Place::ById, entry),
            Change::IdListing => listing(Place::ById),
            Change::LayerName(entry) => {
                name(Place::Layers, entry);
                // Who reads the tar keeps the layer open, but not longer than he reads.
                if let Ok(layer) = Digest::from_hex(entry) {
                    name(Place::Layer(DiffId(layer)), "tar");
                }
            }
            Change::LayerListing => listing(Place::Layers),
        }
    }

    /// Has the other mounts of this store told, after a change made through this one.
    pub(super) fn notify_others(&self) {
        self.peers.tell();
    }

    /// Whether `caller` may change names through this mount; `refusal` is what he is told otherwise.
    pub(super) fn may_change(&self, caller: &Caller) -> Result<(), FsError> {
        match self.options.rm {
            _ if self.options.read_only => Err(FsError::ReadOnly),
            RmPolicy::Off => Err(FsError::ReadOnly),
            RmPolicy::Own if caller.uid == self.options.uid || caller.uid == 0 => Ok(()),
            RmPolicy::Own => Err(FsError::Denied),
            RmPolicy::All => Ok(()),
        }
    }

    /// The inode number of a fixed node or one the kernel knows; else the number that stands for "unknown" in a listing.
    pub(super) fn known_ino(&self, place: &Place) -> InodeNo {
        const UNKNOWN: InodeNo = InodeNo(0xffff_ffff);
        self.nodes.find(place).map_or(UNKNOWN, |node| node.ino)
    }
}

fn exists(view: &View, subject: &Subject) -> bool {
    match subject {
        Subject::Tag(tag, id) => view
            .names
            .tags
            .get(tag)
            .is_some_and(|record| record.id == *id),
        Subject::ById(id) => view.names.images.contains_key(id),
        Subject::Dangling(id) => view.is_dangling(id),
        Subject::Layer(layer) | Subject::Chained(_, layer) => {
            view.layers.entries.contains_key(layer.hex().as_str())
        }
        Subject::Chain(_, layers) => layers
            .iter()
            .all(|layer| view.layers.entries.contains_key(layer.hex().as_str())),
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
