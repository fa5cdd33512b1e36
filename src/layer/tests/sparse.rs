//! Sparse files in all formats.

use super::look::{content, node, tar};
use crate::layer::Problem;
use crate::layer::testing::{Head, Tar};

pub fn old_sparse(entries: &[(u64, u64)], real: u64, stored: u64) -> (Head, Vec<[u8; 512]>) {
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
pub fn sparse(entries: &[(u64, u64)], real: u64, data: &[u8]) -> Vec<(&'static str, Tar)> {
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
                .head(Head::new(b"GNUSparseFile.1/s", b'0', 0))
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
        // Where data is, and where none is.
        let seek = |at, hole| layer.seek(file, at, hole).unwrap();
        assert_eq!((seek(0, false), seek(0, true)), (Some(1000), Some(0)));
        assert_eq!(
            (seek(1000, false), seek(1000, true)),
            (Some(1000), Some(1700))
        );
        assert_eq!(
            (seek(1700, false), seek(1699, true)),
            (Some(6000), Some(1700))
        );
        assert_eq!(seek(296_001, true), Some(296_759));
        assert_eq!(
            (seek(296_759, false), seek(399_999, true)),
            (None, Some(399_999))
        );
        assert_eq!((seek(400_000, false), seek(400_000, true)), (None, None));
        let after = node(&layer.index, &[b"after"]);
        assert_eq!(layer.seek(after, 1, false).unwrap(), Some(1));
        assert_eq!(layer.seek(after, 0, true).unwrap(), Some(2));
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
