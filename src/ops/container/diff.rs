//! `mica diff`: what changed, in docker's letters.
//!
//! A container against its image, an image against the layers below its last one, or one image against another.

use std::collections::BTreeMap;

use crate::layer::ReadError;
use crate::layer::diff::{self, ChangeKind, PathChange};
use crate::layer::from_dir::{FromDirError, ItemKind, Walker};
use crate::layer::merged::{Image, MergedEntry};
use crate::oci::DiffId;
use crate::store::containers::Container;
use crate::store::{MaybeMissing, Store, StoreError};

use crate::ops::container as containers;
use crate::ops::container::commit::upper;
use crate::ops::container::run::RunError;
use crate::ops::image::ImageError;
use crate::ops::image::resolve;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// The argument, or the store.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Neither a container nor an image.
    #[error("No such container or image: {0}")]
    NoSuch(String),
    /// A container as one of two.
    #[error(
        "{0} is a container: it is compared with its own image only (mica diff {0}); \
         commit it to compare it with another"
    )]
    Container(String),
    /// No container, or several, of that name.
    #[error(transparent)]
    Find(#[from] RunError),
    /// What the container left cannot be read.
    #[error("container {name}: {source}")]
    Upper {
        /// Its name.
        name: String,
        /// Why not.
        source: FromDirError,
    },
    /// A layer is damaged.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl From<StoreError> for DiffError {
    fn from(error: StoreError) -> Self {
        DiffError::Image(error.into())
    }
}

impl MaybeMissing for DiffError {
    fn is_missing(&self) -> bool {
        matches!(self, DiffError::Image(error) if error.is_missing())
    }
}

/// What changed from `old` to `new`, both images.
pub fn images(store: &Store, old: &str, new: &str) -> Result<Vec<PathChange>, DiffError> {
    let opened = store.read(|names| {
        let open = |text: &str| -> Result<Image, DiffError> {
            let id = resolve::image(names, text)?.id;
            let record = names.images.get(&id).ok_or(StoreError::NoSuchImage(id))?;
            stack(store, &record.layers)
        };
        Ok::<_, DiffError>((open(old)?, open(new)?))
    });
    match opened {
        Ok((old, new)) => Ok(diff::images(&old, &new)?),
        Err(error) => {
            for text in [old, new] {
                if containers::look(store, text)?.is_some() {
                    return Err(DiffError::Container(text.to_owned()));
                }
            }
            Err(error)
        }
    }
}

/// What the last layer of an image has changed in those below.
pub fn of_image(store: &Store, text: &str) -> Result<Vec<PathChange>, DiffError> {
    let (below, image) = store.read(|names| {
        let id = match resolve::image(names, text) {
            Err(ImageError::NoSuch(name)) => return Err(DiffError::NoSuch(name)),
            found => found?.id,
        };
        let record = names.images.get(&id).ok_or(StoreError::NoSuchImage(id))?;
        let below = record.layers.len().saturating_sub(1);
        let below = record.layers.get(..below).unwrap_or_default();
        Ok((stack(store, below)?, stack(store, &record.layers)?))
    })?;
    Ok(diff::images(&below, &image)?)
}

/// What a container has changed.
pub fn of_container(store: &Store, container: &Container) -> Result<Vec<PathChange>, DiffError> {
    let base = stack(store, &container.record.layers)?;
    let failed = |source| DiffError::Upper {
        name: container.record.name.clone(),
        source,
    };
    let directory = container.upper();
    let mut walker = Walker::new(&upper::source(container, &directory, &base)).map_err(failed)?;
    let mut found: BTreeMap<Vec<u8>, ChangeKind> = BTreeMap::new();
    let mut opaque = Vec::new();
    while let Some(item) = walker.next().map_err(failed)? {
        match item.kind {
            ItemKind::Opaque => opaque.push(item.path),
            ItemKind::Node(_) | ItemKind::Whiteout | ItemKind::Socket => {
                found.insert(item.path, item.change);
            }
        }
    }
    for directory in opaque {
        replaced(&base, &directory, &mut found)?;
    }
    // docker has no line for the root.
    found.remove(b"".as_slice());
    let changes = found.into_iter();
    Ok(changes
        .map(|(path, kind)| PathChange { path, kind })
        .collect())
}

/// A directory that was made anew in the place of the image's: what the image had in it is changed or gone.
fn replaced(
    base: &Image,
    directory: &[u8],
    found: &mut BTreeMap<Vec<u8>, ChangeKind>,
) -> Result<(), DiffError> {
    let mut todo = vec![directory.to_vec()];
    while let Some(directory) = todo.pop() {
        let read = ReadError::Index;
        let Some(MergedEntry::Dir(dir)) = base.resolve(&directory).map_err(read)? else {
            continue;
        };
        for entry in base.list(&dir).map_err(read)?.iter() {
            let entry = entry.map_err(read)?;
            let separator: &[u8] = if directory.is_empty() { b"" } else { b"/" };
            let path = [&directory, separator, entry.name].concat();
            match found.get_mut(&path) {
                Some(kind) => {
                    *kind = ChangeKind::Changed;
                    todo.push(path);
                }
                None => _ = found.insert(path, ChangeKind::Deleted),
            }
        }
    }
    Ok(())
}

fn stack(store: &Store, layers: &[DiffId]) -> Result<Image, DiffError> {
    let layers = layers.iter().map(|layer| store.open_layer(layer));
    let layers = layers.collect::<Result<_, _>>()?;
    Ok(Image::new(layers).map_err(ReadError::Index)?)
}

/// docker's lines: `A /path`. Bytes that are no UTF-8 stay as they are.
pub fn lines(changes: &[PathChange]) -> Vec<u8> {
    let mut out = Vec::new();
    for change in changes {
        let letter = [change.kind.letter() as u8, b' ', b'/'];
        out.extend_from_slice(&letter);
        out.extend_from_slice(&change.path);
        out.push(b'\n');
    }
    out
}
