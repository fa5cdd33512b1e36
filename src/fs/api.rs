//! The face of the tree towards the FUSE edge: plain types and the [`FileSystem`] trait. Nothing here decides anything.
//!
//! Rules for implementations:
//! - all methods may be called from several threads at once, and must not wait for the kernel: a request may hold the lock of
//!   the directory it is about (so: no access to our own mount, no [`KernelCache`] call that blocks);
//! - a reference is taken for each successful entry the kernel is given (lookup, mkdir, symlink, and readdir with `plus`, except
//!   for `.` and `..` and the entry that came back [`Full::Yes`]) and dropped by [`FileSystem::forget`];
//! - sizes, offsets and names come from the kernel and ultimately from any user: they are hostile.

use std::io;

use crate::oci::Digest;
use crate::store::Cause;
use crate::sys::mountinfo::DeviceId;
use crate::sys::proc;

/// Inode number; for the kernel also the node's identity. 1 is the root.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct InodeNo(pub u64);

impl InodeNo {
    /// The root of the tree.
    pub const ROOT: InodeNo = InodeNo(1);
}

/// Who asks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Caller {
    /// File system user id.
    pub uid: u32,
    /// File system group id.
    pub gid: u32,
    /// **Thread** id; 0 stands for a process of a foreign pid namespace.
    pub pid: u32,
}

impl Caller {
    /// For the events of what it changes.
    pub(super) fn cause(&self) -> Cause {
        Cause::process(proc::thread_group(self.pid).unwrap_or(0), self.uid)
    }
}

/// Seconds and nanoseconds since 1970; the nanoseconds always count forwards.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Timestamp {
    /// Seconds, negative before 1970.
    pub sec: i64,
    /// 0 to 999,999,999.
    pub nsec: u32,
}

/// File type.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(missing_docs)]
pub enum FileKind {
    Directory,
    Regular,
    Symlink,
    CharDevice,
    BlockDevice,
    Fifo,
}

/// What `stat` shows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FileAttr {
    /// Inode number.
    pub ino: InodeNo,
    /// Type.
    pub kind: FileKind,
    /// Permission, set-id and sticky bits (07777).
    pub mode: u32,
    /// Number of links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device numbers of a device node, else 0.
    pub rdev_major: u32,
    /// See `rdev_major`.
    pub rdev_minor: u32,
    /// Size in bytes.
    pub size: u64,
    /// Space in units of 512 bytes.
    pub blocks: u64,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
}

/// How long the kernel may answer from its cache.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Ttl {
    /// Not at all: ask again each time.
    Zero,
    /// For an hour, or until told otherwise.
    Hour,
    /// Until told otherwise through [`KernelCache`].
    Forever,
}

/// A name that exists.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EntryReply {
    /// What it leads to.
    pub attr: FileAttr,
    /// How long the name stays valid.
    pub entry_ttl: Ttl,
    /// How long the attributes stay valid.
    pub attr_ttl: Ttl,
}

/// The answer to a lookup.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lookup {
    /// The name exists; a reference has been taken.
    Found(EntryReply),
    /// It does not, and the kernel may remember that for so long.
    Absent(Ttl),
}

/// The answer to a `stat`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AttrReply {
    /// The attributes.
    pub attr: FileAttr,
    /// How long they stay valid.
    pub ttl: Ttl,
}

/// One entry of a listing.
#[derive(Clone, Copy, Debug)]
pub struct DirEntry<'a> {
    /// Where a listing goes on after this entry; never 0.
    pub next_offset: u64,
    /// The name; `.` and `..` included.
    pub name: &'a [u8],
    /// What it leads to. Without `plus` only inode number and type are looked at.
    pub entry: EntryReply,
}

/// Whether a listing's buffer had room.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Full {
    /// The entry was not taken: stop.
    Yes,
    /// It was taken.
    No,
}

/// The attributes a caller wants to change.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SetAttr {
    /// chmod.
    pub mode: Option<u32>,
    /// chown.
    pub uid: Option<u32>,
    /// chgrp.
    pub gid: Option<u32>,
    /// truncate.
    pub size: Option<u64>,
    /// Some time stamp is to be set.
    pub times: bool,
}

