//! Where a tar may end, what it may cost, and tars changed at random.

use proptest::prelude::*;

use super::look::{content, tar};
use super::sparse::{old_sparse, sparse};
use crate::layer::testing::{Head, Tar, build, diff_id, index_bytes};
use crate::layer::{LayerScanner, Limits, NodeNo, Problem};
use crate::tree::NodeKind;

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
        ..Limits::default()
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
    let bad_uid = Head::new(b"dir/f", b'0', 0).set(108, b"nobody!\0");
    let error = tar().head(bad_uid).build().unwrap_err();
    assert_eq!(
        error.to_string(),
        "layer entry \"dir/f\": invalid uid field"
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
