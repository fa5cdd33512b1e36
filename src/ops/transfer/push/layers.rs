//! The layers of a push: each found in the registry, mounted from another of its repositories, or sent.

use std::collections::{BTreeMap, VecDeque};
use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use crate::layer::LayerFile;
use crate::oci::{Descriptor, DiffId, Digest, MediaType, Repository};
use crate::ops::transfer::push::source::{self, Packed};
use crate::ops::transfer::push::{Candidate, Options, Packing, Plan, PushError, Sink, State};
use crate::registry::{self, Client, Failure, RegistryError};
use crate::sys::threads;

/// Layers in flight at once, as in docker.
const PARALLEL: usize = 3;

/// The layers of one image on their way to the registry.
pub(super) struct Work<'a> {
    pub(super) client: &'a Client,
    pub(super) target: &'a Repository,
    pub(super) options: &'a Options,
    pub(super) plan: &'a Plan,
    pub(super) progress: &'a dyn Sink,
    /// One has failed: the others need not go on.
    pub(super) stop: AtomicBool,
}

impl Work<'_> {
    /// The blob that each layer is in the registry.
    pub(super) fn layers(&self) -> Result<BTreeMap<DiffId, Descriptor>, PushError> {
        let todo: VecDeque<_> = self.plan.layers.iter().collect();
        let workers = PARALLEL.min(todo.len());
        let todo = Mutex::new(todo);
        let done = Mutex::new(BTreeMap::new());
        let first_error = Mutex::new(None);
        threads::share("push", workers, || {
            while !self.stop.load(Ordering::Relaxed) {
                let Some((layer, file)) = todo.lock().pop_front() else {
                    return;
                };
                match self.layer(layer, file) {
                    Ok(blob) => drop(done.lock().insert(*layer, blob)),
                    Err(error) => {
                        self.stop.store(true, Ordering::Relaxed);
                        first_error.lock().get_or_insert(error);
                    }
                }
            }
        });
        match first_error.into_inner() {
            Some(error) => Err(error),
            None => Ok(done.into_inner()),
        }
    }

    fn layer(&self, layer: &DiffId, file: &Arc<LayerFile>) -> Result<Descriptor, PushError> {
        let none = Vec::new();
        let candidates = self.plan.candidates.get(layer).unwrap_or(&none);
        for candidate in candidates {
            if self.client.has_blob(self.target, &candidate.blob.digest)? {
                self.progress.event(layer, State::Exists);
                return Ok(candidate.blob.clone());
            }
        }
        if let Some(mounted) = self.mount(layer, candidates)? {
            return Ok(mounted);
        }
        if let Some(claims) = self.plan.claims.get(layer) {
            // What a manifest says is no proof; that the layer compresses to these very bytes is one.
            let made = self.rehearse(layer, file)?;
            let mut proved = claims.clone();
            proved.retain(|claim| (claim.blob.digest, claim.blob.size) == made);
            if let Some(mounted) = self.mount(layer, &proved)? {
                return Ok(mounted);
            }
        }
        self.send(layer, file)
    }

    /// Has the registry take one of these blobs from another of its repositories.
    fn mount(
        &self,
        layer: &DiffId,
        candidates: &[Candidate],
    ) -> Result<Option<Descriptor>, PushError> {
        for candidate in candidates {
            for from in &candidate.repositories {
                if from.domain() == self.target.domain()
                    && from != self.target
                    && self
                        .client
                        .mount_blob(self.target, &candidate.blob.digest, from)?
                {
                    self.progress.event(layer, State::Mounted(from.clone()));
                    return Ok(Some(candidate.blob.clone()));
                }
            }
        }
        Ok(None)
    }

    /// Digest and size of what [`Work::send`] would send.
    fn rehearse(&self, layer: &DiffId, file: &Arc<LayerFile>) -> Result<(Digest, u64), PushError> {
        let packing = self.options.packing.unwrap_or(Packing::Gzip);
        let hashed = |packed: &mut Packed| {
            let (mut hasher, mut size) = (Sha256::new(), 0);
            let mut buffer = vec![0; 256 << 10];
            loop {
                match packed.read(&mut buffer)? {
                    0 => return Ok((Digest::from_bytes(hasher.finalize().into()), size)),
                    got => {
                        hasher.update(buffer.get(..got).unwrap_or_default());
                        size += got as u64;
                    }
                }
            }
        };
        let made: std::io::Result<(Digest, u64)> =
            source::packed(layer, file, packing, &self.stop, &|_| {}, hashed);
        made.map_err(|error| PushError::Layer {
            layer: *layer,
            reason: error.to_string(),
        })
    }

    fn send(&self, layer: &DiffId, file: &Arc<LayerFile>) -> Result<Descriptor, PushError> {
        let size = file.index.tar_size();
        self.progress.event(layer, State::Pushing { size });
        let packing = self.options.packing.unwrap_or(Packing::Gzip);
        let advance = |bytes| self.progress.event(layer, State::Advance(bytes));
        let mut damage = None;
        let sent = self.client.upload(
            self.target,
            &format!("layer {layer}"),
            &mut |send: &mut registry::Send<'_>| {
                source::packed(
                    layer,
                    file,
                    packing,
                    &self.stop,
                    &advance,
                    |packed: &mut Packed| {
                        let result = send(packed);
                        // What ended the reading says more than what it did to the connection.
                        match packed.failure.take() {
                            Some(reason) => {
                                damage = Some(reason);
                                Err(Failure::Final(RegistryError::Stopped))
                            }
                            None => result,
                        }
                    },
                )
            },
        );
        let (digest, size) = match (sent, damage) {
            (_, Some(reason)) => {
                return Err(PushError::Layer {
                    layer: *layer,
                    reason,
                });
            }
            (sent, None) => sent?,
        };
        self.progress.event(layer, State::Pushed);
        let media_type = match packing {
            Packing::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Packing::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        };
        Ok(Descriptor {
            media_type: MediaType(media_type.to_owned()),
            digest,
            size,
            annotations: BTreeMap::new(),
            platform: None,
        })
    }
}
