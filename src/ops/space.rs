//! Space: what a store takes, what of it nothing needs, and whether it is whole.

pub mod check;
pub mod df;
mod error;
pub mod gc;
pub mod prune;

pub use error::SpaceError;
