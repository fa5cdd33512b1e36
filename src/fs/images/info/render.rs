//! The content of each file.

use crate::fs::api::FsError;
use crate::fs::images::Superblock;
use crate::fs::images::places::{InfoFile, LayerFileName, TagFile};
use crate::oci::{DiffId, ImageId, TagRef};
use crate::ops::usage::images as users;
use crate::ops::{
    image::{history, inspect},
    space::df,
};
use crate::store::{ImageRecord, Names};
use crate::text::format;

impl Superblock {
    pub(super) fn render(&self, file: &InfoFile) -> Result<Vec<u8>, FsError> {
        match file {
            InfoFile::Df => self.df(),
            InfoFile::Events => Ok(self.events_text()?.into_bytes()),
            InfoFile::Version => Ok(format!("mica {}\n", env!("CARGO_PKG_VERSION")).into_bytes()),
            InfoFile::Tag(tag, id, file) => self.tag_file(tag, *id, *file),
            InfoFile::Layer(layer, LayerFileName::Info) => self.layer_info(layer),
            InfoFile::Layer(layer, LayerFileName::Users) => {
                Ok(self.users_of_layer(layer)?.into_bytes())
            }
            // Read straight from the blob.
            InfoFile::Layer(_, LayerFileName::Tar) => Ok(Vec::new()),
        }
    }

    fn tag_file(&self, tag: &TagRef, id: ImageId, file: TagFile) -> Result<Vec<u8>, FsError> {
        let view = self.view();
        let image = view.names.images.get(&id).ok_or(FsError::NotFound)?;
        let text = match file {
            TagFile::Id => format!("{id}\n"),
            TagFile::Size => format!("{}\n", image.size),
            TagFile::Layers => image
                .layers
                .iter()
                .map(|layer| format!("{layer}\n"))
                .collect(),
            TagFile::Digest => match served(image, tag) {
                Some(digest) => format!("{digest}\n"),
                None => String::new(),
            },
            TagFile::Users => self.users_of_image(id)?,
            TagFile::Config => return Ok(self.store.config(&id)?.bytes.clone()),
            TagFile::Manifest => match served(image, tag) {
                Some(digest) => return Ok(self.store.blob(&digest)?),
                None => return Ok(self.store.manifest_bytes(image)?),
            },
            TagFile::Inspect => {
                let facts = [inspect::of_image(&self.store, &view.names, &id)?];
                format::json(&facts).map_err(|error| FsError::Store(error.to_string()))?
            }
            TagFile::History => {
                let steps = history::of_image(&self.store, &view.names, &id)?;
                let style = history::Style {
                    no_trunc: true,
                    human: false,
                };
                let now = jiff::Timestamp::UNIX_EPOCH;
                let safe = |text: &str| text.escape_debug().to_string();
                history::table(&steps, style, now, safe)
            }
        };
        Ok(text.into_bytes())
    }

    fn layer_info(&self, layer: &DiffId) -> Result<Vec<u8>, FsError> {
        let view = self.view();
        let index = self.store.layer_index(layer)?;
        let images = images_with(&view.names, layer);
        let facts = serde_json::json!({
            "diff_id": layer.to_string(),
            "tar_size": index.tar_size(),
            "content_size": index.content_size(),
            "entries": index.entry_count(),
            "images": images.iter().map(|id| id.to_string()).collect::<Vec<_>>(),
        });
        let mut bytes =
            serde_json::to_vec_pretty(&facts).map_err(|error| FsError::Store(error.to_string()))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Use of the store: the rows of `mica system df`, and in bytes; with the space that comes back when open files are closed.
    fn df(&self) -> Result<Vec<u8>, FsError> {
        let view = self.view();
        let leases = self.store.live_leases()?;
        // Other daemons are not asked either: one that hangs would take a thread of ours with it.
        let users = users::seen(&leases, &view.names)?;
        let mut df = df::images(&self.store, &view.names, &leases, &users)?;
        let measured = self.measured.last(&self.store);
        if let Some((walked, _)) = &measured {
            df.add(df::Walked::clone(walked));
        }
        let mut stored = view.names.layers();
        let trashed = view.names.trash.images.values();
        stored.extend(trashed.flat_map(|image| &image.layers));
        let (held, held_bytes) = self.slots.held(&stored);
        let row = |what: &str, count: String, bytes: u64| {
            let (size, bytes) = (format::human_size_4(bytes), bytes.to_string());
            vec![
                what.to_owned(),
                count,
                String::new(),
                size,
                String::new(),
                bytes,
            ]
        };
        let mut rows: Vec<Vec<String>> = df.rows().iter().map(df::Named::cells).collect();
        for (cells, named) in rows.iter_mut().zip(df.rows()) {
            cells.push(named.line.size.to_string());
            if measured.is_none() && named.is_walked() {
                cells
                    .iter_mut()
                    .skip(1)
                    .for_each(|cell| *cell = "-".to_owned());
            }
        }
        rows.push(row("Imports in progress", String::new(), df.imports));
        rows.push(row("Removed, still open", held.to_string(), held_bytes));
        rows.push(row(
            "Store",
            String::new(),
            df.total.saturating_add(held_bytes),
        ));
        let header = [&df::HEADER[..], &["BYTES"]].concat();
        let mut text = format::table(Some(&header), &rows);
        text += "\nContainers, volumes and build cache: ";
        match measured {
            Some((_, when)) => text += &format!("as of {when:.0}\n"),
            None => text += "being measured\n",
        }
        Ok(text.into_bytes())
    }
}

/// The digest of the manifest an image was served by for a tag's repository: the latest known.
fn served(image: &ImageRecord, tag: &TagRef) -> Option<crate::oci::Digest> {
    let mut origins = image.origins.iter();
    let found = origins.rfind(|origin| origin.repository.as_ref() == Some(&tag.repository))?;
    Some(found.digest)
}

fn images_with<'a>(names: &'a Names, layer: &DiffId) -> Vec<&'a ImageId> {
    let images = names
        .images
        .values()
        .filter(|image| image.layers.contains(layer));
    images.map(|image| &image.id).collect()
}
