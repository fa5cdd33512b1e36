//! `gc`: removes what nothing reaches. Removals do so themselves; what is left for `gc` comes from interrupted ones,
//! and from downloads that broke off and could be gone on with.

use crate::store::{GcPlan, Partials, Store, gc};

use super::error::OpsError;
use super::trash;

/// Removes what nothing reaches, or with `dry_run` only says what that is.
pub fn gc(store: &Store, dry_run: bool) -> Result<GcPlan, OpsError> {
    // Not swept: what dead processes left is part of the plan.
    let lock = store.lock_unswept()?;
    match dry_run {
        true => Ok(gc::plan_with(
            store,
            &trash::without_expired(store)?,
            &lock,
            Partials::All,
        )?),
        false => {
            store.expire_trash(&lock)?;
            Ok(store.collect_with(&lock, Partials::All)?)
        }
    }
}

/// A line for each layer, document and private file of a dead process that goes.
pub fn lines(plan: &GcPlan) -> Vec<String> {
    let orphans = plan
        .indexes
        .iter()
        .filter(|layer| !plan.blobs.contains(&layer.0));
    let blobs = plan.blobs.iter().map(|digest| format!("Deleted: {digest}"));
    let leavings = plan.leavings.iter();
    let leavings = leavings.map(|path| format!("Deleted: {}", path.display()));
    blobs
        .chain(leavings)
        .chain(orphans.map(|layer| format!("Deleted: index of {layer}")))
        .collect()
}
