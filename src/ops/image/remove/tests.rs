//! Plans, compared as docker's lines and as what becomes free.

use std::collections::BTreeSet;

use crate::oci::{ChainId, DiffId};
use crate::ops::fixtures::{id, image, names, tag, with_origins};
use crate::ops::image::remove::*;
use crate::ops::image::resolve;
use crate::ops::usage::{Usage, User};

/// The plan for an argument, and the names after it.
fn plan(names: &Names, argument: &str, force: bool) -> Result<(Plan, Names), ImageError> {
    let target = resolve::image(names, argument)?.into();
    let plan = Plan::new(names, &[], &target, force)?;
    let mut after = names.clone();
    plan.edit(&mut after)?;
    Ok((plan, after))
}

fn chain(layers: &[&str]) -> String {
    let layers: Vec<DiffId> = layers
        .iter()
        .map(|l| crate::ops::fixtures::diff_id(l))
        .collect();
    ChainId::chain(&layers).last().unwrap().to_string()
}

#[test]
fn the_last_name_takes_the_image_and_its_layers() {
    let names = names([image("a", &["nginx"], &["1", "2", "3"])]);
    let (plan, after) = plan(&names, "nginx", false).unwrap();
    assert_eq!(
        plan.lines(),
        [
            "Untagged: nginx:latest".to_owned(),
            format!("Deleted: {}", id("a")),
            format!("Deleted: {}", chain(&["1", "2", "3"])),
            format!("Deleted: {}", chain(&["1", "2"])),
            format!("Deleted: {}", chain(&["1"])),
        ]
    );
    assert_eq!((plan.layers.len(), plan.documents.len()), (3, 2));
    assert_eq!(after, Names::default());
}

#[test]
fn an_alias_is_only_untagged() {
    let names = names([image("a", &["nginx", "nginx:my_blog_stable"], &["1"])]);
    let (plan, after) = plan(&names, "nginx:my_blog_stable", false).unwrap();
    assert_eq!(plan.lines(), ["Untagged: nginx:my_blog_stable"]);
    assert!(plan.layers.is_empty() && plan.documents.is_empty() && !plan.deletes_image);
    assert_eq!(
        after.images[&id("a")].tags,
        [tag("nginx")].into_iter().collect()
    );
}

#[test]
fn shared_layers_stay() {
    let names = names([
        image("a", &["a"], &["base", "x", "shared"]),
        image("b", &["b"], &["base", "y"]),
        image("c", &[], &["shared"]),
    ]);
    let (plan, after) = plan(&names, "a", false).unwrap();
    assert_eq!(
        plan.lines(),
        [
            "Untagged: a:latest".to_owned(),
            format!("Deleted: {}", id("a")),
            format!("Deleted: {}", chain(&["base", "x", "shared"])),
            format!("Deleted: {}", chain(&["base", "x"])),
        ]
    );
    // The bytes of "shared" are still another image's.
    assert_eq!(plan.layers, [crate::ops::fixtures::diff_id("x")]);
    assert_eq!(after.images.len(), 2);
}

#[test]
fn digests_go_with_the_last_tag_of_their_repository() {
    let a = image("a", &["nginx:1", "nginx:2", "other:1"], &["1"]);
    let names = names([with_origins(a, &[("nginx", "m"), ("", "archive")])]);
    let digest = Digest::of(b"m");
    let (first, after) = plan(&names, "nginx:1", false).unwrap();
    assert_eq!(first.lines(), ["Untagged: nginx:1"]);
    let (second, after) = plan(&after, "nginx:2", false).unwrap();
    assert_eq!(
        second.lines(),
        [
            "Untagged: nginx:2".to_owned(),
            format!("Untagged: nginx@{digest}")
        ]
    );
    assert_eq!(after.images[&id("a")].origins.len(), 1);
    let (third, after) = plan(&after, "other:1", false).unwrap();
    assert_eq!(
        third.lines()[..2],
        [
            "Untagged: other:1".to_owned(),
            format!("Deleted: {}", id("a"))
        ]
    );
    assert!(third.documents.contains(&Digest::of(b"archive")));
    assert!(after.images.is_empty());
}

