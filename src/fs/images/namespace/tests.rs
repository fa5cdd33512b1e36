use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use super::*;
use crate::oci::{Descriptor, Digest, MediaType};
use crate::store::{ImageRecord, Origin, Table};

fn id(name: &str) -> ImageId {
    ImageId(Digest::of(name.as_bytes()))
}

fn tag(text: &str) -> TagRef {
    TagRef::parse(text).unwrap()
}

/// Names with one image per entry: its name, its tags.
fn names(images: &[(&str, &[&str])]) -> Arc<Names> {
    let mut names = Names::default();
    let epoch = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    for (name, tags) in images {
        let record = ImageRecord {
            id: id(name),
            manifest: Descriptor {
                media_type: MediaType("x".to_owned()),
                digest: Digest::of(b"m"),
                size: 1,
                annotations: BTreeMap::new(),
                platform: None,
            },
            layers: vec![
                DiffId(Digest::of(name.as_bytes())),
                DiffId(Digest::of(b"base")),
            ],
            created: None,
            size: 1,
            added: epoch,
            parent: None,
            origins: vec![Origin {
                unproved: Vec::new(),
                repository: Some(Repository::parse("served").unwrap()),
                digest: Digest::of(format!("manifest of {name}").as_bytes()),
                media_type: "x".to_owned(),
            }],
            tags: Default::default(),
        };
        names.images.insert(record.id, record);
        for text in *tags {
            names.tag(&tag(text), id(name), epoch).unwrap();
        }
    }
    Arc::new(names)
}

fn view(images: &[(&str, &[&str])]) -> View {
    View::new(names(images), &BTreeSet::new(), None)
}

fn listed<'v>(view: &'v View, dir: &str) -> Vec<&'v str> {
    view.dirs[dir].entries.keys().map(|name| &**name).collect()
}

fn link(target: &str) -> Found {
    Found::Link(target.to_owned(), None)
}

#[test]
fn repositories_nest_and_hub_names_are_short() {
    let view = view(&[(
        "a",
        &[
            "docker.io/library/nginx:1",
            "org/app:1.0",
            "registry.example.com:5000/org/app:2",
            "org:x",
        ],
    )]);
    assert_eq!(
        listed(&view, ""),
        ["nginx", "org", "registry.example.com:5000"]
    );
    assert_eq!(listed(&view, "org"), ["app", "x"]);
    assert_eq!(listed(&view, "registry.example.com:5000/org/app"), ["2"]);
    assert_eq!(
        view.resolve("org", "app"),
        Some(Found::Dir("org/app".to_owned()))
    );
    assert!(matches!(
        view.resolve("org/app", "1.0"),
        Some(Found::Tag(_))
    ));
    assert_eq!(view.resolve("org/app", "2"), None);
    assert_eq!(view.resolve("nothing", "x"), None);
}

#[test]
fn a_repository_takes_the_name_from_a_tag() {
    let view = view(&[("a", &["foo:bar", "foo:baz"]), ("b", &["foo/bar:1"])]);
    assert_eq!(listed(&view, "foo"), [":bar", "bar", "baz"]);
    assert_eq!(
        view.resolve("foo", "bar"),
        Some(Found::Dir("foo/bar".to_owned()))
    );
    match view.resolve("foo", ":bar") {
        Some(Found::Tag(entry)) => assert_eq!((&entry.tag, entry.id), (&tag("foo:bar"), id("a"))),
        other => panic!("{other:?}"),
    }
    // Always resolves, listed so or not.
    assert_eq!(
        view.resolve("foo", ":baz"),
        Some(Found::Link("baz".to_owned(), Some(tag("foo:baz"))))
    );
    assert_eq!(view.resolve("foo", ":none"), None);
    assert_eq!(
        view.resolve("", "foo:bar"),
        Some(Found::Link("foo/:bar".to_owned(), Some(tag("foo:bar"))))
    );
    assert_eq!(view.path_of(&tag("foo:bar")).as_deref(), Some("foo/:bar"));
}