/// Flags of rename(2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RenameMode {
    /// No flag: may replace.
    Replace,
    /// `RENAME_NOREPLACE`.
    NoReplace,
    /// `RENAME_EXCHANGE` or a flag we do not know.
    Other,
}

/// Who may remove, rename and tag through a mount.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RmPolicy {
    /// Nobody.
    Off,
    /// The user who mounted, and root.
    Own,
    /// Whoever can reach the mount.
    All,
}

/// What `df` shows.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct StatFs {
    /// Size of a block, in which the next three count.
    pub block_size: u32,
    /// All blocks.
    pub blocks: u64,
    /// Free blocks.
    pub free: u64,
    /// Free blocks for ordinary users.
    pub available: u64,
    /// All inodes.
    pub files: u64,
    /// Free inodes.
    pub files_free: u64,
}

/// Why an operation was refused or failed. The FUSE edge has the one table of errnos and logs the ones that need a person.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum FsError {
    #[error("no such file or directory")]
    NotFound,
    #[error("not a directory")]
    NotDirectory,
    #[error("is a directory")]
    IsDirectory,
    #[error("not a symbolic link")]
    NotSymlink,
    #[error("the kernel asked for inode {0}, which it has forgotten")]
    Stale(u64),
    /// An operation that makes no sense at this place of the tree, whoever asks.
    #[error("operation not permitted here")]
    NotPermitted,
    /// The caller may not.
    #[error("permission denied")]
    Denied,
    #[error("read-only")]
    ReadOnly,
    #[error("in use: {0}")]
    Busy(String),
    #[error("exists already")]
    Exists,
    #[error("directory is not empty")]
    NotEmpty,
    #[error("not a valid name or argument: {0}")]
    Invalid(String),
    #[error("name too long")]
    NameTooLong,
    #[error("no such extended attribute")]
    NoAttribute,
    #[error("not supported")]
    Unsupported,
    #[error("the store is full: {0}")]
    NoSpace(String),
    /// Data in the store are not what their digest says; never shown as "not found".
    #[error("corrupt: {what} ({digest}); `mica check` tells more")]
    Corrupt { digest: Digest, what: String },
    /// The store could not be read or changed.
    #[error("{0}")]
    Store(String),
    #[error("{context}: {source}")]
    Io { context: String, source: io::Error },
}

/// The kernel's caches of one mount, to be told what has changed. Calls only queue: they never block and are safe inside a
/// request. They take effect in order, soon.
pub trait KernelCache: Send + Sync {
    /// Name `name` in directory `parent` means something else now, or nothing.
    fn invalidate_entry(&self, parent: InodeNo, name: &[u8]);
    /// As [`KernelCache::invalidate_entry`], of a directory below which the kernel may know much: the name is asked about again, and
    /// dropped when nothing else waits, unless it was [`KernelCache::asked`] about by then.
    fn invalidate_tree(&self, parent: InodeNo, name: &[u8]) {
        self.invalidate_entry(parent, name);
    }
    /// Name `name` in directory `parent` is about to be answered anew.
    fn asked(&self, _parent: InodeNo, _name: &[u8]) {}
    /// Name `name` in directory `parent` is to be asked about again, whoever has it in use.
    fn expire_entry(&self, parent: InodeNo, name: &[u8]);
    /// Attributes of `ino` have changed; unless `attrs_only`, so has its content or listing.
    fn invalidate_inode(&self, ino: InodeNo, attrs_only: bool);
    /// The attributes of `ino` are to be asked for again, from the moment this returns: past what waits. The kernel takes no
    /// lock for it, so it may be called inside a request.
    fn invalidate_attributes_now(&self, ino: InodeNo);
    /// Whether the kernel knows an inode of that number; true where that cannot be asked.
    fn knows(&self, _: InodeNo) -> bool {
        true
    }
    /// Waits until what was queued has taken effect, but not for ever. For threads that queue a lot; never inside a request.
    fn settle(&self);
}

