//! Takes the layers of one archive into an import, each once.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::io::Read;

use crate::archive::stream::Streamed;
use crate::archive::{ArchiveError, ArchiveLayer, Content, Problem};
use crate::layer::Limits;
use crate::oci::{DiffId, Digest, ImageId};
use crate::store::{Import, Store, StoreError};
use crate::text::shown;

use crate::ops::transfer::blob_map as proven;
use crate::ops::transfer::ingest::{self as intake, IntakeError, Pumped};
use crate::ops::transfer::load::{Event, LoadError, Sink};

/// The layers of one archive on their way into the store.
pub(super) struct Layers<'a> {
    /// For messages.
    archive: String,
    store: &'a Store,
    import: &'a Import,
    limits: &'a Limits,
    progress: &'a dyn Sink,
    /// What came of each streamed member, by call.
    trials: Vec<Result<Pumped, LoadError>>,
    /// Members whose bytes are known by now.
    read: HashMap<String, Pumped>,
    /// What earlier imports have shown: this blob decompresses to that layer.
    proven: HashMap<ImageId, HashSet<(Digest, DiffId)>>,
}

/// What to do with a layer's bytes.
#[derive(Debug, Clone, Copy)]
enum Mode {
    /// The store lacks it, or nobody knows yet: write it.
    Write,
    /// The store has this layer: check that these bytes are it.
    Verify(DiffId),
    /// The store has this layer, and this compressed blob is known to be it: check that these bytes are the blob.
    VerifyBlob(DiffId),
}

impl<'a> Layers<'a> {
    pub(super) fn new(
        archive: &str,
        store: &'a Store,
        import: &'a Import,
        limits: &'a Limits,
        progress: &'a dyn Sink,
    ) -> Self {
        Layers {
            archive: archive.to_owned(),
            store,
            import,
            limits,
            progress,
            trials: Vec::new(),
            read: HashMap::new(),
            proven: HashMap::new(),
        }
    }

    /// Takes in a member of a stream that may be a layer. Only a store that fails is an error now; a bad layer is one
    /// when an image turns out to need it.
    pub(super) fn on_trial(
        &mut self,
        streamed: Streamed<'_>,
        content: &mut (dyn Read + Send),
    ) -> Result<(), LoadError> {
        let mode = match claimed(streamed.member) {
            Some(layer) if self.import.has_layer(&layer)? => Mode::Verify(layer),
            _ => Mode::Write,
        };
        let name = short_name(streamed.member);
        let trial = self.bring_in(streamed.member, &name, streamed.size, mode, content);
        let trial = match (trial, mode) {
            (Err(LoadError::Store(error)), _) => return Err(error.into()),
            // Nothing was written, because the name is that of a layer in the store; and the name lies.
            (Ok(pumped), Mode::Verify(layer)) if pumped.diff_id != layer => {
                let name = shown(streamed.member);
                Err(self.refuse(Problem::Digest {
                    name,
                    expected: layer.0,
                    actual: pumped.diff_id.0,
                }))
            }
            (trial, _) => trial,
        };
        self.trials.push(trial);
        Ok(())
    }

    /// Takes in one layer of an image and checks that it is what the documents say.
    pub(super) fn take(
        &mut self,
        image: ImageId,
        index: usize,
        layer: &ArchiveLayer,
    ) -> Result<(), LoadError> {
        let pumped = match (self.read.get(&layer.member), &layer.content) {
            (Some(known), _) => *known,
            (None, Content::Streamed { call, .. }) => match self.trials.get_mut(*call) {
                Some(trial) => std::mem::replace(trial, Ok(Pumped::of_nothing()))?,
                None => return Err(self.not_a_tar(layer)),
            },
            (None, content) => {
                let Some(mut reader) = content.reader() else {
                    return Err(self.not_a_tar(layer));
                };
                let mode = self.mode(image, layer)?;
                let mut pumped = self.bring_in(
                    &layer.member,
                    &layer.diff_id.short(),
                    content.length(),
                    mode,
                    &mut *reader,
                )?;
                if let Mode::VerifyBlob(layer) = mode {
                    pumped.diff_id = layer;
                }
                pumped
            }
        };
        self.check(index, layer, pumped)?;
        self.read.insert(layer.member.clone(), pumped);
        Ok(())
    }

