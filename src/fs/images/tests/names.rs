use super::*;

#[test]
fn every_directory_of_names_is_listed() {
    let f = Fixture::new();
    let a = f.load(&[base(), own("a")], &["app:1", "org/app:2", "foo:bar"]);
    let b = f.load(&[base(), own("b")], &["foo/bar:1"]);
    let dangling = f.load(&[base()], &[]);
    assert_eq!(
        f.names(""),
        ["by-id", "images", "info", "layers", "volumes"]
    );
    assert_eq!(f.names("images"), [".dangling", "app", "foo", "org"]);
    assert_eq!(f.names("images/org"), ["app"]);
    assert_eq!(f.names("images/org/app"), ["2"]);
    assert_eq!(f.names("images/foo"), [":bar", "bar"]);
    assert_eq!(f.names("images/.dangling"), [dangling.short()]);
    let mut ids = [a.hex(), b.hex(), dangling.hex()];
    ids.sort();
    assert_eq!(f.names("by-id"), ids);
    assert_eq!(f.names("layers").len(), 3);
    assert_eq!(f.names("volumes"), [""; 0]);
    assert_eq!(
        f.names("info"),
        ["df", "events", "images", "version", "volumes"]
    );
    assert_eq!(f.names("info/images"), ["app", "foo", "org"]);
    assert_eq!(f.names("info/images/foo"), [":bar", "bar"]);
    let layer = f.names("layers")[0].clone();
    let beside = ["diff", "info.json", "tar", "users"];
    assert_eq!(f.names(&format!("layers/{layer}")), beside);
    let id = f.text("info/images/foo/:bar/id");
    assert_eq!(id, format!("{a}\n"));
    for path in ["images/foo/:bar/own", &format!("by-id/{}/own", a.hex())] {
        assert_eq!(f.text(path), "a");
    }
}

#[test]
fn dangling_is_listed_only_while_it_holds_something() {
    let f = Fixture::new();
    f.load(&[base()], &["app:1"]);
    assert_eq!(f.names("images"), ["app"]);
    assert_eq!(f.names("images/.dangling"), [""; 0]);
}

#[test]
fn aliases_are_links_that_are_not_listed() {
    let f = Fixture::new();
    let id = f.load(&[base()], &["app:1", "org/app:2"]);
    let hex = id.hex();
    assert_eq!(f.link("images/app:1"), "app/1");
    assert_eq!(f.link("images/org/app:2"), "../org/app/2");
    assert_eq!(
        f.link(&format!("images/app@{id}")),
        format!("../by-id/{hex}")
    );
    assert_eq!(f.link("images/docker.io"), ".");
    assert_eq!(f.link("images/library"), ".");
    assert_eq!(f.link("images/app/:1"), "1");
    assert_eq!(f.link("info/images/app:1"), "app/1");
    for name in [
        &hex[..4],
        &hex[..63],
        &format!("sha256:{hex}"),
        &format!("sha256:{}", &hex[..9]),
    ] {
        assert_eq!(f.link(&format!("by-id/{name}")), hex);
    }
    let layer = f.names("layers")[0].clone();
    assert_eq!(f.link(&format!("layers/{}", &layer[..8])), layer);
    assert_eq!(f.names("images"), ["app", "org"]);
    // They are asked about each time; tag directories once an hour.
    let alias = f.entry(f.at("images"), "app:1");
    assert_eq!(alias.entry_ttl, Ttl::Zero);
    let tag = f.entry(f.at("images/app"), "1");
    assert_eq!((tag.entry_ttl, tag.attr_ttl), (Ttl::Hour, Ttl::Hour));
}

#[test]
fn unknown_names_are_absent_and_asked_about_again() {
    let f = Fixture::new();
    f.load(&[base()], &["app:1"]);
    let long = "n".repeat(300);
    let zero = |path: &str, name: &[u8]| match f.lookup(f.at(path), name) {
        Ok(Lookup::Absent(Ttl::Zero)) => {}
        other => panic!("{path} {}: {other:?}", name.escape_ascii()),
    };
    for name in [
        "nginx",
        ".git",
        "app:2",
        "desktop.ini",
        "UPPER",
        ":",
        "@",
        "a/b",
        "",
    ] {
        zero("images", name.as_bytes());
    }
    zero("images", b"\xff");
    zero("images/app", b"2");
    zero("", b"x");
    zero("by-id", b"abc");
    zero("layers", b"zz");
    zero("info", b"x");
    zero("volumes", b"x");
    assert_eq!(
        kind(f.lookup(f.at("images"), long.as_bytes()).map(drop)),
        "ENAMETOOLONG"
    );
    // Inside an image nothing ever changes.
    let root = f.at("images/app/1");
    assert!(matches!(
        f.lookup(root, b"x"),
        Ok(Lookup::Absent(Ttl::Forever))
    ));
    assert_eq!(
        kind(f.lookup(root, long.as_bytes()).map(drop)),
        "ENAMETOOLONG"
    );
    let file = f.at("images/app/1/etc/passwd");
    assert_eq!(kind(f.lookup(file, b"x").map(drop)), "ENOTDIR");
    assert!(matches!(
        f.lookup(InodeNo(999), b"x"),
        Err(FsError::Stale(999))
    ));
}