/// The operations of the tree; see the module's rules.
#[allow(missing_docs)]
pub trait FileSystem: Send + Sync + 'static {
    /// Tells the device number of the mount (`st_dev` inside it), once, before the first request.
    fn mounted(&self, device: DeviceId);
    /// Reads the names again and queues what the kernel has to forget. Called outside of requests, by one thread at a time.
    fn refresh(&self) -> Result<(), FsError>;
    fn lookup(&self, caller: &Caller, parent: InodeNo, name: &[u8]) -> Result<Lookup, FsError>;
    /// Drops `count` of the kernel's references.
    fn forget(&self, ino: InodeNo, count: u64);
    fn getattr(&self, caller: &Caller, ino: InodeNo) -> Result<AttrReply, FsError>;
    fn setattr(&self, caller: &Caller, ino: InodeNo, set: &SetAttr) -> Result<AttrReply, FsError>;
    fn readlink(&self, caller: &Caller, ino: InodeNo) -> Result<Vec<u8>, FsError>;
    /// Only called on a strict mount.
    fn open(&self, caller: &Caller, ino: InodeNo, for_writing: bool) -> Result<(), FsError>;
    /// Fills `into` (given empty) with up to `size` bytes; fewer only at the end of the file.
    fn read(
        &self,
        caller: &Caller,
        ino: InodeNo,
        offset: u64,
        size: u32,
        into: &mut Vec<u8>,
    ) -> Result<(), FsError>;
    /// The next data from `offset` on, or the next hole: lseek(2). `None`: there is none.
    fn seek(
        &self,
        caller: &Caller,
        ino: InodeNo,
        offset: u64,
        hole: bool,
    ) -> Result<Option<u64>, FsError>;
    /// A write to an existing file; `from_cache`: the kernel writes changed pages of a shared mapping back.
    fn write(&self, caller: &Caller, ino: InodeNo, from_cache: bool) -> FsError;
    /// Lists from `offset` (0 or a `next_offset` given before, or an invented number) until `add` says [`Full::Yes`].
    fn readdir(
        &self,
        caller: &Caller,
        ino: InodeNo,
        offset: u64,
        plus: bool,
        add: &mut dyn FnMut(&DirEntry<'_>) -> Full,
    ) -> Result<(), FsError>;
    fn statfs(&self, caller: &Caller, ino: InodeNo) -> Result<StatFs, FsError>;
    fn getxattr(&self, caller: &Caller, ino: InodeNo, name: &[u8]) -> Result<Vec<u8>, FsError>;
    /// Names, each followed by NUL.
    fn listxattr(&self, caller: &Caller, ino: InodeNo) -> Result<Vec<u8>, FsError>;
    /// setxattr, or without a value removexattr.
    fn change_xattr(
        &self,
        caller: &Caller,
        ino: InodeNo,
        name: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), FsError>;
    /// The flags of ioctl_iflags(2).
    fn flags(&self, caller: &Caller, ino: InodeNo) -> Result<u32, FsError>;
    fn set_flags(&self, caller: &Caller, ino: InodeNo, flags: u32) -> Result<(), FsError>;
    /// create, mknod and link: no place of the tree takes any.
    fn make_node(&self, caller: &Caller, parent: InodeNo, name: &[u8]) -> FsError;
    fn mkdir(&self, caller: &Caller, parent: InodeNo, name: &[u8]) -> Result<EntryReply, FsError>;
    fn symlink(
        &self,
        caller: &Caller,
        parent: InodeNo,
        name: &[u8],
        target: &[u8],
    ) -> Result<EntryReply, FsError>;
    fn unlink(&self, caller: &Caller, parent: InodeNo, name: &[u8]) -> Result<(), FsError>;
    fn rmdir(&self, caller: &Caller, parent: InodeNo, name: &[u8]) -> Result<(), FsError>;
    /// The kernel is told that a rename to this name was done, which an earlier server had done before its end.
    fn renamed_before(&self, to: (InodeNo, &[u8]));
    fn rename(
        &self,
        caller: &Caller,
        from: (InodeNo, &[u8]),
        to: (InodeNo, &[u8]),
        mode: RenameMode,
    ) -> Result<(), FsError>;
}
