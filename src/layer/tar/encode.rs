//! Tar entries as bytes: ustar headers, PAX records for what does not fit them.

use super::EntryKind;
use super::sparse::Segment;

const BLOCK: usize = 512;
/// Greatest number in an octal field of 7 and of 11 digits.
const OCTAL_7: u64 = 0o7_777_777;
const OCTAL_11: u64 = 0o77_777_777_777;

/// One entry to be written.
#[derive(Debug)]
pub(in crate::layer) struct Entry {
    pub(in crate::layer) kind: EntryKind,
    pub(in crate::layer) path: Vec<u8>,
    pub(in crate::layer) link: Vec<u8>,
    pub(in crate::layer) mode: u32,
    pub(in crate::layer) uid: u32,
    pub(in crate::layer) gid: u32,
    /// Seconds, and nanoseconds to add.
    pub(in crate::layer) mtime: (i64, u32),
    pub(in crate::layer) device: (u32, u32),
    /// Bytes of content, holes included.
    pub(in crate::layer) size: u64,
    pub(in crate::layer) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The runs of data of a sparse file.
    pub(in crate::layer) segments: Option<Vec<Segment>>,
}

impl Entry {
    pub(in crate::layer) fn new(kind: EntryKind, path: &[u8]) -> Entry {
        Entry {
            kind,
            path: path.to_vec(),
            link: Vec::new(),
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
            device: (0, 0),
            size: 0,
            xattrs: Vec::new(),
            segments: None,
        }
    }

    /// Headers and, for a sparse file, its map: everything before the content.
    pub(in crate::layer) fn encode(&self) -> Vec<u8> {
        let map = match &self.segments {
            Some(segments) => sparse_map(segments, self.size),
            None => Vec::new(),
        };
        let stored = match &self.segments {
            None => self.size,
            Some(segments) => {
                let data: u64 = segments.iter().map(|segment| segment.length).sum();
                data.saturating_add(map.len() as u64)
            }
        };
        let records = self.records(stored);
        let mut out = Vec::with_capacity(3 * BLOCK + records.len() + map.len());
        if !records.is_empty() {
            out.extend_from_slice(&self.header(b'x', b"PaxHeaders/x", b"", records.len() as u64));
            out.extend_from_slice(&records);
            out.resize(out.len().next_multiple_of(BLOCK), 0);
        }
        let flag = match self.kind {
            EntryKind::Regular => b'0',
            EntryKind::HardLink => b'1',
            EntryKind::Symlink => b'2',
            EntryKind::CharDevice => b'3',
            EntryKind::BlockDevice => b'4',
            EntryKind::Directory => b'5',
            EntryKind::Fifo => b'6',
        };
        out.extend_from_slice(&self.header(flag, &self.path, &self.link, stored));
        out.extend_from_slice(&map);
        out
    }

