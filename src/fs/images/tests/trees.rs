use super::*;

fn upper() -> Tar {
    // `lib` is not described, `usr` is opaque, `etc/hosts` is gone, `etc/link` is a hard link to a file below.
    Tar::new()
        .file(b"etc/.wh.hosts", b"")
        .hardlink(b"etc/link", b"etc/passwd")
        .dir(b"usr/")
        .file(b"usr/.wh..wh..opq", b"")
        .file(b"usr/new", b"n")
        .pax(&[
            (b"SCHILY.xattr.user.note", b"a\nb"),
            (b"SCHILY.xattr.security.x", b"\0\xff"),
        ])
        .file(b"noted", b"x")
        .end()
}

#[test]
fn a_merged_tree_hides_what_is_deleted() {
    let f = Fixture::new();
    f.load(&[base(), upper()], &["app:1"]);
    assert_eq!(f.names("images/app/1"), ["etc", "noted", "usr"]);
    assert_eq!(f.names("images/app/1/etc"), ["link", "passwd"]);
    assert_eq!(f.names("images/app/1/usr"), ["new"]);
    assert!(!f.exists("images/app/1/etc/hosts"));
    assert_eq!(
        f.at("images/app/1/etc/link"),
        f.at("images/app/1/etc/passwd")
    );
    assert_eq!(f.text("images/app/1/etc/link"), "root\n");
    assert_eq!(
        f.xattr("images/app/1/noted", "user.note").as_deref(),
        Some("a\nb")
    );
    assert_eq!(f.xattrs("images/app/1/noted").len(), 2);
    assert_eq!(f.xattrs("images/app/1/usr"), [""; 0]);
    assert_eq!(f.xattr("images/app/1/usr", "trusted.overlay.opaque"), None);
}

#[test]
fn a_layer_alone_speaks_overlayfs() {
    let f = Fixture::new();
    f.load(&[base(), upper()], &["app:1"]);
    let diff = format!("layers/{}/diff", diff_id(&upper().bytes).hex());
    let at = |path: &str| format!("{diff}/{path}");
    assert_eq!(f.names(&diff), ["etc", "noted", "usr"]);
    assert_eq!(f.names(&at("etc")), ["hosts", "link"]);
    let whiteout = f.attr(&at("etc/hosts"));
    assert_eq!(whiteout.kind, FileKind::CharDevice);
    assert_eq!((whiteout.rdev_major, whiteout.rdev_minor), (0, 0));
    for name in ["trusted.overlay.opaque", "user.overlay.opaque"] {
        assert_eq!(f.xattr(&at("usr"), name).as_deref(), Some("y"));
        assert_eq!(f.xattr(&at("etc"), name), None);
    }
    assert_eq!(f.xattrs(&at("usr")), ["trusted.overlay.opaque"]);
    // The same file as in the image: the link leads to the layer below.
    assert_eq!(f.at(&at("etc/link")), f.at("images/app/1/etc/passwd"));
    assert_eq!(f.at(&at("noted")), f.at("images/app/1/noted"));
    // Not described by the layer, so as below; the kernel is told the same in a listing.
    let low = format!("layers/{}/diff/etc", diff_id(&base().bytes).hex());
    assert_eq!(f.attr(&at("etc")).mode, f.attr(&low).mode);
    let listed = f.list_by(&f.caller, f.at(&diff), 9, true);
    let (_, attr) = listed.iter().find(|(name, _)| name == "etc").unwrap();
    assert_eq!(*attr, f.attr(&at("etc")));
}

