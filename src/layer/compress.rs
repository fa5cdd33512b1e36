//! (being written)
use std::io::Read;

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, RFC 1952.
    Gzip,
    /// Zstandard, RFC 8878.
    Zstd,
    /// xz.
    Xz,
    /// bzip2.
    Bzip2,
}

/// Tells the compression by a stream's first bytes; [`SNIFF`] of them are enough.
pub fn sniff(start: &[u8]) -> Compression {
    match start {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Xz,
        [b'B', b'Z', b'h', ..] => Compression::Bzip2,
        _ => Compression::None,
    }
}

/// Bytes that [`sniff`] wants to see.
pub const SNIFF: usize = 6;

/// The uncompressed stream.
pub fn reader<'a>(
    inner: Box<dyn Read + Send + 'a>,
    _compression: Compression,
) -> Box<dyn Read + Send + 'a> {
    inner
}