#[test]
fn references_are_paths() {
    let view = view(&[
        (
            "a",
            &[
                "nginx:1.21",
                "nginx:latest",
                "org/app:1",
                "localhost:5000/x:1",
            ],
        ),
        ("b", &["library/deep/app:1"]),
    ]);
    let to_tag = |target: &str, name: &str| Some(Found::Link(target.to_owned(), Some(tag(name))));
    assert_eq!(
        view.resolve("", "nginx:1.21"),
        to_tag("nginx/1.21", "nginx:1.21")
    );
    assert_eq!(view.resolve("", "nginx:1.22"), None);
    assert_eq!(
        view.resolve("org", "app:1"),
        to_tag("../org/app/1", "org/app:1")
    );
    assert_eq!(
        view.resolve("localhost:5000", "x:1"),
        to_tag("../localhost:5000/x/1", "localhost:5000/x:1")
    );
    let by_id = Found::Image(format!("../by-id/{}", id("a").hex()), id("a"));
    let digest = id("a").to_string();
    assert_eq!(
        view.resolve("", &format!("nginx@{digest}")),
        Some(by_id.clone())
    );
    assert_eq!(
        view.resolve("", &format!("nginx:9@{digest}")),
        Some(by_id.clone())
    );
    assert_eq!(view.resolve("", &format!("other@{digest}")), None);
    let served = Digest::of(b"manifest of a");
    assert_eq!(view.resolve("", &format!("served@{served}")), Some(by_id));
    assert_eq!(view.resolve("", &format!("nginx@{served}")), None);
    // Canonical names, a component at a time.
    assert_eq!(view.resolve("", "docker.io"), Some(link(".")));
    assert_eq!(view.resolve("", "index.docker.io"), Some(link(".")));
    // A repository of its own here, so listed; official names are found inside all the same.
    assert_eq!(
        view.resolve("", "library"),
        Some(Found::Dir("library".to_owned()))
    );
    assert_eq!(view.resolve("library", "nginx"), Some(link("../nginx")));
    assert_eq!(
        view.resolve("library", "nginx:1.21"),
        to_tag("../nginx/1.21", "nginx:1.21")
    );
}

#[test]
fn library_alone_is_the_directory_itself() {
    let view = view(&[("a", &["nginx:1.21"])]);
    assert_eq!(view.resolve("", "library"), Some(link(".")));
}

#[test]
fn names_outside_the_grammar_are_nothing() {
    let view = view(&[("a", &["nginx:1.21"])]);
    for name in [
        ".git",
        ".hidden",
        "..x",
        "desktop.ini",
        "Upper",
        "a..b",
        "-x",
        "nginx:",
        "nginx@",
        ":",
        "@",
        "nginx@sha256:12",
        "a b",
        "nginx:1.21@sha256:",
        "%",
        "~",
    ] {
        assert_eq!(view.resolve("", name), None, "{name}");
    }
    assert_eq!(view.resolve("", DANGLING), Some(Found::Dangling));
    assert_eq!(view.resolve("nginx", DANGLING), None);
}

#[test]
fn dangling_images_have_short_names_unless_two_share_one() {
    let view = view(&[("a", &[]), ("b", &["b:1"])]);
    let names: Vec<_> = view.dangling.entries.keys().map(|name| &**name).collect();
    assert_eq!(names, [id("a").short()]);
    assert!(view.is_dangling(&id("a")) && !view.is_dangling(&id("b")));
    assert_eq!(view.by_id.entries.len(), 2);
    assert_eq!(view.layers.entries.len(), 3);
}

#[test]
fn prefixes_of_ids_must_be_unique_and_long_enough() {
    let view = view(&[("a", &[]), ("b", &[])]);
    let hex = id("a").hex();
    assert_eq!(view.by_prefix(&hex), Some(id("a")));
    assert_eq!(view.by_prefix(&hex[..4]), Some(id("a")));
    assert_eq!(
        view.by_prefix(&format!("sha256:{}", &hex[..12])),
        Some(id("a"))
    );
    assert_eq!(view.by_prefix(&hex[..3]), None);
    assert_eq!(view.by_prefix(&hex.to_uppercase()), None);
    let entries: Table<Box<str>, u8> = [
        ("abcd1".into(), 1),
        ("abcd2".into(), 2),
        ("abce0".into(), 3),
    ]
    .into_iter()
    .collect();
    assert_eq!(unique(&entries, "abcd"), None);
    assert_eq!(unique(&entries, "abcd2"), Some(&2));
    assert_eq!(unique(&entries, "abce"), Some(&3));
    assert_eq!(unique(&entries, "ffff"), None);
}

