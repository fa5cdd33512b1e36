//! Whiteouts, opaque markers, and what only looks like one.

use super::look::{node, shows, tar};
use crate::layer::merged::MergedEntry;
use crate::layer::testing::{Head, Tar};

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

/// A marker in a directory that its layer does not list takes the entries away, not mode and owner.
#[test]
fn regression_an_opaque_marker_keeps_the_attributes_of_an_unlisted_directory() {
    let mode = |layers: &[Tar], path: &[u8]| {
        let image = crate::layer::testing::image(layers);
        let entry = match path {
            b"" => MergedEntry::Dir(image.root().unwrap()),
            path => image.resolve(path).unwrap().unwrap(),
        };
        let MergedEntry::Dir(dir) = entry else {
            panic!("no directory")
        };
        // Through a table of names, too.
        image.list(&image.root().unwrap()).unwrap().iter().count();
        image.attributes_of_dir(&dir).unwrap().mode
    };
    let private = |name: &[u8]| {
        let head = Head::new(name, b'5', 0).set(100, b"0002770\0");
        tar().head(head).file(b"d/old", b"").end()
    };
    let marker = tar().file(b"d/.wh..wh..opq", b"").file(b"d/new", b"").end();
    let lower = private(b"d");
    assert_eq!(mode(&[lower.clone(), marker.clone()], b"d"), 0o2770);
    let between = tar().file(b"d/more", b"").end();
    let layers = [
        lower.clone(),
        between.clone(),
        marker.clone(),
        between.clone(),
    ];
    assert_eq!(mode(&layers, b"d"), 0o2770);
    let many: Vec<Tar> = [vec![lower.clone()], vec![marker.clone(); 7]].concat();
    assert_eq!(mode(&many, b"d"), 0o2770);
    // A whiteout is the end of it.
    let gone = tar().file(b".wh.d", b"").file(b"d/new", b"").end();
    assert_eq!(mode(&[lower.clone(), gone.clone()], b"d"), 0o755);
    assert_eq!(mode(&[lower, gone, marker], b"d"), 0o755);
    // The root.
    let root = tar().file(b".wh..wh..opq", b"").file(b"only", b"").end();
    assert_eq!(mode(&[private(b"./"), root], b""), 0o2770);
}

/// For overlayfs it is one, and so for every tool that unpacks a layer onto it.
#[test]
fn regression_a_character_device_0_0_is_a_whiteout() {
    let device = |name: &[u8]| Head::new(name, b'3', 0);
    let lower = tar()
        .file(b"a", b"1")
        .file(b"b", b"2")
        .file(b"d/c", b"3")
        .end();
    let upper = tar()
        .head(device(b"a"))
        .head(device(b"d"))
        .hardlink(b"b", b"a")
        .head(device(b"nothing"))
        .file(b"e", b"4")
        .file(b"back", b"old")
        .head(device(b"back"))
        .head(device(b"e2"))
        .file(b"e2", b"5")
        .head(device(b"tty").set(337, b"0000001\0"))
        .end();
    let layer = upper.layer();
    assert!(layer.index.verify_all().is_ok());
    shows(&[lower, upper], &["e = 4", "e2 = 5", "tty c0:1"]);
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
    shows(&layers, &["d/", "d/x = x"]);
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