#[test]
fn a_digest_in_another_repository_keeps_the_image() {
    let names = names([with_origins(
        image("a", &["nginx"], &["1"]),
        &[("mirror/nginx", "m")],
    )]);
    let (plan_, after) = plan(&names, "nginx", false).unwrap();
    assert_eq!(plan_.lines(), ["Untagged: nginx:latest"]);
    let by_digest = format!("mirror/nginx@{}", Digest::of(b"m"));
    let (plan_, after) = plan(&after, &by_digest, false).unwrap();
    assert_eq!(plan_.lines()[0], format!("Untagged: {by_digest}"));
    assert_eq!(plan_.lines()[1], format!("Deleted: {}", id("a")));
    assert!(after.images.is_empty());
}

#[test]
fn an_id_takes_one_name_only_unless_forced() {
    let one = names([with_origins(image("a", &["nginx"], &[]), &[("nginx", "m")])]);
    let (plan_, _) = plan(&one, &id("a").short(), false).unwrap();
    let digest = Digest::of(b"m");
    assert_eq!(
        plan_.lines(),
        [
            "Untagged: nginx:latest".to_owned(),
            format!("Untagged: nginx@{digest}"),
            format!("Deleted: {}", id("a"))
        ]
    );

    let two = names([image("a", &["nginx", "org/x:1"], &[])]);
    let error = plan(&two, &id("a").to_string(), false)
        .unwrap_err()
        .to_string();
    let short = id("a").short();
    assert_eq!(
        error,
        format!(
            "conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
        )
    );
    let (plan_, after) = plan(&two, &short, true).unwrap();
    assert_eq!(
        plan_.lines(),
        [
            "Untagged: nginx:latest".to_owned(),
            "Untagged: org/x:1".to_owned(),
            format!("Deleted: {}", id("a"))
        ]
    );
    assert_eq!(after, Names::default());

    let dangling = names([image("a", &[], &["1"])]);
    let (plan_, _) = plan(&dangling, &short, false).unwrap();
    assert_eq!(
        plan_.lines(),
        [
            format!("Deleted: {}", id("a")),
            format!("Deleted: {}", chain(&["1"]))
        ]
    );
}

#[test]
fn a_mount_removes_what_it_has_seen_only() {
    let names = names([image("a", &["x"], &[]), image("b", &[], &[])]);
    let refused = |target| {
        Plan::new(&names, &[], &target, false)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        refused(Target::TagOf(tag("x"), id("b"))),
        "x:latest names another image now"
    );
    assert_eq!(refused(Target::Tag(tag("y"))), "No such image: y:latest");
    assert!(refused(Target::Untagged(id("a"))).starts_with("conflict: unable to delete"));
    let plan = Plan::new(&names, &[], &Target::Untagged(id("b")), false).unwrap();
    assert!(plan.deletes_image);
}

#[test]
fn what_is_in_use_is_refused_in_docker_s_words() {
    let names = names([image("a", &["x:1"], &[])]);
    let user = || User {
        pid: 7,
        command: "bash".to_owned(),
        usage: Usage::Cwd,
        path: "/m/images/x/1".into(),
    };
    let text = |target: Target| {
        Plan::new(&names, &[], &target, false)
            .unwrap()
            .in_use(&target, user())
            .to_string()
    };
    let short = id("a").short();
    assert_eq!(
        text(Target::Tag(tag("x:1"))),
        format!(
            "conflict: unable to remove repository reference \"x:1\" (must force) - process 7 (bash) is using its referenced image {short}"
        )
    );
    assert_eq!(
        text(Target::Image(id("a"))),
        format!(
            "conflict: unable to delete {short} (must be forced) - image is being used by process 7 (bash)"
        )
    );
}

mod model {
    use super::*;
    use crate::store::ImageRecord;
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const IMAGES: [&str; 3] = ["a", "b", "c"];
    const TAGS: [&str; 4] = ["x:1", "x:2", "y:1", "z:1"];
    const LAYERS: [&str; 3] = ["1", "2", "3"];

    /// Three images over three layers, some tags on them, a digest each in some repository.
    fn any_names() -> impl Strategy<Value = Names> {
        let stacks = vec(vec(0..LAYERS.len(), 0..4), IMAGES.len());
        let tags = btree_map(0..TAGS.len(), 0..IMAGES.len(), 0..=TAGS.len());
        let digests = vec(proptest::option::of(0..3usize), IMAGES.len());
        (stacks, tags, digests)
            .prop_map(|(stacks, tags, digests)| names(build(&stacks, &tags, &digests)))
    }

