//! Which compressed blobs are known to be which layers: what a manifest lists, as far as somebody has seen the bytes.

use crate::oci::{Descriptor, DiffId, Manifest, ManifestOrIndex};
use crate::store::{ImageRecord, Origin, Store};

/// The manifests that an image came by and that list as many layers as it has, with their bytes. A damaged or strange one
/// tells nothing, and costs no more than downloading or compressing again.
pub(in crate::ops) fn manifests<'a>(
    store: &'a Store,
    image: &'a ImageRecord,
) -> impl Iterator<Item = (&'a Origin, Manifest, Vec<u8>)> {
    image.origins.iter().filter_map(|origin| {
        let bytes = store.blob(&origin.digest).ok()?;
        match ManifestOrIndex::parse(&bytes, None) {
            Ok(ManifestOrIndex::Manifest(manifest))
                if manifest.layers.len() == image.layers.len() =>
            {
                Some((origin, manifest, bytes))
            }
            _ => None,
        }
    })
}

/// The blobs that one of these manifests lists, the layers it says they are, and whether anybody has seen that.
pub(in crate::ops) fn claims<'a>(
    origin: &'a Origin,
    manifest: &'a Manifest,
    image: &'a ImageRecord,
) -> impl Iterator<Item = (&'a Descriptor, DiffId, bool)> {
    let pairs = manifest.layers.iter().zip(&image.layers).enumerate();
    pairs.map(|(at, (blob, layer))| {
        let unproved = origin
            .unproved
            .iter()
            .any(|other| usize::from(*other) == at);
        (blob, *layer, !unproved)
    })
}

/// Those that were seen to be their layers.
pub(in crate::ops) fn pairs<'a>(
    origin: &'a Origin,
    manifest: &'a Manifest,
    image: &'a ImageRecord,
) -> impl Iterator<Item = (&'a Descriptor, DiffId)> {
    claims(origin, manifest, image).filter_map(|(blob, layer, seen)| seen.then_some((blob, layer)))
}
