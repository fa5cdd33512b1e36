//! The tree that users see, without any FUSE: what a name leads to, what an operation does, what the kernel may remember.
//!
//! [`FileSystem`] is the face the FUSE edge calls; [`Superblock`] is what answers. Decisions are made on the kind of a node,
//! never on the text of its path. Where to start reading:
//!
//! | module | what |
//! |---|---|
//! | `dispatch` | each operation, by kind of node |
//! | `inode` | what an inode number says |
//! | `namespace` | the names of the store as directories, aliases, and what differs between two moments; pure |
//! | `nodes`, `names_dir`, `info` | nodes of our own: directories of names, files about images |
//! | `trees`, `slots`, `image_dir` | trees of images and layers, and the layers that are open |
//! | `removal`, `renaming`, `pins` | what changes the store |
//! | `used` | noticing that an image is used |
//! | `lasting`, `again` | what the next server of the same connection knows of this one, and how it answers |
//! | `stores` | the images as an additional image store of podman and its kin, on a connection of its own |
//! | `superblock` | all of it together, and the way of a change from the store into the kernel's caches |

mod again;
mod attr;
mod dispatch;
mod error;
mod face;
mod image_dir;
mod info;
mod inode;
mod lasting;
mod names_dir;
mod namespace;
mod nodes;
mod orphans;
mod pins;
mod probes;
mod removal;
mod renaming;
mod slots;
mod space;
mod stores;
mod superblock;
mod telling;
#[cfg(test)]
mod tests;
mod trees;
mod used;
pub mod volumes;

pub use face::{
    AttrReply, Caller, DirEntry, EntryReply, FileAttr, FileKind, FileSystem, FsError, Full,
    InodeNo, KernelCache, Lookup, RenameMode, RmPolicy, SetAttr, StatFs, Timestamp, Ttl,
};
pub use lasting::Lasting;
pub use superblock::{FsOptions, Shape, Superblock};
