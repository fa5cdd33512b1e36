//! `images.json` and `layers.json`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::record::{ChainedLayer, StoredImage};
use crate::fs::api::FsError;
use crate::fs::images::places::Data;
use crate::oci::{Digest, ImageId};

/// containers/storage, `images.go`: `Image`.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Image<'a> {
    id: String,
    digest: String,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    names: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    layer: Option<String>,
    metadata: &'static str,
    big_data_names: Vec<String>,
    big_data_sizes: BTreeMap<String, u64>,
    big_data_digests: BTreeMap<String, String>,
    created: jiff::Timestamp,
}

/// containers/storage, `layers.go`: `Layer`.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Layer {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    created: jiff::Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    compressed_diff_digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    compressed_size: Option<u64>,
    diff_digest: String,
    diff_size: u64,
}

pub(super) fn images(images: &BTreeMap<ImageId, StoredImage>) -> Result<Vec<u8>, FsError> {
    let rows: Vec<Image<'_>> = images.values().map(image).collect();
    json(&rows)
}

fn image(image: &StoredImage) -> Image<'_> {
    let data = Data::ALL.map(|data| {
        let size = match data {
            Data::Manifest | Data::ManifestByDigest => image.manifest_size,
            Data::Config => image.config_size,
        };
        let (id, manifest) = (&image.id, &image.manifest);
        (data.key(id, manifest), data.digest(id, manifest), size)
    });
    Image {
        id: image.id.hex(),
        digest: image.manifest.to_string(),
        names: &image.names,
        layer: image.top.map(|id| id.hex()),
        metadata: "{}",
        big_data_names: data.iter().map(|(key, ..)| key.clone()).collect(),
        big_data_sizes: data.iter().map(|(key, _, n)| (key.clone(), *n)).collect(),
        big_data_digests: data
            .iter()
            .map(|(key, digest, _)| (key.clone(), digest.to_string()))
            .collect(),
        created: image.created,
    }
}

pub(super) fn layers(layers: &BTreeMap<Digest, ChainedLayer>) -> Result<Vec<u8>, FsError> {
    let rows: Vec<Layer> = layers.values().map(layer).collect();
    json(&rows)
}

fn layer(layer: &ChainedLayer) -> Layer {
    let (blob, size) = layer.blob.unzip();
    Layer {
        id: layer.id.hex(),
        parent: layer.parent.map(|id| id.hex()),
        created: layer.created,
        compressed_diff_digest: blob.map(|digest| digest.to_string()),
        compressed_size: size,
        diff_digest: layer.diff_id.to_string(),
        diff_size: layer.size,
    }
}

fn json(rows: &impl Serialize) -> Result<Vec<u8>, FsError> {
    serde_json::to_vec(rows).map_err(|error| FsError::Store(error.to_string()))
}
