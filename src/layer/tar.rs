//! Tar headers and extension records, decoded strictly.
//!
//! `tar-core` gives the layout of a header; its `Parser` is not used. It skips lone zero blocks, drops the extension
//! headers before a global one, stops silently at a PAX length that is no number, loses PAX mtimes before 1970 and
//! all fractions, takes base-256 sizes modulo 2^64, and counts the map of a PAX 1.0 sparse file as content when a PAX
//! size is given. Each of these makes a wrong tree out of a bad archive. Where readers disagree, this follows Go's
//! `archive/tar`: it is what docker, podman and containerd read layers with.

mod decimal;
pub(super) mod encode;
pub(super) mod header;
pub(super) mod pax;
pub(super) mod sparse;

/// Bytes of a tar block.
pub(super) const BLOCK: usize = 512;
/// The same, for positions in the archive.
pub(super) const BLOCK_U64: u64 = 512;

/// What an entry is. Hard links are no node of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file.
    Regular,
    /// Another name of a file.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
}

/// One entry with all its extension headers applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarEntry {
    /// Where, as given, by its extension header if there is one.
    pub path: Vec<u8>,
    /// What.
    pub kind: EntryKind,
    /// Target of a symbolic or hard link; empty for everything else.
    pub link: Vec<u8>,
    /// Permissions, with set-user-ID, set-group-ID and sticky.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Of a device.
    pub rdev_major: u32,
    /// Of a device.
    pub rdev_minor: u32,
    /// Modification time: seconds since 1970.
    pub mtime_sec: i64,
    /// And nanoseconds of that second.
    pub mtime_nsec: u32,
    /// Bytes of the file with its holes; 0 unless regular. Fits `i64`.
    pub size: u64,
    /// Bytes of content in the archive, before padding.
    pub stored: u64,
    /// In the order given, names may repeat (the last counts).
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Data segments of a sparse file, checked.
    pub segments: Option<Vec<sparse::Segment>>,
}
