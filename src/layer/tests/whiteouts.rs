//! Whiteouts, opaque markers, and what only looks like one.

use super::look::{node, shows, tar};

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
