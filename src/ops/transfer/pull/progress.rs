//! What a pull tells while it runs.

use crate::oci::Digest;

/// One step of one layer, which is named by its blob.
#[derive(Debug, Clone, Copy)]
pub enum Event {
    /// It is here already.
    Exists {
        /// Which.
        blob: Digest,
    },
    /// It will be downloaded.
    Waiting {
        /// Which.
        blob: Digest,
    },
    /// Its download begins.
    Begin {
        /// Which.
        blob: Digest,
        /// Bytes of it.
        size: u64,
        /// How many of those an interrupted pull has left here.
        kept: u64,
    },
    /// More of it has come.
    Advance {
        /// Which.
        blob: Digest,
        /// How much more.
        bytes: u64,
    },
    /// It is in the store, verified.
    Complete {
        /// Which.
        blob: Digest,
    },
    /// It could not be had.
    Failed {
        /// Which.
        blob: Digest,
    },
}

/// Who listens. Called from several threads.
pub trait Sink: Sync {
    /// Takes one event.
    fn event(&self, event: Event);
}

/// Nobody listens.
#[derive(Debug)]
pub struct Silent;

impl Sink for Silent {
    fn event(&self, _event: Event) {}
}
