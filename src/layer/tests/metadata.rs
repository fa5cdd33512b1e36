//! Header fields, extension headers, sparse files, and where a tar may end.

use std::sync::Arc;

use proptest::prelude::*;

use super::hostile::node;
use crate::layer::testing::{Head, Tar, build, diff_id, index_bytes, pax_record};
use crate::layer::{Extent, LayerFile, LayerScanner, Limits, NodeNo, Problem};
use crate::tree::{Attributes, NodeKind};

fn tar() -> Tar {
    Tar::new()
}

fn attributes(tar: &Tar, name: &[u8]) -> Attributes {
    let layer = tar.layer();
    layer.index.attributes(node(&layer.index, &[name])).unwrap()
}

fn content(layer: &Arc<LayerFile>, name: &[u8]) -> Vec<u8> {
    let file = node(&layer.index, &[name]);
    let mut out = vec![0xaa; layer.index.attributes(file).unwrap().size as usize];
    assert_eq!(layer.read_at(file, 0, &mut out).unwrap(), out.len());
    out
}

fn file_head(name: &[u8]) -> Head {
    Head::new(name, b'0', 0)
}

#[test]
fn plain_fields() {
    let head = file_head(b"f")
        .set(100, b"0107755\0")
        .set(108, b"0001750\0")
        .set(116, b"0000144\0")
        .set(136, b"14705733430\0");
    assert_eq!(
        attributes(&tar().head(head).end(), b"f"),
        Attributes {
            kind: NodeKind::Regular,
            mode: 0o7755,
            uid: 1000,
            gid: 100,
            rdev_major: 0,
            rdev_minor: 0,
            size: 0,
            mtime_sec: 0o14705733430,
            mtime_nsec: 0,
            nlink: 1,
        }
    );
}

#[test]
fn blank_and_old_fields() {
    // Blank is zero.
    let head = file_head(b"f")
        .set(100, &[b' '; 8])
        .set(108, &[0; 8])
        .set(136, &[b' '; 12]);
    let found = attributes(&tar().head(head).end(), b"f");
    assert_eq!((found.mode, found.uid, found.mtime_sec), (0, 0, 0));
    // V7: no magic, anything behind the link name; a slash makes a directory.
    let v7 = |name| Head::new(name, 0, 0).set(257, &[0xee; 255]);
    let layer = tar().head(v7(b"d/")).head(v7(b"d/f")).end().layer();
    assert_eq!(
        layer.index.kind(node(&layer.index, &[b"d"])).unwrap(),
        NodeKind::Directory
    );
    assert_eq!(
        layer.index.kind(node(&layer.index, &[b"d", b"f"])).unwrap(),
        NodeKind::Regular
    );
    // Its size counts, even for a directory: content is no header.
    let tar = tar()
        .head(Head::new(b"d/", 0, 700))
        .data(&[7; 700])
        .file(b"g", b"x")
        .end();
    assert_eq!(tar.layer().index.node_count(), 3);
    // A checksum of signed bytes.
    let mut block = file_head(b"\xff\xfe").done();
    let sum: i32 = block.iter().map(|byte| i32::from(*byte as i8)).sum::<i32>()
        - block[148..156]
            .iter()
            .map(|byte| i32::from(*byte))
            .sum::<i32>()
        + 256;
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    assert_eq!(Tar::new().raw(&block).end().layer().index.entry_count(), 1);
}

#[test]
fn prefixes() {
    let layer = tar()
        .head(file_head(b"name").set(345, b"pre/fix"))
        .head(
            file_head(b"star")
                .set(345, b"p")
                .set(345 + 131, b"00000000000 00000000000 ")
                .set(508, b"tar\0"),
        )
        .head(file_head(b"gnu").gnu().set(345, b"12345670123"))
        .end()
        .layer();
    for path in [
        &[&b"pre"[..], b"fix", b"name"][..],
        &[b"p", b"star"],
        &[b"gnu"],
    ] {
        node(&layer.index, path);
    }
}

