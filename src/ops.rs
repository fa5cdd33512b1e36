//! Use cases by noun, one file per verb. Options are resolved to a plan; the plan is applied.
//!
//! Nothing here prints. What a verb did comes back as a value; texts that docker fixes (lines of `rmi`, tables, `inspect`)
//! are made here, because the command line and the files under `info/` show the same ones.

pub mod build;
pub mod container;
pub mod engines;
pub mod error;
pub mod events;
pub mod filters;
#[cfg(test)]
mod fixtures;
pub mod image;
pub mod space;
pub mod transfer;
pub mod usage;
pub mod users;
pub mod volume;
