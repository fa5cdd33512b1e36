//! Reading one image's documents, one layer.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::finding::{Problem, Role};
use crate::layer::{IndexBuilder, IndexError, LayerIndex};
use crate::oci::{DiffId, Digest, ImageConfig, ManifestOrIndex};
use crate::store::Store;
use crate::store::error::StoreError;
use crate::store::files::open_if_there;
use crate::store::image_record::ImageRecord;
use crate::store::reindex::scan;

/// Bytes read at once.
const CHUNK: usize = 1 << 20;

/// What a layer turned out to be.
pub(super) enum LayerState {
    Missing,
    Damaged { found: Option<Digest> },
    Unreadable { reason: String },
    Good { index: Rebuilt, content: u64 },
}

/// An index built anew, beside the one in the store.
pub(super) enum Rebuilt {
    Same,
    Different {
        reason: String,
        /// The new one, synced, when there was a place to write it to.
        file: Option<PathBuf>,
    },
}

/// Config, manifest and origins of an image.
pub(super) fn documents(store: &Store, image: &ImageRecord) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut read = |digest: &Digest, role| match store.blob(digest) {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            let images = vec![image.id];
            let digest = *digest;
            problems.push(match error {
                StoreError::BlobMissing(_) => Problem::BlobMissing {
                    digest,
                    role,
                    images,
                },
                StoreError::BlobDamaged { found, .. } => Problem::BlobDamaged {
                    digest,
                    role,
                    images,
                    found: Some(found),
                },
                _ => Problem::BlobDamaged {
                    digest,
                    role,
                    images,
                    found: None,
                },
            });
            None
        }
    };
    let config = read(&image.id.0, Role::Config);
    let manifest = read(&image.manifest.digest, Role::Manifest);
    for origin in &image.origins {
        read(&origin.digest, Role::Origin);
    }
    let mut wrong = |reason: String| {
        problems.push(Problem::RecordWrong {
            image: image.id,
            reason,
        });
    };
    match config.map(|bytes| ImageConfig::parse(&bytes)) {
        Some(Err(error)) => wrong(format!("config: {error}")),
        Some(Ok(config)) if config.diff_ids != image.layers => {
            wrong("index.json and the config list other layers".to_owned());
        }
        _ => {}
    }
    match manifest.map(|bytes| ManifestOrIndex::parse(&bytes, Some(&image.manifest.media_type))) {
        None => {}
        Some(Ok(ManifestOrIndex::Manifest(manifest))) => {
            let layers = manifest.layers.iter().map(|layer| &layer.digest);
            if manifest.config.digest != image.id.0
                || !layers.eq(image.layers.iter().map(|layer| &layer.0))
            {
                wrong("the manifest is another image's".to_owned());
            }
        }
        Some(Ok(ManifestOrIndex::Index(_))) => wrong("the manifest is an index".to_owned()),
        Some(Err(error)) => wrong(format!("manifest: {error}")),
    }
    problems
}

/// Hashes a layer's tar and builds its index again; `scratch` is where a new one may be put.
pub(super) fn layer(
    store: &Store,
    layer: &DiffId,
    scratch: Option<&Path>,
) -> Result<LayerState, StoreError> {
    let path = store.blob_path(&layer.0);
    let Some(blob) = open_if_there(&path)? else {
        return Ok(LayerState::Missing);
    };
    // A disk that cannot read the blob is what a check is there to tell.
    let Ok(scan) = scan(blob) else {
        return Ok(LayerState::Damaged { found: None });
    };
    if scan.digest != layer.0 {
        return Ok(LayerState::Damaged {
            found: Some(scan.digest),
        });
    }
    let built = scan
        .scanner
        .and_then(|scanner| scanner.finish(*layer, scan.size).map_err(|e| e.to_string()));
    let built = match built {
        Ok(built) => built,
        Err(reason) => return Ok(LayerState::Unreadable { reason }),
    };
    let stored = store.layout().layer_index(layer);
    let (fresh, keep) = write_fresh(&built, scratch, layer)?;
    let content = match LayerIndex::open(&fresh, layer) {
        Ok(index) => index.content_size(),
        Err(error) => {
            return Ok(LayerState::Unreadable {
                reason: error.to_string(),
            });
        }
    };
    let reason = match LayerIndex::open(&stored, layer) {
        // No damage: made anew when it is needed.
        Err(IndexError::Version { .. }) => None,
        Err(error) => Some(error.to_string()),
        Ok(_) => (!same_bytes(&fresh, &stored).map_err(StoreError::io("read", &stored))?)
            .then(|| "it is not what the tar gives".to_owned()),
    };
    let index = match (reason, keep) {
        (None, Some(_)) => Rebuilt::Same,
        (None, None) => {
            fs::remove_file(&fresh).map_err(StoreError::io("remove", &fresh))?;
            Rebuilt::Same
        }
        (Some(reason), Some(_)) => Rebuilt::Different { reason, file: None },
        (Some(reason), None) => {
            File::open(&fresh)
                .and_then(|file| file.sync_all())
                .map_err(StoreError::io("sync", &fresh))?;
            let file = Some(fresh);
            Rebuilt::Different { reason, file }
        }
    };
    Ok(LayerState::Good { index, content })
}

/// The index as a file in `scratch`, or, without one, in a temporary directory that lives as long as
/// the second value.
fn write_fresh(
    built: &IndexBuilder,
    scratch: Option<&Path>,
    layer: &DiffId,
) -> Result<(PathBuf, Option<tempfile::TempDir>), StoreError> {
    let (dir, keep) = match scratch {
        Some(dir) => (dir.to_owned(), None),
        None => {
            let made = tempfile::tempdir();
            let keep = made.map_err(StoreError::io("create", &std::env::temp_dir()))?;
            (keep.path().to_owned(), Some(keep))
        }
    };
    let path = dir.join(format!("{}.idx", layer.hex()));
    File::create_new(&path)
        .and_then(|mut file| built.write_to(&mut file))
        .map_err(StoreError::io("write", &path))?;
    Ok((path, keep))
}

fn same_bytes(one: &Path, two: &Path) -> io::Result<bool> {
    if fs::metadata(one)?.len() != fs::metadata(two)?.len() {
        return Ok(false);
    }
    let mut one = io::BufReader::with_capacity(CHUNK, File::open(one)?);
    let mut two = io::BufReader::with_capacity(CHUNK, File::open(two)?);
    loop {
        use std::io::BufRead as _;
        let left = one.fill_buf()?;
        let right = two.fill_buf()?;
        let common = left.len().min(right.len());
        if common == 0 {
            return Ok(left.is_empty() && right.is_empty());
        }
        if left.get(..common) != right.get(..common) {
            return Ok(false);
        }
        one.consume(common);
        two.consume(common);
    }
}
