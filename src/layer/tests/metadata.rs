//! Header fields and extension headers.

use super::look::{content, node, tar};
use crate::layer::testing::{Head, Tar, pax_record};
use crate::layer::{Extent, NodeNo, Problem};
use crate::tree::{Attributes, NodeKind};

fn attributes(tar: &Tar, name: &[u8]) -> Attributes {
    let layer = tar.layer();
    layer.index.attributes(node(&layer.index, &[name])).unwrap()
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
    // Together: of two that differ GNU tar takes one, and Go's reader the other.
    for both in [
        tar().long_name(&long).pax(&[(b"path", b"pax")]),
        tar().pax(&[(b"path", b"pax")]).long_name(&long),
    ] {
        assert!(matches!(
            both.file(b"short", b"").end().refusal(),
            Problem::Extension(_)
        ));
    }
    let both = tar()
        .pax(&[(b"path", &long), (b"mtime", b"1")])
        .long_name(&long)
        .file(b"short", b"")
        .end()
        .layer();
    node(&both.index, &[&long]);
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
