use super::*;

fn fixture() -> (Fixture, ImageId) {
    let f = Fixture::new();
    let id = f.load(
        &[base(), own("a")],
        &["app:1", "app:2", "org/app:1", "org/app/sub:1"],
    );
    (f, id)
}

#[test]
fn a_tag_moves_with_its_directories() {
    let (f, _) = fixture();
    f.load(&[base(), own("b")], &["other:1"]);
    let (root, etc) = (f.at("images/app/1"), f.at("images/app/1/etc"));
    f.rename("images/app/1", "images/app/stable").unwrap();
    assert_eq!(f.names("images/app"), ["2", "stable"]);
    assert_eq!(
        (f.at("images/app/stable"), f.at("images/app/stable/etc")),
        (root, etc)
    );
    f.rename("images/app/stable", "images/other/3").unwrap();
    assert_eq!(f.names("images/other"), ["1", "3"]);
    assert_eq!(f.at("images/other/3"), root);
    assert_eq!(
        f.tags(),
        ["app:2", "other:1", "other:3", "org/app:1", "org/app/sub:1"]
    );
    // The last tag moves out: the repository stays, empty.
    f.rename("images/other/1", "images/app/9").unwrap();
    f.rename("images/other/3", "images/app/10").unwrap();
    assert_eq!(f.names("images/other"), [""; 0]);
    f.rmdir("images/other").unwrap();
}

#[test]
fn a_repository_moves_with_all_below_it() {
    let (f, _) = fixture();
    let (org, app, sub) = (
        f.at("images/org"),
        f.at("images/org/app"),
        f.at("images/org/app/sub"),
    );
    let tag = f.at("images/org/app/sub/1");
    f.sb.mkdir(&f.caller, org, b"empty").unwrap();
    f.rename("images/org", "images/team").unwrap();
    assert_eq!(f.tags(), ["app:1", "app:2", "team/app:1", "team/app/sub:1"]);
    assert_eq!(f.names("images"), ["app", "team"]);
    assert_eq!(f.names("images/team"), ["app", "empty"]);
    assert_eq!((f.at("images/team"), f.at("images/team/app")), (org, app));
    assert_eq!(
        (f.at("images/team/app/sub"), f.at("images/team/app/sub/1")),
        (sub, tag)
    );
    // Into another directory, and to the top.
    f.rename("images/team/app", "images/localhost").unwrap();
    assert_eq!(f.names("images/team"), ["empty"]);
    assert_eq!(f.at("images/localhost"), app);
}

#[test]
fn an_empty_repository_moves_too() {
    let (f, _) = fixture();
    f.sb.mkdir(&f.caller, f.at("images"), b"new").unwrap();
    f.rename("images/new", "images/org/newer").unwrap();
    assert_eq!(f.names("images"), ["app", "org"]);
    assert_eq!(f.names("images/org"), ["app", "newer"]);
    f.rename("images/app/1", "images/org/newer/1").unwrap();
    assert!(f.tags().contains(&"org/newer:1".to_owned()));
}

#[test]
fn a_repository_never_replaces_one() {
    let (f, _) = fixture();
    assert_eq!(kind(f.rename("images/app", "images/org")), "EEXIST");
    assert_eq!(kind(f.rename("images/org", "images/app/1")), "EEXIST");
    assert_eq!(kind(f.rename("images/org", "images/org/app/x")), "EINVAL");
    assert_eq!(f.tags().len(), 4);
}

#[test]
fn a_link_tags_what_it_leads_to() {
    let (f, id) = fixture();
    let link = |dir: &str, name: &str, target: &str| {
        f.sb.symlink(&f.caller, f.at(dir), name.as_bytes(), target.as_bytes())
    };
    let made = link("images/app", "stable", "1").unwrap();
    assert_eq!(made.attr.kind, FileKind::Symlink);
    assert_eq!(
        (
            made.entry_ttl,
            f.sb.readlink(&f.caller, made.attr.ino).unwrap()
        ),
        (Ttl::Zero, b"1".to_vec())
    );
    assert_eq!(f.attr("images/app/stable").kind, FileKind::Directory);
    assert_eq!(f.text("images/app/stable/own"), "a");
    let by_id = format!("../../by-id/{}", id.hex());
    let absolute = format!("{MOUNT_POINT}/images/org/app/1");
    for (name, target) in [
        ("b", &*by_id),
        ("c", &*absolute),
        ("d", "org/app:1"),
        ("e", "../app/2"),
    ] {
        link("images/app", name, target).unwrap();
    }
    assert_eq!(
        f.names("images/app"),
        ["1", "2", "b", "c", "d", "e", "stable"]
    );
    for (name, target, expected) in [
        ("1", "2", "EEXIST"),
        ("x", "nothing", "EINVAL"),
        ("x", "/etc/passwd", "EINVAL"),
        ("-x", "1", "EINVAL"),
        ("x", "", "EINVAL"),
    ] {
        assert_eq!(
            kind(link("images/app", name, target).map(drop)),
            expected,
            "{name} {target}"
        );
    }
    assert!(
        f.sb.symlink(&f.caller, f.at("images/app"), b"\xff", b"1")
            .is_err()
    );
    // A new repository can be filled that way.
    f.sb.mkdir(&f.caller, f.at("images"), b"fresh").unwrap();
    link("images/fresh", "1", "../app/1").unwrap();
    assert!(f.tags().contains(&"fresh:1".to_owned()));
}

#[test]
fn a_conflict_moves_the_tag_aside_and_back() {
    let (f, _) = fixture();
    f.load(&[base()], &["org:app"]);
    assert_eq!(f.names("images/org"), [":app", "app"]);
    let root = f.at("images/org/:app");
    f.rename("images/org/app", "images/org/apps").unwrap();
    assert_eq!(f.names("images/org"), ["app", "apps"]);
    assert_eq!(f.at("images/org/app"), root);
    assert_eq!(f.link("images/org/:app"), "app");
}
