//! A tar writer that can write anything, correct or not.
//!
//! `tar::Builder` refuses much of what a hostile layer holds. This one writes ustar headers with PAX records for whatever
//! does not fit (long and non-ASCII names, nanoseconds, large ids, xattrs) and takes every field as it is told.

use std::io::{self, Write};

const BLOCK: usize = 512;

/// One entry, every field as it goes into the archive.
#[derive(Clone, Debug)]
pub struct TarEntry {
    pub name: Vec<u8>,
    /// Type flag: b'0' regular, b'1' hard link, b'2' symlink, b'3' char, b'4' block, b'5' directory, b'6' fifo, ...
    pub kind: u8,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    /// Seconds (may be negative) and nanoseconds, 0 to 999,999,999, to be added.
    pub mtime: (i64, u32),
    /// The size field, where it is to differ from the length of `content`.
    pub size: Option<u64>,
    pub link: Vec<u8>,
    pub device: (u32, u32),
    pub content: Vec<u8>,
    /// Extended attributes, written as `SCHILY.xattr.NAME`.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// More PAX records, written after those that the other fields need.
    pub pax: Vec<(Vec<u8>, Vec<u8>)>,
}

impl TarEntry {
    pub fn new(kind: u8, name: impl AsRef<[u8]>) -> TarEntry {
        TarEntry {
            name: name.as_ref().to_vec(),
            kind,
            mode: if kind == b'5' { 0o755 } else { 0o644 },
            uid: 0,
            gid: 0,
            mtime: (1_700_000_000, 0),
            size: None,
            link: Vec::new(),
            device: (0, 0),
            content: Vec::new(),
            xattrs: Vec::new(),
            pax: Vec::new(),
        }
    }

    fn pax_records(&self) -> Vec<u8> {
        let mut records = Vec::new();
        if !fits(&self.name) {
            pax_record(&mut records, b"path", &self.name);
        }
        if !fits(&self.link) {
            pax_record(&mut records, b"linkpath", &self.link);
        }
        let (seconds, nanoseconds) = self.mtime;
        if nanoseconds != 0 || !(0..1 << 33).contains(&seconds) {
            pax_record(&mut records, b"mtime", decimal(self.mtime).as_bytes());
        }
        for (key, id) in [(b"uid", self.uid), (b"gid", self.gid)] {
            if id >= 1 << 21 {
                pax_record(&mut records, key, id.to_string().as_bytes());
            }
        }
        for (name, value) in &self.xattrs {
            let key = [b"SCHILY.xattr.".as_slice(), name].concat();
            pax_record(&mut records, &key, value);
        }
        for (key, value) in &self.pax {
            pax_record(&mut records, key, value);
        }
        records
    }
}

fn fits(name: &[u8]) -> bool {
    name.len() <= 100 && name.is_ascii() && !name.contains(&0)
}

/// `seconds.nanoseconds` as PAX writes it: -1.5 for (-2, 500,000,000).
fn decimal((seconds, nanoseconds): (i64, u32)) -> String {
    let total = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    let sign = if total < 0 { "-" } else { "" };
    let total = total.unsigned_abs();
    format!(
        "{sign}{}.{:09}",
        total / 1_000_000_000,
        total % 1_000_000_000
    )
}

/// Appends `LENGTH KEY=VALUE\n`, where the length counts its own digits.
pub fn pax_record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// Writes entries one after the other; the end marker is a call of its own, so that it can be left out.
pub struct TarWriter<W: Write> {
    out: W,
}

impl<W: Write> TarWriter<W> {
    pub fn new(out: W) -> TarWriter<W> {
        TarWriter { out }
    }

    pub fn entry(&mut self, entry: &TarEntry) -> io::Result<()> {
        let records = entry.pax_records();
        if !records.is_empty() {
            let mut pax = TarEntry::new(b'x', "PaxHeaders/entry");
            pax.content = records;
            self.plain(&pax)?;
        }
        self.plain(entry)
    }

    /// Bytes between two entries, as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    /// The end marker: two blocks of zeros.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }

    /// Without an end marker.
    pub fn into_inner(self) -> W {
        self.out
    }

    fn plain(&mut self, entry: &TarEntry) -> io::Result<()> {
        self.out.write_all(&header(entry))?;
        self.out.write_all(&entry.content)?;
        let padding = entry.content.len().next_multiple_of(BLOCK) - entry.content.len();
        self.out.write_all(&[0; BLOCK][..padding])
    }
}

/// The ustar header of an entry; what does not fit its field is cut, a PAX record carries it.
pub fn header(entry: &TarEntry) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut text = |at: usize, size: usize, value: &[u8]| {
        let length = value.len().min(size);
        block[at..at + length].copy_from_slice(&value[..length]);
    };
    let octal = |digits: usize, value: u64| format!("{value:0digits$o}\0").into_bytes();
    text(0, 100, &entry.name);
    text(100, 8, &octal(7, u64::from(entry.mode)));
    text(
        108,
        8,
        &octal(7, if entry.uid < 1 << 21 { entry.uid } else { 0 }),
    );
    text(
        116,
        8,
        &octal(7, if entry.gid < 1 << 21 { entry.gid } else { 0 }),
    );
    let size = entry.size.unwrap_or(entry.content.len() as u64);
    if size < 1 << 33 {
        text(124, 12, &octal(11, size));
    } else {
        let mut base256 = [0; 12];
        base256[4..].copy_from_slice(&size.to_be_bytes());
        base256[0] = 0x80;
        text(124, 12, &base256);
    }
    let seconds = u64::try_from(entry.mtime.0).unwrap_or(0);
    text(
        136,
        12,
        &octal(11, if seconds < 1 << 33 { seconds } else { 0 }),
    );
    text(148, 8, b"        ");
    text(156, 1, &[entry.kind]);
    text(157, 100, &entry.link);
    text(257, 8, b"ustar\x0000");
    if matches!(entry.kind, b'3' | b'4') {
        text(329, 8, &octal(7, u64::from(entry.device.0)));
        text(337, 8, &octal(7, u64::from(entry.device.1)));
    }
    checksum(&mut block);
    block
}

/// Writes the checksum into a header that was changed by hand.
pub fn checksum(block: &mut [u8; BLOCK]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

#[test]
fn tarball_is_read_by_the_tar_crate() {
    let mut writer = TarWriter::new(Vec::new());
    let mut long = TarEntry::new(b'0', "d/".repeat(120) + "file");
    long.content = b"content".to_vec();
    long.xattrs.push((b"user.a".to_vec(), b"b=c\n".to_vec()));
    long.mtime = (-2, 500_000_000);
    writer.entry(&long).unwrap();
    let bytes = writer.finish().unwrap();
    let mut archive = tar::Archive::new(bytes.as_slice());
    let entries: Vec<_> = archive.entries().unwrap().collect();
    assert_eq!(entries.len(), 1);
    let entry = entries.into_iter().next().unwrap().unwrap();
    assert_eq!(entry.path_bytes().as_ref(), long.name.as_slice());
    assert_eq!(entry.size(), 7);
    assert_eq!(decimal((-2, 500_000_000)), "-1.500000000");
}