#[test]
fn times() {
    let pax = |value: &[u8]| tar().pax(&[(b"mtime", value)]).file(b"f", b"").end();
    for (value, sec, nsec) in [
        (&b"1.123456789"[..], 1, 123_456_789),
        (b"-1.5", -2, 500_000_000),
        (b"-9223372036854775807", -i64::MAX, 0),
        (b"9223372036854775807.9", i64::MAX, 900_000_000),
        // Empty: the header's.
        (b"", 0, 0),
    ] {
        let found = attributes(&pax(value), b"f");
        assert_eq!((found.mtime_sec, found.mtime_nsec), (sec, nsec));
    }
    for value in [&b"9223372036854775808"[..], b"x", b"1e3", b"1,5"] {
        assert_eq!(pax(value).refusal(), Problem::PaxValue((*b"mtime").into()));
    }
    let header = |field: &[u8; 12]| tar().head(file_head(b"f").set(136, field)).end();
    assert_eq!(attributes(&header(&[0xff; 12]), b"f").mtime_sec, -1);
    let mut huge = [0; 12];
    (huge[0], huge[3]) = (0x80, 1);
    assert_eq!(header(&huge).refusal(), Problem::Field("mtime"));
    assert_eq!(header(b"-0000000001\0").refusal(), Problem::Field("mtime"));
}

#[test]
fn owners() {
    let base256 = |value: i64| {
        let mut field = value.to_be_bytes();
        field[0] |= 0x80;
        field
    };
    let head = |value: i64| tar().head(file_head(b"f").set(108, &base256(value))).end();
    assert_eq!(attributes(&head(3_000_000_000), b"f").uid, 3_000_000_000);
    for bad in [-1, 1 << 40, u32::MAX.into()] {
        assert_eq!(head(bad).refusal(), Problem::Field("uid"));
        let text = bad.to_string();
        let pax = tar()
            .pax(&[(b"gid", text.as_bytes())])
            .file(b"f", b"")
            .end();
        assert_eq!(pax.refusal(), Problem::Field("gid"));
    }
    // A PAX record replaces a header field that says nothing.
    let pax = tar()
        .pax(&[(b"uid", b"4294967294"), (b"gid", b"70000")])
        .head(file_head(b"f").set(108, &base256(-1)))
        .end();
    assert_eq!(
        (attributes(&pax, b"f").uid, attributes(&pax, b"f").gid),
        (u32::MAX - 1, 70_000)
    );
    let pax = tar().pax(&[(b"uid", b"ten")]).file(b"f", b"").end();
    assert_eq!(pax.refusal(), Problem::PaxValue((*b"uid").into()));
}

#[test]
fn devices() {
    let device = |flag, major: &[u8; 8], minor: &[u8; 8]| {
        tar()
            .head(Head::new(b"n", flag, 0).set(329, major).set(337, minor))
            .end()
    };
    let found = attributes(&device(b'3', b"0007777\0", b"3777777\0"), b"n");
    assert_eq!(
        (found.kind, found.rdev_major, found.rdev_minor),
        (NodeKind::CharDevice, 4095, 0xf_ffff)
    );
    let found = attributes(&device(b'4', b"0000010\0", b"0000001\0"), b"n");
    assert_eq!(
        (found.kind, found.rdev_major, found.rdev_minor),
        (NodeKind::BlockDevice, 8, 1)
    );
    assert_eq!(
        device(b'3', b"0010000\0", b"0000000\0").refusal(),
        Problem::Field("device major")
    );
    assert_eq!(
        device(b'3', b"0000001\0", b"4000000\0").refusal(),
        Problem::Field("device minor")
    );
    // Nobody looks at them elsewhere.
    let found = attributes(&device(b'6', b"garbage!", b"garbage!"), b"n");
    assert_eq!((found.kind, found.rdev_major), (NodeKind::Fifo, 0));
}

