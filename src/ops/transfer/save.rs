//! `mica save`: images from the store as one archive.
//!
//! The archive is what `docker save` writes today: an OCI layout whose blobs docker's older `manifest.json` names too, so
//! that every tool finds what it knows. Blobs that images share are in it once. Layers are the exact uncompressed tars.
//!
//! Plan: which images under which names, their documents read, their layers open; from then on a removal cannot disturb
//! the writing. Apply: one pass over every layer, hashed on its way: a damaged one ends the writing with an error.
//! The same images give the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::layer::LayerFile;
use crate::oci::{DiffId, Digest, ImageId, MediaType, Reference, TagRef};
use crate::store::{MaybeMissing, Names, Store, StoreError};

use crate::ops::image::resolve::{self, How};
use crate::ops::image::{ImageError, resolve::Resolved};

/// Read at once from a layer: large enough that system calls cost nothing beside hashing.
const BUFFER: usize = 1 << 20;

/// Why an archive could not be written.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// An argument names no image, or the store fails.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The output takes no more.
    #[error("cannot write the archive: {0}")]
    Write(#[source] io::Error),
    /// A layer cannot be read.
    #[error("cannot read layer {layer}: {source}")]
    Read {
        /// The layer.
        layer: DiffId,
        /// Why not.
        source: io::Error,
    },
    /// A layer's bytes are not those of its diff ID.
    #[error("layer {layer} is damaged: its bytes are {found}; load or pull its image again")]
    Damaged {
        /// The layer.
        layer: DiffId,
        /// What they are.
        found: Digest,
    },
}

impl From<StoreError> for SaveError {
    fn from(error: StoreError) -> Self {
        SaveError::Image(error.into())
    }
}

impl MaybeMissing for SaveError {
    fn is_missing(&self) -> bool {
        matches!(self, SaveError::Image(error) if error.is_missing())
    }
}

/// What an archive will hold: documents in memory, layers open.
#[derive(Debug)]
pub struct SavePlan {
    images: Vec<SavedImage>,
    layers: BTreeMap<DiffId, Arc<LayerFile>>,
}

#[derive(Debug)]
struct SavedImage {
    id: ImageId,
    config: Vec<u8>,
    manifest: Vec<u8>,
    layers: Vec<DiffId>,
    tags: BTreeSet<TagRef>,
}

/// Finds the images that the arguments mean. `NAME:TAG` is that name, `NAME` alone every tag of the repository, an ID an
/// image without a name.
pub fn plan(store: &Store, images: &[String]) -> Result<SavePlan, SaveError> {
    store.read(|names| {
        let mut wanted: Vec<(ImageId, BTreeSet<TagRef>)> = Vec::new();
        let mut add = |id: ImageId, tag: Option<TagRef>| {
            let at = match wanted.iter().position(|(known, _)| *known == id) {
                Some(at) => at,
                None => {
                    wanted.push((id, BTreeSet::new()));
                    wanted.len() - 1
                }
            };
            if let (Some((_, tags)), Some(tag)) = (wanted.get_mut(at), tag) {
                tags.insert(tag);
            }
        };
        for text in images {
            let all = whole_repository(names, text);
            for (tag, id) in &all {
                add(*id, Some(tag.clone()));
            }
            if all.is_empty() {
                let Resolved { id, how } = resolve::image(names, text)?;
                let tag = match how {
                    How::Tag(tag) => Some(tag),
                    How::Digest(..) | How::Id => None,
                };
                add(id, tag);
            }
        }
        let mut plan = SavePlan {
            images: Vec::with_capacity(wanted.len()),
            layers: BTreeMap::new(),
        };
        for (id, tags) in wanted {
            let record = names.images.get(&id).ok_or(StoreError::NoSuchImage(id))?;
            for layer in &record.layers {
                plan.layers.insert(*layer, store.open_layer(layer)?);
            }
            plan.images.push(SavedImage {
                id,
                config: store.config(&id)?.bytes.clone(),
                manifest: store.manifest_bytes(record)?,
                layers: record.layers.clone(),
                tags,
            });
        }
        Ok(plan)
    })
}

/// The tags of the repository that the argument names without a tag.
fn whole_repository(names: &Names, text: &str) -> Vec<(TagRef, ImageId)> {
    match Reference::parse(text) {
        Ok(Reference {
            repository,
            tag: None,
            digest: None,
        }) => names
            .tags_of(&repository)
            .filter_map(|tag| Some((tag.clone(), names.tags.get(tag)?.id)))
            .collect(),
        _ => Vec::new(),
    }
}

impl SavePlan {
    /// Notes in the store that its images were saved.
    pub fn note(&self, store: &Store) {
        let names = store.names();
        for image in &self.images {
            if let Ok(names) = &names
                && let Some(record) = names.images.get(&image.id)
            {
                store.note_use(record);
            }
            store.note_image("save", &image.id, &image.id.to_string());
        }
    }