#[test]
fn targets_of_links_lead_to_images() {
    let view = view(&[
        ("a", &["app:1.0", "org/x:2", "foo:bar"]),
        ("b", &["foo/bar:1"]),
        ("dangling", &[]),
    ]);
    let hex = id("dangling").hex();
    let found = |dir: &str, target: &str| view.image_behind(dir, target, Some("/mnt/m"));
    for (dir, target) in [
        ("app", "1.0"),
        ("app", "./1.0"),
        ("app", "../app/1.0"),
        ("app", "../org/x/2"),
        ("org/x", "../../app/1.0"),
        ("app", "/mnt/m/images/app/1.0"),
        ("app", "/mnt/m//images/docker.io/library/app/1.0/"),
        ("app", "app:1.0"),
        ("app", "../app:1.0"),
        ("app", "../foo/:bar"),
        ("app", "../../by-id/sha256:A"),
    ] {
        let target = target.replace("sha256:A", &id("a").to_string());
        assert_eq!(found(dir, &target), Some(id("a")), "{dir} {target}");
    }
    assert_eq!(
        found("app", &format!("../../by-id/{hex}")),
        Some(id("dangling"))
    );
    assert_eq!(found("app", &hex[..12]), Some(id("dangling")));
    assert_eq!(
        found("app", &format!("../.dangling/{}", &hex[..12])),
        Some(id("dangling"))
    );
    for target in [
        "",
        ".",
        "..",
        "nothing",
        "/mnt/m",
        "/mnt/mm/images/app/1.0",
        "/etc/passwd",
        "../org",
        "../app/1.0/etc",
        "/images/app/1.0",
        "a b",
        "../../layers",
    ] {
        assert_eq!(found("app", target), None, "{target}");
    }
    assert_eq!(
        view.image_behind("app", "/mnt/m/images/app/1.0", None),
        None
    );
}

#[test]
fn kept_repositories_are_directories() {
    let kept: BTreeSet<Box<str>> = ["org/new".into()].into();
    let view = View::new(names(&[("a", &["app:1"])]), &kept, None);
    assert_eq!(listed(&view, ""), ["app", "org"]);
    assert_eq!(listed(&view, "org"), ["new"]);
    assert!(listed(&view, "org/new").is_empty());
}

#[test]
fn paths_that_may_be_directories() {
    for path in [
        "app",
        "org/app",
        "localhost:5000",
        "registry.example.com",
        "localhost:5000/a",
    ] {
        assert!(may_be_directory(path), "{path}");
    }
    for path in [
        "UPPER",
        ".x",
        "a b",
        "-x",
        "a..b",
        "docker.io",
        "docker.io/x",
        "app:v1",
        "",
        "a/",
    ] {
        assert!(!may_be_directory(path), "{path}");
    }
    assert_eq!(repository_at("docker.io/library/app"), None);
    assert!(repository_at("localhost:5000").is_none());
}

#[test]
fn differences_are_exact() {
    let before = [
        ("a", &["app:1", "app:2"][..]),
        ("b", &["other:1"]),
        ("c", &["x/y:1"]),
    ];
    let old = view(&before);
    let again = View::new(names(&before), &BTreeSet::new(), Some(&old));
    assert_eq!(changes(&old, &again), []);

    // app:2 moves to another image, other vanishes, x/y gets a second tag.
    let after = [
        ("a", &["app:1"][..]),
        ("b", &["app:2"]),
        ("c", &["x/y:1", "x/y:2"]),
    ];
    let new = View::new(names(&after), &BTreeSet::new(), Some(&old));
    let expected = [
        Change::Name("".into(), "other".into()),
        Change::Listing("".into()),
        Change::Name("app".into(), "2".into()),
        Change::Listing("app".into()),
        Change::Name("other".into(), "1".into()),
        Change::Listing("other".into()),
        Change::Listing("x/y".into()),
    ];
    assert_eq!(changes(&old, &new), expected);
    for dir in ["", "app", "x/y"] {
        assert!(new.dirs[dir].mtime > old.dirs[dir].mtime, "{dir}");
    }
    assert_eq!(new.dirs["x"].mtime, old.dirs["x"].mtime);
}

#[test]
fn an_image_that_goes_leaves_every_listing() {
    let old = view(&[("a", &["app:1"]), ("b", &[])]);
    let new = View::new(names(&[("a", &["app:1"])]), &BTreeSet::new(), Some(&old));
    let gone = id("b");
    let layer = DiffId(Digest::of(b"b"));
    let expected = [
        Change::Listing("".into()),
        Change::DanglingName(gone.short().into()),
        Change::DanglingListing,
        Change::IdName(gone.hex().into()),
        Change::IdListing,
        Change::LayerName(layer.hex().into()),
        Change::LayerListing,
    ];
    assert_eq!(changes(&old, &new), expected);
}

