//! Pure OCI and docker vocabulary: names, digests and documents. No I/O.

pub mod change;
pub mod config;
pub mod digest;
pub mod dockerfile;
pub mod document;
mod fields;
pub mod go;
mod json;
pub mod manifest;
mod media_type;
pub mod platform;
pub mod reference;
pub mod seccomp;
mod syntax;

pub use change::{Change, ChangeError};
pub use config::{Healthcheck, HistoryEntry, ImageConfig, RunConfig, Step};
pub use digest::{ChainId, DiffId, Digest, ImageId};
pub use document::DocumentError;
pub use manifest::{Descriptor, LayerEncoding, Manifest, ManifestOrIndex, MediaType};
pub use platform::{Platform, PlatformError};
pub use reference::{Reference, ReferenceError, Repository, Tag, TagRef};
