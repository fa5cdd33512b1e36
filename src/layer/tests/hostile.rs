//! Names, links, whiteouts and types that a layer may spell, and what becomes of them.

use crate::layer::merged::{Image, MergedEntry};
use crate::layer::testing::{Tar, image};
use crate::layer::{LayerIndex, NodeNo, Problem};
use crate::tree::NodeKind;

/// The merged tree as text: one line per entry, sorted; content of files, targets of symlinks.
pub fn dump(image: &Image) -> Vec<String> {
    let mut out = Vec::new();
    image
        .walk(|path, entry| -> Result<(), crate::layer::ReadError> {
            let path = path.escape_ascii().to_string();
            let MergedEntry::Leaf(node) = entry else {
                out.push(format!("{path}/"));
                return Ok(());
            };
            let attributes = image.attributes(*node)?;
            out.push(match attributes.kind {
                NodeKind::Directory => panic!("a directory as leaf"),
                NodeKind::Regular => {
                    let mut content = vec![0; attributes.size as usize + 10];
                    let length = image
                        .layer(node.layer)
                        .read_at(node.node, 0, &mut content)?;
                    assert_eq!(length as u64, attributes.size);
                    format!("{path} = {}", content[..length].escape_ascii())
                }
                NodeKind::Symlink => {
                    format!("{path} -> {}", image.symlink_target(*node)?.escape_ascii())
                }
                NodeKind::CharDevice => {
                    format!(
                        "{path} c{}:{}",
                        attributes.rdev_major, attributes.rdev_minor
                    )
                }
                NodeKind::BlockDevice => {
                    format!(
                        "{path} b{}:{}",
                        attributes.rdev_major, attributes.rdev_minor
                    )
                }
                NodeKind::Fifo => format!("{path} fifo"),
            });
            Ok(())
        })
        .unwrap();
    out
}

#[track_caller]
fn shows(tars: &[Tar], expected: &[&str]) {
    let image = image(tars);
    image.verify_lower_links().unwrap();
    assert_eq!(dump(&image), expected);
}

fn tar() -> Tar {
    Tar::new()
}

#[test]
fn spellings_of_one_path() {
    shows(
        &[tar()
            .dir(b"./")
            .file(b"./a//b/./c", b"1")
            .file(b"/etc/x", b"2")
            .file(b"a/b/d/", b"3")
            .dir(b"a/b/.")
            .end()],
        &["a/", "a/b/", "a/b/c = 1", "a/b/d = 3", "etc/", "etc/x = 2"],
    );
}

#[test]
fn names_may_be_any_bytes() {
    let long = vec![b'n'; 255];
    let expected = format!("{} = l", String::from_utf8(long.clone()).unwrap());
    shows(
        &[tar()
            .file(b"new\nline", b"1")
            .file(b"esc\x1b[31m", b"2")
            .file(b"back\\slash", b"3")
            .file(b"latin\xe9", b"4")
            .file(&long, b"l")
            .end()],
        &[
            "back\\\\slash = 3",
            "esc\\x1b[31m = 2",
            "latin\\xe9 = 4",
            "new\\nline = 1",
            &expected,
        ],
    );
}

#[test]
fn bad_names_are_refused() {
    let long = vec![b'n'; 256];
    let deep = vec![b"d".as_slice(); 5000].join(&b'/');
    for (name, problem) in [
        (&b"../x"[..], Problem::DotDot("the path")),
        (b"a/../x", Problem::DotDot("the path")),
        (b"a/..", Problem::DotDot("the path")),
        (b"..", Problem::DotDot("the path")),
        (b"/..", Problem::DotDot("the path")),
        (b"a/../../x/", Problem::DotDot("the path")),
        (b"a\0b", Problem::Nul("the path")),
        (b"", Problem::EmptyPath),
        (&long, Problem::NameTooLong),
        (&[&long[..], b"/x"].concat(), Problem::NameTooLong),
        (b".", Problem::Root),
        (b"./", Problem::Root),
        (b"/", Problem::Root),
        (b".wh.", Problem::Whiteout),
        (b".wh..", Problem::Whiteout),
        (b"a/.wh...", Problem::Whiteout),
        (b".wh.x/y", Problem::Whiteout),
        (b".wh..wh..opq/y", Problem::Whiteout),
        (&[b".wh.", &long[..]].concat(), Problem::Whiteout),
        (
            &deep,
            Problem::Limit {
                what: "levels of directories",
                limit: 4096,
            },
        ),
        (
            &vec![b'/'; 70_000],
            Problem::Limit {
                what: "bytes in one path",
                limit: 65536,
            },
        ),
    ] {
        let found = tar().file(name, b"x").end().refusal();
        assert_eq!(found, problem, "{}", name.escape_ascii());
    }
    for root in [&b"."[..], b"/", b"./."] {
        assert_eq!(tar().symlink(root, b"/etc").end().refusal(), Problem::Root);
        assert_eq!(
            tar().file(b"a", b"").hardlink(root, b"a").end().refusal(),
            Problem::Root
        );
    }
}