    fn header(&self, flag: u8, path: &[u8], link: &[u8], size: u64) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let of_entry = flag != b'x';
        let number = |value: u64, most: u64| if of_entry && value <= most { value } else { 0 };
        put(&mut block, 0, 100, path);
        put(&mut block, 157, 100, link);
        let mode = if of_entry {
            u64::from(self.mode & 0o7777)
        } else {
            0o644
        };
        octal(&mut block, 100, 7, mode);
        octal(&mut block, 108, 7, number(self.uid.into(), OCTAL_7));
        octal(&mut block, 116, 7, number(self.gid.into(), OCTAL_7));
        octal(&mut block, 124, 11, if size <= OCTAL_11 { size } else { 0 });
        let seconds = u64::try_from(self.mtime.0).unwrap_or(0);
        octal(&mut block, 136, 11, number(seconds, OCTAL_11));
        put(&mut block, 156, 1, &[flag]);
        put(&mut block, 257, 8, b"ustar\x0000");
        octal(&mut block, 329, 7, number(self.device.0.into(), OCTAL_7));
        octal(&mut block, 337, 7, number(self.device.1.into(), OCTAL_7));
        put(&mut block, 148, 8, b"        ");
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        octal(&mut block, 148, 6, sum);
        put(&mut block, 154, 2, b"\0 ");
        block
    }

    /// What the header cannot say.
    fn records(&self, stored: u64) -> Vec<u8> {
        let mut out = Vec::new();
        let mut add = |key: &[u8], value: &[u8]| out.extend_from_slice(&record(key, value));
        // A sparse file's name goes where readers that know no holes do not look.
        let sparse = self.segments.is_some();
        if self.path.len() > 100 && !sparse {
            add(b"path", &self.path);
        }
        if self.link.len() > 100 {
            add(b"linkpath", &self.link);
        }
        for (key, id) in [(&b"uid"[..], self.uid), (b"gid", self.gid)] {
            if u64::from(id) > OCTAL_7 {
                add(key, id.to_string().as_bytes());
            }
        }
        if stored > OCTAL_11 {
            add(b"size", stored.to_string().as_bytes());
        }
        let (seconds, nanos) = self.mtime;
        if nanos != 0 || u64::try_from(seconds).map_or(true, |seconds| seconds > OCTAL_11) {
            add(b"mtime", time(seconds, nanos).as_bytes());
        }
        if sparse {
            add(b"GNU.sparse.major", b"1");
            add(b"GNU.sparse.minor", b"0");
            add(b"GNU.sparse.name", &self.path);
            add(b"GNU.sparse.realsize", self.size.to_string().as_bytes());
        }
        for (name, value) in &self.xattrs {
            add(&[b"SCHILY.xattr.", name.as_slice()].concat(), value);
        }
        out
    }
}

/// `LENGTH KEY=VALUE\n`; the length counts itself.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length.to_string().len() + rest != length {
        length = length.to_string().len() + rest;
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// Seconds with a fraction; before 1970 the fraction counts away from zero.
fn time(seconds: i64, nanos: u32) -> String {
    let (sign, seconds, nanos) = match (seconds, nanos) {
        (seconds, nanos) if seconds >= 0 => ("", seconds.unsigned_abs(), nanos),
        (seconds, 0) => ("-", seconds.unsigned_abs(), 0),
        (seconds, nanos) => ("-", seconds.unsigned_abs() - 1, 1_000_000_000 - nanos),
    };
    match nanos {
        0 => format!("{sign}{seconds}"),
        nanos => {
            let text = format!("{sign}{seconds}.{nanos:09}");
            text.trim_end_matches('0').to_owned()
        }
    }
}

/// The map of GNU's sparse format 1.0: decimal lines, padded to whole blocks. A hole at the end needs an empty segment behind
/// it: GNU tar makes the file as long as the map says.
fn sparse_map(segments: &[Segment], size: u64) -> Vec<u8> {
    let end = segments
        .last()
        .map_or(0, |last| last.offset.saturating_add(last.length));
    let last = (end < size).then_some(Segment {
        offset: size,
        length: 0,
    });
    let mut text = format!("{}\n", segments.len() + usize::from(last.is_some()));
    for segment in segments.iter().chain(&last) {
        text.push_str(&format!("{}\n{}\n", segment.offset, segment.length));
    }
    let mut map = text.into_bytes();
    map.resize(map.len().next_multiple_of(BLOCK), 0);
    map
}

/// Copies as much of `bytes` as the field of `length` bytes holds.
fn put(block: &mut [u8; BLOCK], at: usize, length: usize, bytes: &[u8]) {
    let length = length.min(bytes.len());
    if let (Some(field), Some(bytes)) = (block.get_mut(at..at + length), bytes.get(..length)) {
        field.copy_from_slice(bytes);
    }
}

/// `digits` octal digits; the NUL behind them is there.
fn octal(block: &mut [u8; BLOCK], at: usize, digits: usize, value: u64) {
    let text = format!("{value:0digits$o}");
    put(block, at, digits, text.as_bytes());
}
