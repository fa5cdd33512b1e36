//! What a load tells while it runs.

use crate::oci::DiffId;

/// One step. Layers come one after another.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// A layer begins.
    Begin {
        /// Twelve digits of a digest where one is known, else the member's name.
        name: &'a str,
        /// Its bytes in the archive.
        size: u64,
    },
    /// More bytes of it have been read.
    Advance(u64),
    /// It is in the store.
    Done {
        /// The layer.
        layer: DiffId,
        /// Whether it was there before.
        existed: bool,
    },
    /// It could not be used; whether that matters shows later.
    Failed,
}

/// Who listens. Called from several threads.
pub trait Sink: Sync {
    /// Takes one event.
    fn event(&self, event: Event<'_>);
}

/// Nobody listens.
#[derive(Debug)]
pub struct Silent;

impl Sink for Silent {
    fn event(&self, _event: Event<'_>) {}
}
