//! Damaged indexes and blobs: an error, or the very same answers.

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use proptest::prelude::*;

use super::look::node;
use crate::layer::testing::{Tar, build, diff_id, index_bytes, open};
use crate::layer::{IndexError, LayerFile, LayerIndex, NodeNo, ReadError, Target, XattrKinds};
use crate::oci::digest::DiffId;

fn specimen(files: u32) -> Tar {
    let mut tar = Tar::new()
        .dir(b"d")
        .file(b"d/f", &[1; 1000])
        .symlink(b"s", b"target")
        .hardlink(b"low", b"below/it")
        .file(b".wh.gone", b"")
        .file(b"o/.wh..wh..opq", b"")
        .pax(&[(b"SCHILY.xattr.user.a", b"1")])
        .file(b"x", b"xattrs")
        .pax(&[
            (b"GNU.sparse.size", b"90"),
            (b"GNU.sparse.map", b"10,4,50,2"),
        ])
        .file(b"sparse", b"123456");
    for i in 0..files {
        tar = tar.file(format!("many/{i}").as_bytes(), &i.to_le_bytes());
    }
    tar.end()
}

/// Everything an index can tell.
fn everything(index: &LayerIndex) -> Result<Vec<String>, IndexError> {
    let mut out = vec![format!(
        "{} {} {} {}",
        index.tar_size(),
        index.entry_count(),
        index.content_size(),
        index.node_count()
    )];
    for number in 0..index.node_count() {
        let node = NodeNo(number);
        out.push(format!("{:?}", index.attributes(node)?));
        out.push(format!(
            "{} {}",
            index.is_implicit(node)?,
            index.is_opaque(node)?
        ));
        for xattr in index.xattrs(node)? {
            out.push(format!("{:?}", xattr?));
        }
        match index.kind(node)? {
            crate::tree::NodeKind::Directory => {
                for entry in index.entries(node)?.iter() {
                    let entry = entry?;
                    out.push(format!("{entry:?}"));
                    assert_eq!(index.find(node, entry.name)?, Some(entry));
                    if let Some(Target::Node(node)) = entry.target {
                        index.attributes(node)?;
                    }
                }
            }
            crate::tree::NodeKind::Regular => {
                for extent in index.extents(node)? {
                    out.push(format!("{:?}", extent?));
                }
            }
            crate::tree::NodeKind::Symlink => {
                out.push(format!("{:?}", index.symlink_target(node)?))
            }
            _ => {}
        }
    }
    for link in index.lower_links()? {
        out.push(format!("{:?}", link?));
    }
    index.verify_all()?;
    Ok(out)
}

fn open_bytes(bytes: &[u8], diff_id: &DiffId) -> Result<LayerIndex, IndexError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    LayerIndex::open(file.path(), diff_id)
}

#[test]
fn every_flipped_byte_of_an_index_is_noticed() {
    let tar = specimen(3);
    let (bytes, id) = (index_bytes(&tar.build().unwrap()), diff_id(&tar.bytes));
    everything(&open_bytes(&bytes, &id).unwrap()).unwrap();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        let found = open_bytes(&damaged, &id).and_then(|index| everything(&index));
        assert!(found.is_err(), "byte {at}");
    }
}

#[test]
fn an_index_cut_anywhere_is_noticed() {
    let tar = specimen(3);
    let (bytes, id) = (index_bytes(&tar.build().unwrap()), diff_id(&tar.bytes));
    for length in 0..bytes.len() {
        assert!(open_bytes(&bytes[..length], &id).is_err(), "{length}");
    }
    assert!(open_bytes(&[&bytes[..], b"\0"].concat(), &id).is_err());
}

#[test]
fn an_index_of_something_else() {
    let tar = specimen(0);
    let (bytes, other) = (index_bytes(&tar.build().unwrap()), diff_id(b"another"));
    let error = open_bytes(&bytes, &other).unwrap_err();
    assert!(matches!(error, IndexError::WrongLayer { .. }));
    assert!(error.to_string().contains(&other.to_string()));
    let mut version = bytes.clone();
    version[8] = 99;
    assert!(matches!(
        open_bytes(&version, &diff_id(&tar.bytes)),
        Err(IndexError::Version { .. })
    ));
    assert!(matches!(
        open_bytes(&[b'x'; 4096], &other),
        Err(IndexError::Format { .. })
    ));
    assert!(matches!(
        LayerIndex::open(std::path::Path::new("/nonexistent"), &other),
        Err(IndexError::Io { .. })
    ));
}

