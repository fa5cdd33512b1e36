//! The FUSE session behind one container: the trees of its image, and of images mounted into it, and nothing else.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use crate::fs::{FsOptions, KernelCache, RmPolicy, Shape, Superblock};
use crate::fuse::handshake::Link;
use crate::fuse::notify::NotifyQueue;
use crate::fuse::session::{self, Session, Settings};
use crate::oci::ImageId;
use crate::store::{ImageRecord, Names, Store, StoreError};

/// The names of a store that has these images and no tags; `unnamed` ones count before those of the store. What becomes of the real one is no concern of a container: its
/// layers are held.
pub(super) fn names(
    store: &Store,
    images: &[ImageId],
    unnamed: &[ImageRecord],
) -> Result<Arc<Names>, StoreError> {
    let all = store.names()?;
    let mut names = Names::default();
    for id in images {
        let own = unnamed.iter().find(|image| image.id == *id);
        let found = own.or_else(|| all.images.get(id));
        let mut image = found.ok_or(StoreError::NoSuchImage(*id))?.clone();
        image.tags = Default::default();
        names.images.insert(*id, image);
    }
    Ok(Arc::new(names))
}

/// Serves them on `connection`, until the value is dropped or the connection ends. `squash`: everything belongs to root.
pub(super) fn serve(
    store: &Store,
    names: Arc<Names>,
    connection: OwnedFd,
    squash: bool,
) -> io::Result<Session> {
    let queue = NotifyQueue::new();
    let options = FsOptions {
        shape: Shape::Images,
        stores: false,
        read_only: true,
        rm: RmPolicy::Off,
        uid: 0,
        gid: 0,
        mount_point: PathBuf::from("/"),
        lease: None,
        squash,
        shift: None,
        shared_links: false,
    };
    let cache = Arc::clone(&queue) as Arc<dyn KernelCache>;
    let tree = Superblock::with_names(store.clone(), names, options, cache);
    session::start(
        Arc::new(tree),
        Link::Own(connection),
        &Settings::default(),
        &queue,
    )
}
