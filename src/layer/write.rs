//! (being written)
use std::fs::File;
use std::io;

/// A finished index, ready to be written.
#[derive(Debug)]
pub struct IndexBuilder {}

impl IndexBuilder {
    /// Bytes that [`IndexBuilder::write_to`] will write.
    pub fn file_size(&self) -> u64 {
        0
    }
    /// Sum of the sizes of the layer's regular files.
    pub fn content_size(&self) -> u64 {
        0
    }
    /// Writes the index to an empty file. Does not sync.
    pub fn write_to(&self, _file: &mut File) -> io::Result<()> {
        Ok(())
    }
}