#[test]
fn unknown_types_are_refused() {
    for flag in *b"8DMNVXASsz\xff" {
        let found = if flag == b'S' {
            continue;
        } else {
            tar().entry(b"n", flag, b"", b"").end().refusal()
        };
        assert_eq!(found, Problem::EntryType(flag));
    }
    // Contiguous files are files.
    assert_eq!(
        attributes(&tar().entry(b"n", b'7', b"", b"abc").end(), b"n").size,
        3
    );
}

#[test]
fn sizes_on_entries_without_content() {
    for flag in *b"123456" {
        let head = Head::new(b"n", flag, 5000).link(b"f");
        let layer = tar()
            .file(b"f", b"1")
            .head(head)
            .file(b"g", b"2")
            .end()
            .layer();
        assert_eq!(content(&layer, b"g"), b"2", "{flag}");
    }
}

#[test]
fn xattrs() {
    let long = vec![b'v'; 65_536];
    let values: [(&[u8], &[u8]); 6] = [
        (
            b"SCHILY.xattr.security.capability",
            b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        ),
        (b"SCHILY.xattr.user.eq=1", b"x"),
        (b"SCHILY.xattr.user.long", &long),
        (b"SCHILY.xattr.user.none", b""),
        (b"SCHILY.xattr.user.odd", b"a\nb=c\0d\n10 path=x\n"),
        (b"LIBARCHIVE.xattr.user.twice", b"AAAA"),
    ];
    let layer = tar()
        .pax(&values)
        .symlink(b"s", b"t")
        .pax(&values)
        .file(b"f", b"")
        .end()
        .layer();
    let index = &layer.index;
    for name in [b"s", b"f"] {
        let found = index.xattrs(node(index, &[name])).unwrap();
        assert_eq!(found.len(), 5);
        let pairs: Vec<_> = found.map(Result::unwrap).collect();
        assert!(pairs.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(found.get(b"user.odd").unwrap(), Some(values[4].1));
        assert_eq!(found.get(b"user.long").unwrap(), Some(&long[..]));
        assert_eq!(found.get(b"user.none").unwrap(), Some(&b""[..]));
        assert_eq!(
            found.get(b"security.capability").unwrap(),
            Some(values[0].1)
        );
        // `=` ends the key.
        assert_eq!(found.get(b"user.eq").unwrap(), Some(&b"1=x"[..]));
        assert_eq!(found.get(b"user.twice").unwrap(), None);
    }
    let too_long = vec![0; 65_537];
    let name = [b"SCHILY.xattr.user.".as_slice(), &[b'n'; 251]].concat();
    for record in [
        (&b"SCHILY.xattr.user.x"[..], &too_long[..]),
        (&name, b"x"),
        (b"SCHILY.xattr.", b"x"),
    ] {
        let refused = tar().pax(&[record]).file(b"f", b"").end().refusal();
        assert!(matches!(refused, Problem::Xattr { .. }), "{refused}");
    }
}

#[test]
fn long_names_of_both_kinds() {
    let long = vec![b'l'; 200];
    let gnu = tar()
        .long_name(&long)
        .head(file_head(b"short").gnu())
        .end()
        .layer();
    node(&gnu.index, &[&long]);
    // Together: PAX counts.
    let both = tar()
        .long_name(&long)
        .pax(&[(b"path", b"pax")])
        .file(b"short", b"")
        .end()
        .layer();
    node(&both.index, &[b"pax"]);
    let both = tar()
        .pax(&[(b"path", b"pax")])
        .long_name(&long)
        .file(b"short", b"")
        .end()
        .layer();
    node(&both.index, &[b"pax"]);
    assert!(matches!(
        tar().long_name(b"a\0b").file(b"x", b"").end().refusal(),
        Problem::Nul(_)
    ));
    // An empty one says nothing.
    node(
        &tar().long_name(b"").file(b"x", b"").end().layer().index,
        &[b"x"],
    );
    node(
        &tar()
            .pax(&[(b"path", b"")])
            .file(b"x", b"")
            .end()
            .layer()
            .index,
        &[b"x"],
    );
    // hdrcharset changes nothing: names are bytes.
    let latin = tar()
        .pax(&[(b"hdrcharset", b"BINARY"), (b"path", b"\xe9")])
        .file(b"x", b"")
        .end();
    node(&latin.layer().index, &[b"\xe9"]);
}

#[test]
fn misplaced_extension_headers_are_refused() {
    let global = |tar: Tar| {
        tar.head(Head::new(b"g", b'g', 20))
            .data(b"20 comment=whatever\n")
    };
    for bad in [
        tar()
            .pax(&[(b"path", b"a")])
            .pax(&[(b"uid", b"1")])
            .file(b"x", b"")
            .end(),
        tar().long_name(b"a").long_name(b"b").file(b"x", b"").end(),
        tar().pax(&[(b"path", b"a")]).end(),
        tar().pax(&[(b"path", b"a")]),
        global(tar().pax(&[(b"path", b"a")])).file(b"x", b"").end(),
    ] {
        assert!(matches!(bad.refusal(), Problem::Extension(_)));
    }
    let huge = tar().head(Head::new(b"x", b'x', 9 << 20));
    assert!(matches!(huge.refusal(), Problem::Limit { .. }));
}

#[test]
fn global_headers_are_ignored() {
    let records = [
        pax_record(b"path", b"evil"),
        pax_record(b"comment", b"0123abcd"),
    ]
    .concat();
    let layer = tar()
        .head(Head::new(b"pax_global_header", b'g', records.len() as u64).set(108, b"garbage!"))
        .data(&records)
        .file(b"a", b"1")
        .file(b"b", b"2")
        .end()
        .layer();
    assert_eq!(content(&layer, b"a"), b"1");
    assert_eq!(content(&layer, b"b"), b"2");
    assert_eq!(layer.index.entry_count(), 2);
}

#[test]
fn bad_pax_records_are_refused() {
    for data in [
        &b"x path=a\n"[..],
        b"99 path=a\n",
        b"3 path=a\n",
        b"path=a\n",
        b"9 path=a\n\0\0\0",
        b"9 path=a\ngarbage",
        b"0 \n",
        b" ",
    ] {
        let bad = tar()
            .head(Head::new(b"x", b'x', data.len() as u64))
            .data(data)
            .file(b"f", b"")
            .end();
        assert_eq!(bad.refusal(), Problem::PaxSyntax, "{}", data.escape_ascii());
    }
}

#[test]
fn pax_sizes_count() {
    let inner = tar().file(b"evil", b"x").bytes;
    // The header says 0, PAX says it all: the content is no header.
    let size = inner.len().to_string();
    let layer = tar()
        .pax(&[(b"size", size.as_bytes())])
        .head(file_head(b"f"))
        .data(&inner)
        .file(b"g", b"2")
        .end()
        .layer();
    assert_eq!(content(&layer, b"f"), inner);
    assert_eq!(layer.index.node_count(), 3);
    // The header says 512, PAX says 0.
    let layer = tar()
        .pax(&[(b"size", b"0")])
        .head(Head::new(b"f", b'0', 512))
        .file(b"g", b"2")
        .end()
        .layer();
    assert_eq!(
        (content(&layer, b"f"), content(&layer, b"g")),
        (vec![], b"2".to_vec())
    );
    for bad in [&b"-1"[..], b"1.5", b"9223372036854775808", b"+5"] {
        let tar = tar().pax(&[(b"size", bad)]).file(b"f", b"").end();
        assert_eq!(tar.refusal(), Problem::PaxValue((*b"size").into()));
    }
}

#[test]
fn impossible_sizes() {
    let mut huge = [0; 12];
    (huge[0], huge[4]) = (0x80, 0x40); // 2^62
    assert_eq!(
        tar().head(file_head(b"f").set(124, &huge)).refusal(),
        Problem::Truncated
    );
    (huge[4], huge[3]) = (5, 1); // 2^64 + ...: must not be taken modulo 2^64
    assert_eq!(
        tar().head(file_head(b"f").set(124, &huge)).refusal(),
        Problem::Field("size")
    );
    assert_eq!(
        tar().head(file_head(b"f").set(124, &[0xff; 12])).refusal(),
        Problem::Field("size")
    );
    assert_eq!(
        tar()
            .head(file_head(b"f").set(124, b"-0000000001\0"))
            .refusal(),
        Problem::Field("size")
    );
}

#[test]
fn checksums_of_headers() {
    for at in [0, 100, 124, 148, 156, 257, 345, 511] {
        let mut bad = tar().file(b"name", b"").end();
        bad.bytes[at] ^= 1;
        assert_eq!(bad.refusal(), Problem::HeaderChecksum, "byte {at}");
    }
    assert_eq!(tar().raw(&[b'x'; 2048]).refusal(), Problem::HeaderChecksum);
}

fn old_sparse(entries: &[(u64, u64)], real: u64, stored: u64) -> (Head, Vec<[u8; 512]>) {
    let field = |value: u64| format!("{value:011o}\0").into_bytes();
    let mut head = Head::new(b"s", b'S', stored).gnu().set(483, &field(real));
    let mut blocks: Vec<[u8; 512]> = Vec::new();
    for (at, (offset, length)) in entries.iter().enumerate() {
        let pair = [field(*offset), field(*length)].concat();
        if at < 4 {
            head = head.set(386 + at * 24, &pair);
            continue;
        }
        if (at - 4) % 21 == 0 {
            match blocks.last_mut() {
                None => head = head.set(482, &[1]),
                Some(last) => last[504] = 1,
            }
            blocks.push([0; 512]);
        }
        let slot = (at - 4) % 21 * 24;
        blocks.last_mut().unwrap()[slot..slot + 24].copy_from_slice(&pair);
    }
    (head, blocks)
}

/// One sparse file in each format.
fn sparse(entries: &[(u64, u64)], real: u64, data: &[u8]) -> Vec<(&'static str, Tar)> {
    let stored = data.len() as u64;
    let (head, blocks) = old_sparse(entries, real, stored);
    let old = blocks
        .iter()
        .fold(tar().head(head), |tar, block| tar.raw(block))
        .data(data);
    let text = real.to_string();
    let count = entries.len().to_string();
    let pairs: Vec<(String, String)> = entries
        .iter()
        .map(|(o, l)| (o.to_string(), l.to_string()))
        .collect();
    let mut v00: Vec<(&[u8], &[u8])> = vec![
        (b"GNU.sparse.size", text.as_bytes()),
        (b"GNU.sparse.numblocks", count.as_bytes()),
    ];
    for (offset, length) in &pairs {
        v00.push((b"GNU.sparse.offset", offset.as_bytes()));
        v00.push((b"GNU.sparse.numbytes", length.as_bytes()));
    }
    let map: Vec<String> = pairs
        .iter()
        .flat_map(|(o, l)| [o.clone(), l.clone()])
        .collect();
    let comma = map.join(",");
    let v01: Vec<(&[u8], &[u8])> = vec![
        (b"GNU.sparse.size", text.as_bytes()),
        (b"GNU.sparse.numblocks", count.as_bytes()),
        (b"GNU.sparse.map", comma.as_bytes()),
        (b"GNU.sparse.name", b"s"),
    ];
    let v10: Vec<(&[u8], &[u8])> = vec![
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.name", b"s"),
        (b"GNU.sparse.realsize", text.as_bytes()),
    ];
    let mut lines = format!("{count}\n{}\n", map.join("\n")).into_bytes();
    lines.resize(lines.len().next_multiple_of(512), 0);
    let total = (lines.len() + data.len()) as u64;
    let total_text = total.to_string();
    let mut v10_size = v10.clone();
    v10_size.push((b"size", total_text.as_bytes()));
    let body = [&lines[..], data].concat();
    vec![
        ("old", old),
        ("0.0", tar().pax(&v00).file(b"s", data)),
        ("0.1", tar().pax(&v01).file(b"GNUSparseFile.1/s", data)),
        ("1.0", tar().pax(&v10).file(b"GNUSparseFile.1/s", &body)),
        (
            "1.0 with a PAX size",
            tar()
                .pax(&v10_size)
                .head(file_head(b"GNUSparseFile.1/s"))
                .data(&body),
        ),
    ]
}

#[test]
fn sparse_files_of_every_format() {
    let entries: Vec<(u64, u64)> = (0..60).map(|i| (1000 + i * 5000, 700 + i)).collect();
    let real = 400_000;
    let mut expected = vec![0; real];
    let mut data = Vec::new();
    for (offset, length) in &entries {
        let run: Vec<u8> = (0..*length).map(|i| (offset + i) as u8 | 1).collect();
        expected[*offset as usize..][..run.len()].copy_from_slice(&run);
        data.extend(run);
    }
    for (format, tar) in sparse(&entries, real as u64, &data) {
        let layer = tar.file(b"after", b"ok").end().layer();
        assert_eq!(layer.index.node_count(), 3, "{format}");
        assert_eq!(content(&layer, b"after"), b"ok", "{format}");
        assert!(content(&layer, b"s") == expected, "{format}");
        let file = node(&layer.index, &[b"s"]);
        assert_eq!(layer.index.extents(file).unwrap().count(), 60);
        // Any range.
        for (offset, length) in [
            (0, 10),
            (990, 20),
            (1699, 3),
            (5999, 6000),
            (123_456, 77_777),
            (399_990, 100),
        ] {
            let mut buf = vec![0xaa; length];
            let read = layer.read_at(file, offset as u64, &mut buf).unwrap();
            assert_eq!(read, length.min(real - offset));
            assert!(
                buf[..read] == expected[offset..offset + read],
                "{format} {offset}+{length}"
            );
        }
        layer.verify(file).unwrap();
    }
}

#[test]
fn files_of_holes() {
    let exabyte = 1 << 60;
    for (format, tar) in sparse(&[(exabyte, 0)], exabyte, b"") {
        if format == "old" {
            continue; // eleven octal digits
        }
        let layer = tar.end().layer();
        let file = node(&layer.index, &[b"s"]);
        assert_eq!(layer.index.attributes(file).unwrap().size, exabyte);
        let mut buf = [7; 100];
        assert_eq!(
            layer.read_at(file, exabyte - 60, &mut buf).unwrap(),
            60,
            "{format}"
        );
        assert_eq!(buf[..60], [0; 60]);
        assert_eq!(layer.index.extents(file).unwrap().count(), 0);
    }
}

#[test]
fn bad_sparse_maps_are_refused() {
    for (entries, real, stored) in [
        (&[(0, 10), (5, 10)][..], 100, 20),
        (&[(50, 10), (0, 10)], 100, 20),
        (&[(0, 10)], 5, 10),
        (&[(0, 10)], 100, 20),
        (&[(0, 30)], 100, 20),
        (&[(i64::MAX as u64, i64::MAX as u64)], i64::MAX as u64, 10),
        (&[(1 << 60, 1 << 60)], 1 << 62, 10),
    ] {
        for (format, tar) in sparse(entries, real, &vec![1; stored]) {
            if format == "old" && real >= 1 << 33 {
                continue;
            }
            let refused = tar.end().refusal();
            assert!(
                matches!(refused, Problem::Sparse(_)),
                "{format} {entries:?}: {refused}"
            );
        }
    }
    let version = tar()
        .pax(&[(b"GNU.sparse.major", b"2"), (b"GNU.sparse.minor", b"0")])
        .file(b"f", b"")
        .end();
    assert_eq!(version.refusal(), Problem::Sparse("unknown version"));
    // A map that never ends, in a file that does.
    let endless = tar()
        .pax(&[
            (b"GNU.sparse.major", b"1"),
            (b"GNU.sparse.minor", b"0"),
            (b"GNU.sparse.realsize", b"10"),
        ])
        .file(b"f", &b"9000000\n".repeat(64))
        .file(b"g", b"")
        .end();
    assert!(matches!(endless.refusal(), Problem::Sparse(_)));
    let posix = tar().head(Head::new(b"s", b'S', 0)).end();
    assert!(matches!(posix.refusal(), Problem::Sparse(_)));
}

#[test]
fn where_a_tar_may_end() {
    let one = || tar().file(b"a", b"content");
    // No end marker, half of one, one with padding, and anything behind it.
    for ended in [
        one(),
        one().raw(&[0; 512]),
        one().end(),
        one().end().raw(&[0; 9216]),
        one().end().raw(b"garbage"),
        one().end().file(b"b", b"second archive").end(),
    ] {
        let layer = ended.layer();
        assert_eq!(layer.index.node_count(), 2);
        assert_eq!(content(&layer, b"a"), b"content");
    }
    assert_eq!(
        one().raw(&[0; 512]).file(b"b", b"").end().refusal(),
        Problem::LoneZeroBlock
    );
}

#[test]
fn a_tar_cut_anywhere_is_refused_except_before_a_header() {
    let (head, blocks) = old_sparse(&[(0, 1), (2, 1), (4, 1), (6, 1), (8, 1)], 9, 5);
    let parts = [
        tar().dir(b"d"),
        tar().file(b"d/f", &[1; 700]),
        tar()
            .pax(&[(b"mtime", b"1.5"), (b"path", &[b'n'; 150])])
            .file(b"n", b""),
        tar().long_name(b"other").file(b"x", &[2; 512]),
        tar().head(head).raw(&blocks[0]).data(b"12345"),
        tar().raw(&[0; 512]),
        tar().raw(&[0; 512]),
    ];
    let mut whole = Vec::new();
    let mut boundaries = vec![0];
    for part in parts {
        whole.extend(part.bytes);
        boundaries.push(whole.len());
    }
    for length in 0..=whole.len() {
        let accepted = build(&whole[..length], 1 << 20).is_ok();
        assert_eq!(
            accepted,
            boundaries.contains(&length),
            "cut to {length} bytes"
        );
    }
}

#[test]
fn the_announced_size_is_checked() {
    let bytes = tar().file(b"a", b"").end().bytes;
    let mut scanner = LayerScanner::new(&Limits::default());
    scanner.push(&bytes).unwrap();
    let error = scanner.finish(diff_id(&bytes), 7).unwrap_err();
    assert!(matches!(error.problem, Problem::Size { claimed: 7, .. }));
}

#[test]
fn limits_are_kept() {
    let limits = Limits {
        max_tar_bytes: 4096,
        max_entries: 2,
        max_path_bytes: 10,
        max_depth: 3,
        max_metadata_bytes: 20,
    };
    let check = |tar: Tar, what: &str| {
        let mut scanner = LayerScanner::new(&limits);
        let refused = tar
            .bytes
            .chunks(1000)
            .find_map(|chunk| scanner.push(chunk).err());
        match refused.map(|error| error.problem) {
            Some(Problem::Limit { what: found, .. }) => assert_eq!(found, what),
            other => panic!("{what}: {other:?}"),
        }
        // It stays refused.
        assert!(scanner.push(&[0; 512]).is_err());
        assert!(scanner.finish(diff_id(b""), 0).is_err());
    };
    check(tar().file(b"a", &[0; 5000]), "bytes");
    check(
        tar().file(b"a", b"").file(b"b", b"").file(b"c", b""),
        "entries",
    );
    check(tar().file(b"12345678901", b""), "bytes in one path");
    check(tar().file(b"1/2/3/4", b""), "levels of directories");
    check(
        tar().file(b"123456789", b"").symlink(b"s", b"12345678901"),
        "bytes of names and attributes",
    );
    check(
        tar().pax(&[(b"comment", b"12345678901234567890")]),
        "bytes of extension headers for one entry",
    );
}

#[test]
fn errors_name_the_entry_escaped() {
    let error = tar()
        .file(b"evil\x1b[2J\n", b"")
        .file(b"evil\x1b[2J\n/x", b"")
        .end()
        .build()
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "layer entry \"evil\\x1b[2J\\n/x\": its parent \"evil\\x1b[2J\\n\" is not a directory"
    );
    let error = tar().file(b"a", b"").raw(&[1; 512]).build().unwrap_err();
    assert_eq!(
        error.to_string(),
        "layer tar at byte 512: bad header checksum (damaged, or not a tar archive)"
    );
}

