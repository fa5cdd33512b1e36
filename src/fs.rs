//! The trees that users see, without any FUSE: what a name leads to, what an operation does, what the kernel may remember.
//!
//! [`images`] and [`volumes`] are two file systems, each served on connections of its own, with [`api`] towards the FUSE edge
//! in common: [`FileSystem`] is what that calls; [`Superblock`] answers for images. Decisions are made on the kind of a node, never on
//! the text of its path.

mod api;
mod error;
mod images;
mod peers;
mod time;
pub mod volumes;

pub use api::{
    AttrReply, Caller, DirEntry, EntryReply, FileAttr, FileKind, FileSystem, FsError, Full,
    InodeNo, KernelCache, Lookup, RenameMode, RmPolicy, SetAttr, StatFs, Timestamp, Ttl,
};
pub use images::{FsOptions, Lasting, Shape, Superblock};
