//! Writing tar entries exactly: PAX where a plain header cannot say it, and nothing that depends on when or where.
//!
//! Headers are ustar. A PAX header comes before an entry only for what does not fit: long or non-ASCII names, large ids,
//! sizes of 8 GiB and more, times with a fraction or before 1970, extended attributes, holes (GNU's sparse format 1.0).
//! GNU tar, bsdtar, Go and mica's own scanner read all of it back.

use std::io::{self, Write};

use super::tar::{BLOCK, BLOCK_U64};
use crate::tree::{Attributes, NodeKind};

/// Largest number in an octal field of 8 bytes.
const MAX_OCTAL_7: u64 = (1 << 21) - 1;
/// Largest number in an octal field of 12 bytes.
const MAX_OCTAL_11: u64 = (1 << 33) - 1;

/// One entry to write.
#[derive(Debug, Clone, Copy)]
pub struct TarMember<'a> {
    /// Without leading `/`; empty: the root directory.
    pub path: &'a [u8],
    /// Everything that `stat` tells.
    pub attributes: &'a Attributes,
    /// The target of a symbolic link.
    pub target: &'a [u8],
    /// An earlier entry that this is another name of.
    pub hard_link: Option<&'a [u8]>,
    /// Names and values.
    pub xattrs: &'a [(&'a [u8], &'a [u8])],
    /// Data of a file with holes: offset and length, ascending. Its bytes follow each other in the archive.
    pub segments: Option<&'a [(u64, u64)]>,
}

/// Writes entries one after the other. The content of a regular file follows its entry: as many bytes as its size says, or
/// as its segments have.
pub struct TarWriter<W> {
    out: W,
    /// Bytes still to come of the entry's content, and of zeros behind them.
    content: u64,
    padding: usize,
}

impl<W: Write> TarWriter<W> {
    /// A writer.
    pub fn new(out: W) -> TarWriter<W> {
        TarWriter {
            out,
            content: 0,
            padding: 0,
        }
    }

    /// Begins an entry. The content of the one before must be complete.
    pub fn entry(&mut self, member: &TarMember<'_>) -> io::Result<()> {
        self.complete()?;
        let mut header = Header::new(member);
        let map = match (member.segments, header.has_content) {
            (Some(segments), true) => Some(sparse_map(segments, member.attributes.size)),
            _ => None,
        };
        if let Some(map) = &map {
            let stored = member.segments.unwrap_or_default().iter();
            let stored: u64 = stored.map(|(_, length)| length).sum();
            header.pax.record(b"GNU.sparse.major", b"1");
            header.pax.record(b"GNU.sparse.minor", b"0");
            header.pax.record(b"GNU.sparse.name", &header.name);
            let size = member.attributes.size.to_string();
            header.pax.record(b"GNU.sparse.realsize", size.as_bytes());
            header.name = b"GNUSparseFile.0/entry".to_vec();
            header.size = map.len() as u64 + stored;
        }
        let block = header.block();
        if !header.pax.0.is_empty() {
            self.out.write_all(&pax_block(header.pax.0.len() as u64))?;
            self.out.write_all(&header.pax.0)?;
            self.zeros(padding(header.pax.0.len() as u64))?;
        }
        self.out.write_all(&block)?;
        self.content = header.size;
        self.padding = padding(header.size);
        match map {
            Some(map) => self.content(&map),
            None => Ok(()),
        }
    }

    /// Content of the entry.
    pub fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        let left = self.content.checked_sub(bytes.len() as u64);
        self.content = left.ok_or_else(|| io::Error::other("more content than announced"))?;
        self.out.write_all(bytes)
    }

    /// The end of the archive; the output again.
    pub fn finish(mut self) -> io::Result<W> {
        self.complete()?;
        self.zeros(2 * BLOCK)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn complete(&mut self) -> io::Result<()> {
        if self.content > 0 {
            return Err(io::Error::other("less content than announced"));
        }
        let padding = std::mem::take(&mut self.padding);
        self.zeros(padding)
    }

    fn zeros(&mut self, count: usize) -> io::Result<()> {
        let zeros = [0; 2 * BLOCK];
        self.out.write_all(zeros.get(..count).unwrap_or(&zeros))
    }
}

/// PAX records.
#[derive(Default)]
struct Pax(Vec<u8>);

impl Pax {
    /// `LENGTH KEY=VALUE\n`, where the length counts its own digits.
    fn record(&mut self, key: &[u8], value: &[u8]) {
        let rest = key.len() + value.len() + 3;
        let mut length = rest;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        self.0.extend_from_slice(length.to_string().as_bytes());
        for part in [b" ", key, b"=", value, b"\n"] {
            self.0.extend_from_slice(part);
        }
    }

    /// The text, if the field can hold it, else nothing and a record.
    fn text<'a>(&mut self, key: &[u8], text: &'a [u8]) -> &'a [u8] {
        if text.len() <= 100 && text.is_ascii() {
            return text;
        }
        self.record(key, text);
        text.get(..100).unwrap_or(text)
    }

    /// The number, if the field can hold it, else zero and a record.
    fn number(&mut self, key: &[u8], number: u64, max: u64) -> u64 {
        if number <= max {
            return number;
        }
        self.record(key, number.to_string().as_bytes());
        0
    }
}

struct Header {
    name: Vec<u8>,
    flag: u8,
    mode: u32,
    uid: u64,
    gid: u64,
    size: u64,
    mtime: u64,
    link: Vec<u8>,
    device: Option<(u32, u32)>,
    has_content: bool,
    pax: Pax,
}

