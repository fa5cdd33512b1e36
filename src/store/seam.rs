//! What the store needs of `layer`, until that module has it: same names, same signatures.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use crate::oci::DiffId;

/// Why an index cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// I/O.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A layer's index.
#[derive(Debug)]
pub struct LayerIndex(u64);
impl LayerIndex {
    /// Opens it.
    pub fn open(path: &Path, expected: &DiffId) -> Result<LayerIndex, IndexError> {
        let text = std::fs::read_to_string(path)?;
        let mut words = text.split(' ');
        if words.next() != Some(&expected.hex()) || !text.ends_with(" end\n") {
            return Err(io::Error::other("bad index").into());
        }
        let size = words.next().and_then(|w| w.parse().ok());
        Ok(LayerIndex(
            size.ok_or_else(|| io::Error::other("bad size"))?,
        ))
    }
    /// Bytes of the tar.
    pub fn tar_size(&self) -> u64 {
        self.0
    }
    /// Bytes of the regular files.
    pub fn content_size(&self) -> u64 {
        self.0
    }
}

/// Index and blob.
#[derive(Debug)]
pub struct LayerFile {
    index: Arc<LayerIndex>,
}
impl LayerFile {
    /// Puts them together.
    pub fn open(index: Arc<LayerIndex>, _blob: File) -> LayerFile {
        LayerFile { index }
    }
    /// The index.
    pub fn index(&self) -> &LayerIndex {
        &self.index
    }
}

/// An index being built.
#[derive(Debug)]
pub struct IndexBytes(Vec<u8>);
impl IndexBytes {
    /// Writes it.
    pub fn write_to(&self, file: &mut File) -> io::Result<()> {
        file.write_all(&self.0)
    }
}

/// Scans a tar.
#[derive(Debug, Default)]
pub struct LayerScanner;
impl LayerScanner {
    /// Takes a chunk.
    pub fn push(&mut self, _chunk: &[u8]) -> Result<(), io::Error> {
        Ok(())
    }
    /// Ends.
    pub fn finish(self, diff_id: DiffId, tar_size: u64) -> Result<IndexBytes, io::Error> {
        Ok(IndexBytes(
            format!("{} {tar_size} end\n", diff_id.hex()).into_bytes(),
        ))
    }
}
