//! Tars made byte by byte, and layers and images made of them: for tests.

use std::io::Write;
use std::sync::Arc;

use super::merged::Image;
use super::{IndexBuilder, LayerError, LayerFile, LayerIndex, LayerScanner, Limits};
use crate::oci::digest::{DiffId, Digest};

/// Builds a tar; headers can be anything.
#[derive(Debug, Default, Clone)]
pub struct Tar {
    pub bytes: Vec<u8>,
}

/// A header to be changed before it is written.
#[derive(Debug, Clone)]
pub struct Head(pub [u8; 512]);

impl Head {
    pub fn new(name: &[u8], flag: u8, size: u64) -> Head {
        let mut head = Head([0; 512]);
        assert!(name.len() <= 100);
        head.0[..name.len()].copy_from_slice(name);
        head.0[257..265].copy_from_slice(b"ustar\x0000");
        head.0[156] = flag;
        let mode: &[u8] = if flag == b'5' {
            b"0000755\0"
        } else {
            b"0000644\0"
        };
        head.set(100, mode)
            .set(108, b"0000000\0")
            .set(116, b"0000000\0")
            .set(124, format!("{size:011o}\0").as_bytes())
            .set(136, b"00000000000\0")
            .set(329, b"0000000\0")
            .set(337, b"0000000\0")
    }

    pub fn set(mut self, at: usize, bytes: &[u8]) -> Head {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub fn link(self, target: &[u8]) -> Head {
        self.set(157, target)
    }

    pub fn gnu(self) -> Head {
        self.set(257, b"ustar  \0")
    }

    /// With the checksum in place.
    pub fn done(mut self) -> [u8; 512] {
        self.0[148..156].copy_from_slice(b"        ");
        let sum: u32 = self.0.iter().map(|byte| u32::from(*byte)).sum();
        self.set(148, format!("{sum:06o}\0 ").as_bytes()).0
    }
}

impl Tar {
    pub fn new() -> Tar {
        Tar::default()
    }

    pub fn raw(mut self, bytes: &[u8]) -> Tar {
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub fn head(self, head: Head) -> Tar {
        self.raw(&head.done())
    }

    pub fn data(self, data: &[u8]) -> Tar {
        let padding = data.len().next_multiple_of(512) - data.len();
        self.raw(data).raw(&vec![0; padding])
    }

    /// An entry; names and targets of any length and content become PAX records.
    pub fn entry(self, name: &[u8], flag: u8, link: &[u8], data: &[u8]) -> Tar {
        let mut records = Vec::new();
        let mut short = name;
        if name.len() > 100 || name.contains(&0) {
            records.push((&b"path"[..], name));
            short = b"long";
        }
        let mut short_link = link;
        if link.len() > 100 || link.contains(&0) {
            records.push((b"linkpath", link));
            short_link = b"long";
        }
        let tar = if records.is_empty() {
            self
        } else {
            self.pax(&records)
        };
        tar.head(Head::new(short, flag, data.len() as u64).link(short_link))
            .data(data)
    }

    pub fn file(self, name: &[u8], data: &[u8]) -> Tar {
        self.entry(name, b'0', b"", data)
    }

    pub fn dir(self, name: &[u8]) -> Tar {
        self.entry(name, b'5', b"", b"")
    }

    pub fn symlink(self, name: &[u8], target: &[u8]) -> Tar {
        self.entry(name, b'2', target, b"")
    }

    pub fn hardlink(self, name: &[u8], target: &[u8]) -> Tar {
        self.entry(name, b'1', target, b"")
    }

    pub fn pax(self, records: &[(&[u8], &[u8])]) -> Tar {
        let data: Vec<u8> = records
            .iter()
            .flat_map(|(key, value)| pax_record(key, value))
            .collect();
        self.head(Head::new(b"PaxHeaders/x", b'x', data.len() as u64))
            .data(&data)
    }

    pub fn long_name(self, name: &[u8]) -> Tar {
        let data = [name, b"\0"].concat();
        self.head(Head::new(b"././@LongLink", b'L', data.len() as u64).gnu())
            .data(&data)
    }

    pub fn end(self) -> Tar {
        self.raw(&[0; 1024])
    }

    pub fn build(&self) -> Result<IndexBuilder, LayerError> {
        build(&self.bytes, 1 << 20)
    }

    /// Why the tar is refused.
    pub fn refusal(&self) -> super::Problem {
        match self.build() {
            Ok(_) => panic!("accepted"),
            Err(error) => error.problem,
        }
    }

    pub fn layer(&self) -> Arc<LayerFile> {
        match self.build() {
            Ok(builder) => open(&builder, &self.bytes),
            Err(error) => panic!("refused: {error}"),
        }
    }
}

pub fn pax_record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let payload = key.len() + value.len() + 3;
    let mut length = payload + 1;
    while length.to_string().len() + payload != length {
        length = length.to_string().len() + payload;
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

pub fn diff_id(tar: &[u8]) -> DiffId {
    DiffId(Digest::of(tar))
}

/// Scans `tar` in chunks of `chunk` bytes.
pub fn build(tar: &[u8], chunk: usize) -> Result<IndexBuilder, LayerError> {
    let mut scanner = LayerScanner::new(&Limits::default());
    for part in tar.chunks(chunk) {
        scanner.push(part)?;
    }
    scanner.finish(diff_id(tar), tar.len() as u64)
}

/// The bytes of the index file.
pub fn index_bytes(builder: &IndexBuilder) -> Vec<u8> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    builder.write_to(file.as_file_mut()).unwrap();
    let bytes = std::fs::read(file.path()).unwrap();
    assert_eq!(bytes.len() as u64, builder.file_size());
    bytes
}

pub fn open(builder: &IndexBuilder, tar: &[u8]) -> Arc<LayerFile> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    builder.write_to(file.as_file_mut()).unwrap();
    let index = LayerIndex::open(file.path(), &builder.diff_id()).unwrap();
    let mut blob = tempfile::tempfile().unwrap();
    blob.write_all(tar).unwrap();
    Arc::new(LayerFile::open(Arc::new(index), blob).unwrap())
}

/// An image of `tars`, bottom first.
pub fn image(tars: &[Tar]) -> Image {
    Image::new(tars.iter().map(Tar::layer).collect()).unwrap()
}
