//! The store's names in the words of containers/storage, worked out once for each state of the names.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;

use super::documents;
use super::record::{ChainedLayer, StoredImage};
use crate::fs::api::{FsError, Timestamp};
use crate::oci::go;
use crate::oci::{ChainId, DiffId, Digest, ImageId, ManifestOrIndex, MediaType};
use crate::ops::engines::{layer_id, link};
use crate::store::{ImageRecord, Names, Origin, Store};

/// Everything the store shows at one moment.
#[derive(Debug)]
pub(in crate::fs::images) struct Catalog {
    pub layers: BTreeMap<Digest, ChainedLayer>,
    pub links: BTreeMap<Box<str>, Digest>,
    /// An image that begins with the chain: its layers, bottom first, and how many of them the chain has.
    pub chains: BTreeMap<ChainId, (Arc<[DiffId]>, usize)>,
    pub images: BTreeMap<ImageId, StoredImage>,
    pub images_json: Arc<[u8]>,
    pub layers_json: Arc<[u8]>,
    /// What the lock files hold: who wrote last.
    pub writer: Arc<[u8]>,
    /// When this state was first seen; later than that of every state before.
    pub since: Timestamp,
}

impl Catalog {
    pub(crate) fn image(&self, id: &str) -> Option<&StoredImage> {
        self.images.get(&ImageId(Digest::from_hex(id).ok()?))
    }

    pub(crate) fn chain(&self, id: &str) -> Option<(ChainId, Arc<[DiffId]>)> {
        let chain = ChainId(Digest::from_hex(id).ok()?);
        let (layers, count) = self.chains.get(&chain)?;
        Some((chain, layers.get(..*count)?.into()))
    }

    pub(crate) fn layer(&self, id: &str) -> Option<&ChainedLayer> {
        self.layers.get(&Digest::from_hex(id).ok()?)
    }

    /// The content of a layer's `lower`: its parents, the next one first.
    pub(crate) fn lower(&self, id: &Digest) -> String {
        let parent_of = |id: &Digest| self.layers.get(id).and_then(|layer| layer.parent);
        let parents = std::iter::successors(parent_of(id), parent_of);
        let links = parents.filter_map(|id| Some(format!("l/{}", self.layers.get(&id)?.link)));
        links.collect::<Vec<_>>().join(":")
    }
}

/// What is known of an image's manifest. It stays the same while the manifest does.
#[derive(Clone, Debug)]
struct Facts {
    manifest: Digest,
    manifest_size: u64,
    config_size: u64,
    blobs: Vec<Option<(Digest, u64)>>,
    chains: Arc<[ChainId]>,
}

/// The catalog of the latest names.
#[derive(Debug, Default)]
pub(in crate::fs::images) struct Catalogs(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    latest: Option<(Arc<Names>, Arc<Catalog>)>,
    facts: HashMap<ImageId, Facts>,
}

impl Catalogs {
    /// Looks at an image anew: what was found of it is not so any more.
    pub(crate) fn distrust(&self, image: &ImageId) {
        let mut state = self.0.lock();
        state.facts.remove(image);
        state.latest = None;
    }

    /// The catalog of `names`.
    ///
    /// # Errors
    /// A blob that cannot be read, a layer without its index.
    pub(crate) fn of(&self, store: &Store, names: &Arc<Names>) -> Result<Arc<Catalog>, FsError> {
        let mut state = self.0.lock();
        if let Some((known, catalog)) = &state.latest
            && Arc::ptr_eq(known, names)
        {
            return Ok(catalog.clone());
        }
        state.facts.retain(|id, _| names.images.contains_key(id));
        let since = match &state.latest {
            Some((_, before)) => before.since.next(),
            None => Timestamp::now(),
        };
        let mut layers = BTreeMap::new();
        let mut images = BTreeMap::new();
        let mut chains = BTreeMap::new();
        for image in names.images.values() {
            // One image whose files are damaged must not take the others from the engines.
            let facts = match facts(store, image, state.facts.get(&image.id)) {
                Ok(facts) => facts,
                Err(error) => {
                    log::error!("image {} is not shown to engines: {error}", image.id);
                    continue;
                }
            };
            let added = chain(store, image, &facts, &mut layers);
            match added {
                Ok(top) => {
                    let layers: Arc<[DiffId]> = image.layers.as_slice().into();
                    for (chain, count) in facts.chains.iter().zip(1..) {
                        let entry = chains.entry(*chain);
                        entry.or_insert_with(|| (layers.clone(), count));
                    }
                    images.insert(image.id, stored(image, &facts, top))
                }
                Err(error) => {
                    log::error!("image {} is not shown to engines: {error}", image.id);
                    continue;
                }
            };
            state.facts.insert(image.id, facts);
        }
        let images_json: Arc<[u8]> = documents::images(&images)?.into();
        let layers_json: Arc<[u8]> = documents::layers(&layers)?.into();
        let both = [&images_json[..], &layers_json[..]].concat();
        let catalog = Arc::new(Catalog {
            links: layers
                .values()
                .map(|layer: &ChainedLayer| (layer.link.clone(), layer.id))
                .collect(),
            layers,
            images,
            chains,
            writer: Digest::of(&both).hex().into_bytes().into(),
            images_json,
            layers_json,
            since,
        });
        state.latest = Some((names.clone(), catalog.clone()));
        Ok(catalog)
    }
}

