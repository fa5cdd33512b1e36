//! Images on their way: from archives, layouts, tars and registries, and there.

pub(in crate::ops) mod blob_map;
pub mod export;
pub mod import;
pub(in crate::ops) mod ingest;
pub mod load;
pub mod pull;
pub mod push;
pub mod save;
