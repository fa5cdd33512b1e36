//! `mica pull`: images from a registry into the store.
//!
//! Plan: the manifest says which layers there are, the config which layers they are; what the store has is not
//! downloaded. Apply: three layers at a time, each downloaded, hashed, decompressed, indexed and written in one pass. When
//! every digest and every diff ID has proved right, the image gets its name in one step; a failure anywhere before
//! leaves nothing.
//!
//! A tag that is up to date costs one request without a body, provided that the image is whole here.

//!
//! What has come of a layer is kept until the image is there, so that a pull that was killed or lost its connection is gone
//! on with, also after hours ([`crate::store::partial`]). A failure that trying again cannot mend leaves nothing.

mod download;
mod layers;
mod progress;

use std::collections::BTreeSet;
use std::io;

use crate::layer::{LayerError, Limits};
use crate::oci::{
    Descriptor, DiffId, Digest, DocumentError, ImageConfig, ImageId, Manifest, ManifestOrIndex,
    Platform, Reference, Repository, Tag, TagRef,
};
use crate::registry::{self, Client, Fetched, RegistryError};
use crate::store::{Event as StoreEvent, NewImage, NewOrigin, Partial, Store, StoreError};

use crate::ops::transfer::pull::layers::Work;

pub use crate::ops::transfer::pull::progress::{Event, Silent, Sink};

/// Indexes within indexes that are followed.
const MAX_NESTING: usize = 3;
/// Manifests and indexes that are fetched for one image at most.
const MAX_DOCUMENTS: usize = 64;
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

impl PullError {
    /// Whether it is no container image but something else that registries keep: a chart, a signature.
    pub fn is_artifact(&self) -> bool {
        let source = match self {
            PullError::Registry(RegistryError::Document { source, .. })
            | PullError::Document { source, .. } => source,
            _ => return false,
        };
        matches!(source, DocumentError::Artifact(_))
    }

    /// Whether the same pull may well succeed later, so that what it has is worth keeping.
    fn may_pass(&self) -> bool {
        match self {
            PullError::Registry(error) => matches!(
                error,
                RegistryError::Unreachable { .. }
                    | RegistryError::Status { .. }
                    | RegistryError::Denied { .. }
                    | RegistryError::Stopped
            ),
            _ => false,
        }
    }
}

/// All tags of a repository.
pub fn tags(
    repository: &Repository,
    options: &registry::Options,
) -> Result<(Client, Vec<Tag>), PullError> {
    let client = Client::connect(repository, options)?;
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
    let repository = &reference.repository;
    let work = Work::new(store, client, &import, repository, options, progress);
    let taken = work.layers(&manifest, &config)?;
    let mut origins = vec![origin(served.clone(), Some(repository.clone()))];
    if let Some(chosen) = chosen {
        // The registry knows it too, but the name of what was pulled is the index's.
        origins.push(origin(chosen, None));
    }
    if let Some(manifest) = origins.last_mut() {
        manifest.unproved = taken.unproved;
    }
    let name = tag.map(|tag| TagRef {
        repository: reference.repository.clone(),
        tag: tag.clone(),
    });
    let had = match &name {
        Some(name) => store.names()?.image_of(name).map(|record| record.id) == Some(id),
        None => store.names()?.images.contains_key(&id),
    };
    let committed = import.commit(vec![NewImage {
        layers: config.diff_ids.clone(),
        config,
        tags: name.clone().into_iter().collect(),
        origins,
    }]);
    // Of no more use, if it went well; and if the store failed, what it needs is room.
    taken.kept.into_iter().for_each(Partial::discard);
    committed?;
    let name = reference.repository.familiar();
    store.note(&[StoreEvent::now("image", "pull", &reference.to_string()).with("name", name)]);
    Ok(Pulled {
        id,
        digest: served.digest,
        reference: reference.clone(),
        up_to_date: had && !taken.downloaded,
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
            let mark = store.layout().layer_mark(layer).try_exists();
            mark.is_ok_and(|there| !there) && store.open_layer(layer).is_ok()
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
        unproved: Vec::new(),
    }
}

/// The manifest to use, and what it was fetched as when an index led to it.
fn choose(
    client: &Client,
    reference: &Reference,
    served: &Fetched,
    options: &Options,
) -> Result<(Manifest, Option<Fetched>), PullError> {
    let entries = match &served.document {
        ManifestOrIndex::Manifest(manifest) => return Ok((manifest.clone(), None)),
        ManifestOrIndex::Index(entries) => entries,
    };
    let mut search = Search {
        client,
        repository: &reference.repository,
        wanted: options.platform.clone().unwrap_or_else(Platform::host),
        seen: BTreeSet::new(),
    };
    match search.among(entries, 1)? {
        Some((manifest, fetched)) => Ok((manifest, Some(fetched))),
        None => Err(PullError::NoPlatform {
            reference: reference.to_string(),
            wanted: search.wanted,
        }),
    }
}

/// Looks through indexes within indexes.
struct Search<'a> {
    client: &'a Client,
    repository: &'a Repository,
    wanted: Platform,
    /// What has been fetched.
    seen: BTreeSet<Digest>,
}

impl Search<'_> {
    fn among(
        &mut self,
        entries: &[Descriptor],
        depth: usize,
    ) -> Result<Option<(Manifest, Fetched)>, PullError> {
        for entry in self.wanted.candidates(entries) {
            if self.seen.len() >= MAX_DOCUMENTS || !self.seen.insert(entry.digest) {
                continue;
            }
            let fetched = self
                .client
                .manifest(self.repository, None, Some(&entry.digest))?;
            // The descriptor's word counts as much as the server's.
            let parsed = ManifestOrIndex::parse(&fetched.bytes, Some(&entry.media_type));
            parsed.map_err(|source| PullError::Document {
                what: format!("manifest {}", entry.digest),
                source,
            })?;
            match &fetched.document {
                ManifestOrIndex::Manifest(manifest) => {
                    return Ok(Some((manifest.clone(), fetched)));
                }
                ManifestOrIndex::Index(inner) if depth < MAX_NESTING => {
                    if let Some(found) = self.among(inner, depth + 1)? {
                        return Ok(Some(found));
                    }
                }
                ManifestOrIndex::Index(_) => {}
            }
        }
        Ok(None)
    }
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
