//! Symbolic and hard links.

use super::look::{node, shows, tar};
use crate::layer::Problem;
use crate::layer::merged::MergedEntry;
use crate::layer::testing::{Head, image};

#[test]
fn symbolic_links_on_the_way_stay_in_the_root() {
    shows(
        &[tar()
            .symlink(b"lib", b"usr/lib")
            .file(b"lib/x", b"1")
            .symlink(b"abs", b"/usr")
            .file(b"abs/y", b"2")
            .symlink(b"usr/up", b"../../../..")
            .file(b"usr/up/z", b"3")
            .end()],
        &[
            "abs -> /usr",
            "lib -> usr/lib",
            "usr/",
            "usr/lib/",
            "usr/lib/x = 1",
            "usr/up -> ../../../..",
            "usr/y = 2",
            "z = 3",
        ],
    );
    for tar in [
        tar()
            .symlink(b"a", b"b")
            .symlink(b"b", b"a")
            .file(b"a/x", b"")
            .end(),
        tar().symlink(b"a", b"a").file(b"a/x", b"").end(),
        tar().symlink(b"a", b"./a/..").hardlink(b"l", b"a/x").end(),
    ] {
        assert_eq!(tar.refusal(), Problem::SymlinkLoop);
    }
    assert_eq!(
        tar()
            .symlink(b"a", b".wh.x")
            .file(b"a/x", b"")
            .end()
            .refusal(),
        Problem::Whiteout
    );
}

#[test]
fn a_cached_parent_does_not_outlive_its_path() {
    shows(
        &[tar()
            .file(b"a/1", b"")
            .symlink(b"a", b"b")
            .file(b"a/2", b"")
            .symlink(b"s", b"x")
            .file(b"s/1", b"")
            .symlink(b"s", b"y")
            .file(b"s/2", b"")
            .end()],
        &[
            "a -> b", "b/", "b/2 = ", "s -> y", "x/", "x/1 = ", "y/", "y/2 = ",
        ],
    );
    assert!(matches!(
        tar()
            .file(b"a/1", b"")
            .file(b"a", b"")
            .file(b"a/2", b"")
            .end()
            .refusal(),
        Problem::NotADirectory(_)
    ));
}

#[test]
fn symlink_targets() {
    shows(
        &[tar()
            .symlink(b"s", b"../../etc/passwd")
            .symlink(b"t", &[b't'; 4095])
            .end()],
        &[
            "s -> ../../etc/passwd",
            &format!("t -> {}", "t".repeat(4095)),
        ],
    );
    for target in [&b""[..], &[b't'; 4096], &[b't'; 5000]] {
        assert_eq!(
            tar().symlink(b"s", target).end().refusal(),
            Problem::SymlinkTarget
        );
    }
    assert_eq!(
        tar().symlink(b"s", b"a\0b").end().refusal(),
        Problem::Nul("the link target")
    );
}

#[test]
fn hard_links_within_a_layer() {
    let layer = tar()
        .file(b"a", b"content")
        .hardlink(b"b", b"a")
        .hardlink(b"d/c", b"/b")
        .symlink(b"s", b"a")
        .hardlink(b"ls", b"s")
        .file(b"a", b"replaced")
        .end()
        .layer();
    let index = &layer.index;
    let b = node(index, &[b"b"]);
    assert_eq!(b, node(index, &[b"d", b"c"]));
    assert_ne!(b, node(index, &[b"a"]));
    assert_eq!(index.attributes(b).unwrap().nlink, 2);
    assert_eq!(index.attributes(node(index, &[b"a"])).unwrap().nlink, 1);
    assert_eq!(node(index, &[b"s"]), node(index, &[b"ls"]));
    assert_eq!(index.content_size(), 7 + 8);
    let mut buf = [0; 7];
    assert_eq!(layer.read_at(b, 0, &mut buf).unwrap(), 7);
    assert_eq!(&buf, b"content");
    // Through a symbolic link of the layer on the way.
    shows(
        &[tar()
            .file(b"usr/f", b"1")
            .symlink(b"u", b"/usr")
            .hardlink(b"l", b"u/f")
            .end()],
        &["l = 1", "u -> /usr", "usr/", "usr/f = 1"],
    );
    // Of a device.
    shows(
        &[tar().entry(b"n", b'6', b"", b"").hardlink(b"m", b"n").end()],
        &["m fifo", "n fifo"],
    );
}

/// As in docker: mode, owner and times of the link's own entry apply to the file.
#[test]
fn a_hard_link_with_other_metadata() {
    let layer = tar()
        .pax(&[(b"SCHILY.xattr.user.a", b"1"), (b"mtime", b"5")])
        .file(b"a", b"content")
        .pax(&[
            (b"SCHILY.xattr.user.b", b"2"),
            (b"mtime", b"7.5"),
            (b"uid", b"1000"),
        ])
        .head(Head::new(b"b", b'1', 700).link(b"a").set(100, b"0004755\0"))
        .end()
        .layer();
    let index = &layer.index;
    let a = node(index, &[b"a"]);
    let attributes = index.attributes(a).unwrap();
    assert_eq!(
        (attributes.mode, attributes.uid, attributes.nlink),
        (0o4755, 1000, 2)
    );
    assert_eq!(
        (attributes.mtime_sec, attributes.mtime_nsec, attributes.size),
        (7, 500_000_000, 7)
    );
    let xattrs: Vec<_> = index.xattrs(a).unwrap().map(Result::unwrap).collect();
    assert_eq!(xattrs, [(&b"user.a"[..], &b"1"[..]), (b"user.b", b"2")]);
}

