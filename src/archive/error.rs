//! Why an archive is refused: one line that names the archive and the place in it.

use std::io;

use crate::oci::{DiffId, Digest};

/// An archive that cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[error("{}{problem}", Prefix(archive, problem))]
pub struct ArchiveError {
    /// The file as the user named it, or `stdin`.
    pub archive: String,
    /// What is wrong.
    #[source]
    pub problem: Problem,
}

/// docker's sentence for a file that cannot be opened carries the name itself.
struct Prefix<'a>(&'a str, &'a Problem);

impl std::fmt::Display for Prefix<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.1 {
            Problem::Open(_) => write!(f, "open {}: ", self.0),
            Problem::EmptyStdin => Ok(()),
            _ => write!(f, "{}: ", self.0),
        }
    }
}

impl ArchiveError {
    /// Names the archive beside the problem.
    pub fn new(archive: &str, problem: Problem) -> Self {
        ArchiveError {
            archive: archive.to_owned(),
            problem,
        }
    }
}

/// What is wrong with an archive. Names from inside it are escaped, so that they can be printed.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The input cannot be opened.
    #[error("{}", plain(.0))]
    Open(io::Error),
    /// The input cannot be read, or its outer compression is damaged.
    #[error("read: {}", plain(.0))]
    Read(io::Error),
    /// Not one byte in a file.
    #[error("empty file")]
    Empty,
    /// Not one byte came in. docker's words.
    #[error("requested load from stdin, but stdin is empty")]
    EmptyStdin,
    /// The archive ends in the middle of something.
    #[error("truncated archive: it ends at byte {offset}, inside {what}")]
    Truncated {
        /// Bytes of the (decompressed) tar that exist.
        offset: u64,
        /// What was being read.
        what: String,
    },
    /// Not a tar, or a damaged header.
    #[error("not a valid tar archive: {reason} (at byte {offset})")]
    Tar {
        /// Offset of the header in the decompressed tar.
        offset: u64,
        /// The tar reader's words.
        reason: String,
    },
    /// A member name or link that leaves the archive.
    #[error("{name}: path leads outside the archive")]
    Outside {
        /// The name or link target.
        name: String,
    },
    /// A symbolic link of a directory that leaves it, as some tools make them to share files.
    #[error(
        "{name}: a symbolic link leads outside the directory; load a copy without links (cp -rL)"
    )]
    LinkOutside {
        /// The member at or below the link.
        name: String,
    },
    /// More members than any image has.
    #[error("more than {limit} members")]
    Members {
        /// The limit.
        limit: usize,
    },
    /// Small members of a stream that add up to too much.
    #[error("{name}: more than {limit} bytes of documents before any of them is used")]
    Documents {
        /// The member that was too much.
        name: String,
        /// The limit.
        limit: u64,
    },
    /// Configs that add up to too much.
    #[error("{name}: more than {limit} bytes of image configs")]
    Configs {
        /// The config that was too much.
        name: String,
        /// The limit.
        limit: u64,
    },
    /// Neither `index.json` nor `manifest.json`.
    #[error("no index.json and no manifest.json in it: this is no image archive")]
    NoImages,
    /// A document that names no image at all.
    #[error("{document}: lists no image")]
    Nothing {
        /// The document.
        document: String,
    },
    /// A member that another one needs is missing.
    #[error("{document}: {what} {name} is not in the archive")]
    Missing {
        /// Who needs it.
        document: String,
        /// `layer`, `config`, `manifest`.
        what: &'static str,
        /// The path or digest.
        name: String,
    },
    /// A document larger than any real one.
    #[error("{name}: document of {size} bytes, the limit is {limit}")]
    DocumentSize {
        /// The member.
        name: String,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// JSON that does not parse, or has the wrong shape.
    #[error("{document}: {reason}")]
    Document {
        /// The member.
        document: String,
        /// The parser's words.
        reason: String,
    },
    /// A document of something else than a container image.
    #[error("{document}: {reason}")]
    Artifact {
        /// The member.
        document: String,
        /// The parser's words.
        reason: String,
    },
    /// Content that is not what its digest says.
    #[error("{name}: content has digest {actual}, expected {expected}")]
    Digest {
        /// The member.
        name: String,
        /// Expected.
        expected: Digest,
        /// Computed.
        actual: Digest,
    },
    /// Content that is not as long as its descriptor says.
    #[error("{name}: {actual} bytes, its descriptor says {expected}")]
    Size {
        /// The member.
        name: String,
        /// From the descriptor.
        expected: u64,
        /// In the archive.
        actual: u64,
    },
    /// docker's words for a config and a manifest that disagree about the number of layers.
    #[error(
        "{document}: invalid manifest, layers length mismatch: expected {expected}, got {actual}"
    )]
    LayerCount {
        /// The manifest.
        document: String,
        /// Number of diff_ids in the config.
        expected: usize,
        /// Number of layers in the manifest.
        actual: usize,
    },
    /// docker's words for a layer that is not what the config says.
    #[error(
        "{member}: invalid diffID for layer {index}: expected \"{expected}\", got \"{actual}\""
    )]
    DiffId {
        /// The layer's member.
        member: String,
        /// Position, bottom first, from 0.
        index: usize,
        /// From the config.
        expected: DiffId,
        /// Computed.
        actual: DiffId,
    },
    /// A name that is no reference. docker's words.
    #[error("{document}: invalid tag \"{name}\": {reason}")]
    Name {
        /// The document.
        document: String,
        /// The name.
        name: String,
        /// Why not.
        reason: String,
    },
    /// Two images claim one name.
    #[error("two images claim the name {name}: {first} and {second}")]
    DuplicateName {
        /// The name.
        name: String,
        /// Image ID of one.
        first: String,
        /// Image ID of the other.
        second: String,
    },
    /// An artifact, an encrypted image, a schema 1 manifest.
    #[error("{document}: {reason}")]
    Unsupported {
        /// The manifest.
        document: String,
        /// What it is.
        reason: String,
    },
    /// No manifest for the wanted platform.
    #[error(
        "{document}: no image for platform {wanted}; it has {available} (choose with --platform)"
    )]
    Platform {
        /// The index or config.
        document: String,
        /// The wanted platform.
        wanted: String,
        /// What there is, comma separated.
        available: String,
    },
    /// Indexes within indexes beyond reason.
    #[error("{document}: indexes nested deeper than {limit}")]
    Nesting {
        /// The innermost index.
        document: String,
        /// The limit.
        limit: usize,
    },
    /// A chain of links without end.
    #[error("{name}: too many levels of links")]
    Links {
        /// Where it began.
        name: String,
    },
}

/// The system's sentence without Rust's ` (os error N)`, in lower case as Go and C programs print it.
fn plain(error: &io::Error) -> String {
    let text = match error.raw_os_error() {
        Some(code) => {
            let full = error.to_string();
            full.strip_suffix(&format!(" (os error {code})"))
                .unwrap_or(&full)
                .to_owned()
        }
        None => return error.to_string(),
    };
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => text,
    }
}
