//! One layer: from the bytes of a tar to a tree that can be looked up and read.
//!
//! A layer is stored as its uncompressed tar, whole, and an index file derived from it. Nothing is ever unpacked.
//!
//! | part | what it does |
//! |---|---|
//! | [`compress`] | tells and undoes gzip, zstd, xz, bzip2; nothing is silently truncated |
//! | [`LayerScanner`] | is fed the tar as it streams by; checks it, folds it, checksums its content |
//! | [`IndexBuilder`] | writes the index; the same tar gives the same bytes, whenever and however it is cut in chunks |
//! | [`LayerIndex`] | the index; every block copied into memory and verified at its first touch |
//! | [`LayerFile`] | index + tar: verified reads of file content |
//! | [`diff`] | what changed from one image to another, without looking at what they share |
//! | [`from_dir`] | the layer that an upper directory of an overlayfs is |
//! | [`TarWriter`], [`TarReader`] | write tar entries, exactly, and read them as they stream by |
//! | [`merged`] | layers stacked to an image, directory by directory, lazily |
//!
//! The index holds the *folded* layer: duplicates are resolved, whiteouts are attached to the name they hide, and
//! it does not depend on any other layer. What folding means is written in [`fold`](self::fold) and tested against
//! a model in `layer/tests.rs`.

pub mod compress;
pub mod diff;
mod emit;
mod error;
mod file;
mod fold;
mod format;
pub mod from_dir;
mod index;
mod limits;
pub mod merged;
mod read;
mod scan;
mod tar;
mod tar_split;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod write;

pub use compress::Compression;
pub use emit::{TarMember, TarWriter};
pub use error::{IndexError, LayerError, Problem, ReadError};
pub use file::LayerFile;
pub use index::{
    Entries, Entry, Extent, Extents, LayerIndex, LowerLink, NodeNo, Target, XattrKinds, Xattrs,
};
pub use limits::Limits;
pub use read::{TarReadError, TarReader};
pub use scan::LayerScanner;
pub use tar::sparse::Segment;
pub use tar::{EntryKind, TarEntry};
pub use tar_split::{TarSplitError, tar_split};
pub use write::IndexBuilder;
