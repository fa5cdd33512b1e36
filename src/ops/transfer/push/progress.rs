//! What is told while a push goes on.

use crate::oci::{DiffId, Repository};

/// One step of one layer.
#[derive(Debug, Clone)]
pub enum State {
    /// It will be looked for.
    Preparing,
    /// The registry lacks it.
    Pushing {
        /// Bytes of the tar.
        size: u64,
    },
    /// More of the tar has been read.
    Advance(u64),
    /// It is there now.
    Pushed,
    /// It was there.
    Exists,
    /// The registry had it in another repository.
    Mounted(Repository),
}

/// Who listens. Called from several threads.
pub trait Sink: Sync {
    /// Takes one event.
    fn event(&self, layer: &DiffId, state: State);
}

/// Nobody listens.
#[derive(Debug)]
pub struct Silent;

impl Sink for Silent {
    fn event(&self, _layer: &DiffId, _state: State) {}
}
