//! Why a layer is refused, an index cannot be used, or a read fails.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::oci::digest::DiffId;

/// A layer's tar is refused. Names the entry (escaped for terminals) and the fact.
#[derive(Debug, thiserror::Error)]
pub struct LayerError {
    /// The entry's path as the tar spells it; `None` where the tar is damaged before a path is known.
    pub path: Option<Box<[u8]>>,
    /// Where in the uncompressed tar the entry's first header begins, in bytes.
    pub offset: u64,
    /// The fact.
    #[source]
    pub problem: Problem,
}

impl fmt::Display for LayerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            // A path may be 64 KiB; a message is one line.
            Some(path) if path.len() > 300 => {
                let start = path.get(..300).unwrap_or(path);
                write!(
                    f,
                    "layer entry \"{}...\": {}",
                    start.escape_ascii(),
                    self.problem
                )
            }
            Some(path) => write!(
                f,
                "layer entry \"{}\": {}",
                path.escape_ascii(),
                self.problem
            ),
            None => write!(f, "layer tar at byte {}: {}", self.offset, self.problem),
        }
    }
}

/// What is wrong with a layer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The stream ends inside a header, an extension, content or padding.
    #[error("the archive is truncated")]
    Truncated,
    /// A header's checksum is wrong: damage, or no tar at all.
    #[error("bad header checksum (damaged, or not a tar archive)")]
    HeaderChecksum,
    /// One zero block, then something else: neither an end marker nor a header.
    #[error("a lone zero block inside the archive")]
    LoneZeroBlock,
    /// A header field that is no number, or one beyond its range.
    #[error("invalid {0} field")]
    Field(&'static str),
    /// A type flag that no container tool unpacks.
    #[error("unsupported entry type {:?}", char::from(*.0))]
    EntryType(u8),
    /// A PAX record that does not parse.
    #[error("malformed PAX extended header")]
    PaxSyntax,
    /// A PAX record whose value makes no sense.
    #[error("invalid PAX record \"{}\"", .0.escape_ascii())]
    PaxValue(Box<[u8]>),
    /// Extension headers that repeat, or that no entry follows.
    #[error("misplaced extension header: {0}")]
    Extension(&'static str),
    /// A sparse map that overlaps, runs backwards, or does not fit size or content.
    #[error("invalid sparse map: {0}")]
    Sparse(&'static str),
    /// NUL in a path or link target.
    #[error("NUL byte in {0}")]
    Nul(&'static str),
    /// A path component above 255 bytes.
    #[error("name longer than 255 bytes")]
    NameTooLong,
    /// The root directory given as something else than a directory.
    #[error("the root directory cannot be replaced")]
    Root,
    /// `.wh.`, `.wh..`, `.wh...`, `.wh.` and more than 255 bytes; or a path through a marker.
    #[error("invalid whiteout name")]
    Whiteout,
    /// A component of the path is something that has no children.
    #[error("its parent \"{}\" is not a directory", .0.escape_ascii())]
    NotADirectory(Box<[u8]>),
    /// More symbolic links on the way than the kernel would follow.
    #[error("too many levels of symbolic links")]
    SymlinkLoop,
    /// A symlink without target, or with one above 4,095 bytes.
    #[error("invalid symbolic link target")]
    SymlinkTarget,
    /// A hard link that cannot be made.
    #[error("hard link to \"{}\": {why}", .target.escape_ascii())]
    HardLink {
        /// The target as the tar spells it.
        target: Box<[u8]>,
        /// The fact.
        why: &'static str,
    },
    /// An extended attribute that Linux cannot hold.
    #[error("extended attribute \"{}\": {why}", .name.escape_ascii())]
    Xattr {
        /// The attribute's name.
        name: Box<[u8]>,
        /// The fact.
        why: &'static str,
    },
    /// One of [`Limits`](super::Limits).
    #[error("exceeds the limit of {limit} {what}")]
    Limit {
        /// What is limited.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The caller's count of bytes is not ours.
    #[error("{fed} bytes were scanned, {claimed} were announced")]
    Size {
        /// Bytes pushed.
        fed: u64,
        /// Bytes the caller claims.
        claimed: u64,
    },
}

/// A layer's index cannot be used. Every variant but `Io` at open means: rebuild it (`mica check --repair`).
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The file cannot be opened, read or mapped.
    #[error("index of layer {diff_id}: {}: {source}", path.display())]
    Io {
        /// The layer.
        diff_id: DiffId,
        /// The index file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no index, or one of another version of mica.
    #[error("index of layer {diff_id}: {}: not an index of this version (run mica check --repair)", path.display())]
    Format {
        /// The layer.
        diff_id: DiffId,
        /// The index file.
        path: PathBuf,
    },
    /// The file is an index as another version of mica writes it: to be rebuilt.
    #[error("index of layer {diff_id}: {}: written by another version of mica", path.display())]
    Version {
        /// The layer.
        diff_id: DiffId,
        /// The index file.
        path: PathBuf,
    },
    /// The file is the index of another layer.
    #[error("index of layer {diff_id} describes layer {found} (run mica check --repair)")]
    WrongLayer {
        /// The layer asked for.
        diff_id: DiffId,
        /// The layer described.
        found: DiffId,
    },
    /// A checksum is wrong, or a record points outside.
    #[error("index of layer {diff_id} is damaged: {what} (run mica check --repair)")]
    Damaged {
        /// The layer.
        diff_id: DiffId,
        /// Where.
        what: &'static str,
    },
    /// A hard link to a file of a lower layer that is not there, or is a directory.
    #[error("layer {diff_id}: hard link \"{}\": no file \"{}\" in the layers below", path.escape_ascii(), target.escape_ascii())]
    DanglingLink {
        /// The layer with the link.
        diff_id: DiffId,
        /// The link's path in the layer; empty if not known.
        path: Box<[u8]>,
        /// The path that leads to nothing.
        target: Box<[u8]>,
    },
    /// An image of more layers than a position can count.
    #[error("image has {0} layers, at most 65535 are supported")]
    TooManyLayers(usize),
    /// The caller asked a question that does not fit the node (the entries of a file): a bug, or a damaged index.
    #[error("layer {diff_id}, node {node}: {what}")]
    Kind {
        /// The layer.
        diff_id: DiffId,
        /// The node.
        node: u32,
        /// What was expected.
        what: &'static str,
    },
}

/// Content cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The blob cannot be read.
    #[error("layer {diff_id}: {source}")]
    Io {
        /// The layer.
        diff_id: DiffId,
        /// What the system said.
        source: io::Error,
    },
    /// The blob has another size than the tar had.
    #[error("layer {diff_id}: blob has {found} bytes instead of {expected}")]
    Size {
        /// The layer.
        diff_id: DiffId,
        /// Bytes of the tar.
        expected: u64,
        /// Bytes of the blob.
        found: u64,
    },
    /// The blob's bytes are not those that were imported.
    #[error("layer {diff_id}: blob is damaged near byte {offset} (load or pull the image again)")]
    Damaged {
        /// The layer.
        diff_id: DiffId,
        /// Offset in the tar of the block that does not verify.
        offset: u64,
    },
}