#[test]
fn the_index_depends_on_the_tar_alone() {
    let mut tar = tar();
    for i in 0..3000 {
        let name = format!("d{}/f{}", i % 37, i * 7919 % 3001);
        tar = tar
            .pax(&[(b"SCHILY.xattr.user.k", &[i as u8 % 5])])
            .file(name.as_bytes(), &vec![i as u8; i % 900]);
    }
    let bytes = tar.file(b"big", &[9; 200_000]).end().bytes;
    let expected = index_bytes(&build(&bytes, 1 << 20).unwrap());
    for chunk in [100, 511, 512, 513, 4096, 100_003, usize::MAX] {
        assert!(
            index_bytes(&build(&bytes, chunk).unwrap()) == expected,
            "{chunk}"
        );
    }
}

#[test]
fn extents_of_a_plain_file() {
    let layer = tar().file(b"e", b"").file(b"f", b"abc").end().layer();
    let index = &layer.index;
    let extents: Vec<_> = index
        .extents(node(index, &[b"f"]))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(
        extents,
        [Extent {
            file_offset: 0,
            tar_offset: 1024,
            length: 3
        }]
    );
    assert_eq!(index.extents(node(index, &[b"e"])).unwrap().count(), 0);
    assert!(index.extents(NodeNo::ROOT).is_err());
    assert!(index.entries(node(index, &[b"f"])).is_err());
    assert!(index.symlink_target(NodeNo::ROOT).is_err());
    assert!(index.attributes(NodeNo(99)).is_err());
}