/// The manifest that an engine is shown: the one a registry has, if every blob in it is known to be the layer, so that a pull
/// finds that there is nothing to fetch; else our own.
fn served(image: &ImageRecord) -> Option<&Origin> {
    image
        .origins
        .iter()
        .rev()
        .find(|origin| origin.unproved.is_empty())
}

/// The digest of that manifest.
pub(super) fn served_manifest(image: &ImageRecord) -> Digest {
    served(image).map_or(image.manifest.digest, |origin| origin.digest)
}

fn facts(store: &Store, image: &ImageRecord, known: Option<&Facts>) -> Result<Facts, FsError> {
    let origin = served(image);
    let manifest = served_manifest(image);
    if let Some(known) = known
        && known.manifest == manifest
    {
        return Ok(known.clone());
    }
    let size = |digest: &Digest| -> Result<u64, FsError> {
        let path = store.blob_path(digest);
        let found = std::fs::metadata(&path).map_err(|source| FsError::Io {
            context: format!("blob {digest}"),
            source,
        })?;
        Ok(found.len())
    };
    // podman lists nothing at all while there is one config or manifest that it cannot read.
    let unread = |what: &'static str| {
        move |field: String| {
            FsError::Store(format!("programs in Go cannot read its {what}: {field}"))
        }
    };
    let bytes = store.blob(&manifest)?;
    go::reads_manifest(&bytes).map_err(unread("manifest"))?;
    go::reads_config(&store.blob(&image.id.0)?).map_err(unread("config"))?;
    let mut blobs = vec![None; image.layers.len()];
    if let Some(origin) = origin {
        let media_type = Some(MediaType(origin.media_type.clone()));
        if let Ok(ManifestOrIndex::Manifest(manifest)) =
            ManifestOrIndex::parse(&bytes, media_type.as_ref())
            && manifest.layers.len() == blobs.len()
        {
            for (blob, layer) in blobs.iter_mut().zip(&manifest.layers) {
                *blob = Some((layer.digest, layer.size));
            }
        }
    }
    Ok(Facts {
        manifest,
        manifest_size: size(&manifest)?,
        config_size: size(&image.id.0)?,
        blobs,
        chains: ChainId::chain(&image.layers).into(),
    })
}

/// Adds the layers of an image; its topmost one.
fn chain(
    store: &Store,
    image: &ImageRecord,
    facts: &Facts,
    layers: &mut BTreeMap<Digest, ChainedLayer>,
) -> Result<Option<Digest>, FsError> {
    let mut parent = None;
    for (position, diff_id) in image.layers.iter().enumerate() {
        let id = layer_id(parent.as_ref(), diff_id);
        let blob = facts.blobs.get(position).copied().flatten();
        match layers.get_mut(&id) {
            Some(known) => known.blob = known.blob.or(blob),
            None => {
                let size = store.layer_index(diff_id)?.tar_size();
                layers.insert(
                    id,
                    ChainedLayer {
                        id,
                        diff_id: *diff_id,
                        parent,
                        link: link(&id),
                        blob,
                        size,
                        created: created(image),
                    },
                );
            }
        }
        parent = Some(id);
    }
    Ok(parent)
}

fn stored(image: &ImageRecord, facts: &Facts, top: Option<Digest>) -> StoredImage {
    StoredImage {
        id: image.id,
        manifest: facts.manifest,
        manifest_size: facts.manifest_size,
        config_size: facts.config_size,
        top,
        names: image.tags.iter().map(|tag| tag.canonical()).collect(),
        created: created(image),
    }
}

fn created(image: &ImageRecord) -> jiff::Timestamp {
    let added = || jiff::Timestamp::try_from(image.added).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    image.created.unwrap_or_else(added)
}
