//! What is picked, and that plans of several images free exactly what becomes unreachable.

use std::collections::BTreeMap;

use crate::oci::DiffId;
use crate::ops::fixtures::{id, image, names, tag};
use crate::ops::image::prune::*;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

fn no_labels(_: &ImageId) -> Result<BTreeMap<String, String>, ImageError> {
    Ok(BTreeMap::new())
}

/// Five versions, made in this order though 1.10 came before 1.9; one image without a tag.
fn versions() -> Names {
    let tags: [&[&str]; 5] = [
        &["app:1.8"],
        &["app:1.10"],
        &["app:1.9", "org/other:1"],
        &["app:1.11", "app:latest"],
        &[],
    ];
    let images = tags.iter().enumerate().map(|(i, tags)| {
        let mut image = image(&i.to_string(), tags, &["base", &format!("own {i}")]);
        image.created = format!("2026-07-0{}T00:00:00Z", i + 1).parse().ok();
        image
    });
    names(images)
}

/// What goes: a word and its tags, "*" for all.
fn picked(options: &Options) -> Vec<String> {
    let picks = pick(&versions(), options, &no_labels).unwrap();
    let show = |(image, pick): (ImageId, Pick)| {
        let word = (0..5).find(|i| id(&i.to_string()) == image).unwrap();
        match pick {
            Pick::Whole => format!("{word} *"),
            Pick::Tags(tags) => {
                let tags: Vec<_> = tags.iter().map(TagRef::familiar).collect();
                format!("{word} {}", tags.join(" "))
            }
        }
    };
    picks.into_iter().map(show).collect()
}

fn filters(text: &str) -> Filters {
    let given = [crate::ops::image::filter::split(text).unwrap()];
    Filters::parse(&given, "2026-07-10T00:00:00Z".parse().unwrap()).unwrap()
}

fn keep(images: usize, by: Newest) -> Options {
    Options {
        keep: Some(Keep { images, by }),
        ..Options::default()
    }
}

#[test]
fn what_is_picked() {
    let all = |filter: &str| Options {
        all: true,
        filters: filters(filter),
        ..Options::default()
    };
    assert_eq!(picked(&Options::default()), ["4 *"]);
    let table: &[(&str, &[&str])] = &[
        ("until=1h", &["0 *", "1 *", "2 *", "3 *", "4 *"]),
        ("before=app:1.9", &["0 *", "1 *"]),
        ("dangling=false", &["0 *", "1 *", "2 *", "3 *"]),
        ("dangling=true", &["4 *"]),
        ("reference=org/*", &["2 org/other:1"]),
        ("reference=app:1.1?", &["1 *", "3 app:1.11"]),
        ("label=x", &[]),
    ];
    for (filter, expected) in table {
        assert_eq!(picked(&all(filter)), *expected, "{filter}");
    }
}

#[test]
fn the_newest_are_kept() {
    // org/other has one image only, which stays.
    assert_eq!(picked(&keep(2, Newest::Date)), ["0 *", "1 *"]);
    assert_eq!(picked(&keep(2, Newest::Version)), ["0 *", "2 app:1.9"]);
    assert_eq!(picked(&keep(1, Newest::Date)), ["0 *", "1 *", "2 app:1.9"]);
    assert_eq!(picked(&keep(9, Newest::Date)), Vec::<String>::new());
    assert_eq!(picked(&keep(0, Newest::Date)), ["0 *", "1 *", "2 *", "3 *"]);
    let only = Options {
        filters: filters("reference=org/*"),
        ..keep(0, Newest::Version)
    };
    assert_eq!(picked(&only), ["2 org/other:1"]);
}

#[test]
fn lines_are_docker_s() {
    let names = versions();
    let picks = [
        (id("2"), Pick::Tags(vec![tag("app:1.9")])),
        (id("4"), Pick::Whole),
    ];
    let pruned = Pruned {
        plans: Plan::several(&names, &[], &picks),
        bytes: 0,
    };
    let lines = pruned.lines();
    assert_eq!(
        lines[..2],
        [
            "untagged: app:1.9".to_owned(),
            format!("deleted: {}", id("4"))
        ]
    );
    // The base is still others'.
    assert_eq!(lines.len(), 3);
    assert!(lines[2].starts_with("deleted: sha256:"), "{lines:?}");
}

proptest! {
    /// Plans of several images at once: each layer, document and chain that nothing reaches any more is in one of them, and
    /// nothing else is.
    #[test]
    fn plans_of_several_free_what_becomes_unreachable(
        stacks in vec(vec(0..4usize, 0..4), 4),
        tags in btree_map(0..5usize, 0..4usize, 0..=5),
        chosen in vec(0..6u8, 4),
    ) {
        const TAGS: [&str; 5] = ["x:1", "x:2", "y:1", "z:1", "z:2"];
        let build = |(i, stack): (usize, &Vec<usize>)| {
            let layers: Vec<String> = stack.iter().map(|l| format!("layer {l}")).collect();
            let layers: Vec<&str> = layers.iter().map(String::as_str).collect();
            let own: Vec<&str> = tags.iter().filter(|(_, image)| **image == i).map(|(t, _)| TAGS[*t]).collect();
            image(&i.to_string(), &own, &layers)
        };
        let before = names(stacks.iter().enumerate().map(build));
        let picks: Vec<(ImageId, Pick)> = chosen.iter().enumerate().filter_map(|(i, how)| {
            let id = id(&i.to_string());
            let tags = before.images[&id].tags.iter().take(1).cloned().collect::<Vec<_>>();
            match how {
                0..2 => None,
                2..4 => Some((id, Pick::Whole)),
                _ if tags.is_empty() => None,
                _ => Some((id, Pick::Tags(tags))),
            }
        }).collect();
        let plans = Plan::several(&before, &[], &picks);
        let mut after = before.clone();
        for plan in &plans {
            plan.edit(&mut after).unwrap();
        }
        let gone: BTreeSet<DiffId> = before.layers().difference(&after.layers()).copied().collect();
        let layers: Vec<DiffId> = plans.iter().flat_map(|plan| plan.layers.clone()).collect();
        prop_assert_eq!(layers.len(), gone.len());
        prop_assert_eq!(layers.into_iter().collect::<BTreeSet<_>>(), gone);
        let gone: BTreeSet<_> = before.blobs().difference(&after.blobs()).copied().collect();
        let planned: BTreeSet<_> = plans.iter()
            .flat_map(|plan| plan.documents.iter().copied().chain(plan.layers.iter().map(|l| l.0)))
            .collect();
        prop_assert_eq!(planned, gone);
        let mut lines = std::collections::HashSet::new();
        for line in plans.iter().flat_map(Plan::lines) {
            prop_assert!(lines.insert(line.clone()), "{} twice", line);
        }
    }
}
