//! `M/stores/containers`: the images as an additional image store of containers/storage (podman, buildah, skopeo, CRI-O).
//!
//! A tree of its own, on a connection of its own ([`Shape::Stores`](super::Shape)), with the directories that the overlay driver
//! expects of a read-only store (containers/storage, `docs/containers-storage.conf.5.md`, `additionalimagestores`):
//!
//! | path | content |
//! |---|---|
//! | `overlay-images/images.json`, `images.lock` | the images; 64 bytes that differ whenever the images do |
//! | `overlay-images/<id>/manifest`, `=<base64 of key>` | "big data": manifest and config, byte for byte |
//! | `overlay-layers/layers.json`, `layers.lock` | the layers, each under the id that it has below its parents |
//! | `overlay-layers/<id>.tar-split.gz` | the layer's tar without the content of its files; not listed: it is made when asked for |
//! | `overlay/<id>/{diff/,link,lower}`, `overlay/l/<link>` | the layer alone as overlayfs wants it, and the short names of its parents |
//!
//! And `M/stores/chains/<chain ID>`: a layer with all its parents as one tree, for whoever has room for one lower directory only
//! (containerd hands mount(2) a page of options).
//!
//! The kernel answers alone, as one `podman run` asks some two thousand times; it is told what a change of the names changes
//! (`telling`), so that a running engine sees what is tagged and removed. Nothing can be changed. What is not there: `M/stores` has no images of engines, only ours.

mod catalog;
mod documents;
mod record;
mod telling;

use std::sync::Arc;

pub(super) use catalog::Catalogs;

use super::Superblock;
use super::attr;
use super::names_dir::Step;
use super::nodes::{Node, Rendered};
use super::places::{Data, Place, StorePlace, Subject};
use crate::fs::api::{AttrReply, FileKind, FsError, Ttl};
use crate::layer::tar_split;

impl Superblock {
    fn catalog(&self) -> Result<Arc<catalog::Catalog>, FsError> {
        self.catalogs.of(&self.store, &self.view().names)
    }

    /// What `name` at `place` is.
    pub(super) fn store_step(
        &self,
        place: &StorePlace,
        name: &str,
    ) -> Result<Option<Step>, FsError> {
        let catalog = self.catalog()?;
        let own = |place| Step::Own(Place::Store(place));
        Ok(match place {
            StorePlace::Containers => match name {
                "overlay-images" => Some(own(StorePlace::Images)),
                "overlay-layers" => Some(own(StorePlace::Layers)),
                "overlay" => Some(own(StorePlace::Overlay)),
                _ => None,
            },
            StorePlace::Chains => catalog
                .chain(name)
                .map(|(chain, layers)| Step::Root(Subject::Chain(chain, layers))),
            StorePlace::Images => match name {
                "images.json" => Some(own(StorePlace::ImagesJson)),
                "images.lock" => Some(own(StorePlace::ImagesLock)),
                id => catalog
                    .image(id)
                    .map(|image| own(StorePlace::Image(image.id))),
            },
            StorePlace::Image(id) => catalog.images.get(id).and_then(|image| {
                let mut keys = Data::ALL.into_iter();
                let manifest = &image.manifest;
                let key = keys.find(|key| key.file_name(id, manifest) == name);
                key.map(|key| own(StorePlace::Data(*id, key, key.digest(id, manifest))))
            }),
            StorePlace::Layers => match name {
                "layers.json" => Some(own(StorePlace::LayersJson)),
                "layers.lock" => Some(own(StorePlace::LayersLock)),
                name => name
                    .strip_suffix(".tar-split.gz")
                    .and_then(|id| catalog.layer(id))
                    .map(|layer| own(StorePlace::TarSplit(layer.id, layer.diff_id))),
            },
            StorePlace::Overlay => match name {
                "l" => Some(own(StorePlace::Links)),
                id => catalog
                    .layer(id)
                    .map(|layer| own(StorePlace::Layer(layer.id, layer.diff_id))),
            },
            StorePlace::Layer(id, diff_id) => match name {
                "diff" => Some(Step::Root(Subject::Chained(*id, *diff_id))),
                "link" => Some(own(StorePlace::Link(*id))),
                "lower" => catalog
                    .layers
                    .get(id)
                    .filter(|layer| layer.parent.is_some())
                    .map(|layer| own(StorePlace::Lower(layer.id))),
                _ => None,
            },
            StorePlace::Links => {
                let layer = catalog.links.get(name);
                layer.map(|id| own(StorePlace::Symlink(Some(*id))))
            }
            _ => return Err(FsError::NotDirectory),
        })
    }