#[test]
fn long_paths() {
    for length in [4000usize, 5000] {
        let path = vec![vec![b'p'; 99]; length / 100].join(&b'/');
        let layer = tar().file(&path, b"x").end().layer();
        assert_eq!(layer.index.node_count() as usize, length / 100 + 1);
    }
}

#[test]
fn three_thousand_levels() {
    let path = vec![b"d".as_slice(); 3000].join(&b'/');
    let below = [&path[..], b"/f"].concat();
    let image = image(&[
        tar().file(&below, b"deep").end(),
        tar().dir(&path).end(),
        tar().file(&[&path[..], b"/g"].concat(), b"too").end(),
    ]);
    let MergedEntry::Leaf(node) = image.resolve(&below).unwrap().unwrap() else {
        panic!("no leaf")
    };
    assert_eq!(image.attributes(node).unwrap().size, 4);
    assert_eq!(dump(&image).len(), 3002);
}

#[test]
fn a_whiteout_hides_lower_layers_wherever_it_stands() {
    let lower = || {
        tar()
            .file(b"d/f", b"old")
            .file(b"d/g", b"g")
            .file(b"top", b"t")
            .end()
    };
    // Alone, without an entry for its parent; what does not exist; before and after an entry of its name.
    shows(
        &[lower(), tar().file(b"d/.wh.f", b"").end()],
        &["d/", "d/g = g", "top = t"],
    );
    shows(&[lower(), tar().file(b".wh.d", b"").end()], &["top = t"]);
    shows(
        &[
            lower(),
            tar()
                .file(b".wh.nothing", b"")
                .file(b"d/.wh.nothing", b"")
                .end(),
        ],
        &["d/", "d/f = old", "d/g = g", "top = t"],
    );
    for upper in [
        tar().file(b"d/.wh.f", b"").file(b"d/f", b"new").end(),
        tar().file(b"d/f", b"new").file(b"d/.wh.f", b"").end(),
    ] {
        shows(
            &[lower(), upper],
            &["d/", "d/f = new", "d/g = g", "top = t"],
        );
    }
    // A directory and its whiteout: opaque.
    for upper in [
        tar().file(b".wh.d", b"").dir(b"d").file(b"d/n", b"n").end(),
        tar().dir(b"d").file(b"d/n", b"n").file(b".wh.d", b"").end(),
        tar().file(b"d/n", b"n").file(b".wh.d", b"").end(),
    ] {
        shows(&[lower(), upper], &["d/", "d/n = n", "top = t"]);
    }
    // Markers of any type, with data.
    for marker in [
        tar().dir(b"d/.wh.f/").end(),
        tar().symlink(b"d/.wh.f", b"x").end(),
        tar().file(b"d/.wh.f", b"data").end(),
        tar().entry(b"d/.wh.f", b'3', b"", b"").end(),
        tar().hardlink(b"d/.wh.f", b"anything").end(),
    ] {
        shows(&[lower(), marker], &["d/", "d/g = g", "top = t"]);
    }
    // Two layers up still hidden; a third brings it back.
    shows(
        &[
            lower(),
            tar().file(b"d/.wh.f", b"").end(),
            tar().file(b"other", b"").end(),
            tar().file(b"d/f", b"again").end(),
        ],
        &["d/", "d/f = again", "d/g = g", "other = ", "top = t"],
    );
}

#[test]
fn whiteouts_of_the_longest_names() {
    for length in [251, 252, 255] {
        let name = vec![b'n'; length];
        let lower = tar().file(&name, b"x").file(b"keep", b"").end();
        let upper = tar().file(&[b".wh.", &name[..]].concat(), b"").end();
        shows(&[lower, upper], &["keep = "]);
    }
}

#[test]
fn an_opaque_marker_hides_lower_layers_only() {
    let lower = || {
        tar()
            .file(b"d/f", b"old")
            .file(b"d/s/x", b"x")
            .file(b"top", b"t")
            .end()
    };
    for upper in [
        tar().file(b"d/.wh..wh..opq", b"").file(b"d/n", b"n").end(),
        tar()
            .dir(b"d")
            .file(b"d/n", b"n")
            .file(b"d/.wh..wh..opq", b"")
            .end(),
        tar().file(b"d/n", b"n").dir(b"d/.wh..wh..opq").end(),
        tar()
            .file(b"d/n", b"n")
            .file(b"d/.wh..wh..opq", b"")
            .dir(b"d")
            .end(),
    ] {
        shows(&[lower(), upper], &["d/", "d/n = n", "top = t"]);
    }
    shows(
        &[
            lower(),
            tar().file(b".wh..wh..opq", b"").file(b"only", b"1").end(),
        ],
        &["only = 1"],
    );
    shows(
        &[lower(), tar().file(b"d/.wh..wh..opq", b"").end()],
        &["d/", "top = t"],
    );
    // Nested below an opaque directory.
    shows(
        &[
            lower(),
            tar()
                .file(b"d/.wh..wh..opq", b"")
                .file(b"d/s/y", b"y")
                .end(),
            tar().file(b"d/s/z", b"z").end(),
        ],
        &["d/", "d/s/", "d/s/y = y", "d/s/z = z", "top = t"],
    );
}

