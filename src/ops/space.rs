//! Space: what a store takes, what of it nothing needs, and whether it is whole.

pub mod check;
pub mod df;
pub mod gc;
pub mod prune;
