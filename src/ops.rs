//! Use cases: one file per verb. Options are resolved to a plan; the plan is applied.

pub mod format;
