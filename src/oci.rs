//! Pure OCI and docker vocabulary: names, digests and documents. No I/O.

pub mod config;
pub mod digest;
pub mod manifest;
pub mod platform;
pub mod reference;

pub use config::{HistoryEntry, ImageConfig};
pub use digest::{ChainId, DiffId, Digest, ImageId};
pub use manifest::{Descriptor, Manifest, ManifestOrIndex, MediaType};
pub use platform::Platform;
pub use reference::{Reference, ReferenceError, Repository, Tag, TagRef};