#[test]
fn files_of_a_shared_layer_are_one_everywhere() {
    let f = Fixture::new();
    let a = f.load(&[base(), own("a")], &["app:1", "app:2"]);
    f.load(&[base(), own("b")], &["other:1"]);
    let big = f.attr("images/app/1/usr/big");
    assert_eq!((big.nlink, big.blocks, big.size), (2, 196, 100_000));
    for path in [
        "images/app/1/usr/twin",
        "images/app/2/usr/big",
        "images/other/1/usr/twin",
        &format!("by-id/{}/usr/big", a.hex()),
        &format!("layers/{}/diff/usr/big", diff_id(&base().bytes).hex()),
    ] {
        assert_eq!(f.at(path), big.ino, "{path}");
    }
    assert_ne!(f.at("images/app/1/own"), f.at("images/other/1/own"));
    // Directories never are: the kernel marks removed ones dead.
    let dirs =
        ["images/app/1/usr", "images/app/2/usr", "images/other/1/usr"].map(|path| f.at(path));
    assert!(dirs[0] != dirs[1] && dirs[1] != dirs[2] && dirs[0] != dirs[2]);
    assert_eq!(f.link("images/app/1/usr/link"), "big");
}

#[test]
fn numbers_survive_being_forgotten() {
    let f = Fixture::new();
    f.load(&[base()], &["app:1"]);
    let etc = f.entry(f.at("images/app/1"), "etc").attr.ino;
    f.sb.forget(etc, 1);
    assert!(matches!(
        f.sb.getattr(&f.caller, etc),
        Err(FsError::Stale(_))
    ));
    assert_eq!(f.at("images/app/1/etc"), etc);
}

#[test]
fn nothing_stays_open_when_the_kernel_has_forgotten_all() {
    let f = Fixture::new();
    f.load(&[base(), upper()], &["app:1"]);
    let fixed = f.sb.nodes.len();
    let mut entries = Vec::new();
    let mut enter = |parent: InodeNo, name: &str| {
        let ino = f.entry(parent, name).attr.ino;
        entries.push(ino);
        ino
    };
    let images = enter(InodeNo::ROOT, "images");
    let app = enter(images, "app");
    let tag = enter(app, "1");
    let etc = enter(tag, "etc");
    let file = enter(etc, "passwd");
    let layers = enter(InodeNo::ROOT, "layers");
    let layer = enter(layers, &diff_id(&upper().bytes).hex());
    let diff = enter(layer, "diff");
    let etc = enter(diff, "etc");
    enter(etc, "link");
    enter(etc, "hosts");
    let tar = enter(layer, "tar");
    f.read(tar).unwrap();
    f.read(file).unwrap();
    assert_eq!(f.sb.slots.open_count(), 2);
    let mut listed = Vec::new();
    for dir in [tag, diff, layer, app] {
        let add = &mut |entry: &DirEntry<'_>| {
            if entry.name.starts_with(b".") {
                return Full::No;
            }
            // The second entry does not fit: no reference is kept for it.
            if listed.contains(&(dir, 0)) {
                return Full::Yes;
            }
            listed.push((dir, 0));
            entries.push(entry.entry.attr.ino);
            Full::No
        };
        f.sb.readdir(&f.caller, dir, 0, true, add).unwrap();
    }
    for ino in entries {
        f.sb.forget(ino, 1);
    }
    assert_eq!(f.sb.trees.dir_count(), 0);
    assert_eq!(f.sb.slots.open_count(), 0);
    assert_eq!(f.sb.nodes.len(), fixed);
    // And all of it comes back.
    assert_eq!(f.text("images/app/1/etc/passwd"), "root\n");
}

