//! `mica push`: an image of the store to a registry.
//!
//! Plan: earlier pulls and pushes have left manifests that say which compressed blobs a layer has been. Apply: three layers
//! at a time; one of whose blobs the registry has, or can mount from another of its repositories, is not sent; every other is
//! compressed while it is sent, always to the same bytes. If the blobs turn out to be those of a manifest that the
//! image came by, that manifest is pushed byte for byte, so the digest stays what it was.
//!
//! A layer's tar is hashed on its way: a damaged one ends the push with an error. The manifest goes last.

mod layers;
mod progress;
mod source;

pub use crate::ops::transfer::push::progress::{Silent, Sink, State};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::json;

use crate::layer::LayerFile;
use crate::oci::{
    Descriptor, DiffId, Digest, ImageConfig, LayerEncoding, Manifest, MediaType, Repository, TagRef,
};
use crate::registry::{self, Client, RegistryError};
use crate::store::{
    Event as StoreEvent, ImageRecord, MaybeMissing, Names, NewImage, NewOrigin, Store, StoreError,
};

use crate::ops::transfer::blob_map as proven;
use crate::ops::transfer::push::layers::Work;

/// How layers are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// gzip, which everything reads.
    Gzip,
    /// Zstandard: smaller and faster, for clients of 2021 and later.
    Zstd,
}

/// What to push and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// How to compress what is not there; `None` is gzip, and takes blobs of any compression that are there.
    pub packing: Option<Packing>,
    /// How to talk to registries.
    pub registry: registry::Options,
}

/// What was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The manifest's digest, as the registry has it.
    pub digest: Digest,
    /// The manifest's bytes.
    pub size: usize,
}

/// Why nothing was pushed under that name.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The name is not in the store. docker's words.
    #[error("An image does not exist locally with the tag: {0}")]
    NoSuchTag(TagRef),
    /// No tag of the repository is. docker's words.
    #[error("An image does not exist locally with the tag: {0}")]
    NoSuchRepository(Repository),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A layer of the store cannot be read, or is damaged.
    #[error("layer {layer}: {reason}")]
    Layer {
        /// The layer.
        layer: DiffId,
        /// What is wrong.
        reason: String,
    },
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl MaybeMissing for PushError {
    fn is_missing(&self) -> bool {
        matches!(self, PushError::Store(error) if error.is_missing())
    }
}

/// The tags of a repository of the store.
pub fn tags(store: &Store, repository: &Repository) -> Result<Vec<TagRef>, PushError> {
    let names = store.names()?;
    let tags: Vec<TagRef> = names.tags_of(repository).cloned().collect();
    match tags.is_empty() {
        true => Err(PushError::NoSuchRepository(repository.clone())),
        false => Ok(tags),
    }
}

/// A blob that a layer has been, and where a registry may have it.
#[derive(Debug, Clone)]
struct Candidate {
    blob: Descriptor,
    repositories: BTreeSet<Repository>,
}

/// A manifest that the image came by.
struct Original {
    manifest: Manifest,
    bytes: Vec<u8>,
    media_type: MediaType,
}

/// Everything of an image, open: a removal cannot disturb the push any more.
struct Plan {
    record: ImageRecord,
    config: Arc<ImageConfig>,
    layers: BTreeMap<DiffId, Arc<LayerFile>>,
    candidates: BTreeMap<DiffId, Vec<Candidate>>,
    /// Blobs that a manifest of another repository of this registry calls the layer, and that nobody has seen.
    claims: BTreeMap<DiffId, Vec<Candidate>>,
    originals: Vec<Original>,
}

/// Pushes one tag.
pub fn push(
    store: &Store,
    client: &Client,
    tag: &TagRef,
    options: &Options,
    progress: &dyn Sink,
) -> Result<Pushed, PushError> {
    let plan = store.read(|names| plan(store, names, tag, options))?;
    for layer in plan.layers.keys() {
        progress.event(layer, State::Preparing);
    }
    let work = Work {
        client,
        target: &tag.repository,
        options,
        plan: &plan,
        progress,
        stop: AtomicBool::new(false),
    };
    let blobs = work.layers()?;
    let config = &plan.config;
    if !client.has_blob(&tag.repository, &config.id.0)? {
        client.upload_bytes(&tag.repository, &config.bytes)?;
    }
    let (bytes, media_type) = manifest(&plan, &blobs)?;
    let digest = client.put_manifest(&tag.repository, &tag.tag, &media_type, &bytes)?;
    let size = bytes.len();
    if let Err(error) = remember(store, &plan, tag, digest, bytes, media_type) {
        // The next push will compress again; this one is done.
        log::warn!("cannot keep the manifest that was pushed: {error}");
    }
    let name = tag.repository.familiar();
    store.note(&[StoreEvent::now("image", "push", &tag.to_string()).with("name", name)]);
    store.note_use(&plan.record);
    Ok(Pushed { digest, size })
}

