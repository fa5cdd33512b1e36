//! `mica import`: a tar of a whole file system as an image of one layer.
//!
//! Plan: the changes are read and the name is checked before a byte of the tar. Apply: the tar is decompressed, hashed,
//! indexed and written in one pass, as a layer of any image is; then the image gets its name in one step. A failure leaves
//! nothing.

use std::io::{self, Read};

use jiff::Timestamp;

use crate::layer::{LayerError, Limits};
use crate::oci::change::{self, ChangeError};
use crate::oci::{
    DocumentError, ImageConfig, ImageId, Platform, Reference, ReferenceError, RunConfig, Step, Tag,
    TagRef,
};
use crate::store::{NewImage, Store, StoreError};

use crate::ops::transfer::ingest::{self as intake, IntakeError};

/// What the image is to be.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its name; `None`: it has none.
    pub name: Option<TagRef>,
    /// Changes of its config, as `commit` takes them.
    pub changes: Vec<String>,
    /// The comment in its history.
    pub message: String,
    /// What it is for.
    pub platform: Platform,
    /// How much the layer may hold.
    pub limits: Limits,
}

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The name is no name.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// docker's words.
    #[error("cannot import digest reference")]
    Digest,
    /// A change that there is not.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The tar cannot be read, or its compression is damaged.
    #[error("cannot read the archive: {0}")]
    Read(#[source] io::Error),
    /// There is nothing.
    #[error("the archive is empty: expected a tar, plain or compressed")]
    Empty,
    /// The tar is no layer.
    #[error("the archive is no file system: {0}")]
    Layer(#[from] LayerError),
    /// The config cannot be made.
    #[error("the image's config: {0}")]
    Document(#[from] DocumentError),
    /// The store refuses or fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The name that a text gives to an image; a tag that is left out is "latest".
pub fn name(text: &str) -> Result<TagRef, ImportError> {
    let reference = Reference::parse(text)?;
    if reference.digest.is_some() {
        return Err(ImportError::Digest);
    }
    Ok(TagRef {
        repository: reference.repository,
        tag: reference.tag.unwrap_or_else(Tag::latest),
    })
}

/// Imports what `content` gives.
pub fn import(
    store: &Store,
    options: &Options,
    content: &mut (dyn Read + Send),
) -> Result<ImageId, ImportError> {
    let changes = change::parse(&options.changes)?;
    let mut run = RunConfig::default();
    change::apply(&changes, &mut run)?;
    let mut first = [0];
    let got = content.read(&mut first).map_err(ImportError::Read)?;
    if got == 0 {
        return Err(ImportError::Empty);
    }
    let mut content = io::Cursor::new(first).chain(content);
    let import = store.begin_import()?;
    let taken = intake::write(&import, &options.limits, &|_| {}, &mut content);
    let (pumped, _) = taken.map_err(|error| match error {
        IntakeError::Read(error) => ImportError::Read(error),
        IntakeError::Layer(error) => ImportError::Layer(error),
        // Only a layer that is said to be one that is here is held to a length.
        IntakeError::TooLong(_) => ImportError::Read(io::ErrorKind::InvalidData.into()),
        IntakeError::Store(error) => ImportError::Store(error),
    })?;
    let step = Step {
        created: Timestamp::now(),
        author: "",
        comment: &options.message,
        created_by: "",
        layer: Some(pumped.diff_id),
        run: &run,
    };
    let config = ImageConfig::child(Err(&options.platform), &step)?;
    let id = config.id;
    import.commit(vec![NewImage {
        layers: config.diff_ids.clone(),
        config,
        tags: options.name.iter().cloned().collect(),
        origins: Vec::new(),
    }])?;
    let name = options.name.as_ref();
    let name = name.map_or_else(|| id.to_string(), ToString::to_string);
    store.note_image("import", &id, &name);
    Ok(id)
}
