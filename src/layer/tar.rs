//! Tar headers and extension records, decoded strictly.
//!
//! `tar-core` gives the layout of a header; its `Parser` is not used. It skips lone zero blocks, drops the extension
//! headers before a global one, stops silently at a PAX length that is no number, loses PAX mtimes before 1970 and
//! all fractions, takes base-256 sizes modulo 2^64, and counts the map of a PAX 1.0 sparse file as content when a PAX
//! size is given. Each of these makes a wrong tree out of a bad archive. Where readers disagree, this follows Go's
//! `archive/tar`: it is what docker, podman and containerd read layers with.

mod decimal;
pub mod encode;
pub mod header;
pub mod pax;
pub mod sparse;

/// Bytes of a tar block.
pub const BLOCK: usize = 512;
/// The same, for positions in the archive.
pub const BLOCK_U64: u64 = 512;

/// What an entry is. Hard links are no node of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    Directory,
    Regular,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Fifo,
}

/// One entry with all its extension headers applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarEntry {
    pub path: Vec<u8>,
    pub kind: EntryKind,
    /// Target of a symbolic or hard link; empty for everything else.
    pub link: Vec<u8>,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub rdev_major: u32,
    pub rdev_minor: u32,
    pub mtime_sec: i64,
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
