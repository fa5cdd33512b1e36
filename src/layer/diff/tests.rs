use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::layer::LayerFile;
use crate::layer::testing::{Head, Tar};

fn stack(layers: &[&Arc<LayerFile>]) -> Image {
    Image::new(layers.iter().map(|layer| Arc::clone(layer)).collect()).unwrap()
}

fn lines(old: &Image, new: &Image) -> Vec<String> {
    let changes = images(old, new).unwrap();
    let line =
        |change: &PathChange| format!("{} /{}", change.kind.letter(), change.path.escape_ascii());
    changes.iter().map(line).collect()
}

fn base() -> Arc<LayerFile> {
    Tar::new()
        .dir(b"etc")
        .file(b"etc/a", b"one")
        .file(b"etc/b", b"two")
        .dir(b"usr")
        .dir(b"usr/bin")
        .file(b"usr/bin/x", b"x")
        .symlink(b"link", b"etc/a")
        .layer()
}

#[test]
fn a_layer_on_top_shows_what_it_did() {
    let base = base();
    let top = Tar::new()
        .file(b"etc/new", b"n")
        .file(b"etc/a", b"1")
        .file(b"etc/.wh.b", b"")
        .dir(b"srv")
        .file(b"srv/f", b"f")
        .file(b".wh.usr", b"")
        .layer();
    let (old, new) = (stack(&[&base]), stack(&[&base, &top]));
    assert_eq!(
        lines(&old, &new),
        [
            "C /etc",
            "C /etc/a",
            "D /etc/b",
            "A /etc/new",
            "A /srv",
            "A /srv/f",
            "D /usr"
        ]
    );
    // The other way round.
    assert_eq!(
        lines(&new, &old),
        [
            "C /etc",
            "C /etc/a",
            "A /etc/b",
            "D /etc/new",
            "D /srv",
            "A /usr",
            "A /usr/bin",
            "A /usr/bin/x"
        ]
    );
    assert_eq!(lines(&new, &new), [""; 0]);
}

#[test]
fn what_is_written_again_the_same_is_no_change() {
    let base = base();
    let same = Tar::new()
        .dir(b"etc")
        .file(b"etc/a", b"one")
        .symlink(b"link", b"etc/a")
        .layer();
    assert_eq!(lines(&stack(&[&base]), &stack(&[&base, &same])), [""; 0]);
    // The same bytes in other layers altogether.
    let other = Tar::new().dir(b"usr/bin").file(b"usr/bin/x", b"x").layer();
    let rest = Tar::new()
        .dir(b"etc")
        .dir(b"usr")
        .symlink(b"link", b"etc/a")
        .file(b"etc/b", b"two")
        .file(b"etc/a", b"one")
        .layer();
    assert_eq!(lines(&stack(&[&base]), &stack(&[&other, &rest])), [""; 0]);
}

#[test]
fn attributes_count() {
    let base = base();
    let file = |head: Head| Tar::new().head(head.link(b"")).data(b"one").layer();
    let head = || Head::new(b"etc/a", b'0', 3);
    for (what, top) in [
        ("mode", file(head().set(100, b"0000600\0"))),
        ("uid", file(head().set(108, b"0000001\0"))),
        ("mtime", file(head().set(136, b"00000000001\0"))),
        (
            "xattr",
            Tar::new()
                .pax(&[(b"SCHILY.xattr.user.x", b"1")])
                .file(b"etc/a", b"one")
                .layer(),
        ),
        ("content", Tar::new().file(b"etc/a", b"eno").layer()),
        ("type", Tar::new().symlink(b"etc/a", b"b").layer()),
    ] {
        let changed = lines(&stack(&[&base]), &stack(&[&base, &top]));
        assert_eq!(changed, ["C /etc", "C /etc/a"], "{what}");
    }
    // A directory's own attributes, but not its time.
    let touched = Tar::new()
        .head(Head::new(b"etc", b'5', 0).set(136, b"00000000001\0"))
        .layer();
    assert_eq!(lines(&stack(&[&base]), &stack(&[&base, &touched])), [""; 0]);
    let closed = Tar::new()
        .head(Head::new(b"etc", b'5', 0).set(100, b"0000700\0"))
        .layer();
    assert_eq!(
        lines(&stack(&[&base]), &stack(&[&base, &closed])),
        ["C /etc"]
    );
}

#[test]
fn types_that_change() {
    let base = base();
    let file = Tar::new().file(b"usr", b"").layer();
    let new = stack(&[&base, &file]);
    assert_eq!(lines(&stack(&[&base]), &new), ["C /usr"]);
    assert_eq!(
        lines(&new, &stack(&[&base])),
        ["C /usr", "A /usr/bin", "A /usr/bin/x"]
    );
}

#[test]
fn a_link_to_a_lower_layer_is_what_that_layer_has() {
    let (one, other) = (
        Tar::new().file(b"f", b"1").layer(),
        Tar::new().file(b"f", b"2").layer(),
    );
    let link = Tar::new().dir(b"d").hardlink(b"d/g", b"f").layer();
    assert_eq!(
        lines(&stack(&[&one, &link]), &stack(&[&other, &link])),
        ["C /d", "C /d/g", "C /f"]
    );
}

