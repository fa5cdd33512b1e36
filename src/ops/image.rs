//! Images: found by name or ID, listed, named, removed and brought back, and what is known of them.

mod error;
pub mod filter;
pub mod history;
pub mod inspect;
pub mod list;
pub mod pattern;
pub mod pin;
pub mod prune;
pub mod remove;
pub mod resolve;
pub mod tag;
pub mod trash;
pub mod tree;

pub use error::ImageError;