/// A tar with one of everything, and where its headers are.
fn specimen() -> (Vec<u8>, Vec<usize>) {
    let tar = sparse(
        &[(3, 2), (9, 3), (20, 1), (30, 1), (40, 1)],
        50,
        b"12345678",
    )
    .into_iter()
    .fold(Tar::new(), |tar, (_, part)| tar.raw(&part.bytes))
    .dir(b"d")
    .symlink(b"d/s", b"../x")
    .file(b"x", &[5; 600])
    .hardlink(b"d/l", b"x")
    .file(b"d/.wh.w", b"")
    .long_name(b"gnu/long")
    .entry(b"dev", b'3', b"", b"")
    .end();
    let headers = (0..tar.bytes.len())
        .step_by(512)
        .filter(|at| &tar.bytes[at + 257..at + 262] == b"ustar")
        .collect();
    (tar.bytes, headers)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Changed tars, checksums made right again, so that the changes get through: an answer, never a panic.
    #[test]
    fn a_mutated_tar_never_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        focused in prop::collection::vec((any::<prop::sample::Index>(), 0usize..512, any::<u8>()), 0..6),
        chunk in 1usize..3000,
    ) {
        let (mut bytes, headers) = specimen();
        for (at, value) in changes {
            let length = bytes.len();
            bytes[at.index(length)] = value;
        }
        for (header, at, value) in focused {
            bytes[headers[header.index(headers.len())] + at] = value;
        }
        for header in &headers {
            let block: [u8; 512] = bytes[*header..header + 512].try_into().unwrap();
            bytes[*header..header + 512].copy_from_slice(&Head(block).done());
        }
        if let Ok(builder) = build(&bytes, chunk) {
            let layer = crate::layer::testing::open(&builder, &bytes);
            let image = crate::layer::merged::Image::new(vec![layer.clone()]).unwrap();
            let _ = image.verify_lower_links();
            for number in 0..layer.index.node_count() {
                if layer.index.kind(NodeNo(number)).unwrap() == NodeKind::Regular {
                    layer.verify(NodeNo(number)).unwrap();
                    layer.read_at(NodeNo(number), 1, &mut [0; 100]).unwrap();
                }
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..3000), chunk in 1usize..1000) {
        let _ = build(&bytes, chunk);
    }
}
