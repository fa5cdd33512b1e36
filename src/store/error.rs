//! What can go wrong in a store. Every message says which file or object and, where there is one, the way out.

use std::io;
use std::path::{Path, PathBuf};

use super::ids::VolumeName;
use crate::layer::{IndexError, ReadError};
use crate::oci::{DiffId, Digest, ImageId, Repository, TagRef};

/// A store operation that failed. Nothing visible has changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A system call on a file of the store failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The directory is missing or holds no store.
    #[error("{} is not a mica store", path.display())]
    NotAStore {
        /// The directory.
        path: PathBuf,
    },
    /// A store was to be created in a directory that holds something else.
    #[error("{} is not empty and not a mica store; choose another directory", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// The store, or something in it, belongs to another user.
    #[error("{} belongs to user {owner}; {}", path.display(), way_out(*owner, *me))]
    Foreign {
        /// What.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        me: u32,
    },
    /// Something is in the store that mica has not put there.
    #[error("{}: not put there by mica; nothing in this store is used while it is there: look at it and take it away", path.display())]
    Planted {
        /// What.
        path: PathBuf,
    },
    /// `meta.json` or `oci-layout` cannot be understood.
    #[error("{} is damaged: {reason}", path.display())]
    MetaDamaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The store was written by a newer mica that says this one must keep out.
    #[error("the store {} needs {what}, which this mica does not know; use a newer one", path.display())]
    TooNew {
        /// The store.
        path: PathBuf,
        /// Format or feature.
        what: String,
    },
    /// The store can be read but not changed.
    #[error("the store {} is read-only: {reason}", path.display())]
    ReadOnly {
        /// The store.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// What comes in is too much.
    #[error(
        "the layers are more than {limit} bytes together, which is what is allowed (--max-image-size)"
    )]
    TooMuch {
        /// Bytes allowed.
        limit: u64,
    },
    /// What comes in would leave too little for everybody else.
    #[error(
        "cannot write to {}: No space left on device: {free} bytes are free there, and {keep} are to stay free (--keep-free)",
        path.display()
    )]
    LittleRoom {
        /// The store.
        path: PathBuf,
        /// Bytes that are free.
        free: u64,
        /// Bytes that stay.
        keep: u64,
    },
    /// The file system under the store has no `flock`.
    #[error("the file system of {} has no file locks ({source}); put the store on a local one", path.display())]
    NoLocks {
        /// The store.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// `index.json` cannot be understood; nothing may be written until it can.
    #[error("{} is damaged: {reason}; nothing was changed, run `mica check`", path.display())]
    NamesDamaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// `volumes.json` cannot be understood; no volume may be changed until it can.
    #[error("{} is damaged: {reason}; no volume was changed, run `mica check`", path.display())]
    VolumesDamaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// No such volume.
    #[error("get {0}: no such volume")]
    NoSuchVolume(VolumeName),
    /// Somebody means a volume that was there a moment ago.
    #[error(
        "volume {0} was ephemeral and has ended with its last user a moment ago; make it anew with `mica volume create [--ephemeral] {0}`"
    )]
    VolumeEnded(VolumeName),
    /// The name of a volume is taken.
    #[error("volume {0} exists already")]
    VolumeExists(VolumeName),
    /// A mount keeps a volume's names and attributes in mind and does not let others at its data.
    #[error(
        "volume {name} is kept by the mount of process {pid}, which does not let go of it: {reason}"
    )]
    VolumeKept {
        /// Which.
        name: VolumeName,
        /// The daemon.
        pid: u32,
        /// What came of asking it.
        reason: String,
    },
    /// No layer of that diff ID.
    #[error("layer {0} is not in the store; run `mica check`")]
    LayerMissing(DiffId),
    /// A layer's tar has not the size its index says.
    #[error("layer {diff_id} is damaged: {found} bytes, not {expected}; load its image again")]
    LayerDamaged {
        /// The layer.
        diff_id: DiffId,
        /// Bytes by the index.
        expected: u64,
        /// Bytes on disk.
        found: u64,
    },
    /// A layer's tar is there, its index is not.
    #[error("layer {0} has no index; run `mica check --repair`")]
    IndexMissing(DiffId),
    /// A layer's index cannot be used.
    #[error(transparent)]
    Index(IndexError),
    /// A layer's tar cannot be opened.
    #[error(transparent)]
    Layer(ReadError),
    /// No blob of that digest.
    #[error("blob {0} is not in the store; run `mica check`")]
    BlobMissing(Digest),
    /// A blob's bytes are not those its name says.
    #[error("blob {digest} is damaged: its bytes are {found}; load its image again")]
    BlobDamaged {
        /// Its name.
        digest: Digest,
        /// What the bytes are.
        found: Digest,
    },
    /// A blob's bytes are the right ones but make no sense.
    #[error("blob {digest} cannot be read: {reason}")]
    Document {
        /// Its name.
        digest: Digest,
        /// Why.
        reason: String,
    },
    /// No image of that ID.
    #[error("no such image: {0}")]
    NoSuchImage(ImageId),
    /// No such tag.
    #[error("no such image: {0}")]
    NoSuchTag(TagRef),
    /// No tag in that repository.
    #[error("no such repository: {}", .0.familiar())]
    NoSuchRepository(Repository),
    /// A tag that was to be moved or taken away is pinned.
    #[error("{0} is pinned; `mica unpin {0}` lets it go")]
    Pinned(TagRef),
    /// A rename would overwrite a tag.
    #[error("{0} exists already")]
    TagExists(TagRef),
    /// An image that a tag names was to be deleted.
    #[error("image {id} is still tagged {tag}")]
    ImageTagged {
        /// The image.
        id: ImageId,
        /// One of its tags.
        tag: TagRef,
    },
    /// The layers given for an image are not those its config lists.
    #[error(
        "image {id}: the config lists {expected} layers, {given} were given, or in another order"
    )]
    LayersDisagree {
        /// The image.
        id: ImageId,
        /// By the config.
        expected: usize,
        /// By the caller.
        given: usize,
    },
}

impl StoreError {
    /// An `io::Error` on `path`; `full` disks stay recognisable through [`StoreError::raw_os_error`].
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.to_owned();
        move |source| StoreError::Io {
            action,
            path,
            source,
        }
    }

    /// The errno behind this error, when a system call failed.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            StoreError::Io { source, .. } | StoreError::NoLocks { source, .. } => {
                source.raw_os_error()
            }
            StoreError::LittleRoom { .. } => Some(rustix::io::Errno::NOSPC.raw_os_error()),
            _ => None,
        }
    }

    /// Whether the object asked for was not there: what a reader sees whose snapshot a removal has overtaken.
    pub fn is_missing(&self) -> bool {
        match self {
            StoreError::LayerMissing(_)
            | StoreError::BlobMissing(_)
            | StoreError::NoSuchImage(_)
            | StoreError::NoSuchTag(_)
            | StoreError::NoSuchRepository(_)
            | StoreError::NoSuchVolume(_) => true,
            StoreError::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }
}

/// The way out for somebody who has come upon another's store.
fn way_out(owner: u32, me: u32) -> String {
    match (owner, me) {
        (0, _) => {
            "run this as root (sudo), or choose a store of your own with --store or MICA_STORE"
                .to_owned()
        }
        (_, 0) => format!(
            "run this as that user and not as root (sudo -u '#{owner}'), or choose root's own store with --store /var/lib/mica"
        ),
        _ => "choose a store of your own with --store or MICA_STORE".to_owned(),
    }
}