#[test]
fn hard_links_to_lower_layers() {
    let lower = || tar().file(b"d/f", b"old").symlink(b"way", b"/d").end();
    // The content is as of then, whatever happens to the target afterwards.
    shows(
        &[lower(), tar().hardlink(b"l", b"d/f").end()],
        &["d/", "d/f = old", "l = old", "way -> /d"],
    );
    shows(
        &[
            lower(),
            tar().hardlink(b"l", b"d/f").file(b"d/.wh.f", b"").end(),
        ],
        &["d/", "l = old", "way -> /d"],
    );
    shows(
        &[
            lower(),
            tar()
                .hardlink(b"l", b"/d/f")
                .file(b"d/f", b"new")
                .hardlink(b"k", b"l")
                .end(),
        ],
        &["d/", "d/f = new", "k = old", "l = old", "way -> /d"],
    );
    shows(
        &[
            lower(),
            tar().hardlink(b"l", b"d/f").end(),
            tar().hardlink(b"m", b"l").file(b".wh.l", b"").end(),
            tar().hardlink(b"n", b"m").file(b"d/f", b"newest").end(),
        ],
        &["d/", "d/f = newest", "m = old", "n = old", "way -> /d"],
    );
    // Through a symbolic link of the lower layer; one node for all names.
    let stack = [lower(), tar().hardlink(b"l", b"way/f").end()];
    shows(&stack, &["d/", "d/f = old", "l = old", "way -> /d"]);
    let image = image(&stack);
    let leaf = |path: &[u8]| match image.resolve(path).unwrap() {
        Some(MergedEntry::Leaf(node)) => node,
        other => panic!("{other:?}"),
    };
    assert_eq!(leaf(b"l"), leaf(b"d/f"));
    let links: Vec<_> = image.layers()[1]
        .index
        .lower_links()
        .unwrap()
        .map(|link| {
            link.map(|link| (link.path.to_vec(), link.target.to_vec()))
                .unwrap()
        })
        .collect();
    assert_eq!(links, [(b"l".to_vec(), b"way/f".to_vec())]);
}

#[test]
fn hard_links_to_lower_layers_that_lead_nowhere() {
    let lower = || tar().file(b"d/f", b"old").symlink(b"loop", b"loop").end();
    for target in [
        &b"nothing"[..],
        b"d/nothing",
        b"d",
        b"loop/x",
        b"d/f/x",
        b"nothing/x",
    ] {
        let image = image(&[lower(), tar().hardlink(b"l", target).end()]);
        let error = image.verify_lower_links().unwrap_err().to_string();
        assert!(error.contains("hard link \"l\""), "{error}");
        assert!(image.resolve(b"l").is_err());
    }
    // Of the layers below only, not of those above.
    let image = image(&[
        tar().hardlink(b"l", b"x").end(),
        tar().file(b"x", b"").end(),
    ]);
    assert!(image.verify_lower_links().is_err());
}

#[test]
fn bad_hard_links_are_refused() {
    for (tar, expected) in [
        (
            tar().dir(b"d").hardlink(b"l", b"d").end(),
            "it is a directory",
        ),
        (
            tar().file(b"a", b"").hardlink(b"a", b"a").end(),
            "it links to itself",
        ),
        (tar().hardlink(b"a", b"./a").end(), "it links to itself"),
        (tar().hardlink(b"a", b"").end(), "no target"),
        (tar().hardlink(b"a", b"/").end(), "no target"),
        (
            tar().file(b"f", b"").hardlink(b"l", b"f/x").end(),
            "its parent is not a directory",
        ),
        (
            tar().file(b".wh.f", b"").hardlink(b"l", b"f").end(),
            "this layer has removed it",
        ),
        (
            tar().file(b".wh.d", b"").hardlink(b"l", b"d/f").end(),
            "this layer has removed it",
        ),
        (
            tar()
                .file(b".wh.d", b"")
                .dir(b"d")
                .hardlink(b"l", b"d/f")
                .end(),
            "this layer has removed it",
        ),
        (
            tar()
                .file(b"d/.wh..wh..opq", b"")
                .hardlink(b"l", b"d/e/f")
                .end(),
            "this layer has removed it",
        ),
        (
            tar().file(b".wh.f", b"").hardlink(b"l", b".wh.f").end(),
            "a whiteout is no file",
        ),
        (
            tar().file(b"d/f", b"").hardlink(b"d", b"d/f").end(),
            "it would replace a parent of its target",
        ),
        (
            tar().hardlink(b"d", b"d/f").end(),
            "it would replace a parent of its target",
        ),
    ] {
        match tar.refusal() {
            Problem::HardLink { why, .. } => assert_eq!(why, expected),
            other => panic!("{other}"),
        }
    }
    assert!(matches!(
        tar().hardlink(b"l", b"a\0b").end().refusal(),
        Problem::Nul(_)
    ));
}
