//! Names and nodes: the vocabulary every higher level shares. Pure, no I/O.
//!
//! - [`EntryName`]: one path component, validated once.
//! - [`NodeKind`], [`Attributes`]: what `stat` can tell about a node of an image.
//! - [`whiteout`]: what a component of a layer's path means when it starts with `.wh.`.

mod name;
pub mod whiteout;

pub use name::{EntryName, NAME_MAX, NameError};

/// What a node of an image is. A tar has no sockets, and neither has an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NodeKind {
    /// A directory.
    Directory,
    /// A regular file (tar's "contiguous files" are regular files too).
    Regular,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
}

/// The attributes of one node, as its layer gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Attributes {
    /// The node's type.
    pub kind: NodeKind,
    /// Permission bits with setuid, setgid and sticky: `mode & 0o7777`. Always 0777 for a symlink, as Linux has it.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device major number (below 4096); 0 unless a device.
    pub rdev_major: u32,
    /// Device minor number (below 2^20); 0 unless a device.
    pub rdev_minor: u32,
    /// Bytes of content: of the file, or of the symlink's target; 0 for everything else. Fits `i64`.
    pub size: u64,
    /// Modification time, seconds since the epoch (any `i64`).
    pub mtime_sec: i64,
    /// Modification time, nanoseconds to add (below 10^9, also when the seconds are negative).
    pub mtime_nsec: u32,
    /// How many names this node has within its layer; 1 for a directory.
    pub nlink: u32,
}

impl Attributes {
    /// What a directory has that no layer describes: 0755 root:root, mtime 0.
    pub const IMPLICIT_DIRECTORY: Attributes = Attributes {
        kind: NodeKind::Directory,
        mode: 0o755,
        uid: 0,
        gid: 0,
        rdev_major: 0,
        rdev_minor: 0,
        size: 0,
        mtime_sec: 0,
        mtime_nsec: 0,
        nlink: 1,
    };
}