#[test]
fn sparse_files_compare_by_content() {
    let plain = Tar::new().file(b"f", b"\0\0\0\0data").layer();
    let sparse = |data: &[u8]| {
        Tar::new()
            .pax(&[
                (b"GNU.sparse.major", b"0"),
                (b"GNU.sparse.minor", b"1"),
                (b"GNU.sparse.name", b"f"),
                (b"GNU.sparse.size", b"8"),
                (b"GNU.sparse.numblocks", b"1"),
                (b"GNU.sparse.map", b"4,4"),
            ])
            .file(b"f", data)
            .layer()
    };
    let (same, other) = (sparse(b"data"), sparse(b"DATA"));
    assert_eq!(lines(&stack(&[&plain]), &stack(&[&same])), [""; 0]);
    assert_eq!(lines(&stack(&[&plain]), &stack(&[&other])), ["C /f"]);
    assert_eq!(lines(&stack(&[&same]), &stack(&[&other])), ["C /f"]);
}

/// Path to what counts of the entry: the reference the fast walk is compared with.
fn plain(image: &Image) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut tree = BTreeMap::new();
    let visit = |path: &[u8], entry: &MergedEntry| {
        let text = match entry {
            MergedEntry::Dir(dir) => {
                let a = image.attributes_of_dir(dir)?;
                format!("dir {:o} {} {}", a.mode, a.uid, a.gid).into_bytes()
            }
            MergedEntry::Leaf(node) => {
                let a = image.attributes(*node)?;
                let mut text = format!("{a:?}")
                    .replace(&format!("nlink: {}", a.nlink), "")
                    .into_bytes();
                if a.kind == NodeKind::Regular {
                    let mut content = vec![0; 64];
                    let got = image
                        .layer(node.layer)
                        .read_at(node.node, 0, &mut content)?;
                    text.extend_from_slice(&content[..got]);
                } else if a.kind == NodeKind::Symlink {
                    text.extend_from_slice(image.symlink_target(*node)?);
                }
                text
            }
        };
        tree.insert(path.to_vec(), text);
        Ok::<(), ReadError>(())
    };
    image.walk(visit).unwrap();
    tree
}

fn expected(old: &Image, new: &Image) -> Vec<String> {
    let (a, b) = (plain(old), plain(new));
    let mut changes: BTreeMap<Vec<u8>, char> = BTreeMap::new();
    let parents = |path: &[u8]| -> Vec<Vec<u8>> {
        (0..path.len())
            .filter(|at| path[*at] == b'/')
            .map(|at| path[..at].to_vec())
            .collect()
    };
    for (path, what) in &b {
        match a.get(path) {
            None => _ = changes.insert(path.clone(), 'A'),
            Some(before) if before != what => _ = changes.insert(path.clone(), 'C'),
            Some(_) => {}
        }
    }
    for path in a.keys().filter(|path| !b.contains_key(*path)) {
        // Only the topmost, and only below a directory.
        let shown = parents(path)
            .iter()
            .all(|parent| b.get(parent).is_some_and(|what| what.starts_with(b"dir")));
        if shown {
            changes.insert(path.clone(), 'D');
        }
    }
    let touched: Vec<Vec<u8>> = changes.keys().flat_map(|path| parents(path)).collect();
    for parent in touched {
        changes.entry(parent).or_insert('C');
    }
    changes
        .into_iter()
        .map(|(path, kind)| format!("{kind} /{}", path.escape_ascii()))
        .collect()
}

/// One entry of a random layer, with a path of up to three components of two names.
fn arbitrary_layer() -> impl Strategy<Value = Tar> {
    let path = prop::collection::vec(prop::sample::select(vec!["a", "b"]), 1..4)
        .prop_map(|parts| parts.join("/"));
    let entry = (path.clone(), path, 0..7u8);
    prop::collection::vec(entry, 0..6).prop_map(|entries| {
        entries.iter().fold(Tar::new(), |tar, (path, other, kind)| {
            let hidden = match path.rsplit_once('/') {
                Some((dir, name)) => format!("{dir}/.wh.{name}"),
                None => format!(".wh.{path}"),
            };
            let bytes = path.as_bytes();
            match kind {
                0 | 1 => tar.dir(bytes),
                2 => tar.file(bytes, other.as_bytes()),
                3 => tar.file(bytes, b"same"),
                4 => tar.symlink(bytes, b"nowhere"),
                5 => tar.file(hidden.as_bytes(), b""),
                _ => tar.file(format!("{path}/.wh..wh..opq").as_bytes(), b""),
            }
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// The walk that skips what is shared finds what a comparison of the whole trees finds.
    #[test]
    fn the_fast_walk_is_right(
        layers in prop::collection::vec(arbitrary_layer(), 1..6),
        old in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
        new in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
    ) {
        // Layers that are refused (a child of a file) are no layers.
        let layers: Vec<Arc<LayerFile>> = layers
            .iter()
            .filter(|tar| tar.build().is_ok())
            .map(Tar::layer)
            .collect();
        prop_assume!(!layers.is_empty());
        let pick = |which: &[prop::sample::Index]| {
            let picked: Vec<_> = which.iter().map(|at| at.get(&layers)).collect();
            stack(&picked)
        };
        let (old, new) = (pick(&old), pick(&new));
        prop_assert_eq!(lines(&old, &new), expected(&old, &new));
    }
}
