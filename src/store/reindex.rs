//! An index as another version of mica wrote it, made anew from its layer's tar.
//!
//! The tar is hashed on the way: sums of a damaged one would make its bytes look right. Whoever needs the index waits; several
//! who need it write the same bytes, and the last rename wins. Where the store cannot be written the index lives in this
//! process alone.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest as _, Sha256};

use super::Store;
use super::error::StoreError;
use super::files;
use crate::layer::{IndexBuilder, LayerIndex, LayerScanner, Limits};
use crate::oci::{DiffId, Digest};
use crate::sys::atomic;

const CHUNK: usize = 1 << 20;

/// A tar that was read to its end.
pub(super) struct Scan {
    pub digest: Digest,
    pub size: u64,
    /// Why it is no layer, if it is none.
    pub scanner: Result<LayerScanner, String>,
}

/// Limits guard the way in. What is in the store came through them, perhaps through wider ones.
fn unlimited() -> Limits {
    Limits {
        max_tar_bytes: u64::MAX,
        max_entries: u64::MAX,
        max_metadata_bytes: u64::MAX,
        ..Limits::default()
    }
}

/// Hashes and scans a layer's tar.
pub(super) fn scan(mut blob: File) -> io::Result<Scan> {
    let mut hash = Sha256::new();
    let mut scanner = Ok(LayerScanner::new(&unlimited()));
    let mut size = 0u64;
    let mut buffer = vec![0u8; CHUNK];
    loop {
        let got = match blob.read(&mut buffer) {
            Ok(0) => break,
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let Some(chunk) = buffer.get(..got) else {
            break;
        };
        hash.update(chunk);
        size += got as u64;
        scanner = scanner.and_then(|mut scanner: LayerScanner| {
            scanner.push(chunk).map_err(|error| error.to_string())?;
            Ok(scanner)
        });
    }
    Ok(Scan {
        digest: Digest::from_bytes(hash.finalize().into()),
        size,
        scanner,
    })
}

impl Store {
    /// Makes the index of `layer` anew and puts it into place.
    pub(super) fn reindex(&self, layer: &DiffId) -> Result<LayerIndex, StoreError> {
        let _one = self.0.reindexing.lock();
        let path = self.layout().layer_index(layer);
        // Another thread may have been first.
        if let Ok(index) = LayerIndex::open(&path, layer) {
            return Ok(index);
        }
        log::info!("the index of layer {layer} is of another version of mica: making it anew");
        let blob = self.blob_path(&layer.0);
        let file = files::open_if_there(&blob)?.ok_or(StoreError::LayerMissing(*layer))?;
        let scanned = scan(file).map_err(StoreError::io("read", &blob))?;
        if scanned.digest != layer.0 {
            return Err(StoreError::BlobDamaged {
                digest: layer.0,
                found: scanned.digest,
            });
        }
        let built = scanned
            .scanner
            .and_then(|scanner| {
                let built = scanner.finish(*layer, scanned.size);
                built.map_err(|error| error.to_string())
            })
            .map_err(|reason| StoreError::Document {
                digest: layer.0,
                reason,
            })?;
        if self.writable().is_ok() {
            match self.place_index(&built, &path) {
                Ok(()) => return LayerIndex::open(&path, layer).map_err(StoreError::Index),
                Err(error) => log::warn!("cannot keep the index of layer {layer}: {error}"),
            }
        }
        let dir = tempfile::tempdir().map_err(StoreError::io("create", &std::env::temp_dir()))?;
        let path = dir.path().join("index");
        write(&built, &path).map_err(StoreError::io("write", &path))?;
        LayerIndex::open(&path, layer).map_err(StoreError::Index)
    }

    /// Through the directory of what is being made, which is swept: when that takes the file, once more.
    fn place_index(&self, built: &IndexBuilder, path: &Path) -> io::Result<()> {
        let mut tries = 0;
        loop {
            let temp = self.index_temp();
            let placed = write(built, &temp).and_then(|()| fs::rename(&temp, path));
            match placed {
                Ok(()) => return atomic::sync_dir(&self.layout().layers()),
                Err(error) if error.kind() == io::ErrorKind::NotFound && tries < 3 => tries += 1,
                Err(error) => {
                    atomic::discard(&temp);
                    return Err(error);
                }
            }
        }
    }

    fn index_temp(&self) -> PathBuf {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("index.{}.{number}", std::process::id());
        self.layout().tmp().join(name)
    }
}

fn write(built: &IndexBuilder, path: &Path) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    built.write_to(&mut file)?;
    file.sync_all()
}
