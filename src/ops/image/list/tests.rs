//! The table as docker prints it.

use crate::ops::filters::FilterError;
use crate::ops::fixtures::{id, image, names, with_origins};
use crate::ops::image::list::*;
use crate::ops::image::pattern::Pattern;

const NOW: &str = "2026-08-01T12:00:00Z";

fn at(text: &str) -> jiff::Timestamp {
    text.parse().unwrap()
}

fn no_labels(_: &ImageId) -> Result<BTreeMap<String, String>, ImageError> {
    Ok(BTreeMap::new())
}

fn three() -> Names {
    let mut a = image(
        "a",
        &["nginx:1.21", "nginx", "registry.example.com:5000/org/app:2"],
        &[],
    );
    (a.created, a.size) = (Some(at("2026-07-30T12:00:00Z")), 133_713_152);
    let mut b = image("b", &["busybox:uclibc"], &[]);
    (b.created, b.size) = (Some(at("2026-08-01T11:59:00Z")), 4_613_000);
    let c = image("c", &[], &[]);
    names([with_origins(a, &[("nginx", "m")]), b, c])
}

fn shown(options: Options, no_trunc: bool) -> String {
    let style = Style {
        no_trunc,
        digests: options.digests,
    };
    table(
        &list(&three(), &options, &no_labels).unwrap(),
        style,
        None,
        at(NOW),
    )
}

#[test]
fn newest_first_and_a_row_for_each_tag() {
    let (a, b, c) = (id("a").short(), id("b").short(), id("c").short());
    assert_eq!(
        shown(Options::default(), false),
        format!(
            "REPOSITORY                          TAG       IMAGE ID       CREATED              SIZE\n\
             busybox                             uclibc    {b}   About a minute ago   4.61MB\n\
             nginx                               1.21      {a}   2 days ago           134MB\n\
             nginx                               latest    {a}   2 days ago           134MB\n\
             registry.example.com:5000/org/app   2         {a}   2 days ago           134MB\n"
        )
    );
    let all = Options {
        all: true,
        ..Options::default()
    };
    let last =
        format!("<none>                              <none>    {c}   N/A                  0B\n");
    assert!(shown(all, false).ends_with(&last));
}

#[test]
fn digests_have_a_column() {
    let digests = Options {
        digests: true,
        pattern: Some("nginx:latest".to_owned()),
        ..Options::default()
    };
    let (m, a) = (Digest::of(b"m"), id("a"));
    let blank = |text: &str, width: usize| format!("{text:width$}");
    assert_eq!(
        shown(digests, true),
        format!(
            "REPOSITORY   TAG       {}   {}   CREATED      SIZE\n\
             nginx        latest    {m}   {a}   2 days ago   134MB\n",
            blank("DIGEST", 71),
            blank("IMAGE ID", 71)
        )
    );
}

#[test]
fn names_and_globs_filter() {
    let table = [
        ("nginx", 2),
        ("nginx:1.21", 1),
        ("nginx:1.*", 1),
        ("ngin?", 2),
        ("*", 3),
        ("*:latest", 1),
        ("docker.io/library/nginx", 2),
        ("docker.io/library/busybox:uclibc", 1),
        ("*/org/*", 1),
        ("registry.example.com:5000/org/app", 1),
        ("*/*", 0),
        ("ngin", 0),
        ("nginx:", 0),
        ("<none>", 0),
        ("", 0),
    ];
    for (pattern, count) in table {
        let options = Options {
            pattern: Some(pattern.to_owned()),
            all: true,
            ..Options::default()
        };
        assert_eq!(
            list(&three(), &options, &no_labels).unwrap().len(),
            count,
            "{pattern}"
        );
    }
    let bad = Options {
        pattern: Some("[".to_owned()),
        ..Options::default()
    };
    assert!(matches!(
        list(&three(), &bad, &no_labels),
        Err(ImageError::Filter(FilterError::Pattern(_)))
    ));
}

#[test]
fn no_match_is_a_header() {
    let rows = list(&Names::default(), &Options::default(), &no_labels).unwrap();
    let header = "REPOSITORY   TAG       IMAGE ID   CREATED   SIZE\n";
    assert_eq!(table(&rows, Style::default(), None, at(NOW)), header);
}

#[test]
fn quiet_prints_each_image_once() {
    let rows = list(&three(), &Options::default(), &no_labels).unwrap();
    let (a, b) = (id("a"), id("b"));
    assert_eq!(ids(&rows, Style::default(), false), [b.short(), a.short()]);
    assert_eq!(ids(&rows, Style::default(), true).len(), 4);
    let whole = Style {
        no_trunc: true,
        ..Style::default()
    };
    assert_eq!(ids(&rows, whole, false), [b.to_string(), a.to_string()]);
}

