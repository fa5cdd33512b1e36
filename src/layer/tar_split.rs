//! The tar of a layer without the content of its files: what containers/storage keeps as `<layer>.tar-split.gz`.
//!
//! Format (vbatts/tar-split, `tar/storage`): gzip over one JSON object a line. `type` 2 is a segment, bytes of the tar itself;
//! `type` 1 is a file whose content is read from the layer's directory by its name and checked by its CRC-64 (ISO). Put
//! together again they are the layer's tar, byte for byte. Whatever is not the content of a plain file stays in segments:
//! headers, padding, sparse maps, entries that a later one replaces.

use std::collections::HashSet;
use std::io::{self, Write};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::error::ReadError;
use super::{LayerFile, NodeNo, Target};
use crate::tree::NodeKind;

/// Bytes of the tar in one segment at the most, and of content in one read.
const PIECE: usize = 1 << 20;

/// Why it could not be written.
#[derive(Debug, thiserror::Error)]
pub enum TarSplitError {
    /// The layer could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It could not be written where it should go.
    #[error("writing the tar-split: {0}")]
    Write(#[from] io::Error),
}

/// Content that stands in one piece in the tar.
struct Plain {
    tar_offset: u64,
    size: u64,
    node: NodeNo,
    path: Vec<u8>,
}

/// Writes the tar-split of `layer` to `out`.
///
/// # Errors
/// A layer that cannot be read or is damaged; whatever `out` answers.
pub fn tar_split(layer: &LayerFile, out: impl Write) -> Result<(), TarSplitError> {
    let mut files = plain_files(layer)?;
    files.sort_by_key(|file| file.tar_offset);
    let mut out = Lines {
        out: GzEncoder::new(out, Compression::fast()),
        position: 0,
    };
    let mut at = 0;
    for file in &files {
        // Two nodes never share bytes of the tar.
        if file.tar_offset < at {
            continue;
        }
        segment(layer, at, file.tar_offset, &mut out)?;
        let sum = checksum(layer, file)?;
        out.file(&file.path, file.size, sum)?;
        at = file.tar_offset.saturating_add(file.size);
    }
    segment(layer, at, layer.index.tar_size(), &mut out)?;
    out.out.finish()?;
    Ok(())
}

/// Every regular file with content and without holes, once, by the first of its names.
fn plain_files(layer: &LayerFile) -> Result<Vec<Plain>, ReadError> {
    let index = &layer.index;
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut left = vec![(NodeNo(0), Vec::new())];
    while let Some((dir, path)) = left.pop() {
        for entry in index.entries(dir)?.iter() {
            let entry = entry?;
            let Some(Target::Node(node)) = entry.target else {
                continue;
            };
            let mut name: Vec<u8> = path.clone();
            if !name.is_empty() {
                name.push(b'/');
            }
            name.extend_from_slice(entry.name);
            match index.kind(node)? {
                NodeKind::Directory => left.push((node, name)),
                NodeKind::Regular if seen.insert(node) => {
                    let stored = index.stored(node)?;
                    if !stored.sparse && stored.size > 0 {
                        found.push(Plain {
                            tar_offset: stored.tar_offset,
                            size: stored.size,
                            node,
                            path: name,
                        });
                    }
                }
                _ => {}
            }
        }
    }
    Ok(found)
}

/// The bytes of the tar from `from` to `to`.
fn segment<W: Write>(
    layer: &LayerFile,
    mut from: u64,
    to: u64,
    out: &mut Lines<W>,
) -> Result<(), TarSplitError> {
    let mut buffer = vec![0u8; PIECE];
    while from < to {
        let left = usize::try_from(to.saturating_sub(from)).unwrap_or(PIECE);
        let piece = buffer.get_mut(..left.min(PIECE)).unwrap_or_default();
        let read = layer.read_tar_at(from, piece)?;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        out.segment(piece.get(..read).unwrap_or_default())?;
        from = from.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
    }
    Ok(())
}

fn checksum(layer: &LayerFile, file: &Plain) -> Result<u64, TarSplitError> {
    let mut buffer = vec![0u8; PIECE];
    let mut sum = Crc64::default();
    let mut at = 0;
    while at < file.size {
        let read = layer.read_at(file.node, at, &mut buffer)?;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        sum.update(buffer.get(..read).unwrap_or_default());
        at = at.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
    }
    Ok(sum.finish())
}

/// The lines, numbered.
struct Lines<W: Write> {
    out: GzEncoder<W>,
    position: u64,
}

impl<W: Write> Lines<W> {
    fn segment(&mut self, bytes: &[u8]) -> io::Result<()> {
        let payload = BASE64_STANDARD.encode(bytes);
        let position = self.next();
        writeln!(
            self.out,
            r#"{{"type":2,"payload":"{payload}","position":{position}}}"#
        )
    }

    fn file(&mut self, path: &[u8], size: u64, sum: u64) -> io::Result<()> {
        let payload = BASE64_STANDARD.encode(sum.to_be_bytes());
        let position = self.next();
        let (key, name) = match std::str::from_utf8(path) {
            Ok(name) => ("name", serde_json::to_string(name)?),
            Err(_) => ("name_raw", format!("{:?}", BASE64_STANDARD.encode(path))),
        };
        writeln!(
            self.out,
            r#"{{"type":1,"{key}":{name},"size":{size},"payload":"{payload}","position":{position}}}"#
        )
    }

    fn next(&mut self) -> u64 {
        let position = self.position;
        self.position = position.saturating_add(1);
        position
    }
}

/// CRC-64 with the ISO polynomial, as Go's `hash/crc64`.
struct Crc64 {
    table: [u64; 256],
    value: u64,
}

impl Default for Crc64 {
    fn default() -> Self {
        const ISO: u64 = 0xd800_0000_0000_0000;
        let table = std::array::from_fn(|byte| {
            (0..8).fold(u64::try_from(byte).unwrap_or(0), |value, _| {
                match value & 1 {
                    1 => value >> 1 ^ ISO,
                    _ => value >> 1,
                }
            })
        });
        Crc64 { table, value: !0 }
    }
}

impl Crc64 {
    fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let [low, ..] = self.value.to_le_bytes();
            let entry = self.table.get(usize::from(low ^ byte)).copied();
            self.value = entry.unwrap_or_default() ^ self.value >> 8;
        }
    }

    fn finish(self) -> u64 {
        !self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_go_s() {
        let of = |bytes: &[u8]| {
            let mut sum = Crc64::default();
            sum.update(bytes);
            BASE64_STANDARD.encode(sum.finish().to_be_bytes())
        };
        // Written by containers/storage for a file of these bytes.
        assert_eq!(of(b"hi\n"), "YUmYEAAAAAA=");
        assert_eq!(of(b""), "AAAAAAAAAAA=");
    }
}
