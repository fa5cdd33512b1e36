//! The index file, byte for byte. All numbers little-endian, nothing aligned, no padding inside records.
//!
//! ```text
//! Header            fixed; its last field is xxh3-64 of everything before `body` except that field
//! block checksums   one xxh3-64 per 64 KiB block of the body
//! (zeros to a multiple of 64 bytes)
//! body              sections back to back: nodes, dirents, strings, xattrs, extents, links, sums, tar sums
//! ```
//! - **nodes**: [`NodeRecord`]s, node 0 is the root directory. Numbered breadth first, so that the nodes of one
//!   directory's entries lie together.
//! - **dirents**: [`DirentRecord`]s; each directory's are consecutive and sorted bytewise by name.
//! - **strings**: names, symlink targets and link paths; records point into it.
//! - **xattrs**: sets; `u32` count, then per attribute `u16` name length, `u32` value length, name, value. Equal sets
//!   are stored once. A node refers to its set by byte offset plus one, 0 is "none".
//! - **extents**: [`ExtentRecord`]s of sparse files.
//! - **links**: [`LinkRecord`]s: hard links to files of the layers below.
//! - **sums**: `u64`, xxh3-64 of each 32 KiB block of the *stored* bytes of each regular file, counted from the first
//!   stored byte; the last block of a file may be shorter. Stored bytes are what the tar holds: for a sparse file the
//!   data segments without the holes. They are contiguous in the tar for every file, sparse or not.
//! - **tar sums**: `u64`, xxh3-64 of each 64 KiB block of the whole tar, headers, padding and what follows the end
//!   marker included: for reading the tar itself.
//!
//! A change of any of this is a new [`VERSION`]; files of another one are rebuilt from the tar when they are opened.

use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub(super) const MAGIC: [u8; 8] = *b"mica.idx";
pub(super) const VERSION: u32 = 2;
/// Bytes of the body under one checksum. A first touch costs one read and hash of this many: about 10 us.
pub(super) const BLOCK: usize = 64 << 10;
/// Bytes of file content under one checksum: what the smallest read costs.
pub(super) const SUM_BLOCK: usize = 32 << 10;
pub(super) const SUM_BLOCK_U64: u64 = 32 << 10;
/// Bytes of the tar under one checksum.
pub(super) const TAR_BLOCK: usize = 64 << 10;
pub(super) const TAR_BLOCK_U64: u64 = 64 << 10;
/// Alignment of the body in the file.
pub(super) const BODY_ALIGN: usize = 64;

#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Section {
    /// From the start of the body.
    pub offset: U64,
    pub length: U64,
}

/// The sections in the order of the file.
#[derive(Debug, Clone, Copy)]
#[repr(usize)]
pub(super) enum SectionId {
    Nodes,
    Dirents,
    Strings,
    Xattrs,
    Extents,
    Links,
    Sums,
    TarSums,
}
pub(super) const SECTIONS: usize = 8;

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Header {
    pub magic: [u8; 8],
    pub version: U32,
    pub header_size: U32,
    pub diff_id: [u8; 32],
    pub tar_size: U64,
    pub file_size: U64,
    pub body_offset: U64,
    pub entry_count: U64,
    pub content_size: U64,
    /// `HAS_*`: kinds of extended attributes that some node has.
    pub attributes: U32,
    pub reserved: U32,
    pub sections: [Section; SECTIONS],
    pub checksum: U64,
}
pub(super) const HEADER_SIZE: usize = size_of::<Header>();
/// Magic and version: what every version begins with.
pub(super) const PREFIX_SIZE: usize = 12;

pub(super) const HAS_LABEL: u32 = 1;
pub(super) const HAS_ACCESS_ACL: u32 = 2;
pub(super) const HAS_DEFAULT_ACL: u32 = 4;
pub(super) const HAS_CAPABILITY: u32 = 8;
pub(super) const HAS_OTHER: u32 = 16;

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct NodeRecord {
    pub kind: u8,
    pub flags: u8,
    pub mode: U16,
    pub uid: U32,
    pub gid: U32,
    pub nlink: U32,
    pub mtime_sec: I64,
    pub mtime_nsec: U32,
    /// Offset of the xattr set plus one; 0: none.
    pub xattrs: U32,
    /// Size of a file (with holes).
    pub size: U64,
    /// Regular: offset in the tar of the first stored byte. Symlink: offset of the target in strings.
    /// Device: major. Directory: first dirent.
    pub place: U64,
    /// Regular: number of extents, 0 for a file without holes. Symlink: length of the target. Device: minor.
    /// Directory: number of dirents.
    pub count: U32,
    /// Regular: first checksum.
    pub sums: U32,
    /// Regular with extents: first extent.
    pub extents: U32,
}

pub(super) const KIND_DIRECTORY: u8 = 1;
pub(super) const KIND_REGULAR: u8 = 2;
pub(super) const KIND_SYMLINK: u8 = 3;
pub(super) const KIND_CHAR: u8 = 4;
pub(super) const KIND_BLOCK: u8 = 5;
pub(super) const KIND_FIFO: u8 = 6;

pub(super) const NODE_IMPLICIT: u8 = 1;
pub(super) const NODE_OPAQUE: u8 = 2;
/// A regular file with holes, even if it has no extent at all.
pub(super) const NODE_SPARSE: u8 = 4;

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct DirentRecord {
    pub name: U32,
    /// Node or link, as the flags say.
    pub target: U32,
    pub name_length: u8,
    pub flags: u8,
}

/// The name of the layers below is hidden.
pub(super) const DIRENT_WHITEOUT: u8 = 1;
pub(super) const DIRENT_NODE: u8 = 2;
pub(super) const DIRENT_LINK: u8 = 4;

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct ExtentRecord {
    pub file_offset: U64,
    /// From the file's first stored byte.
    pub stored_offset: U64,
    pub length: U64,
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct LinkRecord {
    pub path: U32,
    pub path_length: U32,
    pub target: U32,
    pub target_length: U32,
}
