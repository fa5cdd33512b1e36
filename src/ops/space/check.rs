//! `check`: the store's own check, counted.

use crate::store::check::{self, Finding};
use crate::store::{Store, StoreError};

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Everything, also what was repaired.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Findings that still harm an image.
    pub fn damages(&self) -> usize {
        self.findings
            .iter()
            .filter(|f| f.is_damage() && !f.repaired)
            .count()
    }
}

/// Checks every blob and index; with `repair` mends what can be proven.
pub fn check(store: &Store, repair: bool) -> Result<Report, StoreError> {
    let findings = check::run(store, repair)?;
    Ok(Report { findings })
}
