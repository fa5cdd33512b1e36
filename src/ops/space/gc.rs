//! `gc`: removes what nothing reaches. Removals do so themselves; what is left for `gc` comes from interrupted ones,
//! and from downloads that broke off and could be gone on with.

use std::collections::BTreeMap;

use crate::store::{GcPlan, Partials, Store, StoreError, VolumeName, gc};

use crate::ops::image::trash;
use crate::ops::volume as volumes;
use crate::ops::volume::VolumeError;
use crate::ops::volume::ephemeral::{self as life, Times};

/// Removes what nothing reaches, or with `dry_run` only says what that is.
pub fn gc(store: &Store, dry_run: bool) -> Result<GcPlan, StoreError> {
    // The space of earlier removals as well.
    store.await_freed();
    // Not swept: what dead processes left is part of the plan.
    let lock = store.lock_unswept()?;
    let plan = gc::plan_with(store, &trash::without_expired(store)?, &lock, Partials::All)?;
    if !dry_run {
        store.expire_trash(&lock)?;
        store.carry_out(&plan, &lock)?;
    }
    Ok(plan)
}

/// Ephemeral volumes whose time has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ended {
    /// Their names.
    pub volumes: Vec<VolumeName>,
    /// Disk space of their files.
    pub bytes: u64,
}

/// Ends the ephemeral volumes whose time has come, or with `dry_run` only says which.
pub fn end_volumes(store: &Store, dry_run: bool) -> Ended {
    // Garbage is no less garbage when the list of volumes cannot be read.
    try_to_end_volumes(store, dry_run).unwrap_or_else(|error| {
        log::warn!("ephemeral volumes: {error}");
        Ended::default()
    })
}

fn try_to_end_volumes(store: &Store, dry_run: bool) -> Result<Ended, VolumeError> {
    let mut sizes = BTreeMap::new();
    for volume in life::due(store, Times::default())? {
        let bytes = volumes::list::size(store, &volume)?.unwrap_or(0);
        sizes.insert(volume.name, bytes);
    }
    let ended = match dry_run {
        true => sizes.keys().cloned().collect(),
        false => life::sweep(store, Times::default())?,
    };
    let bytes = ended.iter().filter_map(|name| sizes.get(name)).sum();
    Ok(Ended {
        volumes: ended,
        bytes,
    })
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
