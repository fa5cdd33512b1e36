//! The tree that users see, without any FUSE: what a name leads to, what an operation does, what the kernel may remember.
//!
//! [`FileSystem`] is the face the FUSE edge calls; its types are in `face`.

mod face;

pub use face::{
    AttrReply, Caller, DirEntry, EntryReply, FileAttr, FileKind, FileSystem, FsError, Full,
    InodeNo, KernelCache, Lookup, RenameMode, RmPolicy, SetAttr, StatFs, Timestamp, Ttl,
};