impl Header {
    fn new(member: &TarMember<'_>) -> Header {
        let Attributes {
            kind,
            mode,
            uid,
            gid,
            size,
            ..
        } = *member.attributes;
        let mut pax = Pax::default();
        let mut name = match member.path {
            b"" => b".".to_vec(),
            path => path.to_vec(),
        };
        let (flag, link) = match (member.hard_link, kind) {
            (Some(first), _) => (b'1', first),
            (None, NodeKind::Regular) => (b'0', &b""[..]),
            (None, NodeKind::Symlink) => (b'2', member.target),
            (None, NodeKind::CharDevice) => (b'3', &b""[..]),
            (None, NodeKind::BlockDevice) => (b'4', &b""[..]),
            (None, NodeKind::Directory) => (b'5', &b""[..]),
            (None, NodeKind::Fifo) => (b'6', &b""[..]),
        };
        if kind == NodeKind::Directory {
            name.push(b'/');
        }
        let has_content = flag == b'0';
        let is_device = matches!(flag, b'3' | b'4');
        if !(has_content && member.segments.is_some()) {
            pax.text(b"path", &name);
        }
        let link = pax.text(b"linkpath", link).to_vec();
        let size = if has_content { size } else { 0 };
        let header = Header {
            flag,
            mode,
            uid: pax.number(b"uid", uid.into(), MAX_OCTAL_7),
            gid: pax.number(b"gid", gid.into(), MAX_OCTAL_7),
            size,
            mtime: time(&mut pax, member.attributes),
            link,
            device: is_device
                .then_some((member.attributes.rdev_major, member.attributes.rdev_minor)),
            has_content,
            name,
            pax,
        };
        let mut header = header;
        for (name, value) in member.xattrs {
            let key = [b"SCHILY.xattr.", *name].concat();
            header.pax.record(&key, value);
        }
        header
    }

    fn block(&mut self) -> [u8; BLOCK] {
        let size = self.pax.number(b"size", self.size, MAX_OCTAL_11);
        let mut block = [0; BLOCK];
        put(&mut block, 0, 100, &self.name);
        octal(&mut block, 100, 7, self.mode.into());
        octal(&mut block, 108, 7, self.uid);
        octal(&mut block, 116, 7, self.gid);
        octal(&mut block, 124, 11, size);
        octal(&mut block, 136, 11, self.mtime);
        put(&mut block, 156, 1, &[self.flag]);
        put(&mut block, 157, 100, &self.link);
        put(&mut block, 257, 8, b"ustar\x0000");
        if let Some((major, minor)) = self.device {
            octal(&mut block, 329, 7, major.into());
            octal(&mut block, 337, 7, minor.into());
        }
        checksum(&mut block);
        block
    }
}

/// The seconds, if the field can hold the time, else zero and a record.
fn time(pax: &mut Pax, attributes: &Attributes) -> u64 {
    let (seconds, nanos) = (attributes.mtime_sec, attributes.mtime_nsec);
    match u64::try_from(seconds) {
        Ok(seconds) if nanos == 0 && seconds <= MAX_OCTAL_11 => return seconds,
        _ => {}
    }
    let total = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    let sign = if total < 0 { "-" } else { "" };
    let total = total.unsigned_abs();
    let text = format!(
        "{sign}{}.{:09}",
        total / 1_000_000_000,
        total % 1_000_000_000
    );
    let text = text.trim_end_matches('0').trim_end_matches('.');
    pax.record(b"mtime", text.as_bytes());
    0
}

/// The map of GNU's format 1.0: how many, then offset and length of each, a line for each number, to a whole block.
fn sparse_map(segments: &[(u64, u64)], size: u64) -> Vec<u8> {
    let end = segments
        .last()
        .map_or(0, |(offset, length)| offset + length);
    let last = (end < size || segments.is_empty()).then_some((size, 0));
    let mut text = format!("{}\n", segments.len() + usize::from(last.is_some()));
    for (offset, length) in segments.iter().copied().chain(last) {
        text.push_str(&format!("{offset}\n{length}\n"));
    }
    let mut map = text.into_bytes();
    map.resize(map.len() + padding(map.len() as u64), 0);
    map
}

fn pax_block(length: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    put(&mut block, 0, 100, b"PaxHeaders.0/entry");
    octal(&mut block, 100, 7, 0o644);
    for at in [108, 116] {
        octal(&mut block, at, 7, 0);
    }
    octal(&mut block, 124, 11, length);
    octal(&mut block, 136, 11, 0);
    put(&mut block, 156, 1, b"x");
    put(&mut block, 257, 8, b"ustar\x0000");
    checksum(&mut block);
    block
}

fn put(block: &mut [u8; BLOCK], at: usize, size: usize, text: &[u8]) {
    let text = text.get(..size).unwrap_or(text);
    if let Some(field) = block.get_mut(at..at + text.len()) {
        field.copy_from_slice(text);
    }
}

fn octal(block: &mut [u8; BLOCK], at: usize, digits: usize, number: u64) {
    put(block, at, digits, format!("{number:0digits$o}").as_bytes());
}

fn checksum(block: &mut [u8; BLOCK]) {
    put(block, 148, 8, b"        ");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    put(block, 148, 8, format!("{sum:06o}\0 ").as_bytes());
}

fn padding(size: u64) -> usize {
    usize::try_from(size.wrapping_neg() % BLOCK_U64).unwrap_or_default()
}
