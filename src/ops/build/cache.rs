//! Which steps were done before.

use std::sync::Arc;

use jiff::Timestamp;

use super::BuildError;
use super::stages::Builder;
use super::state::State;
use crate::oci::{DiffId, Digest, HistoryEntry, ImageConfig};
use crate::ops::image::resolve;
use crate::store::BuildEntry;

/// How far an entry's time of use may be behind before it is written anew.
const STALE: i64 = 3600;

/// What a step made, or had made before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Done {
    /// Its layer.
    pub layer: Option<DiffId>,
    /// When.
    pub created: Timestamp,
}

impl Builder<'_> {
    /// The step with one of these keys, if it was done before and its layer is there.
    pub(super) fn cached(
        &mut self,
        state: &State,
        keys: &[Digest],
        created_by: &str,
    ) -> Result<Option<Done>, BuildError> {
        if self.options.no_cache {
            return Ok(None);
        }
        for key in keys {
            let Some(entry) = self.cache.entries.get(key) else {
                continue;
            };
            let done = Done {
                layer: entry.layer,
                created: self.options.epoch.unwrap_or(entry.created),
            };
            if self.is_there(done.layer)? {
                if self.now.as_second() - entry.used.as_second() > STALE {
                    self.touched.push(*key);
                }
                return Ok(Some(done));
            }
        }
        self.in_images(state, created_by)
    }

    fn is_there(&self, layer: Option<DiffId>) -> Result<bool, BuildError> {
        match layer {
            Some(layer) => Ok(self.import.has_layer(&layer)?),
            None => Ok(true),
        }
    }

    /// The step in one of the images that the caller has named, on the same layers with the same history.
    fn in_images(&self, state: &State, created_by: &str) -> Result<Option<Done>, BuildError> {
        let own = state
            .config
            .as_ref()
            .map_or(&[][..], |config| &config.history);
        let same = |a: &HistoryEntry, b: &HistoryEntry| {
            (&a.created_by, a.empty_layer) == (&b.created_by, b.empty_layer)
        };
        for image in &self.trusted {
            let history = &image.history;
            let below = history.len() > own.len()
                && own.iter().zip(history).all(|(a, b)| same(a, b))
                && image.diff_ids.starts_with(&state.layers);
            let next = history
                .get(own.len())
                .filter(|next| next.created_by == created_by);
            let Some(next) = next.filter(|_| below) else {
                continue;
            };
            let layer = match next.empty_layer {
                true => None,
                false => image.diff_ids.get(state.layers.len()).copied(),
            };
            if (layer.is_none() && !next.empty_layer) || !self.is_there(layer)? {
                continue;
            }
            let created = next.created_at().unwrap_or(self.now);
            return Ok(Some(Done {
                layer,
                created: self.options.epoch.unwrap_or(created),
            }));
        }
        Ok(None)
    }

    /// Writes down what a step made. If another build was faster, its work counts: both end alike.
    pub(super) fn record(
        &mut self,
        keys: &[Digest],
        layer: Option<DiffId>,
        step: &str,
    ) -> Result<Done, BuildError> {
        let mut done = Done {
            layer,
            created: self.options.epoch.unwrap_or_else(Timestamp::now),
        };
        let lock = self.store.lock_unswept()?;
        let (anew, now) = (self.options.no_cache, Timestamp::now());
        self.store.change_builds(&lock, |builds| {
            let first = keys.first().and_then(|key| builds.entries.get(key));
            let known = first.filter(|entry| !anew && entry.layer.is_some() == layer.is_some());
            if let Some(entry) = known {
                done.layer = entry.layer;
                done.created = self.options.epoch.unwrap_or(entry.created);
            }
            for key in keys {
                let entry = BuildEntry {
                    key: *key,
                    layer: done.layer,
                    created: done.created,
                    used: now,
                    step: step.to_owned(),
                };
                self.cache.entries.insert(*key, entry.clone());
                builds.entries.insert(*key, entry);
            }
        })?;
        drop(lock);
        if !self.is_there(done.layer)? {
            // The other's layer is damaged: ours is there.
            done.layer = layer;
        }
        Ok(done)
    }

    /// Notes which entries were of use, and drops what has not been for long.
    pub(super) fn settle_cache(&mut self) -> Result<(), BuildError> {
        let touched = std::mem::take(&mut self.touched);
        let now = Timestamp::now();
        let old = super::prune::expired(self.store, &self.store.builds()?, now)?;
        if touched.is_empty() && old.is_empty() {
            return Ok(());
        }
        let lock = self.store.lock_unswept()?;
        self.store.change_builds(&lock, |builds| {
            for key in touched {
                if let Some(entry) = builds.entries.get_mut(&key) {
                    entry.used = now;
                }
            }
            builds.entries.retain(|key, _| !old.contains(key));
        })?;
        if !old.is_empty() {
            self.store.collect(&lock)?;
        }
        Ok(())
    }

    /// Finds the images of `--cache-from`; those that are not here count nothing, as docker has it.
    pub(super) fn trust(&mut self) -> Result<(), BuildError> {
        let names = self.store.names()?;
        let mut trusted: Vec<Arc<ImageConfig>> = Vec::new();
        for name in &self.options.cache_from {
            match resolve::image(&names, name) {
                Ok(found) => trusted.push(self.store.config(&found.id)?),
                Err(error) => log::info!("--cache-from {name}: {error}"),
            }
        }
        self.trusted = trusted;
        Ok(())
    }
}