#[test]
fn offsets_may_be_invented() {
    let f = Fixture::new();
    f.load(&[base(), upper()], &["app:1"]);
    for path in [
        "images/app/1",
        "images/app/1/etc",
        "images",
        "images/app",
        "by-id",
        "info",
        "volumes",
    ] {
        let ino = f.at(path);
        let whole = f.list_by(&f.caller, ino, 1, false);
        for offset in [
            3,
            4,
            5,
            100,
            1 << 31,
            1 << 32,
            1 << 63,
            u64::MAX - 1,
            u64::MAX,
        ] {
            let mut names = Vec::new();
            let add = &mut |entry: &DirEntry<'_>| {
                names.push(String::from_utf8(entry.name.to_vec()).unwrap());
                Full::No
            };
            f.sb.readdir(&f.caller, ino, offset, false, add).unwrap();
            assert!(
                names
                    .iter()
                    .all(|name| whole.iter().any(|(known, _)| known == name))
            );
            if offset > 100 {
                assert_eq!(names, [""; 0], "{path} {offset}");
            }
        }
    }
    for ino in [u64::MAX, 1 << 63 | 1, 1 << 62, 1 << 40, 77] {
        assert!(f.sb.getattr(&f.caller, InodeNo(ino)).is_err(), "{ino:x}");
        f.sb.forget(InodeNo(ino), 5);
    }
    // A node that its layer does not have.
    let file = f.at("images/app/1/etc/passwd");
    let beyond = InodeNo(file.0 | 0xffff_fff0);
    assert_eq!(kind(f.sb.getattr(&f.caller, beyond).map(drop)), "EIO");
}

#[test]
fn the_end_of_a_listing_of_a_root_is_purged() {
    let f = Fixture::new();
    f.load(&[base()], &["app:1"]);
    let (root, etc) = (f.at("images/app/1"), f.at("images/app/1/etc"));
    f.told();
    f.list_by(&f.caller, etc, 9, true);
    assert_eq!(f.told(), []);
    f.list_by(&f.caller, root, 9, true);
    assert_eq!(f.told(), [Told::Inode(root, false)]);
}

#[test]
fn a_damaged_blob_is_an_error_until_it_is_loaded_again() {
    let f = Fixture::new();
    f.load(&[base()], &["app:1"]);
    let layer = diff_id(&base().bytes);
    let blob = f.store.blob_path(&layer.0);
    let good = std::fs::read(&blob).unwrap();
    let bad: Vec<u8> = good
        .iter()
        .map(|byte| if *byte == 7 { 8 } else { *byte })
        .collect();
    let file = f.at("images/app/1/usr/big");
    let replace = |bytes: &[u8]| {
        let new = blob.with_extension("new");
        std::fs::write(&new, bytes).unwrap();
        std::fs::rename(&new, &blob).unwrap();
    };
    replace(&bad);
    f.sb.forget(file, 1);
    let f2 = Superblock::new(f.store.clone(), options(RmPolicy::Own), f.kernel.clone()).unwrap();
    let mut at = InodeNo::ROOT;
    for name in ["images", "app", "1", "usr", "big"] {
        match f2.lookup(&f.caller, at, name.as_bytes()).unwrap() {
            Lookup::Found(entry) => at = entry.attr.ino,
            Lookup::Absent(_) => panic!("{name}: damage is not absence"),
        }
    }
    let mut content = Vec::new();
    match f2.read(&f.caller, at, 0, 4096, &mut content) {
        Err(FsError::Corrupt { digest, what }) => {
            assert_eq!(digest, layer.0);
            assert!(what.contains(&blob.display().to_string()), "{what}");
        }
        other => panic!("{other:?}"),
    }
    replace(&good);
    content.clear();
    f2.read(&f.caller, at, 0, 4096, &mut content).unwrap();
    assert_eq!(content, [7; 4096]);
}

#[test]
fn a_damaged_index_does_not_hide_the_tag() {
    let f = Fixture::new();
    f.load(&[base()], &["app:1"]);
    let index = f.store.layout().layer_index(&diff_id(&base().bytes));
    std::fs::write(&index, b"rubbish").unwrap();
    let root = f.at("images/app/1");
    assert_eq!(f.attr("images/app/1").kind, FileKind::Directory);
    assert_eq!(kind(f.lookup(root, b"etc").map(drop)), "EIO");
    let list = f.sb.readdir(&f.caller, root, 0, false, &mut |_| Full::No);
    assert_eq!(kind(list), "EIO");
    f.rmdir("images/app/1").unwrap();
    assert!(f.tags().is_empty());
}