    /// The names in a directory of the store.
    pub(super) fn store_names(&self, place: &StorePlace) -> Result<Vec<String>, FsError> {
        let catalog = self.catalog()?;
        let texts = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Ok(match place {
            StorePlace::Containers => texts(&["overlay", "overlay-images", "overlay-layers"]),
            StorePlace::Chains => catalog.chains.keys().map(|chain| chain.hex()).collect(),
            StorePlace::Images => {
                let ids = catalog.images.keys().map(|id| id.hex());
                let own = ["images.json", "images.lock"].map(str::to_owned);
                ids.chain(own).collect()
            }
            StorePlace::Image(id) => {
                let image = catalog.images.get(id);
                let names = image.map(|image| {
                    let manifest = &image.manifest;
                    Data::ALL.map(|key| key.file_name(id, manifest)).to_vec()
                });
                names.unwrap_or_default()
            }
            StorePlace::Layers => texts(&["layers.json", "layers.lock"]),
            StorePlace::Overlay => {
                let ids = catalog.layers.keys().map(|id| id.hex());
                ids.chain(["l".to_owned()]).collect()
            }
            StorePlace::Layer(id, _) => match catalog.layers.get(id) {
                Some(layer) if layer.parent.is_some() => texts(&["diff", "link", "lower"]),
                _ => texts(&["diff", "link"]),
            },
            _ => Vec::new(),
        })
    }

    pub(super) fn store_attr(&self, node: &Node, place: &StorePlace) -> Result<AttrReply, FsError> {
        let owner = (self.options.uid, self.options.gid);
        let forever = |attr| AttrReply {
            attr,
            ttl: Ttl::Forever,
        };
        if let Some(target) = place.target() {
            let size = u64::try_from(target.len()).unwrap_or(u64::MAX);
            let (kind, since) = (FileKind::Symlink, self.started());
            return Ok(forever(attr::own(
                node.ino, kind, 0o777, owner, size, since,
            )));
        }
        let catalog = self.catalog()?;
        let mode = match place {
            // What an upper layer deletes is for nobody else's eyes.
            StorePlace::Containers | StorePlace::Chains => 0o500,
            _ if place.is_directory() => 0o555,
            _ => 0o444,
        };
        if place.is_directory() {
            let since = match place {
                StorePlace::Image(_) | StorePlace::Layer(..) => self.started(),
                _ => catalog.since,
            };
            let directory = FileKind::Directory;
            return Ok(forever(attr::own(
                node.ino, directory, mode, owner, 0, since,
            )));
        }
        let rendered = self.store_file(node, place, &catalog)?;
        let size = u64::try_from(rendered.bytes.len()).unwrap_or(u64::MAX);
        Ok(forever(attr::own(
            node.ino,
            FileKind::Regular,
            mode,
            owner,
            size,
            rendered.mtime,
        )))
    }

    /// Reads a file of the store: what the last `stat` measured, as with the files of `info/`.
    pub(super) fn store_read(
        &self,
        node: &Node,
        place: &StorePlace,
        offset: u64,
        size: usize,
        into: &mut Vec<u8>,
    ) -> Result<(), FsError> {
        if place.is_directory() {
            return Err(FsError::IsDirectory);
        }
        let shown = node.rendered.lock().clone();
        let shown = match shown {
            Some(shown) => shown,
            None => self.store_file(node, place, &*self.catalog()?)?,
        };
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = shown.bytes.get(offset..).unwrap_or_default();
        into.extend_from_slice(rest.get(..size).unwrap_or(rest));
        Ok(())
    }

    /// The content of a file. What cannot change while its node is the same is made once.
    fn store_file(
        &self,
        node: &Node,
        place: &StorePlace,
        catalog: &catalog::Catalog,
    ) -> Result<Rendered, FsError> {
        let mut shown = node.rendered.lock();
        let bytes: Arc<[u8]> = match place {
            StorePlace::ImagesJson => catalog.images_json.clone(),
            StorePlace::LayersJson => catalog.layers_json.clone(),
            StorePlace::ImagesLock | StorePlace::LayersLock => catalog.writer.clone(),
            _ => match &*shown {
                Some(shown) => return Ok(shown.clone()),
                None => self.store_content(place, catalog)?.into(),
            },
        };
        let rendered = match shown.take() {
            Some(old) if Arc::ptr_eq(&old.bytes, &bytes) || old.bytes == bytes => old,
            Some(old) => Rendered {
                bytes,
                mtime: old.mtime.next(),
            },
            None => Rendered {
                bytes,
                mtime: catalog.since,
            },
        };
        *shown = Some(rendered.clone());
        Ok(rendered)
    }

    fn store_content(
        &self,
        place: &StorePlace,
        catalog: &catalog::Catalog,
    ) -> Result<Vec<u8>, FsError> {
        let layer = |id| catalog.layers.get(id).ok_or(FsError::NotFound);
        Ok(match place {
            StorePlace::Data(id, _, digest) => {
                let bytes = self.store.blob(digest);
                bytes.inspect_err(|_| {
                    self.catalogs.distrust(id);
                    self.tell_documents();
                })?
            }
            StorePlace::Link(id) => layer(id)?.link.to_string().into_bytes(),
            StorePlace::Lower(id) => catalog.lower(id).into_bytes(),
            StorePlace::TarSplit(_, diff_id) => {
                let opened = self.slots.open(&self.slots.of(diff_id))?;
                let mut bytes = Vec::new();
                tar_split(&opened, &mut bytes)
                    .map_err(|error| FsError::Store(format!("layer {diff_id}: {error}")))?;
                bytes
            }
            _ => return Err(FsError::IsDirectory),
        })
    }
}
