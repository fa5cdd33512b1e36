//! The 512-byte header.

use tar_core::{EntryType, Header};

use super::{BLOCK, EntryKind};
use crate::layer::error::Problem;

/// The numbers and names of one header, before extension headers are applied.
#[derive(Debug)]
pub(crate) struct Fields {
    pub flag: Flag,
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub mode: u16,
    pub uid: i64,
    pub gid: i64,
    pub mtime: i64,
    pub size: u64,
    pub rdev_major: i64,
    pub rdev_minor: i64,
}

/// The type flag, sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flag {
    Entry(EntryKind),
    /// Type NUL of old archives: a directory if the name ends with a slash. Its size counts either way.
    OldFile,
    /// Type `S`: the sparse map is in the header and in blocks that follow it.
    OldSparse,
    LongName,
    LongLink,
    Pax,
    GlobalPax,
}

/// Decodes and checks `block`, which is not all zeros.
pub(crate) fn decode(block: &[u8; BLOCK]) -> Result<Fields, Problem> {
    let header = Header::from_bytes(block);
    let fields = header.as_ustar();
    check_sum(block, &fields.cksum)?;
    let flag = match (header.entry_type(), fields.typeflag) {
        (EntryType::Regular, [0]) => Flag::OldFile,
        (EntryType::Regular | EntryType::Continuous, _) => Flag::Entry(EntryKind::Regular),
        (EntryType::Link, _) => Flag::Entry(EntryKind::HardLink),
        (EntryType::Symlink, _) => Flag::Entry(EntryKind::Symlink),
        (EntryType::Char, _) => Flag::Entry(EntryKind::CharDevice),
        (EntryType::Block, _) => Flag::Entry(EntryKind::BlockDevice),
        (EntryType::Directory, _) => Flag::Entry(EntryKind::Directory),
        (EntryType::Fifo, _) => Flag::Entry(EntryKind::Fifo),
        (EntryType::GnuLongName, _) => Flag::LongName,
        (EntryType::GnuLongLink, _) => Flag::LongLink,
        (EntryType::GnuSparse, _) => Flag::OldSparse,
        (EntryType::XHeader, _) => Flag::Pax,
        (EntryType::XGlobalHeader, _) => Flag::GlobalPax,
        (EntryType::Other(_), [byte]) => return Err(Problem::EntryType(byte)),
    };
    let size = number(&fields.size).and_then(|size| u64::try_from(size).ok());
    let mut out = Fields {
        flag,
        path: Vec::new(),
        link: Vec::new(),
        mode: 0,
        uid: 0,
        gid: 0,
        mtime: 0,
        size: size.ok_or(Problem::Field("size"))?,
        rdev_major: 0,
        rdev_minor: 0,
    };
    if matches!(
        flag,
        Flag::LongName | Flag::LongLink | Flag::Pax | Flag::GlobalPax
    ) {
        // Nothing else means anything there, and writers leave anything there.
        return Ok(out);
    }
    // Writers put file type bits here too; only permissions count.
    let mode = number(&fields.mode).ok_or(Problem::Field("mode"))? & 0o7777;
    out.mode = u16::try_from(mode).map_err(|_| Problem::Field("mode"))?;
    out.uid = number(&fields.uid).ok_or(Problem::Field("uid"))?;
    out.gid = number(&fields.gid).ok_or(Problem::Field("gid"))?;
    out.mtime = number(&fields.mtime).ok_or(Problem::Field("mtime"))?;
    let known_format = header.is_ustar() || header.is_gnu();
    if known_format
        && matches!(
            flag,
            Flag::Entry(EntryKind::CharDevice | EntryKind::BlockDevice)
        )
    {
        out.rdev_major = number(&fields.dev_major).ok_or(Problem::Field("device major"))?;
        out.rdev_minor = number(&fields.dev_minor).ok_or(Problem::Field("device minor"))?;
    }
    out.path = path(block);
    out.link.extend_from_slice(text(&fields.linkname));
    Ok(out)
}

/// The path that the header alone gives; extension headers may replace it.
pub(crate) fn path(block: &[u8; BLOCK]) -> Vec<u8> {
    let header = Header::from_bytes(block);
    let fields = header.as_ustar();
    let mut path = Vec::new();
    if header.is_ustar() {
        // star keeps times behind byte 131 of the prefix, and says so at the end.
        let prefix = if fields.pad.ends_with(b"tar\0") {
            fields.prefix.split_at(131).0
        } else {
            &fields.prefix
        };
        let prefix = text(prefix);
        if !prefix.is_empty() {
            path.extend_from_slice(prefix);
            path.push(b'/');
        }
    }
    path.extend_from_slice(text(&fields.name));
    path
}