/// A file truncated after it was opened: blocks not seen yet are errors, not signals.
#[test]
fn an_index_truncated_while_open() {
    let tar = specimen(5000);
    let builder = tar.build().unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    builder.write_to(file.as_file_mut()).unwrap();
    let index = LayerIndex::open(file.path(), &builder.diff_id()).unwrap();
    file.as_file().set_len(4096).unwrap();
    assert!(matches!(
        index.attributes(NodeNo(4000)),
        Err(IndexError::Damaged { .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_index_of_many_blocks_gives_errors_or_the_same_answers(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
    ) {
        thread_local! {
            static SPECIMEN: (Vec<u8>, DiffId, Vec<String>) = {
                let tar = specimen(4000);
                let (bytes, id) = (index_bytes(&tar.build().unwrap()), diff_id(&tar.bytes));
                let answers = everything(&open_bytes(&bytes, &id).unwrap()).unwrap();
                (bytes, id, answers)
            };
        }
        SPECIMEN.with(|(bytes, id, answers)| {
            let mut damaged = bytes.clone();
            for (at, value) in changes {
                let length = damaged.len();
                damaged[at.index(length)] = value;
            }
            if let Ok(found) = open_bytes(&damaged, id).and_then(|index| everything(&index)) {
                assert!(found == *answers);
            }
        });
    }
}

#[test]
fn damaged_content_is_an_error_never_wrong_bytes() {
    let content: Vec<u8> = (0..100_000u32).map(|i| (i % 253) as u8).collect();
    let tar = Tar::new().file(b"f", &content).file(b"g", b"intact").end();
    let builder = tar.build().unwrap();
    for at in [0, 1, 32_767, 32_768, 65_535, 70_000, 99_999] {
        let mut blob = tar.bytes.clone();
        blob[512 + at] ^= 0x80;
        let layer = open(&builder, &blob);
        let (f, g) = (node(&layer.index, &[b"f"]), node(&layer.index, &[b"g"]));
        let block = at / 32_768 * 32_768;
        for offset in (0..100_000).step_by(7919) {
            for length in [1, 100, 32_768, 50_000, 100_000] {
                let mut buf = vec![0; length];
                let end = (offset + length).min(100_000);
                let touches = offset < block + 32_768 && end > block;
                match layer.read_at(f, offset as u64, &mut buf) {
                    Ok(read) => {
                        assert!(!touches);
                        assert!(buf[..read] == content[offset..end]);
                    }
                    Err(ReadError::Damaged { offset, .. }) => {
                        assert!(touches);
                        assert_eq!(offset, 512 + block as u64);
                    }
                    Err(other) => panic!("{other}"),
                }
            }
        }
        assert!(layer.verify(f).is_err());
        let mut buf = [0; 10];
        assert_eq!(layer.read_at(g, 0, &mut buf).unwrap(), 6);
        assert_eq!(&buf[..6], b"intact");
        // The error names the layer.
        let error = layer.verify(f).unwrap_err().to_string();
        assert!(error.contains(&builder.diff_id().to_string()), "{error}");
    }
}

/// Every byte of the tar is under a sum: headers, padding, and what follows the end marker.
#[test]
fn regression_a_damaged_tar_is_an_error_wherever_it_is_damaged() {
    let mut tar = Tar::new();
    for i in 0..300u32 {
        tar = tar.file(format!("f{i}").as_bytes(), &vec![7; (i * 37) as usize]);
    }
    let tar = tar.end().raw(&[9; 3000]);
    let builder = tar.build().unwrap();
    let whole = |layer: &LayerFile| {
        let mut all = vec![0; tar.bytes.len() + 1];
        layer.read_tar_at(0, &mut all).map(|read| {
            all.truncate(read);
            all
        })
    };
    assert!(whole(&open(&builder, &tar.bytes)).unwrap() == tar.bytes);
    for at in (0..tar.bytes.len()).step_by(4099) {
        let mut blob = tar.bytes.clone();
        blob[at] ^= 1;
        let layer = open(&builder, &blob);
        let error = whole(&layer).unwrap_err();
        assert!(
            matches!(error, ReadError::Damaged { .. }),
            "byte {at}: {error}"
        );
        // What is elsewhere can be read.
        let far = (at + blob.len() / 2) % blob.len();
        let mut byte = [0];
        if far / 65536 != at / 65536 {
            assert_eq!(layer.read_tar_at(far as u64, &mut byte).unwrap(), 1);
            assert_eq!(byte[0], tar.bytes[far]);
        }
    }
    let layer = open(&builder, &tar.bytes);
    for offset in (0..tar.bytes.len() + 70_000).step_by(7001) {
        for length in [1, 512, 65_536, 100_001] {
            let mut part = vec![0; length];
            let read = layer.read_tar_at(offset as u64, &mut part).unwrap();
            let end = (offset + length).min(tar.bytes.len());
            assert!(part[..read] == *tar.bytes.get(offset..end).unwrap_or_default());
        }
    }
}

#[test]
fn an_index_tells_which_kinds_of_attributes_it_has() {
    let kinds = |name: Option<&[u8]>| {
        let mut tar = Tar::new().file(b"plain", b"");
        if let Some(name) = name {
            let key = [b"SCHILY.xattr.", name].concat();
            tar = tar.pax(&[(&key, b"v")]).file(b"x", b"");
        }
        tar.end().layer().index.xattr_kinds()
    };
    assert_eq!(kinds(None), XattrKinds::default());
    let names: [&[u8]; 5] = [
        b"security.selinux",
        b"system.posix_acl_access",
        b"system.posix_acl_default",
        b"security.capability",
        b"user.x",
    ];
    for name in names {
        let found = kinds(Some(name));
        for other in names {
            assert_eq!(found.meets(XattrKinds::of(other)), name == other);
        }
        assert_eq!(XattrKinds::of(name).is_probed(), name != b"user.x");
    }
}

#[test]
fn a_blob_of_another_size() {
    let tar = Tar::new().file(b"f", &[3; 5000]).end();
    let builder = tar.build().unwrap();
    let mut index_file = tempfile::NamedTempFile::new().unwrap();
    builder.write_to(index_file.as_file_mut()).unwrap();
    let index = Arc::new(LayerIndex::open(index_file.path(), &builder.diff_id()).unwrap());
    let blob = |length: usize| {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&tar.bytes[..length], 0).unwrap();
        file
    };
    for length in [0, 511, tar.bytes.len() - 1] {
        assert!(matches!(
            LayerFile::open(index.clone(), blob(length)),
            Err(ReadError::Size { .. })
        ));
    }
    // Truncated while open.
    let file = blob(tar.bytes.len());
    let layer = LayerFile::open(index.clone(), file.try_clone().unwrap()).unwrap();
    file.set_len(1024).unwrap();
    let f = node(&index, &[b"f"]);
    assert!(matches!(
        layer.read_at(f, 0, &mut [0; 10]),
        Err(ReadError::Damaged { .. })
    ));
}

#[test]
fn reading_at_and_behind_the_end() {
    let tar = Tar::new().file(b"f", b"12345").file(b"e", b"").end();
    let layer = tar.layer();
    let (f, e) = (node(&layer.index, &[b"f"]), node(&layer.index, &[b"e"]));
    let mut buf = [0; 10];
    assert_eq!(layer.read_at(f, 3, &mut buf).unwrap(), 2);
    assert_eq!(&buf[..2], b"45");
    for offset in [5, 6, u64::MAX] {
        assert_eq!(layer.read_at(f, offset, &mut buf).unwrap(), 0);
    }
    assert_eq!(layer.read_at(e, 0, &mut buf).unwrap(), 0);
    assert_eq!(layer.read_at(f, 0, &mut []).unwrap(), 0);
    assert!(matches!(
        layer.read_at(NodeNo::ROOT, 0, &mut buf),
        Err(ReadError::Index(_))
    ));
    let mut raw = vec![0; tar.bytes.len() + 10];
    assert_eq!(layer.read_tar_at(0, &mut raw).unwrap(), tar.bytes.len());
    assert_eq!(raw[..tar.bytes.len()], tar.bytes);
    // Two builds of one tar are one index.
    assert_eq!(
        index_bytes(&tar.build().unwrap()),
        index_bytes(&build(&tar.bytes, 7).unwrap())
    );
}
