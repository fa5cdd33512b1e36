//! Use cases: one file per verb. Options are resolved to a plan; the plan is applied.
//!
//! Nothing here prints. What a verb did comes back as a value; texts that docker fixes (lines of `rmi`, tables, `inspect`)
//! are made here, because the command line and the files under `info/` show the same ones.

pub mod build;
pub mod bundle;
pub mod check;
pub mod commit;
pub mod containers;
pub mod copy;
pub mod df;
pub mod diff;
pub mod engines;
pub mod error;
pub mod events;
pub mod export;
pub mod filter;
#[cfg(test)]
mod fixtures;
pub mod gc;
pub mod history;
pub mod images;
pub mod import;
pub mod inspect;
mod intake;
pub mod load;
pub mod pin;
mod proven;
pub mod prune;
pub mod pull;
pub mod push;
pub mod remove;
pub mod resolve;
pub mod run;
pub mod save;
pub mod system_prune;
pub mod tag;
pub mod trash;
pub mod tree;
pub mod usage;
pub mod volumes;

pub use error::OpsError;

// Where these were before.
pub use crate::text::{format, glob, rows, template, time, version};
