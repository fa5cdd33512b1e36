//! `mica pull`: images from a registry into the store.
//!
//! Plan: the manifest says which layers there are, the config which layers they are; what the store has is not
//! downloaded. Apply: three layers at a time, each downloaded, hashed, decompressed, indexed and written in one pass. When
//! every digest and every diff ID has proved right, the image gets its name in one step; a failure anywhere before
//! leaves nothing.
//!
//! A tag that is up to date costs one request without a body, provided that the image is whole here.

mod progress;

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::layer::{LayerError, Limits};
use crate::oci::{
    Descriptor, DiffId, Digest, DocumentError, ImageConfig, ImageId, Manifest, ManifestOrIndex,
    Platform, Reference, Repository, Tag, TagRef,
};
use crate::registry::{self, Client, Fetched, RegistryError};
use crate::store::{Import, NewImage, NewOrigin, Store, StoreError};

use super::intake::{self, IntakeError};

pub use progress::{Event, Silent, Sink};

/// Layers in flight at once, as in docker: more does not make a disk faster and a server friendlier.
const PARALLEL: usize = 3;
/// Indexes within indexes that are followed.
const MAX_NESTING: usize = 3;
/// Largest config, as everywhere.
const MAX_CONFIG: u64 = 8 << 20;

/// What to pull and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The platform to take from an index, and that the image must be for; by default this machine's, where there is a
    /// choice.
    pub platform: Option<Platform>,
    /// How much a layer may hold.
    pub limits: Limits,
    /// How to talk to registries.
    pub registry: registry::Options,
}

/// What was pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The image.
    pub id: ImageId,
    /// What the registry has under that name: digest of a manifest or an index.
    pub digest: Digest,
    /// What was asked for, with the tag that was meant.
    pub reference: Reference,
    /// Whether the store had it under that name.
    pub up_to_date: bool,
}