fn plan(store: &Store, names: &Names, tag: &TagRef, options: &Options) -> Result<Plan, PushError> {
    let record = names
        .image_of(tag)
        .ok_or_else(|| PushError::NoSuchTag(tag.clone()))?;
    let mut plan = Plan {
        record: record.clone(),
        config: store.config(&record.id)?,
        layers: BTreeMap::new(),
        candidates: BTreeMap::new(),
        claims: BTreeMap::new(),
        originals: Vec::new(),
    };
    for layer in &record.layers {
        plan.layers.insert(*layer, store.open_layer(layer)?);
    }
    // Its own manifests first.
    let others = names.images.values().filter(|other| other.id != record.id);
    for image in std::iter::once(record).chain(others) {
        if !image.layers.iter().any(|l| plan.layers.contains_key(l)) {
            continue;
        }
        // A manifest chosen from an index is kept without a repository; the index has it.
        let repositories: BTreeSet<Repository> = image
            .origins
            .iter()
            .filter_map(|origin| origin.repository.clone())
            .collect();
        for (origin, manifest, bytes) in proven::manifests(store, image) {
            // What the target itself has served is good enough for the target, also unseen.
            let own = origin
                .repository
                .as_ref()
                .or(repositories.get(&tag.repository))
                == Some(&tag.repository);
            for (blob, layer, seen) in proven::claims(origin, &manifest, image) {
                if !seen && !own {
                    let mut repositories = repositories.clone();
                    repositories.retain(|from| from.domain() == tag.repository.domain());
                    if plan.layers.contains_key(&layer)
                        && fits(blob, options)
                        && !repositories.is_empty()
                    {
                        plan.claims.entry(layer).or_default().push(Candidate {
                            blob: blob.clone(),
                            repositories,
                        });
                    }
                    continue;
                }
                let repositories = match seen {
                    true => repositories.clone(),
                    false => BTreeSet::new(),
                };
                if plan.layers.contains_key(&layer) && fits(blob, options) {
                    let known = plan.candidates.entry(layer).or_default();
                    match known.iter_mut().find(|c| c.blob.digest == blob.digest) {
                        Some(candidate) => {
                            candidate.repositories.extend(repositories);
                        }
                        None => known.push(Candidate {
                            blob: blob.clone(),
                            repositories,
                        }),
                    }
                }
            }
            if image.id == record.id && manifest.config.digest == record.id.0 {
                plan.originals.push(Original {
                    manifest,
                    bytes,
                    media_type: MediaType(origin.media_type.clone()),
                });
            }
        }
    }
    Ok(plan)
}

/// Whether a blob may stand for its layer, given what the user asked for.
fn fits(blob: &Descriptor, options: &Options) -> bool {
    match (blob.layer_encoding(), options.packing) {
        (Err(_) | Ok(LayerEncoding::Unknown), _) => false,
        (Ok(_), None) => true,
        (Ok(encoding), Some(Packing::Gzip)) => encoding == LayerEncoding::Gzip,
        (Ok(encoding), Some(Packing::Zstd)) => encoding == LayerEncoding::Zstd,
    }
}

/// The manifest to push: an original one, if these blobs are its own.
fn manifest(
    plan: &Plan,
    blobs: &BTreeMap<DiffId, Descriptor>,
) -> Result<(Vec<u8>, MediaType), PushError> {
    let layers: Vec<&Descriptor> = plan
        .record
        .layers
        .iter()
        .map(|layer| {
            blobs.get(layer).ok_or(PushError::Layer {
                layer: *layer,
                reason: "it was not pushed".to_owned(),
            })
        })
        .collect::<Result<_, _>>()?;
    let same = |original: &&Original| {
        let theirs = original.manifest.layers.iter().map(|l| l.digest);
        theirs.eq(layers.iter().map(|l| l.digest))
    };
    if let Some(original) = plan.originals.iter().find(same) {
        return Ok((original.bytes.clone(), original.media_type.clone()));
    }
    let layer = |blob: &&Descriptor| {
        let media_type = match blob.layer_encoding() {
            Ok(LayerEncoding::Gzip) => "application/vnd.oci.image.layer.v1.tar+gzip",
            Ok(LayerEncoding::Zstd) => "application/vnd.oci.image.layer.v1.tar+zstd",
            _ => "application/vnd.oci.image.layer.v1.tar",
        };
        json!({"mediaType": media_type, "digest": blob.digest.to_string(), "size": blob.size})
    };
    let document = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::oci_manifest().as_str(),
        "config": {
            "mediaType": MediaType::oci_config().as_str(),
            "digest": plan.config.id.0.to_string(),
            "size": plan.config.bytes.len(),
        },
        "layers": layers.iter().map(layer).collect::<Vec<_>>(),
    });
    Ok((document.to_string().into_bytes(), MediaType::oci_manifest()))
}

/// Keeps the manifest with the image: it is its digest in that repository, and tells the next push what is there.
fn remember(
    store: &Store,
    plan: &Plan,
    tag: &TagRef,
    digest: Digest,
    bytes: Vec<u8>,
    media_type: MediaType,
) -> Result<(), StoreError> {
    let names = store.names()?;
    let known = |image: &&ImageRecord| {
        image
            .origins
            .iter()
            .all(|o| o.digest != digest || o.repository.as_ref() != Some(&tag.repository))
    };
    // An image that was removed meanwhile must not come back.
    if names.image_of(tag).filter(known).map(|image| image.id) != Some(plan.record.id) {
        return Ok(());
    }
    let import = store.begin_import()?;
    for layer in &plan.record.layers {
        import.has_layer(layer)?;
    }
    import.commit(vec![NewImage {
        config: ImageConfig::clone(&plan.config),
        layers: plan.record.layers.clone(),
        tags: Vec::new(),
        origins: vec![NewOrigin {
            repository: Some(tag.repository.clone()),
            media_type: media_type.0,
            bytes,
            unproved: Vec::new(),
        }],
    }])?;
    Ok(())
}
