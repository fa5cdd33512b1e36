//! Names and types that a layer may spell, and what becomes of them.

use super::look::{dump, node, shows, tar};
use crate::layer::Problem;
use crate::layer::merged::MergedEntry;
use crate::layer::testing::{Head, Tar, image};

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

/// As Go's `filepath.Clean` below the root, which podman and docker unpack by.
#[test]
fn regression_dots_are_cleaned_below_the_root() {
    shows(
        &[tar()
            .file(b"usr/lib/../bin/tool", b"1")
            .dir(b"./../")
            .file(b"./../guava/x.jar", b"2")
            .file(b"../../up", b"3")
            .file(b"a/../../x/", b"4")
            .file(b"", b"nameless")
            .file(b"s/../t/.././t2", b"5")
            .end()],
        &[
            "guava/",
            "guava/x.jar = 2",
            "t2 = 5",
            "up = 3",
            "usr/",
            "usr/bin/",
            "usr/bin/tool = 1",
            "x = 4",
        ],
    );
    // Hard links, here and to the layer below; nothing leaves the root, and a link on the way is not looked at.
    shows(
        &[
            tar().file(b"low", b"l").end(),
            tar()
                .symlink(b"s", b"/d")
                .file(b"d/a", b"1")
                .hardlink(b"d/b", b"d/../d/a")
                .hardlink(b"c", b"s/../../d/a")
                .hardlink(b"m", b"../../x/../low")
                .file(b"s/../e", b"e")
                .end(),
        ],
        &[
            "c = 1", "d/", "d/a = 1", "d/b = 1", "e = e", "low = l", "m = l", "s -> /d",
        ],
    );
}

#[test]
fn bad_names_are_refused() {
    let long = vec![b'n'; 256];
    let deep = vec![b"d".as_slice(); 5000].join(&b'/');
    for (name, problem) in [
        (&b"a/.."[..], Problem::Root),
        (b"..", Problem::Root),
        (b"/../..", Problem::Root),
        (b"a\0b", Problem::Nul("the path")),
        (b"a/../b\0", Problem::Nul("the path")),
        (b"x/../.wh.", Problem::Whiteout),
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
                Head::new(b"a", b'5', 0)
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