/// Why nothing was pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// No image for the platform.
    #[error("no matching manifest for {wanted} in the manifest list entries of {reference}")]
    NoPlatform {
        /// What.
        reference: String,
        /// For which.
        wanted: Platform,
    },
    /// The only image there is is for another platform.
    #[error("{reference} is for {found}, which does not match the specified platform {wanted}")]
    Platform {
        /// What.
        reference: String,
        /// For which.
        wanted: Box<Platform>,
        /// What its config says.
        found: Box<Platform>,
    },
    /// A document is not what it is used as.
    #[error("{what}: {source}")]
    Document {
        /// Which.
        what: String,
        /// Why.
        source: DocumentError,
    },
    /// Manifest and config speak of different numbers of layers.
    #[error("{reference}: the manifest lists {manifest} layers, its config {config}")]
    LayerCount {
        /// What.
        reference: String,
        /// By the manifest.
        manifest: usize,
        /// By the config.
        config: usize,
    },
    /// A layer is larger than allowed, by its descriptor.
    #[error("layer {blob} is {size} bytes, more than the {limit} allowed (--max-layer-size)")]
    TooLarge {
        /// Its blob.
        blob: Digest,
        /// Bytes.
        size: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// A layer's bytes are others than the manifest says.
    #[error("layer {expected}: its bytes are {found}, the download is refused")]
    BlobDigest {
        /// By the manifest.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// A layer is another than the config says.
    #[error("layer {blob}: it decompresses to {found}, the image's config says {expected}")]
    DiffId {
        /// Its blob.
        blob: Digest,
        /// By the config.
        expected: DiffId,
        /// What it is.
        found: DiffId,
    },
    /// A layer cannot be decompressed.
    #[error("layer {blob}: {source}")]
    Damaged {
        /// Its blob.
        blob: Digest,
        /// Why.
        source: io::Error,
    },
    /// A layer is no good.
    #[error("layer {blob}: {source}")]
    Layer {
        /// Its blob.
        blob: Digest,
        /// What is wrong; names the entry.
        source: LayerError,
    },
    /// The store refuses or fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// All tags of a repository.
pub fn tags(
    repository: &Repository,
    options: &registry::Options,
) -> Result<(Client, Vec<Tag>), PullError> {
    let client = Client::connect(repository.domain(), options)?;
    let tags = client.tags(repository)?;
    Ok((client, tags))
}

/// Pulls one image.
pub fn pull(
    store: &Store,
    client: &Client,
    reference: &Reference,
    options: &Options,
    progress: &dyn Sink,
) -> Result<Pulled, PullError> {
    let reference = &Reference {
        tag: reference.tag_or_latest(),
        ..reference.clone()
    };
    // A digest decides over a tag, which is then only decoration.
    let tag = reference
        .tag
        .as_ref()
        .filter(|_| reference.digest.is_none());
    if let Some(pulled) = up_to_date(store, client, reference, options)? {
        return Ok(pulled);
    }
    let served = client.manifest(&reference.repository, tag, reference.digest.as_ref())?;
    let (manifest, chosen) = choose(client, reference, &served, options)?;
    let config = config(client, reference, &manifest, options)?;
    let id = config.id;

    let import = store.begin_import()?;
    let work = Work {
        store,
        client,
        import: &import,
        repository: &reference.repository,
        options,
        progress,
        stop: AtomicBool::new(false),
        downloaded: AtomicBool::new(false),
    };
    work.layers(&manifest, &config)?;
    let downloaded = work.downloaded.load(Ordering::Relaxed);
    let repository = Some(reference.repository.clone());
    let mut origins = vec![origin(served.clone(), repository)];
    if let Some(chosen) = chosen {
        // The registry knows it too, but the name of what was pulled is the index's.
        origins.push(origin(chosen, None));
    }
    let name = tag.map(|tag| TagRef {
        repository: reference.repository.clone(),
        tag: tag.clone(),
    });
    let committed = import.commit(vec![NewImage {
        layers: config.diff_ids.clone(),
        config,
        tags: name.clone().into_iter().collect(),
        origins,
    }])?;
    let moved = committed
        .images
        .iter()
        .any(|image| !image.existed || image.tags.iter().any(|(_, old)| old.is_some()));
    Ok(Pulled {
        id,
        digest: served.digest,
        reference: reference.clone(),
        up_to_date: !moved && !downloaded,
    })
}

/// Whether the name is here already, for that platform, with every layer whole.
fn up_to_date(
    store: &Store,
    client: &Client,
    reference: &Reference,
    options: &Options,
) -> Result<Option<Pulled>, PullError> {
    let names = store.names()?;
    let wanted = options.platform.clone().unwrap_or_else(Platform::host);
    let known = |record: &crate::store::ImageRecord, digest: Digest| {
        let served = record.origins.iter().any(|origin| {
            origin.digest == digest && origin.repository.as_ref() == Some(&reference.repository)
        });
        let platform = record.manifest.platform.as_ref();
        let whole = record.layers.iter().all(|layer| {
            !store.layout().layer_mark(layer).exists() && store.open_layer(layer).is_ok()
        });
        served && platform.is_some_and(|p| wanted.matches(p)) && whole
    };
    let found = match (&reference.digest, &reference.tag) {
        (Some(digest), _) => names
            .images
            .values()
            .find(|record| known(record, *digest))
            .map(|record| (record.id, *digest)),
        (None, Some(tag)) => {
            let name = TagRef {
                repository: reference.repository.clone(),
                tag: tag.clone(),
            };
            let Some(record) = names.image_of(&name) else {
                return Ok(None);
            };
            client
                .digest_of(&reference.repository, tag)?
                .filter(|digest| known(record, *digest))
                .map(|digest| (record.id, digest))
        }
        (None, None) => None,
    };
    Ok(found.map(|(id, digest)| Pulled {
        id,
        digest,
        reference: reference.clone(),
        up_to_date: true,
    }))
}

fn origin(fetched: Fetched, repository: Option<Repository>) -> NewOrigin {
    NewOrigin {
        repository,
        media_type: fetched.media_type.0,
        bytes: fetched.bytes,
    }
}

/// The manifest to use, and what it was fetched as when an index led to it.
fn choose(
    client: &Client,
    reference: &Reference,
    served: &Fetched,
    options: &Options,
) -> Result<(Manifest, Option<Fetched>), PullError> {
    let wanted = options.platform.clone().unwrap_or_else(Platform::host);
    let mut chosen: Option<Fetched> = None;
    for _ in 0..MAX_NESTING {
        let now = chosen.as_ref().unwrap_or(served);
        let entries = match &now.document {
            ManifestOrIndex::Manifest(manifest) => return Ok((manifest.clone(), chosen)),
            ManifestOrIndex::Index(entries) => entries,
        };
        let entry = wanted
            .choose(entries)
            .ok_or_else(|| PullError::NoPlatform {
                reference: reference.to_string(),
                wanted: wanted.clone(),
            })?;
        let fetched = client.manifest(&reference.repository, None, Some(&entry.digest))?;
        // The descriptor's word counts as much as the server's.
        ManifestOrIndex::parse(&fetched.bytes, Some(&entry.media_type)).map_err(|source| {
            PullError::Document {
                what: format!("manifest {}", entry.digest),
                source,
            }
        })?;
        chosen = Some(fetched);
    }
    Err(PullError::NoPlatform {
        reference: reference.to_string(),
        wanted,
    })
}

fn config(
    client: &Client,
    reference: &Reference,
    manifest: &Manifest,
    options: &Options,
) -> Result<ImageConfig, PullError> {
    let bytes = client.small_blob(&reference.repository, &manifest.config, MAX_CONFIG)?;
    let config = ImageConfig::parse(&bytes).map_err(|source| PullError::Document {
        what: format!("config {}", manifest.config.digest),
        source,
    })?;
    if config.diff_ids.len() != manifest.layers.len() {
        return Err(PullError::LayerCount {
            reference: reference.to_string(),
            manifest: manifest.layers.len(),
            config: config.diff_ids.len(),
        });
    }
    match &options.platform {
        Some(wanted) if !wanted.matches(&config.platform) => Err(PullError::Platform {
            reference: reference.to_string(),
            wanted: Box::new(wanted.clone()),
            found: Box::new(config.platform),
        }),
        _ => Ok(config),
    }
}

/// The layers of one image on their way into the store.
struct Work<'a> {
    store: &'a Store,
    client: &'a Client,
    import: &'a Import,
    repository: &'a Repository,
    options: &'a Options,
    progress: &'a dyn Sink,
    /// One has failed: the others need not go on.
    stop: AtomicBool,
    downloaded: AtomicBool,
}

impl Work<'_> {
    fn layers(&self, manifest: &Manifest, config: &ImageConfig) -> Result<(), PullError> {
        let limit = self.options.limits.max_tar_bytes;
        let mut seen = BTreeSet::new();
        let mut todo = VecDeque::new();
        for (blob, layer) in manifest.layers.iter().zip(&config.diff_ids) {
            if !seen.insert((blob.digest, *layer)) {
                continue;
            }
            if self.import.has_layer(layer)? {
                self.progress.event(Event::Exists { blob: blob.digest });
                continue;
            }
            // Compression never makes a layer half as long again.
            if blob.size / 3 * 2 > limit {
                return Err(PullError::TooLarge {
                    blob: blob.digest,
                    size: blob.size,
                    limit,
                });
            }
            self.progress.event(Event::Waiting {
                blob: blob.digest,
                size: blob.size,
            });
            todo.push_back((blob, *layer));
        }
        let workers = PARALLEL.min(todo.len());
        let todo = Mutex::new(todo);
        let first_error = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    while !self.stop.load(Ordering::Relaxed) {
                        let Some((blob, layer)) = todo.lock().pop_front() else {
                            return;
                        };
                        if let Err(error) = self.layer(blob, layer) {
                            self.stop.store(true, Ordering::Relaxed);
                            self.progress.event(Event::Failed { blob: blob.digest });
                            first_error.lock().get_or_insert(error);
                        }
                    }
                });
            }
        });
        first_error.into_inner().map_or(Ok(()), Err)
    }

    fn layer(&self, blob: &Descriptor, expected: DiffId) -> Result<(), PullError> {
        self.progress.event(Event::Begin { blob: blob.digest });
        let mut content = Stoppable {
            inner: self.client.blob(self.repository, blob),
            stop: &self.stop,
        };
        let advance = |bytes| {
            self.progress.event(Event::Advance {
                blob: blob.digest,
                bytes,
            });
        };
        let limits = &self.options.limits;
        let (pumped, _) = intake::write(self.import, limits, &advance, &mut content)
            .map_err(|error| failed(blob.digest, error))?;
        if pumped.blob != blob.digest {
            return Err(PullError::BlobDigest {
                expected: blob.digest,
                found: pumped.blob,
            });
        }
        if pumped.diff_id != expected {
            return Err(PullError::DiffId {
                blob: blob.digest,
                expected,
                found: pumped.diff_id,
            });
        }
        self.downloaded.store(true, Ordering::Relaxed);
        // It must be found by the commit whatever happens to its file meanwhile.
        self.store.open_layer(&expected)?;
        self.progress.event(Event::Complete { blob: blob.digest });
        Ok(())
    }
}

fn failed(blob: Digest, error: IntakeError) -> PullError {
    match error {
        IntakeError::Read(error) => match RegistryError::from_io(error) {
            Ok(error) => PullError::Registry(error),
            Err(source) => PullError::Damaged { blob, source },
        },
        IntakeError::Layer(source) => PullError::Layer { blob, source },
        // Only a layer that is here already is held to a length.
        IntakeError::TooLong(layer) => PullError::DiffId {
            blob,
            expected: layer,
            found: layer,
        },
        IntakeError::Store(error) => PullError::Store(error),
    }
}

/// A download that ends when another one has failed.
struct Stoppable<'a, R> {
    inner: R,
    stop: &'a AtomicBool,
}

impl<R: Read> Read for Stoppable<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.stop.load(Ordering::Relaxed) {
            true => Err(RegistryError::Stopped.into()),
            false => self.inner.read(buf),
        }
    }
}
