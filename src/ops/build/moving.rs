//! What is told while something takes long: how far a context has been read, how much of a layer has been written.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

/// How far something has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moving {
    /// The context is read.
    Context {
        /// Entries so far; 0 of an archive, of which only bytes are known.
        entries: usize,
        /// Bytes so far.
        bytes: u64,
    },
    /// A step's layer is written.
    Layer {
        /// Bytes so far.
        bytes: u64,
    },
    /// It has ended, well or not.
    Done,
}

/// Who is told, from any thread.
#[derive(Clone)]
pub struct Watcher(Arc<dyn Fn(Moving) + Send + Sync>);

impl Watcher {
    /// Has `told` called.
    pub fn new(told: impl Fn(Moving) + Send + Sync + 'static) -> Watcher {
        Watcher(Arc::new(told))
    }

    /// Says how far it is.
    pub(super) fn tell(&self, moving: Moving) {
        (self.0)(moving);
    }
}

impl Default for Watcher {
    fn default() -> Watcher {
        Watcher::new(|_| {})
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watcher")
    }
}

/// A layer's tar on its way, counted.
pub(super) struct Counted<'a> {
    out: &'a mut dyn Write,
    watcher: &'a Watcher,
    bytes: u64,
}

impl<'a> Counted<'a> {
    pub(super) fn new(out: &'a mut dyn Write, watcher: &'a Watcher) -> Counted<'a> {
        Counted {
            out,
            watcher,
            bytes: 0,
        }
    }
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written as u64;
        self.watcher.tell(Moving::Layer { bytes: self.bytes });
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.watcher.tell(Moving::Done);
    }
}