    /// How much has to be done for a layer whose documents are known.
    fn mode(&mut self, image: ImageId, layer: &ArchiveLayer) -> Result<Mode, LoadError> {
        if !self.import.has_layer(&layer.diff_id)? {
            return Ok(Mode::Write);
        }
        let Some(blob) = layer.blob else {
            return Ok(Mode::Verify(layer.diff_id));
        };
        let proven = match self.proven.entry(image) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(proven_by(self.store, image)?),
        };
        match proven.contains(&(blob, layer.diff_id)) {
            true => Ok(Mode::VerifyBlob(layer.diff_id)),
            false => Ok(Mode::Verify(layer.diff_id)),
        }
    }

    fn bring_in(
        &self,
        member: &str,
        name: &str,
        size: u64,
        mode: Mode,
        content: &mut (dyn Read + Send),
    ) -> Result<Pumped, LoadError> {
        self.progress.event(Event::Begin { name, size });
        let result = match mode {
            Mode::Write => self.write(member, content),
            Mode::Verify(layer) | Mode::VerifyBlob(layer) => {
                self.verify(member, layer, mode, content)
            }
        };
        match &result {
            Ok((pumped, existed)) => {
                let layer = if let Mode::VerifyBlob(layer) = mode {
                    layer
                } else {
                    pumped.diff_id
                };
                self.progress.event(Event::Done {
                    layer,
                    existed: *existed,
                });
            }
            Err(_) => self.progress.event(Event::Failed),
        }
        result.map(|(pumped, _)| pumped)
    }

    fn write(
        &self,
        member: &str,
        content: &mut (dyn Read + Send),
    ) -> Result<(Pumped, bool), LoadError> {
        let advance = |n| self.progress.event(Event::Advance(n));
        intake::write(self.import, self.limits, &advance, content)
            .map_err(|error| self.stopped(member, error))
    }

    fn verify(
        &self,
        member: &str,
        layer: DiffId,
        mode: Mode,
        content: &mut (dyn Read + Send),
    ) -> Result<(Pumped, bool), LoadError> {
        let blob_only = matches!(mode, Mode::VerifyBlob(_));
        let advance = |n| self.progress.event(Event::Advance(n));
        let (store, import) = (self.store, self.import);
        intake::verify(store, import, layer, blob_only, &advance, content)
            .map(|pumped| (pumped, true))
            .map_err(|error| self.stopped(member, error))
    }

    fn check(&self, index: usize, layer: &ArchiveLayer, actual: Pumped) -> Result<(), LoadError> {
        if let Some(expected) = layer.blob.filter(|blob| *blob != actual.blob) {
            let name = shown(&layer.member);
            return Err(self.refuse(Problem::Digest {
                name,
                expected,
                actual: actual.blob,
            }));
        }
        if layer.diff_id != actual.diff_id {
            let (expected, actual) = (layer.diff_id, actual.diff_id);
            let member = shown(&layer.member);
            return Err(self.refuse(Problem::DiffId {
                member,
                index,
                expected,
                actual,
            }));
        }
        Ok(())
    }

    fn refuse(&self, problem: Problem) -> LoadError {
        LoadError::Archive(ArchiveError::new(&self.archive, problem))
    }

    fn bad_layer(&self, member: &str, reason: String) -> LoadError {
        LoadError::Layer {
            archive: self.archive.clone(),
            member: shown(member),
            reason,
        }
    }

    fn not_a_tar(&self, layer: &ArchiveLayer) -> LoadError {
        self.bad_layer(&layer.member, "no layer: not a tar archive".to_owned())
    }

    fn stopped(&self, member: &str, error: IntakeError) -> LoadError {
        match error {
            IntakeError::Read(error) => self.bad_layer(member, error.to_string()),
            IntakeError::Layer(error) => self.bad_layer(member, error.to_string()),
            IntakeError::TooLong(layer) => self.bad_layer(
                member,
                format!("longer than the layer {layer} it is said to be"),
            ),
            IntakeError::Store(error) => LoadError::Store(error),
        }
    }
}

/// The layer a member's name promises: `blobs/sha256/<diff ID>` of an uncompressed blob, `<diff ID>.tar` of
/// podman and skopeo.
fn claimed(member: &str) -> Option<DiffId> {
    let hex = match member.strip_prefix("blobs/sha256/") {
        Some(hex) => hex,
        None => member.strip_suffix(".tar")?,
    };
    Digest::from_hex(hex).ok().map(DiffId)
}

/// Twelve digits of the digest in a member's name, else the name.
fn short_name(member: &str) -> String {
    let hex = |part: &&str| part.len() == 64 && part.bytes().all(|b| b.is_ascii_hexdigit());
    match member
        .split(['/', '.'])
        .find(hex)
        .and_then(|part| part.get(..12))
    {
        Some(short) => short.to_owned(),
        None => shown(member),
    }
}

/// What an import that is in the store has shown: the blobs of its original manifests, and the layers they are.
fn proven_by(store: &Store, image: ImageId) -> Result<HashSet<(Digest, DiffId)>, StoreError> {
    let names = store.names()?;
    let mut pairs = HashSet::new();
    let Some(record) = names.images.get(&image) else {
        return Ok(pairs);
    };
    for (origin, manifest, _) in proven::manifests(store, record) {
        let proved = proven::pairs(origin, &manifest, record);
        pairs.extend(proved.map(|(blob, layer)| (blob.digest, layer)));
    }
    Ok(pairs)
}