#[test]
fn a_conflict_that_ends_renames_the_tag() {
    let old = view(&[("a", &["foo:bar", "foo/bar:1"])]);
    let new = View::new(names(&[("a", &["foo:bar"])]), &BTreeSet::new(), Some(&old));
    let all = changes(&old, &new);
    assert!(
        all.contains(&Change::Name("foo".into(), ":bar".into())),
        "{all:?}"
    );
    assert!(
        all.contains(&Change::Name("foo".into(), "bar".into())),
        "{all:?}"
    );
}

#[test]
fn tagging_anew_moves_the_time_only() {
    let old = view(&[("a", &["app:1"])]);
    let mut names = Names::clone(&old.names);
    names
        .tag(&tag("app:1"), id("a"), SystemTime::now())
        .unwrap();
    names.tags.get_mut(&tag("app:1")).unwrap().tagged = SystemTime::now();
    let new = View::new(Arc::new(names), &BTreeSet::new(), Some(&old));
    let entry = new.tag(&tag("app:1")).unwrap().clone();
    let all = changes(&old, &new);
    assert!(all.contains(&Change::Tagged(entry)), "{all:?}");
    assert!(
        !all.iter().any(|change| matches!(change, Change::Name(..))),
        "{all:?}"
    );
}

type Shape<'v> = Vec<(&'v str, Option<&'v Table<Arc<str>, Entry>>, bool)>;

/// What is listed, and which times have moved since `before`: the moment itself is each view's own.
fn shape<'v>(view: &'v View, before: &View) -> (Shape<'v>, [Vec<&'v str>; 3]) {
    let dirs = view.dirs.iter().map(|(path, dir)| {
        let moved = before
            .dirs
            .get(path)
            .is_none_or(|old| old.mtime != dir.mtime);
        (&**path, Some(&dir.entries), moved)
    });
    let flats = [
        ("dangling", view.dangling.mtime != before.dangling.mtime),
        ("by-id", view.by_id.mtime != before.by_id.mtime),
        ("layers", view.layers.mtime != before.layers.mtime),
    ];
    let flats = flats.map(|(name, moved)| (name, None, moved));
    let names = [
        view.dangling.entries.keys().map(|name| &**name).collect(),
        view.by_id.entries.keys().map(|name| &**name).collect(),
        view.layers.entries.keys().map(|name| &**name).collect(),
    ];
    (dirs.chain(flats).collect(), names)
}

/// What follows a change of tags is what all names would make.
#[test]
fn a_view_that_follows_is_the_whole_one() {
    let epoch = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let first = names(&[
        (
            "a",
            &["app:1", "app:2", "app/sub:x", "app:sub", "org/tool:1"],
        ),
        ("b", &["app:3", "other:1"]),
        ("c", &[]),
    ]);
    let mut names = Names::clone(&first);
    let mut kept: BTreeSet<Box<str>> = BTreeSet::new();
    let mut before = View::new(first, &kept, None);
    let tags = [
        "app:1",
        "app:2",
        "app:3",
        "app:sub",
        "app/sub:x",
        "app/sub:y",
        "other:1",
        "org/tool:1",
    ];
    let (mut followed, mut seed) = (0, 7_u64);
    for round in 0..2000_u64 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let pick = usize::try_from(seed >> 40).unwrap();
        let name = tag(tags[pick % tags.len()]);
        let image = id(["a", "b", "c"][pick % 3]);
        let now = epoch + Duration::from_secs(round);
        match (pick / 64) % 5 {
            0 | 1 => drop(names.untag(&name)),
            4 if pick % 7 == 0 => drop(kept.insert("empty/one".into())),
            4 => drop(names.set_pin(&name, pick % 2 == 0)),
            _ => drop(names.tag(&name, image, now)),
        }
        let present = Arc::new(names.clone());
        let whole = View::whole(present.clone(), &kept, Some(&before));
        if let Some(view) = View::following(&before, present, &kept) {
            followed += 1;
            assert_eq!(shape(&view, &before), shape(&whole, &before));
            assert_eq!(changes(&before, &view), changes(&before, &whole));
        }
        before = whole;
    }
    assert!(followed > 1000, "{followed}");
}
