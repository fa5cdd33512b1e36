//! The table of design section 1.1, row by row.

use super::*;

/// Places of each column, the last two being `layers/` and `info/`.
const PLACES: [(&str, &str); 8] = [
    ("images", "images"),
    ("repository", "images/app"),
    ("tag", "images/app/1"),
    ("inside", "images/app/1/etc"),
    ("root", ""),
    ("volumes", "volumes"),
    ("by-id", "by-id"),
    ("info", "info"),
];

fn fixture() -> Fixture {
    let f = Fixture::new();
    f.load(&[base(), own("a")], &["app:1", "app:2"]);
    f
}

#[test]
fn create_and_link_are_refused_everywhere() {
    let f = fixture();
    for (place, path) in PLACES {
        let expected = match place {
            "tag" | "inside" => "EROFS",
            _ => "EPERM",
        };
        assert_eq!(
            kind(Err(f.sb.make_node(&f.caller, f.at(path), b"new"))),
            expected,
            "{place}"
        );
    }
    let layer = f.at(&format!("layers/{}", diff_id(&base().bytes).hex()));
    assert_eq!(kind(Err(f.sb.make_node(&f.caller, layer, b"new"))), "EPERM");
    let diff = f.entry(layer, "diff").attr.ino;
    assert_eq!(kind(Err(f.sb.make_node(&f.caller, diff, b"new"))), "EPERM");
}

#[test]
fn attributes_cannot_be_changed() {
    let f = fixture();
    let set = SetAttr {
        mode: Some(0o700),
        ..SetAttr::default()
    };
    for (place, path) in PLACES {
        let expected = match place {
            "tag" | "inside" => "EROFS",
            _ => "EPERM",
        };
        let ino = f.at(path);
        assert_eq!(
            kind(f.sb.setattr(&f.caller, ino, &set).map(drop)),
            expected,
            "{place}"
        );
        assert_eq!(
            kind(f.sb.change_xattr(&f.caller, ino, b"user.x", None)),
            expected,
            "{place}"
        );
    }
    let file = f.at("images/app/1/etc/passwd");
    assert_eq!(kind(f.sb.setattr(&f.caller, file, &set).map(drop)), "EROFS");
    assert_eq!(kind(f.sb.open(&f.caller, file, true)), "EROFS");
    assert_eq!(kind(f.sb.open(&f.caller, file, false)), "ok");
    f.told();
    assert_eq!(kind(Err(f.sb.write(&f.caller, file, false))), "EROFS");
    assert_eq!(f.told(), []);
    // Changed pages of a mapping must not stay.
    assert_eq!(kind(Err(f.sb.write(&f.caller, file, true))), "EROFS");
    assert_eq!(f.told(), [Told::Inode(file, false)]);
    assert_eq!(
        kind(Err(f.sb.write(&f.caller, f.at("info/df"), false))),
        "EPERM"
    );
}

#[test]
fn mkdir_makes_repositories_only() {
    let f = fixture();
    for (place, path) in PLACES {
        let expected = match place {
            "images" | "repository" => "ok",
            "tag" | "inside" => "EROFS",
            _ => "EPERM",
        };
        assert_eq!(
            kind(f.sb.mkdir(&f.caller, f.at(path), b"new").map(drop)),
            expected,
            "{place}"
        );
    }
    for (parent, name, expected) in [
        ("images", "app", "EEXIST"),
        ("images/app", "1", "EEXIST"),
        ("images", "app:1", "EEXIST"),
        ("images", "UPPER", "EINVAL"),
        ("images", ".x", "EINVAL"),
        ("images", "a b", "EINVAL"),
        ("images/app", ":x", "EINVAL"),
        ("images", "localhost:5000", "ok"),
    ] {
        let made = f.sb.mkdir(&f.caller, f.at(parent), name.as_bytes());
        assert_eq!(kind(made.map(drop)), expected, "{parent}/{name}");
    }
    assert_eq!(f.names("images"), ["app", "localhost:5000", "new"]);
    assert_eq!(f.names("images/app"), ["1", "2", "new"]);
}