#[test]
fn aufs_bookkeeping_is_dropped() {
    shows(
        &[
            tar().file(b"a", b"1").end(),
            tar()
                .dir(b".wh..wh.plnk/")
                .file(b".wh..wh.plnk/1.2", b"data")
                .file(b".wh..wh.aufs", b"")
                .file(b"d/.wh..wh.orph/x/y", b"")
                .hardlink(b".wh..wh.plnk/3.4", b"nothing")
                .end(),
        ],
        &["a = 1"],
    );
}

#[test]
fn overlayfs_cannot_be_smuggled_in() {
    let layers = [
        tar().file(b"f", b"old").file(b"d/x", b"x").end(),
        tar()
            .entry(b"f", b'3', b"", b"")
            .pax(&[
                (b"SCHILY.xattr.trusted.overlay.opaque", b"y"),
                (b"SCHILY.xattr.user.overlay.redirect", b"/f"),
                (b"SCHILY.xattr.user.kept", b"1"),
            ])
            .dir(b"d")
            .end(),
    ];
    shows(&layers, &["d/", "d/x = x", "f c0:0"]);
    let layer = layers[1].layer();
    let index = &layer.index;
    let node = node(index, &[b"d"]);
    let names: Vec<_> = index
        .xattrs(node)
        .unwrap()
        .map(|x| x.unwrap().0.to_vec())
        .collect();
    assert_eq!(names, [b"user.kept"]);
}

pub fn node(index: &LayerIndex, path: &[&[u8]]) -> NodeNo {
    path.iter().fold(NodeNo::ROOT, |dir, name| {
        match index.find(dir, name).unwrap().unwrap().target {
            Some(crate::layer::Target::Node(node)) => node,
            other => panic!("{other:?}"),
        }
    })
}

#[test]
fn types_change_between_layers() {
    let dir = || tar().file(b"n/child", b"c").end();
    let empty = || tar().dir(b"n").end();
    let file = || tar().file(b"n", b"f").end();
    let link = || tar().symlink(b"n", b"t").end();
    let device = || tar().entry(b"n", b'4', b"", b"").end();
    shows(&[dir(), file()], &["n = f"]);
    shows(&[dir(), file(), empty()], &["n/"]);
    shows(&[dir(), link(), empty()], &["n/"]);
    shows(&[file(), dir()], &["n/", "n/child = c"]);
    shows(&[link(), dir()], &["n/", "n/child = c"]);
    shows(&[dir(), device()], &["n b0:0"]);
    shows(&[device(), link()], &["n -> t"]);
    shows(&[dir(), empty()], &["n/", "n/child = c"]);
    shows(
        &[dir(), file(), empty(), empty(), dir()],
        &["n/", "n/child = c"],
    );
    // A symbolic link of a lower layer on the way is replaced by a directory, as overlayfs shows it.
    shows(
        &[
            tar().file(b"real/x", b"1").symlink(b"way", b"real").end(),
            tar().file(b"way/y", b"2").end(),
        ],
        &["real/", "real/x = 1", "way/", "way/y = 2"],
    );
}

#[test]
fn within_a_layer_the_last_entry_counts() {
    shows(
        &[tar().file(b"f", b"1").file(b"f", b"22").end()],
        &["f = 22"],
    );
    shows(
        &[tar().file(b"d/c", b"1").dir(b"d").end()],
        &["d/", "d/c = 1"],
    );
    shows(
        &[tar().dir(b"d").file(b"d/c", b"1").dir(b"d/").end()],
        &["d/", "d/c = 1"],
    );
    shows(
        &[tar().file(b"d/c", b"1").file(b"d", b"f").end()],
        &["d = f"],
    );
    shows(
        &[tar()
            .file(b"d/c", b"1")
            .file(b"d", b"f")
            .file(b"d2", b"")
            .dir(b"d")
            .file(b"d/n", b"n")
            .end()],
        &["d/", "d/n = n", "d2 = "],
    );
    shows(
        &[tar().symlink(b"s", b"a").dir(b"s").file(b"s/x", b"").end()],
        &["s/", "s/x = "],
    );
    shows(
        &[tar().file(b"f", b"").symlink(b"f", b"t").end()],
        &["f -> t"],
    );
    // The directory comes back without children after a file; lower layers show through it.
    shows(
        &[
            tar().file(b"d/low", b"l").end(),
            tar().file(b"d/c", b"1").file(b"d", b"f").dir(b"d").end(),
        ],
        &["d/", "d/low = l"],
    );
}