#[test]
fn images_known_by_digest_only_are_hidden_like_dangling_ones() {
    let names = names([with_origins(
        image("a", &[], &[]),
        &[("nginx", "m"), ("org/x", "n")],
    )]);
    let list = |all: bool, digests: bool| {
        let options = Options {
            all,
            digests,
            ..Options::default()
        };
        let rows = list(&names, &options, &no_labels).unwrap();
        rows.into_iter()
            .map(|r| (r.repository.map(|r| r.familiar()), r.digest.is_some()))
            .collect::<Vec<_>>()
    };
    let named = |name: &str, digest| (Some(name.to_owned()), digest);
    assert_eq!(list(false, false), []);
    assert_eq!(
        list(true, false),
        [named("nginx", false), named("org/x", false)]
    );
    assert_eq!(
        list(true, true),
        [named("nginx", true), named("org/x", true)]
    );
}

#[test]
fn orders_are_podman_s() {
    let order = |sort| {
        let options = Options {
            all: true,
            sort: Some(sort),
            ..Options::default()
        };
        let rows = list(&three(), &options, &no_labels).unwrap();
        let names = rows
            .iter()
            .map(|row| format!("{}:{}", row.repository_text(), row.tag_text()));
        names.collect::<Vec<_>>().join(" ")
    };
    let (none, org) = ("<none>:<none>", "registry.example.com:5000/org/app:2");
    let (busybox, old, latest) = ("busybox:uclibc", "nginx:1.21", "nginx:latest");
    assert_eq!(
        order(Sort::Created),
        [busybox, old, latest, org, none].join(" ")
    );
    assert_eq!(
        order(Sort::Repository),
        [none, busybox, old, latest, org].join(" ")
    );
    assert_eq!(
        order(Sort::Size),
        [none, busybox, old, latest, org].join(" ")
    );
    assert_eq!(
        order(Sort::Tag),
        [none, old, org, latest, busybox].join(" ")
    );
    assert!(order(Sort::Id).contains(none));
}

#[test]
fn filters_choose_untagged_images_too() {
    let shown = |filter: &str| {
        let given = [crate::ops::image::filter::split(filter).unwrap()];
        let options = Options {
            filters: Filters::parse(&given, at(NOW)).unwrap(),
            ..Options::default()
        };
        list(&three(), &options, &no_labels).unwrap().len()
    };
    let table = [
        ("dangling=true", 1),
        ("dangling=false", 4),
        ("reference=nginx", 2),
        ("before=busybox:uclibc", 3),
        ("since=nginx", 1),
        ("label=x", 0),
    ];
    for (filter, count) in table {
        assert_eq!(shown(filter), count, "{filter}");
    }
}

#[test]
fn users_have_a_column() {
    let rows = list(&three(), &Options::default(), &no_labels).unwrap();
    let users = Users::from([(id("a"), 3)]);
    let text = table(&rows, Style::default(), Some(&users), at(NOW));
    assert!(
        text.lines().next().unwrap().ends_with("SIZE      USERS"),
        "{text}"
    );
    let counts: Vec<_> = text
        .lines()
        .filter_map(|line| line.split(' ').next_back())
        .collect();
    assert_eq!(counts, ["USERS", "0", "3", "3", "3"]);
}

/// docker's own patterns, over names of every form.
#[test]
fn regression_a_wildcard_never_means_the_registry_left_out() {
    let all = [
        "busybox:glibc",
        "busybox:1",
        "fenollp/app:1",
        "localhost/app:1",
        "reg.example.com/team/app:1",
        "reg.example.com:5000/a/b/c:1",
    ];
    let table: [(&str, &[usize]); 17] = [
        ("*", &[0, 1]),
        ("*:1", &[1]),
        ("*/*", &[2, 3]),
        ("*/*/*", &[4]),
        ("*/*/*/*", &[5]),
        ("busy*:*libc", &[0]),
        ("busy*/*libc", &[]),
        ("?usybox", &[0, 1]),
        ("[a-c]usybox:1", &[1]),
        ("*.io/*/*", &[]),
        ("docker.??/library/*", &[]),
        ("docker.io/*", &[]),
        ("docker.io/*/*", &[0, 1, 2]),
        ("docker.io/library/b*", &[0, 1]),
        ("index.docker.io/library/b*:1", &[1]),
        ("reg*/*/*", &[4]),
        ("library/*", &[]),
    ];
    let tags: Vec<TagRef> = all
        .iter()
        .map(|text| TagRef::parse(text).unwrap())
        .collect();
    let matched = |pattern: &str| {
        let pattern = Pattern::parse(pattern).unwrap();
        let found = tags
            .iter()
            .enumerate()
            .filter(|(_, tag)| pattern.matches_tag(tag));
        found.map(|(at, _)| at).collect::<Vec<_>>()
    };
    for (pattern, expected) in table {
        assert_eq!(matched(pattern), expected, "{pattern}");
    }
    // A name is no pattern: it means what it names, however it is written.
    for (at, tag) in tags.iter().enumerate() {
        for name in [tag.familiar(), tag.canonical()] {
            assert_eq!(matched(&name), [at], "{name}");
        }
        let same: Vec<usize> = (0..tags.len())
            .filter(|n| tags[*n].repository == tag.repository)
            .collect();
        for name in [tag.repository.familiar(), tag.repository.canonical()] {
            assert_eq!(matched(&name), same, "{name}");
        }
    }
}
