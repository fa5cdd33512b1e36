//! `mica load`: images from an archive into the store.
//!
//! Plan: the archive's documents say which images it holds and where their layers are
//! ([`crate::archive`]). Apply: each layer that the store lacks is decompressed, hashed, indexed and written in
//! one pass; each that it has is hashed only. When every digest, every diff ID and every hard link into a lower layer
//! has proved right, all images get their names in one step. A failure anywhere before leaves nothing.
//!
//! A layer that is there already is still verified, so that an archive that lies about it is refused. Its bytes are
//! hashed as they are when that is enough: they are plain, or an earlier import has shown that this compressed blob is
//! that layer. Else they are decompressed too, but nothing is written.
//!
//! A stream is read once, its layers before anybody knows whether an image needs them: they are taken in on trial, and
//! what no image needs goes with the end of the import.

mod layers;
mod progress;

use std::collections::BTreeMap;

use crate::archive::{self, ArchiveError, ArchiveImage, Input, Opened};
use crate::layer::merged::Image;
use crate::layer::{IndexError, Limits};
use crate::oci::{ImageId, Platform, TagRef};
use crate::store::{NewImage, NewOrigin, Store, StoreError};

use crate::ops::transfer::load::layers::Layers;
pub use crate::ops::transfer::load::progress::{Event, Silent, Sink};

/// What to load and how.
#[derive(Debug)]
pub struct Options {
    /// The archive.
    pub input: Input,
    /// The platform to take from an index, and that every image must be for; by default this machine's, where there
    /// is a choice.
    pub platform: Option<Platform>,
    /// How much a layer may hold.
    pub limits: Limits,
}

/// What was loaded.
#[derive(Debug)]
pub struct Loaded {
    /// The images, in the order of the archive.
    pub images: Vec<LoadedImage>,
}

/// One image that was loaded.
#[derive(Debug)]
pub struct LoadedImage {
    /// Its ID.
    pub id: ImageId,
    /// Its names in the archive, each with the other image that had it before.
    pub tags: Vec<(TagRef, Option<ImageId>)>,
    /// What the user should know about it.
    pub notes: Vec<String>,
}

/// Why nothing was loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The archive is no good.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A layer is no good.
    #[error("{archive}: {member}: {reason}")]
    Layer {
        /// The archive.
        archive: String,
        /// The member that holds it.
        member: String,
        /// What is wrong; names the entry.
        reason: String,
    },
    /// The layers do not fit together.
    #[error("{archive}: {source}")]
    Stack {
        /// The archive.
        archive: String,
        /// What is wrong; names layer and entry.
        source: IndexError,
    },
    /// The store refuses or fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Loads all images of an archive, or none.
pub fn load(store: &Store, options: Options, progress: &dyn Sink) -> Result<Loaded, LoadError> {
    let opened = archive::open(options.input)?;
    let import = store.begin_import()?;
    let label = opened.label().to_owned();
    let mut layers = Layers::new(&label, store, &import, &options.limits, progress);
    let catalog = match opened {
        Opened::Catalog(catalog) => catalog,
        Opened::Stream(stream) => {
            stream.catalog(&mut |streamed, content| layers.on_trial(streamed, content))?
        }
    };
    let images = catalog.images(options.platform.as_ref())?;
    for image in &images {
        for stack in std::iter::once(&image.layers).chain(&image.alternatives) {
            for (index, layer) in stack.iter().enumerate() {
                layers.take(image.config.id, index, layer)?;
            }
        }
    }
    drop(layers);
    for image in &images {
        check_links(store, &label, image)?;
    }

    let mut notes: BTreeMap<ImageId, Vec<String>> = BTreeMap::new();
    let mut new = Vec::with_capacity(images.len());
    for image in images {
        notes.insert(image.config.id, image.notes);
        let origins = image.origins.into_iter().map(|origin| NewOrigin {
            repository: origin.repository,
            media_type: origin.media_type.0,
            bytes: origin.bytes.to_vec(),
            unproved: Vec::new(),
        });
        new.push(NewImage {
            layers: image.config.diff_ids.clone(),
            config: image.config,
            tags: image.tags,
            origins: origins.collect(),
        });
    }
    let committed = import.commit(new)?;
    for image in &committed.images {
        store.note_image("load", &image.id, &image.id.to_string());
    }
    let images = committed.images.into_iter().map(|image| LoadedImage {
        notes: notes.remove(&image.id).unwrap_or_default(),
        id: image.id,
        tags: image.tags,
    });
    Ok(Loaded {
        images: images.collect(),
    })
}

/// Hard links into lower layers must lead to a file there, which only the whole stack can tell.
fn check_links(store: &Store, archive: &str, image: &ArchiveImage) -> Result<(), LoadError> {
    let layers = image
        .layers
        .iter()
        .map(|layer| store.open_layer(&layer.diff_id));
    let stack = layers.collect::<Result<Vec<_>, _>>()?;
    let checked = Image::new(stack).and_then(|stack| stack.verify_lower_links());
    checked.map_err(|source| LoadError::Stack {
        archive: archive.to_owned(),
        source,
    })
}
