//! A blob on its way here: first what an earlier pull has left of it, then what the registry sends, which is kept until the
//! image is whole.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::oci::{Descriptor, Repository};
use crate::registry::{BlobReader, Client, RegistryError};
use crate::store::{Partial, Store};

/// The bytes of one blob. Ends early when another download has failed.
pub(super) struct Download<'a> {
    partial: Option<Partial>,
    /// How many bytes come from there.
    kept: u64,
    /// How many of those were given out.
    given: u64,
    rest: BlobReader,
    stop: &'a AtomicBool,
}

impl<'a> Download<'a> {
    /// Goes on where an earlier pull broke off.
    pub(super) fn resume(
        store: &Store,
        client: &Client,
        repository: &Repository,
        blob: &Descriptor,
        stop: &'a AtomicBool,
    ) -> Self {
        let partial = store.partial(&blob.digest, blob.size);
        let kept = partial.as_ref().map_or(0, Partial::len);
        Download {
            partial,
            kept,
            given: 0,
            rest: client.blob(repository, blob, kept),
            stop,
        }
    }

    /// How many bytes an earlier pull has left.
    pub(super) fn kept(&self) -> u64 {
        self.kept
    }

    /// Whether some of the bytes are an earlier pull's: if the whole turns out wrong, it need not be the registry's fault.
    pub(super) fn is_resumed(&self) -> bool {
        self.kept > 0
    }

    /// Throws away what was kept and begins at the beginning.
    pub(super) fn restart(
        self,
        client: &Client,
        repository: &Repository,
        blob: &Descriptor,
    ) -> Self {
        let mut partial = self.partial;
        if let Some(file) = partial.take_if(|file| !file.clear()) {
            file.discard();
        }
        Download {
            partial,
            kept: 0,
            given: 0,
            rest: client.blob(repository, blob, 0),
            stop: self.stop,
        }
    }

    /// What was kept of it.
    pub(super) fn into_partial(self) -> Option<Partial> {
        self.partial
    }
}

impl Read for Download<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(RegistryError::Stopped.into());
        }
        let left = self.kept - self.given;
        if left > 0
            && let Some(partial) = &self.partial
        {
            let wanted = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let got = partial.read_at(buf.get_mut(..wanted).unwrap_or_default(), self.given)?;
            if got == 0 && wanted > 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.given += got as u64;
            return Ok(got);
        }
        let got = self.rest.read(buf)?;
        if let Some(partial) = &mut self.partial
            && !partial.add(buf.get(..got).unwrap_or_default())
            && let Some(partial) = self.partial.take()
        {
            partial.discard();
        }
        Ok(got)
    }
}