    /// Writes the archive.
    pub fn write(&self, out: &mut dyn Write) -> Result<(), SaveError> {
        let mut archive = Archive { out };
        archive.directory("blobs/")?;
        archive.directory("blobs/sha256/")?;
        let mut written: BTreeSet<Digest> = BTreeSet::new();
        for image in &self.images {
            for (digest, bytes) in [
                (image.id.0, &image.config),
                (Digest::of(&image.manifest), &image.manifest),
            ] {
                if written.insert(digest) {
                    archive.file(&blob_name(&digest), bytes)?;
                }
            }
            for layer in &image.layers {
                if let Some(file) = self.layers.get(layer)
                    && written.insert(layer.0)
                {
                    archive.layer(layer, file)?;
                }
            }
        }
        let documents = [
            ("index.json", self.index()),
            ("manifest.json", self.docker_manifest()),
            ("oci-layout", json!({"imageLayoutVersion": "1.0.0"})),
            ("repositories", self.repositories()),
        ];
        for (name, document) in documents {
            archive.file(name, document.to_string().as_bytes())?;
        }
        // The two zero blocks at the end.
        archive.bytes(&[0; 1024])?;
        archive.out.flush().map_err(SaveError::Write)
    }

    fn index(&self) -> serde_json::Value {
        let mut manifests = Vec::new();
        for image in &self.images {
            let descriptor = json!({
                "mediaType": MediaType::oci_manifest().as_str(),
                "digest": Digest::of(&image.manifest).to_string(),
                "size": image.manifest.len(),
            });
            if image.tags.is_empty() {
                manifests.push(descriptor.clone());
            }
            for tag in &image.tags {
                let mut named = descriptor.clone();
                let annotations = json!({
                    "io.containerd.image.name": tag.canonical(),
                    "org.opencontainers.image.ref.name": tag.tag.as_str(),
                });
                if let Some(named) = named.as_object_mut() {
                    named.insert("annotations".to_owned(), annotations);
                }
                manifests.push(named);
            }
        }
        json!({
            "schemaVersion": 2,
            "mediaType": MediaType::oci_index().as_str(),
            "manifests": manifests,
        })
    }

    fn docker_manifest(&self) -> serde_json::Value {
        let entry = |image: &SavedImage| {
            let tags: Vec<String> = image.tags.iter().map(TagRef::familiar).collect();
            let layers: Vec<String> = image.layers.iter().map(|l| blob_name(&l.0)).collect();
            json!({
                "Config": blob_name(&image.id.0),
                "RepoTags": (!tags.is_empty()).then_some(tags),
                "Layers": layers,
            })
        };
        self.images.iter().map(entry).collect()
    }

    /// The file of docker 1.9 and before: name, tag, top layer.
    fn repositories(&self) -> serde_json::Value {
        let mut names: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for image in &self.images {
            for tag in &image.tags {
                let top = image.layers.last().map_or(image.id.0, |layer| layer.0);
                names
                    .entry(tag.repository.familiar())
                    .or_default()
                    .insert(tag.tag.to_string(), top.hex());
            }
        }
        json!(names)
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// A tar being written. Names are ours and short, times are zero: the same images give the same bytes.
struct Archive<'a> {
    out: &'a mut dyn Write,
}

impl Archive<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), SaveError> {
        self.out.write_all(bytes).map_err(SaveError::Write)
    }

    fn header(&mut self, name: &str, kind: tar::EntryType, size: u64) -> Result<(), SaveError> {
        let mut header = tar::Header::new_gnu();
        header.set_path(name).map_err(SaveError::Write)?;
        header.set_entry_type(kind);
        header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
        header.set_size(size);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        self.bytes(header.as_bytes())
    }

    fn padding(&mut self, size: u64) -> Result<(), SaveError> {
        let rest = usize::try_from(size.wrapping_neg() % 512).unwrap_or_default();
        self.bytes([0; 512].get(..rest).unwrap_or_default())
    }

    fn directory(&mut self, name: &str) -> Result<(), SaveError> {
        self.header(name, tar::EntryType::Directory, 0)
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> Result<(), SaveError> {
        let size = bytes.len() as u64;
        self.header(name, tar::EntryType::Regular, size)?;
        self.bytes(bytes)?;
        self.padding(size)
    }

    fn layer(&mut self, layer: &DiffId, file: &LayerFile) -> Result<(), SaveError> {
        let size = file.index.tar_size();
        self.header(&blob_name(&layer.0), tar::EntryType::Regular, size)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0u8; BUFFER];
        let mut offset = 0u64;
        while offset < size {
            let rest = usize::try_from(size - offset).unwrap_or(usize::MAX);
            let length = rest.min(BUFFER);
            let chunk = buffer.get_mut(..length).unwrap_or_default();
            file.blob()
                .read_exact_at(chunk, offset)
                .map_err(|source| SaveError::Read {
                    layer: *layer,
                    source,
                })?;
            hasher.update(&*chunk);
            self.out.write_all(chunk).map_err(SaveError::Write)?;
            offset += length as u64;
        }
        let found = Digest::from_bytes(hasher.finalize().into());
        if found != layer.0 {
            let layer = *layer;
            return Err(SaveError::Damaged { layer, found });
        }
        self.padding(size)
    }
}