#[test]
fn rmdir_by_place() {
    let f = fixture();
    let id =
        f.sb.view()
            .tag(&TagRef::parse("app:1").unwrap())
            .unwrap()
            .id;
    for (path, expected) in [
        ("/images", "EPERM"),
        ("/volumes", "EPERM"),
        ("images/.dangling", "EPERM"),
        ("images/app", "ENOTEMPTY"),
        ("images/app:1", "ENOTDIR"),
        ("images/nothing", "ENOENT"),
        ("images/app/1/etc", "EROFS"),
        ("info/images", "EPERM"),
        ("info/images/app", "EPERM"),
    ] {
        assert_eq!(kind(f.rmdir(path)), expected, "{path}");
    }
    assert_eq!(kind(f.rmdir(&format!("by-id/{}", id.hex()))), "EBUSY");
    let layer = diff_id(&base().bytes).hex();
    assert_eq!(kind(f.rmdir(&format!("layers/{layer}"))), "EPERM");
    assert_eq!(kind(f.rmdir(&format!("layers/{layer}/diff/etc"))), "EPERM");
    for (path, expected) in [
        ("images/app", "EISDIR"),
        ("images/app/1", "EISDIR"),
        ("images/docker.io", "EPERM"),
        ("images/app:9", "ENOENT"),
        ("images/app/1/etc/passwd", "EROFS"),
        ("info/df", "EPERM"),
    ] {
        assert_eq!(kind(f.unlink(path)), expected, "{path}");
    }
    assert_eq!(f.tags(), ["app:1", "app:2"]);
}

#[test]
fn links_tag_in_repositories_only() {
    let f = fixture();
    for (place, path) in PLACES {
        let expected = match place {
            "repository" => "ok",
            "tag" | "inside" => "EROFS",
            _ => "EPERM",
        };
        let made = f.sb.symlink(&f.caller, f.at(path), b"new", b"1");
        assert_eq!(kind(made.map(drop)), expected, "{place}");
    }
    assert_eq!(f.tags(), ["app:1", "app:2", "app:new"]);
}

#[test]
fn renames_never_leave_an_image() {
    let f = fixture();
    for (from, to, expected) in [
        ("images/app/1/etc/passwd", "images/app/1/etc/x", "EROFS"),
        ("images/app/1/etc/passwd", "images/app/x", "EROFS"),
        ("images/app/1/etc", "info/x", "EROFS"),
        ("images/app/1", "images/app/2/x", "EROFS"),
        ("images/app", "images/app/2/x", "EROFS"),
        ("images/app", "info/x", "EPERM"),
        ("images/app/1", "by-id/x", "EPERM"),
        ("info/df", "info/x", "EPERM"),
        ("/images", "/x", "EPERM"),
        ("images/app:1", "images/x", "EPERM"),
        ("images/app/1", "images/x", "EINVAL"),
        ("images/app/1", "images/app/2", "EEXIST"),
        ("images/app/1", "images/app/-x", "EINVAL"),
        ("images/nothing", "images/x", "ENOENT"),
        ("images/app", "images/UPPER", "EINVAL"),
        ("images/app", "images/docker.io", "EEXIST"),
        ("images/app", "images/library", "EEXIST"),
    ] {
        assert_eq!(kind(f.rename(from, to)), expected, "{from} {to}");
    }
    let exchange = f.sb.rename(
        &f.caller,
        (f.at("images/app"), b"1"),
        (f.at("images/app"), b"3"),
        RenameMode::Other,
    );
    assert_eq!(kind(exchange), "EINVAL");
    assert_eq!(f.tags(), ["app:1", "app:2"]);
}

#[test]
fn the_policy_says_who_may() {
    let try_all = |options: FsOptions, uid: u32| {
        let mut f = Fixture::with(options);
        f.load(&[base()], &["app:1", "app:2"]);
        f.caller.uid = uid;
        let root = f.at("images/app/1");
        f.list_by(&f.caller, root, 9, true);
        let staged = f.unlink("images/app/1/etc/passwd");
        let made = f.sb.mkdir(&f.caller, f.at("images"), b"new").map(drop);
        let linked =
            f.sb.symlink(&f.caller, f.at("images/app"), b"3", b"1")
                .map(drop);
        let renamed = f.rename("images/app/2", "images/app/4");
        let removed = f.rmdir("images/app/1");
        [staged, made, linked, renamed, removed].map(kind)
    };
    let all = ["ok"; 5];
    assert_eq!(try_all(options(RmPolicy::Own), 1000), all);
    assert_eq!(try_all(options(RmPolicy::Own), 0), all);
    assert_eq!(try_all(options(RmPolicy::All), 7), all);
    let denied = ["EROFS", "EACCES", "EACCES", "EACCES", "EACCES"];
    assert_eq!(try_all(options(RmPolicy::Own), 7), denied);
    assert_eq!(try_all(options(RmPolicy::Off), 0), ["EROFS"; 5]);
    let read_only = FsOptions {
        read_only: true,
        ..options(RmPolicy::All)
    };
    assert_eq!(try_all(read_only, 0), ["EROFS"; 5]);
}