#[test]
fn children_of_a_file_are_refused() {
    for tar in [
        tar().file(b"f", b"").file(b"f/x", b"").end(),
        tar().file(b"a/f", b"").file(b"a/f/x/y", b"").end(),
        tar().file(b"f", b"").file(b"f/.wh.x", b"").end(),
        tar().entry(b"f", b'6', b"", b"").dir(b"f/d").end(),
        tar()
            .symlink(b"s", b"f")
            .file(b"f", b"")
            .file(b"s/x", b"")
            .end(),
    ] {
        assert!(matches!(tar.refusal(), Problem::NotADirectory(_)));
    }
}

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
        .head(
            crate::layer::testing::Head::new(b"b", b'1', 700)
                .link(b"a")
                .set(100, b"0004755\0"),
        )
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
    for target in [&b"../x"[..], b"a/../../x", b"/.."] {
        assert_eq!(
            tar().hardlink(b"l", target).end().refusal(),
            Problem::DotDot("the hard link's target")
        );
    }
    assert!(matches!(
        tar().hardlink(b"l", b"a\0b").end().refusal(),
        Problem::Nul(_)
    ));
}

#[test]
fn implicit_parents() {
    let layer = tar().file(b"a/b/c", b"").end().layer();
    let index = &layer.index;
    for path in [&[][..], &[&b"a"[..]], &[b"a", b"b"]] {
        let node = node(index, path);
        assert!(index.is_implicit(node).unwrap());
        assert_eq!(
            index.attributes(node).unwrap(),
            crate::tree::Attributes::IMPLICIT_DIRECTORY
        );
    }
    // A merge shows the lower layer's directory unchanged; a described one replaces its attributes.
    let lower = || {
        tar()
            .head(
                crate::layer::testing::Head::new(b"a", b'5', 0)
                    .set(100, b"0001777\0")
                    .set(136, b"00000000007\0"),
            )
            .end()
    };
    let mode = |tars: &[Tar]| {
        let image = image(tars);
        match image.resolve(b"a").unwrap().unwrap() {
            MergedEntry::Dir(dir) => image.attributes_of_dir(&dir).unwrap().mode,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(mode(&[lower(), tar().file(b"a/b", b"").end()]), 0o1777);
    assert_eq!(mode(&[lower(), tar().dir(b"a").end()]), 0o755);
    assert_eq!(
        mode(&[
            tar().file(b"a/b", b"").end(),
            lower(),
            tar().file(b"a/c", b"").end()
        ]),
        0o1777
    );
    assert_eq!(
        mode(&[tar().file(b"a/b", b"").end(), tar().file(b"a/c", b"").end()]),
        0o755
    );
    // Described after its children: no longer implicit.
    let layer = tar().file(b"a/b", b"").dir(b"a").end().layer();
    assert!(
        !layer
            .index
            .is_implicit(node(&layer.index, &[b"a"]))
            .unwrap()
    );
}

#[test]
fn empty_layers() {
    shows(&[], &[]);
    shows(&[tar(), tar().end()], &[]);
    shows(
        &[tar().file(b"a", b"1").end(), tar(), tar().end()],
        &["a = 1"],
    );
}

#[test]
fn many_layers_and_many_entries() {
    let mut layers: Vec<_> = (0..200)
        .map(|i| tar().file(format!("d/{i:03}").as_bytes(), b"x").end())
        .collect();
    layers.push(tar().file(b"d/.wh.007", b"").end());
    let stack = image(&layers);
    assert_eq!(dump(&stack).len(), 200);
    let MergedEntry::Dir(dir) = stack.resolve(b"d").unwrap().unwrap() else {
        panic!()
    };
    assert!(stack.lookup(&dir, b"007").unwrap().is_none());
    assert!(stack.lookup(&dir, b"000").unwrap().is_some());
    dir.shed();
    assert!(stack.lookup(&dir, b"199").unwrap().is_some());

    let wide = (0..65_000)
        .fold(tar(), |tar, i| tar.file(format!("w/{i}").as_bytes(), b""))
        .end();
    let wide = image(&[wide]);
    let MergedEntry::Dir(dir) = wide.resolve(b"w").unwrap().unwrap() else {
        panic!()
    };
    assert_eq!(wide.list(&dir).unwrap().iter().count(), 65_000);
}