#[test]
fn a_refresh_tells_exactly_what_changed() {
    let f = Fixture::new();
    f.load(&[base()], &["app:1"]);
    let images = f.at("images");
    let app = f.at("images/app");
    f.at("images/app/1");
    f.told();
    f.sb.refresh().unwrap();
    assert_eq!(f.told(), []);

    // Somebody loads: only listings change, and only where the kernel knows them.
    f.load(&[base(), own("b")], &["app:2", "other:1"]);
    let told = f.told();
    assert!(told.contains(&Told::Inode(images, false)));
    assert!(told.contains(&Told::Inode(app, false)));
    assert!(
        !told.iter().any(|told| matches!(told, Told::Entry(..))),
        "{told:?}"
    );
    assert_eq!(f.names("images/app"), ["1", "2"]);

    // Somebody moves a tag.
    let old = f.at("images/app/1");
    f.load(&[base(), own("c")], &["app:1"]);
    assert!(f.told().contains(&Told::Entry(app, "1".to_owned())));
    assert_ne!(f.at("images/app/1"), old);
    assert_eq!(f.text("images/app/1/own"), "c");
    // Who still is in the old one keeps it.
    assert_eq!(f.entry(old, "etc").attr.kind, FileKind::Directory);
}

#[test]
fn a_directory_that_is_removed_from_while_it_is_listed_hides_nothing() {
    let f = Fixture::new();
    let tags: Vec<String> = (0..40).map(|n| format!("app:{n}")).collect();
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    f.load(&[base()], &tags);
    let app = f.at("images/app");
    let mut seen = Vec::new();
    let mut offset = 0;
    loop {
        let (mut chunk, from) = (Vec::new(), offset);
        let add = &mut |entry: &DirEntry<'_>| {
            if chunk.len() == 5 {
                return Full::Yes;
            }
            offset = entry.next_offset;
            chunk.push(String::from_utf8(entry.name.to_vec()).unwrap());
            Full::No
        };
        f.sb.readdir(&f.caller, app, from, true, add).unwrap();
        if chunk.is_empty() {
            break;
        }
        for name in chunk.iter().filter(|name| !name.starts_with('.')) {
            f.sb.rmdir(&f.caller, app, name.as_bytes()).unwrap();
            seen.push(name.clone());
        }
    }
    assert_eq!(seen.len(), 40);
    assert_eq!(f.names("images/app"), [""; 0]);
    f.rmdir("images/app").unwrap();
}

/// Nobody looks at every tree at each change: one that was made by a name that was gone already is looked at with the next.
#[test]
fn regression_a_tree_made_by_a_name_that_was_gone_is_let_go() {
    let f = Fixture::new();
    let id = f.load(&[base()], &["app:1", "app:2"]);
    let [gone, stays] = ["app:1", "app:2"].map(|tag| TagRef::parse(tag).unwrap());
    let change = |change: &dyn Fn(&mut crate::store::Names)| {
        let lock = f.store.lock().unwrap();
        let done = f.store.change(&lock, |names| {
            change(names);
            Ok::<_, crate::store::StoreError>(())
        });
        done.unwrap();
        drop(lock);
        f.sb.refresh().unwrap();
    };
    f.at("images/app/2");
    change(&|names| drop(names.untag(&gone).unwrap()));
    let late = places::Subject::Tag(gone.clone(), id);
    f.sb.tree(&late).unwrap();
    assert!(f.sb.trees.find(&late).is_some());
    let another = TagRef::parse("other:1").unwrap();
    change(&|names| {
        let now = std::time::SystemTime::now();
        names.tag(&another, id, now).unwrap();
    });
    assert!(f.sb.trees.find(&late).is_none());
    let stays = places::Subject::Tag(stays, id);
    assert!(f.sb.trees.find(&stays).is_some());
}

/// A removal that overtakes a request is no damage, in the stores of engines as elsewhere.
#[test]
fn regression_what_engines_were_shown_of_a_removed_image_is_gone_and_not_damaged() {
    let f = Fixture::with(FsOptions {
        shape: Shape::Stores,
        ..options(RmPolicy::Off)
    });
    let id = f.load(&[base()], &["app:1"]);
    let dir = f.at(&format!("containers/overlay-images/{}", id.hex()));
    let manifest = f.entry(dir, "manifest").attr.ino;
    f.sb.forget(manifest, 1);
    let removed = crate::ops::image::remove::remove(
        &f.store,
        true,
        |_| Ok(crate::ops::image::remove::Target::Whole(id)),
        |_, _, _, _| Ok(()),
    );
    removed.unwrap();
    assert_eq!(kind(f.lookup(dir, b"manifest").map(drop)), "ENOENT");
}
