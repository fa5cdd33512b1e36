//! Filters against three images and one without a date.

use crate::ops::fixtures::{image, names};
use crate::ops::image::filter::*;

fn at(text: &str) -> jiff::Timestamp {
    text.parse().unwrap()
}

/// Made on the first, second and third of July; `undated` at no known time.
fn four() -> Names {
    let dated = |word: &str, tags: &[&str], day: u8| {
        let mut image = image(word, tags, &[]);
        image.created = Some(at(&format!("2026-07-0{day}T00:00:00Z")));
        image
    };
    names([
        dated("a", &["app:1", "org/app:1"], 1),
        dated("b", &["app:2"], 2),
        dated("c", &[], 3),
        image("undated", &["x:1"], &[]),
    ])
}

fn labels(id: &ImageId) -> Result<BTreeMap<String, String>, ImageError> {
    let labels: &[(&str, &str)] = match () {
        () if *id == crate::ops::fixtures::id("a") => &[("stage", "test"), ("team", "x")],
        () if *id == crate::ops::fixtures::id("b") => &[("stage", "live")],
        () => &[],
    };
    let owned = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
    Ok(labels.iter().map(owned).collect())
}

fn filters(texts: &[&str]) -> Result<Filters, FilterError> {
    let given: Vec<_> = texts.iter().map(|text| split(text).unwrap()).collect();
    Filters::parse(&given, at("2026-07-04T00:00:00Z"))
}

/// The words of the images that pass, and the names that do.
fn passed(texts: &[&str]) -> Result<(String, Vec<String>), ImageError> {
    let (names, filters) = (four(), filters(texts)?);
    let bound = filters.bind(&names)?;
    let (mut words, mut tags) = (String::new(), Vec::new());
    for word in ["a", "b", "c", "undated"] {
        let image = &names.images[&crate::ops::fixtures::id(word)];
        if bound.image(image, &labels)? {
            words.push_str(&word[..1]);
            let meant = image.tags.iter().filter(|tag| bound.tag(tag));
            tags.extend(meant.map(TagRef::familiar));
        }
    }
    Ok((words, tags))
}

#[test]
fn what_passes() {
    let table: &[(&[&str], &str)] = &[
        (&[], "abcu"),
        (&["dangling=true"], "c"),
        (&["dangling=1"], "c"),
        (&["dangling=false"], "abu"),
        (&["dangling=0", "dangling=false"], "abu"),
        (&["label=stage"], "ab"),
        (&["label=stage=test"], "a"),
        (&["label=stage", "label=team=x"], "a"),
        (&["label=stage=test", "label=stage=live"], ""),
        (&["label!=stage"], "cu"),
        (&["label!=stage=live"], "acu"),
        (&["label!=stage=live", "label!=team"], "cu"),
        (&["label=stage", "label!=team"], "b"),
        (&["before=app:2"], "au"),
        (&["since=app:1"], "bc"),
        (&["since=app:1", "since=app:2"], "c"),
        (&["since=app:1", "before=app:2"], ""),
        (&["before=x:1"], ""),
        (&["since=x:1"], "abc"),
        (&["until=2026-07-02T00:00:00Z"], "abu"),
        (&["until=36h"], "abu"),
        (&["until=3d"], "au"),
        (&[" DANGLING = true "], "c"),
    ];
    for (texts, expected) in table {
        assert_eq!(passed(texts).unwrap().0, *expected, "{texts:?}");
    }
}

#[test]
fn references_choose_names() {
    let table: &[(&[&str], &[&str])] = &[
        (&["reference=app"], &["app:1", "app:2"]),
        (&["reference=app:1"], &["app:1"]),
        (&["reference=*/app"], &["org/app:1"]),
        (&["reference=docker.io/library/app:2"], &["app:2"]),
        (
            &["reference=x", "reference=app:?"],
            &["app:1", "app:2", "x:1"],
        ),
        (&["reference=app", "label=team"], &["app:1"]),
        (&["reference=nothing"], &[]),
    ];
    for (texts, expected) in table {
        assert_eq!(passed(texts).unwrap().1, *expected, "{texts:?}");
    }
}

#[test]
fn refusals_are_docker_s() {
    let table: &[(&[&str], &str)] = &[
        (&["x=1"], "invalid filter 'x'"),
        (&["dangling=maybe"], "invalid filter 'dangling=[maybe]'"),
        (
            &["dangling=1", "dangling=0"],
            "invalid filter 'dangling=[0]'",
        ),
        (&["until=yesterday"], "invalid filter 'until=[yesterday]'"),
        (
            &["until=1h", "until=2h"],
            "more than one until filter specified",
        ),
        (&["before=nothing"], "No such image: nothing:latest"),
        (
            &["since=Foo"],
            "invalid reference format: repository name (library/Foo) must be lowercase",
        ),
        (&["reference=["], "syntax error in pattern: \"[\""),
    ];
    for (texts, expected) in table {
        assert_eq!(
            passed(texts).unwrap_err().to_string(),
            *expected,
            "{texts:?}"
        );
    }
    assert_eq!(
        split("dangling").unwrap_err(),
        "bad format of filter (expected name=value)"
    );
}
