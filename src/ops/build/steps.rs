//! The steps that need no container: configuration and WORKDIR; what all steps share.

use super::copy::{Copying, How};
use super::digest::Fields;
use super::moving::Counted;
use super::stages::Builder;
use super::state::State;
use super::{BuildError, Event, emit, owner};
use crate::oci::dockerfile::Expand;
use crate::oci::dockerfile::ignore::clean;
use crate::oci::{Change, DiffId, Digest, RunConfig};
use crate::ops::transfer::ingest as intake;

/// Changes with every change of what a step means.
const KEYS: &[u8] = b"mica build 1";

impl Builder<'_> {
    /// A step that only changes the configuration.
    pub(super) fn configure(
        &mut self,
        state: &mut State,
        next: RunConfig,
        text: &str,
    ) -> Result<(), BuildError> {
        let created_by = nop(&state.run, " ", text);
        let mut key = self.key("config", state);
        key.add(format!("{:?}", state.run).as_bytes())
            .add(created_by.as_bytes());
        let before = state.id().map(|id| id.to_string()).unwrap_or_default();
        key.add(before.as_bytes()).add(state.author.as_bytes());
        let key = key.finish();
        state.run = next;
        self.step(state, &[key], &created_by, |_, _| Ok(None))
    }

    pub(super) fn change(&mut self, state: &mut State, change: &Change) -> Result<(), BuildError> {
        let mut next = state.run.clone();
        let variables = state.arguments.variables(&state.run.env);
        let how = Expand {
            env: &variables,
            ..Expand::plain(self.file.escape)
        };
        let text = change.apply(&mut next, &how, &mut state.cmd_set);
        let text = text.map_err(|error| BuildError::Failed(error.to_string()))?;
        match change.is_workdir() {
            true => self.workdir(state, next, &text),
            false => self.configure(state, next, &text),
        }
    }

    pub(super) fn label(&mut self, state: &mut State) -> Result<(), BuildError> {
        let mut next = state.run.clone();
        let mut text = "LABEL".to_owned();
        for (name, value) in &self.options.labels {
            text.push_str(&format!(" {name}={value}"));
            next.labels.insert(name.clone(), value.clone());
        }
        self.configure(state, next, &text)
    }

    /// WORKDIR makes the directory, if it is not there.
    fn workdir(
        &mut self,
        state: &mut State,
        next: RunConfig,
        text: &str,
    ) -> Result<(), BuildError> {
        let tree = state.tree(self.store)?;
        let path = clean(next.working_dir.as_bytes());
        let owner = match state.run.user.as_str() {
            "" => (0, 0),
            user => owner::of_user(&tree, user)?,
        };
        let how = How {
            owner: Some(owner),
            now: self.mtime(),
            ..How::default()
        };
        let mut copying = Copying::new(&tree, &how);
        if path.is_empty() || path == b"." || !copying.add_directory(&path)? {
            return self.configure(state, next, text);
        }
        let items = copying.items;
        let created_by = nop(&state.run, " ", text);
        let mut key = self.key("workdir", state);
        key.add(&path).add(format!("{owner:?}").as_bytes());
        let key = key.finish();
        state.run = next;
        self.step(state, &[key], &created_by, |builder, _| {
            builder.layer(items).map(Some)
        })
    }

    /// The time of what the build itself makes.
    pub(super) fn mtime(&self) -> i64 {
        self.options.epoch.unwrap_or(self.now).as_second()
    }

    /// Brings a layer of these entries into the store.
    pub(super) fn layer(&self, items: Vec<super::copy::Item>) -> Result<DiffId, BuildError> {
        let watcher = &self.options.watcher;
        let made = intake::produce(&self.import, &self.options.limits, |out| {
            emit::write(&items, &mut Counted::new(out, watcher))
        });
        Ok(made.map_err(BuildError::from)?.0)
    }

    /// The beginning of a key: what every step depends on.
    pub(super) fn key(&self, kind: &str, state: &State) -> Fields {
        let mut fields = Fields::default();
        fields.add(KEYS).add(kind.as_bytes());
        fields.add(state.chain().as_bytes());
        let epoch = self.options.epoch.map(|epoch| epoch.to_string());
        fields.add(epoch.unwrap_or_default().as_bytes());
        fields
    }

    /// A step: what was made of it before, or `work`, and one more line of history.
    pub(super) fn step(
        &mut self,
        state: &mut State,
        keys: &[Digest],
        created_by: &str,
        work: impl FnOnce(&mut Self, &State) -> Result<Option<DiffId>, BuildError>,
    ) -> Result<(), BuildError> {
        let done = match self.cached(state, keys, created_by)? {
            Some(done) => {
                self.host.tell(&Event::Cached);
                done
            }
            None => {
                let layer = work(self, state)?;
                self.record(keys, layer, created_by)?
            }
        };
        state.advance(done.created, created_by, done.layer)
    }
}

/// `/bin/sh -c #(nop) COPY ..`: the history of a step that runs nothing.
/// A line of history as the builder without BuildKit wrote it.
pub(super) fn nop(run: &RunConfig, blank: &str, text: &str) -> String {
    format!("{} #(nop) {blank}{text}", run.shell_or_default().join(" "))
}
