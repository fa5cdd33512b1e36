//! `container prune`: containers that do not run.
//!
//! A plan first, then the removal of what was in it: a container that was started meanwhile stays.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::ops::container::run::RunError;
use crate::ops::filters::FilterError;
use crate::ops::filters::Label;
use crate::store::Store;
use crate::store::containers::{Container, ContainerId};
use crate::text::time;

use crate::ops::container::{RemoveOptions, remove, size};

/// Which containers.
#[derive(Debug, Clone, Default)]
pub struct Filters {
    labels: Vec<Label>,
    not_labels: Vec<Label>,
    until: Option<Timestamp>,
}

impl Filters {
    /// Reads filters as [`crate::ops::image::filter::split`] gives them. `now` is what durations count from.
    pub fn parse(given: &[(String, String)], now: Timestamp) -> Result<Filters, FilterError> {
        let mut filters = Filters::default();
        for (name, value) in given {
            match name.as_str() {
                "label" => filters.labels.push(Label::parse(value)),
                "label!" => filters.not_labels.push(Label::parse(value)),
                "until" => {
                    let until = time::point(value, now).ok_or_else(|| FilterError::Value {
                        name: name.clone(),
                        value: value.clone(),
                    })?;
                    if filters.until.replace(until).is_some() {
                        return Err(FilterError::ManyUntil);
                    }
                }
                _ => return Err(FilterError::Unknown(name.clone())),
            }
        }
        Ok(filters)
    }

    fn pass(&self, container: &Container) -> bool {
        let labels = &container.record.config.labels;
        self.until
            .is_none_or(|until| container.record.created <= until)
            && self.labels.iter().all(|label| label.is_in(labels))
            && !self.not_labels.iter().any(|label| label.is_in(labels))
    }
}

/// What goes, or has gone.
#[derive(Debug, Clone, Default)]
pub struct Pruned {
    /// Which, with their names.
    pub containers: Vec<(ContainerId, String)>,
    /// Disk space of what they had.
    pub bytes: u64,
}

impl Pruned {
    /// The containers concerned.
    pub fn ids(&self) -> BTreeSet<ContainerId> {
        self.containers.iter().map(|(id, _)| id.clone()).collect()
    }
}

/// What [`prune`] would remove. Changes nothing.
pub fn rehearse(store: &Store, filters: &Filters) -> Result<Pruned, RunError> {
    let mut pruned = Pruned::default();
    for container in pick(store, filters)? {
        pruned.add(&container, size(&container));
    }
    Ok(pruned)
}

/// Removes; with `shown` only of those that a user has agreed to.
pub fn prune(
    store: &Store,
    filters: &Filters,
    shown: Option<&BTreeSet<ContainerId>>,
) -> Result<Pruned, RunError> {
    let mut pruned = Pruned::default();
    for container in pick(store, filters)? {
        if shown.is_some_and(|shown| !shown.contains(&container.record.id)) {
            continue;
        }
        let bytes = size(&container);
        let id = container.record.id.as_str();
        match remove(store, id, RemoveOptions::default()) {
            Ok(()) => pruned.add(&container, bytes),
            // Started or removed meanwhile.
            Err(error @ (RunError::NoSuch(_) | RunError::Running { .. })) => log::debug!("{error}"),
            Err(error) => return Err(error),
        }
    }
    Ok(pruned)
}

impl Pruned {
    fn add(&mut self, container: &Container, bytes: u64) {
        let record = &container.record;
        self.containers
            .push((record.id.clone(), record.name.clone()));
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

fn pick(store: &Store, filters: &Filters) -> Result<Vec<Container>, RunError> {
    let mut picked = store.containers()?;
    // One that is being started has no process yet, but somebody holds it.
    picked.retain(|container| {
        !container.is_running()
            && filters.pass(container)
            && matches!(container.try_lock(), Ok(Some(_)))
    });
    Ok(picked)
}
