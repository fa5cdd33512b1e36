//! `M/volumes`: the volumes of a store as directories, and every file operation on what is in them.
//!
//! The root directory holds names and is answered from the store (`root`); all below is the host's, reached through one `O_PATH`
//! descriptor per inode the kernel knows (`nodes`). Each answer is the host's at that moment. Of a bind the kernel keeps nothing, so
//! that a change on either side shows on the other at once; of a volume in the store what it may keep is `keep`'s business.
//!
//! | module | what |
//! |---|---|
//! | `attr` | what `stat` shows, and errors |
//! | `nodes` | inodes the kernel knows, their numbers |
//! | `budget` | how many descriptors the users may have |
//! | `root`, `naming` | the directory of volumes, and what changes it |
//! | `mark` | the attribute that says that a volume is ephemeral |
//! | `tree` | names and attributes below a volume |
//! | `opening`, `files`, `directories` | open files and directories |
//! | `attached` | a volume that has been visited |
//! | `keep` | what the kernel may keep, and how it comes to forget |
//! | `locks` | flock and fcntl locks, held on the host for others |
//! | `set_id` | set-id bits at changes, by who makes them |
//! | `again` | requests that an earlier process has left unanswered |
//! | `record`, `restore` | what the next process must know, and how it begins with it |
//! | `sweep` | forgetting what was removed behind the kernel's back |
//!
//! Lock order: `Nodes` and `Files` each for a moment and alone; `Locks` alone. No lock is held over a call that can wait for a
//! disk, except a directory's position.

mod again;
mod attached;
mod attr;
mod budget;
mod directories;
mod files;
mod keep;
mod locks;
mod mark;
mod naming;
mod nodes;
mod opening;
mod record;
mod restore;
mod root;
mod set_id;
mod sweep;
mod tree;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::thread::Thread;

use parking_lot::RwLock;

use super::api::{Caller, InodeNo, KernelCache, Timestamp};
use super::peers::PeerNotifier;
use crate::ops::volume::activity::Activity;
use crate::store::Store;
use crate::sys::beneath::{Host, Privileges};
use crate::sys::mountinfo::DeviceId;

pub use attr::{Attr, Change, FileNo, VolumeError};
pub use directories::Listed;
pub use files::{Opened, Write};
pub use keep::{Keeping, Named};
pub use locks::{Blocking, LockRequest};
pub use record::Record;
pub use restore::{Before, Inherited};

/// How the volumes of a mount behave.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VolumeOptions {
    /// Nothing can be changed through the mount.
    pub read_only: bool,
    /// The user whose mount it is.
    pub uid: u32,
    /// The user's group.
    pub gid: u32,
    /// Let the kernel keep what only this mount can change.
    pub keep: bool,
    /// The daemon's own lease: it need not notify itself of what it has done.
    pub lease: Option<crate::store::LeaseId>,
}

/// The volumes of one mount.
pub struct VolumeTree {
    store: Store,
    options: VolumeOptions,
    /// Where the store is, without symbolic links.
    store_path: PathBuf,
    host: Host,
    privileges: Privileges,
    nodes: nodes::Nodes,
    files: files::Files,
    locks: locks::Locks,
    budget: Arc<budget::Budget>,
    known: root::Known,
    /// Held for reading by each answer that says what may be kept.
    gate: RwLock<()>,
    told: keep::Told,
    keeps: AtomicBool,
    /// Another process has served this connection before.
    inherits: AtomicBool,
    unanswered: again::Table,
    /// Sweeps.
    sweeper: OnceLock<Thread>,
    /// Whether the kernel has SELinux.
    selinux: bool,
    peers: PeerNotifier,
    activity: Arc<Activity>,
    cache: Arc<dyn KernelCache>,
    started: Timestamp,
}

impl VolumeTree {
    /// The volumes of `store`. Must be called in the process that serves.
    pub fn new(
        store: Store,
        options: VolumeOptions,
        cache: Arc<dyn KernelCache>,
        activity: Arc<Activity>,
        record: Option<Arc<Record>>,
    ) -> Result<Arc<VolumeTree>, VolumeError> {
        let store_path = store.path().canonicalize().map_err(attr::io_error)?;
        let budget = budget::Budget::new(options.uid);
        let tree = Arc::new(VolumeTree {
            store_path,
            host: Host::new()?,
            privileges: Privileges::new()?,
            nodes: nodes::Nodes::recorded(record.clone()),
            files: files::Files::recorded(record.clone()),
            locks: locks::Locks::start(Arc::clone(&budget), record.clone())
                .map_err(attr::io_error)?,
            budget,
            known: root::Known::recorded(record.clone()),
            inherits: AtomicBool::new(false),
            unanswered: again::Table::default(),
            gate: RwLock::new(()),
            told: keep::Told::default(),
            keeps: AtomicBool::new(false),
            sweeper: OnceLock::new(),
            selinux: std::path::Path::new("/sys/fs/selinux").exists(),
            peers: PeerNotifier::start(store.clone(), options.lease.clone()),
            activity,
            cache,
            started: Timestamp::now(),
            store,
            options,
        });
        let sweeper = sweep::start(&tree).map_err(attr::io_error)?;
        tree.sweeper.get_or_init(|| sweeper);
        Ok(tree)
    }

    /// A file system that is never entered: one of our own, which would wait for itself.
    pub fn exclude(&self, device: DeviceId) {
        self.host.exclude(device);
    }

    /// Whether files are made as the caller, and permissions checked by the kernel.
    pub fn many_users(&self) -> bool {
        self.privileges.many_users()
    }

    /// Whether a request for a lock can be told to come from flock or from fcntl.
    pub fn can_tell_flock(&self) -> bool {
        locks::can_tell()
    }

    /// Prepares the calling thread; to be called before each operation.
    pub fn enter(&self) -> Result<(), VolumeError> {
        Ok(self.privileges.enter()?)
    }

    fn create_as(&self, caller: &Caller, umask: u32) -> Result<(), VolumeError> {
        let creator = crate::sys::beneath::Creator {
            uid: caller.uid,
            gid: caller.gid,
            umask,
        };
        Ok(self.privileges.create_as(&creator)?)
    }

    fn is_root(ino: InodeNo) -> bool {
        ino == InodeNo::ROOT
    }
}