/// The sum of all bytes with the sum itself as spaces; some old writers summed signed bytes.
fn check_sum(block: &[u8; BLOCK], field: &[u8; 8]) -> Result<(), Problem> {
    let stored = number(field).ok_or(Problem::HeaderChecksum)?;
    let unsigned: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    let own: u32 = field.iter().map(|byte| u32::from(*byte)).sum();
    if i64::from(unsigned) - i64::from(own) + 8 * 32 == stored {
        return Ok(());
    }
    let signed: i32 = block.iter().map(|byte| i32::from(byte.cast_signed())).sum();
    let own: i32 = field.iter().map(|byte| i32::from(byte.cast_signed())).sum();
    if i64::from(signed) - i64::from(own) + 8 * 32 == stored {
        return Ok(());
    }
    Err(Problem::HeaderChecksum)
}

/// A numeric field: octal digits between spaces and NULs, blank is 0; or GNU's base 256. `None`: neither, or beyond
/// `i64`.
pub(crate) fn number(field: &[u8]) -> Option<i64> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => base256(field, *first),
        _ => octal(field),
    }
}

/// Two's complement big-endian in 7 bits of the first byte and all of the others.
fn base256(field: &[u8], first: u8) -> Option<i64> {
    let negative = first & 0x40 != 0;
    let mut value: i64 = if negative { -1 } else { 0 };
    for (at, byte) in field.iter().enumerate() {
        let byte = match at {
            0 if negative => byte | 0x80,
            0 => byte & 0x7f,
            _ => *byte,
        };
        if at == 0 {
            value = i64::from(byte.cast_signed());
            continue;
        }
        value = value.checked_mul(256)?.checked_add(i64::from(byte))?;
    }
    Some(value)
}

fn octal(field: &[u8]) -> Option<i64> {
    let blank = |byte: &u8| matches!(*byte, b' ' | 0);
    let start = field
        .iter()
        .position(|byte| !blank(byte))
        .unwrap_or(field.len());
    let digits = field.get(start..)?;
    let digits = digits.split(blank).next()?;
    // Behind the digits only blanks: `0644\0garbage` is what old writers left, Go cuts at the NUL.
    let tail = digits.len() + start;
    if field.get(tail) == Some(&b' ') {
        let rest = field.get(tail..)?;
        let rest = rest.split(|byte| *byte == 0).next()?;
        if !rest.iter().all(blank) {
            return None;
        }
    }
    let mut value: i64 = 0;
    for digit in digits {
        let digit = match digit {
            b'0'..=b'7' => i64::from(digit - b'0'),
            _ => return None,
        };
        value = value.checked_mul(8)?.checked_add(digit)?;
    }
    Some(value)
}

/// A text field: up to the first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or(field)
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn octal_fields() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"    644 ", Some(0o644)),
            (b"644 \0\0\0\0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"\x00000000644", Some(0o644)),
            (b"0644\0xyz", Some(0o644)),
            (b"77777777777\0", Some(0o77777777777)),
            (b"0000008\0", None),
            (b"-000001\0", None),
            (b"+000001\0", None),
            (b"64 4\0\0\0\0", None),
            (b"0x1f\0\0\0\0", None),
        ] {
            assert_eq!(number(field), value, "{}", field.escape_ascii());
        }
    }

    #[test]
    fn base_256_fields() {
        for (field, value) in [
            (&[0x80, 0, 0, 0, 0, 0, 1, 0][..], Some(256)),
            (&[0xff; 8], Some(-1)),
            (&[0xff; 12], Some(-1)),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0], Some(-256)),
            (
                &[0x80, 0, 0, 0, 0x7f, 255, 255, 255, 255, 255, 255, 255],
                Some(i64::MAX),
            ),
            // 2^64 + 5 must not become 5.
            (&[0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 5], None),
            (&[0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0], None),
            (
                &[0xff, 0xff, 0xff, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0],
                Some(i64::MIN),
            ),
            (
                &[
                    0xff, 0xff, 0xff, 0xff, 0x7f, 255, 255, 255, 255, 255, 255, 255,
                ],
                None,
            ),
        ] {
            assert_eq!(number(field), value, "{field:x?}");
        }
    }
}