    fn build(
        stacks: &[Vec<usize>],
        tags: &BTreeMap<usize, usize>,
        digests: &[Option<usize>],
    ) -> Vec<ImageRecord> {
        let build = |(i, word): (usize, &&str)| {
            let layers: Vec<&str> = stacks[i].iter().map(|l| LAYERS[*l]).collect();
            let own: Vec<&str> = tags
                .iter()
                .filter(|(_, image)| **image == i)
                .map(|(t, _)| TAGS[*t])
                .collect();
            let origin = digests[i].map(|r| (["x", "y", "other"][r], "m"));
            with_origins(
                image(word, &own, &layers),
                &origin.into_iter().collect::<Vec<_>>(),
            )
        };
        IMAGES.iter().enumerate().map(build).collect()
    }

    /// What can be removed from these names.
    fn targets(names: &Names) -> Vec<Target> {
        let tags = names.tags.keys().cloned().map(Target::Tag);
        let images = names.images.keys().copied().map(Target::Image);
        let digests = names.images.values().flat_map(|image| {
            let of = |o: &crate::store::Origin| {
                Some(Target::Digest(image.id, o.repository.clone()?, o.digest))
            };
            image.origins.iter().filter_map(of)
        });
        tags.chain(images).chain(digests).collect()
    }

    proptest! {
        /// Removal after removal: what a plan frees is exactly what the names reached before and do not after, and nothing
        /// else is touched.
        #[test]
        fn plans_free_what_becomes_unreachable(start in any_names(), picks in vec(any::<prop::sample::Index>(), 30), force: bool) {
            let mut now = start;
            for pick in picks {
                let all = targets(&now);
                if all.is_empty() {
                    break;
                }
                let target = &all[pick.index(all.len())];
                let plan = match Plan::new(&now, &[], target, force) {
                    Ok(plan) => plan,
                    Err(error) => {
                        let single = matches!(error, ImageError::ManyReferences(_)) && !force;
                        prop_assert!(single, "{error} for {target:?}");
                        continue;
                    }
                };
                let mut after = now.clone();
                plan.edit(&mut after).unwrap();
                let gone: BTreeSet<DiffId> = now.layers().difference(&after.layers()).copied().collect();
                prop_assert_eq!(&gone, &plan.layers.iter().copied().collect());
                if plan.deletes_image {
                    prop_assert!(!after.images.contains_key(&plan.id));
                } else {
                    prop_assert!(after.images.contains_key(&plan.id));
                    prop_assert!(plan.chains.is_empty() && plan.layers.is_empty());
                }
                prop_assert_eq!(now.images.len() - after.images.len(), usize::from(plan.deletes_image));
                prop_assert_eq!(now.tags.len() - after.tags.len(), plan.tags.len());
                prop_assert!(after.tags.iter().all(|(tag, record)| now.tags.get(tag) == Some(record)));
                prop_assert!(!plan.lines().is_empty());
                now = after;
            }
        }
    }
}

#[test]
fn untagged_parents_go_with_their_last_child() {
    let mut all = names([
        image("grandparent", &[], &["1"]),
        image("parent", &[], &["1", "2"]),
        image("child", &["child"], &["1", "2", "3"]),
        image("brother", &["brother"], &["1", "2", "4"]),
    ]);
    for (child, parent) in [
        ("child", "parent"),
        ("brother", "parent"),
        ("parent", "grandparent"),
    ] {
        all.images.get_mut(&id(child)).unwrap().parent = Some(id(parent));
    }
    let with_parents = |names: &Names, argument: &str| {
        let (mut plan, _) = plan(names, argument, false).unwrap();
        plan.take_parents(names, &[]).unwrap();
        let mut after = names.clone();
        plan.edit(&mut after).unwrap();
        (plan, after)
    };
    let (first, after) = with_parents(&all, "brother");
    assert!(first.parents.is_empty(), "another child needs it");
    let (last, after) = with_parents(&after, "child");
    assert_eq!(
        last.lines(),
        [
            "Untagged: child:latest".to_owned(),
            format!("Deleted: {}", id("child")),
            format!("Deleted: {}", chain(&["1", "2", "3"])),
            format!("Deleted: {}", id("parent")),
            format!("Deleted: {}", chain(&["1", "2"])),
            format!("Deleted: {}", id("grandparent")),
            format!("Deleted: {}", chain(&["1"])),
        ]
    );
    assert!(after.images.is_empty());
    // One that has a name stays.
    all.tag(&tag("kept"), id("parent"), std::time::SystemTime::now())
        .unwrap();
    let (_, after) = with_parents(&all, "brother");
    let (last, _) = with_parents(&after, "child");
    assert!(last.parents.is_empty());
}
