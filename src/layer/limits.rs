//! What a layer, and all that come with it, may cost before it is refused. Every limit stops an attack that needs few bytes to
//! cost many.

/// Bounds on what is taken in. [`Default`] accepts every image known to us with a wide margin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the uncompressed tar: 64 GiB. A gzip bomb of 64 MiB would otherwise fill the disk.
    pub max_tar_bytes: u64,
    /// Entries of the tar: 10 million. Each costs about 120 bytes of memory while the layer is imported.
    pub max_entries: u64,
    /// Bytes of one path as the tar spells it: 64 KiB. More than `PATH_MAX`, which bounds system calls, not trees.
    pub max_path_bytes: usize,
    /// Components of one path: 4,096. A lookup in the builder costs this many steps.
    pub max_depth: usize,
    /// Bytes of names, link targets and extended attributes together: 1 GiB; also the bound on the extension headers
    /// of one entry, which additionally may not exceed [`Limits::MAX_EXTENSION_BYTES`].
    pub max_metadata_bytes: u64,
    /// Bytes of everything that one verb takes in, uncompressed: 256 GiB. Layers are few bytes that become many, and there may be
    /// thousands of them.
    pub max_total_bytes: u64,
    /// Bytes of the disk that stay free, so that nobody else's work there fails for an image; `None`: a hundredth of it, and
    /// [`Limits::KEEP_FREE`] at most.
    pub keep_free: Option<u64>,
}

impl Limits {
    /// Bytes of PAX and GNU extension headers of one entry: they are held in memory at once. 8 MiB is far above
    /// what Linux can hold for one file (64 KiB of xattr names, 64 KiB per value).
    pub const MAX_EXTENSION_BYTES: u64 = 8 << 20;
    /// Data segments of all sparse files of a layer together: 24 bytes of memory each.
    pub const MAX_EXTENTS: usize = 4 << 20;
    /// Enough for others to write their logs until somebody makes room: 64 MiB.
    pub const KEEP_FREE: u64 = 64 << 20;
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_tar_bytes: 64 << 30,
            max_entries: 10_000_000,
            max_path_bytes: 64 << 10,
            max_depth: 4096,
            max_metadata_bytes: 1 << 30,
            max_total_bytes: 256 << 30,
            keep_free: None,
        }
    }
}
