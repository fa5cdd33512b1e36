//! `gc`: removes what nothing reaches. Removals do so themselves; what is left for `gc` comes from interrupted ones.

use crate::store::{GcPlan, Store, gc};

use super::error::OpsError;

/// Removes what nothing reaches, or with `dry_run` only says what that is.
pub fn gc(store: &Store, dry_run: bool) -> Result<GcPlan, OpsError> {
    let lock = store.lock()?;
    match dry_run {
        true => Ok(gc::plan(store, &*store.names()?, &lock)?),
        false => Ok(store.collect(&lock)?),
    }
}

/// A line for each layer and document that goes.
pub fn lines(plan: &GcPlan) -> Vec<String> {
    let orphans = plan
        .indexes
        .iter()
        .filter(|layer| !plan.blobs.contains(&layer.0));
    let blobs = plan.blobs.iter().map(|digest| format!("Deleted: {digest}"));
    blobs
        .chain(orphans.map(|layer| format!("Deleted: index of {layer}")))
        .collect()
}
