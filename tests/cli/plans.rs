//! What a plan announces is what comes back, to the byte: random stores, random removals, measured on the disk.

use mica::ops::image::prune::{self, Keep, Newest};
use mica::ops::image::remove::{self, Target};
use mica::ops::{
    image::{resolve, trash},
    space::gc,
};
use mica::store::{OpenMode, Store};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::Sandbox;
use crate::common::image::ImageBuilder;

/// An image: which of a few layers it has, and its names.
#[derive(Debug, Clone)]
struct Made {
    layers: Vec<u8>,
    tags: Vec<u8>,
}

#[derive(Debug, Clone)]
enum Verb {
    Rmi { tag: u8, force: bool },
    ById { image: usize },
    Prune { all: bool },
    Keep { images: usize, version: bool },
    MaxSize { kilobytes: u64 },
    Gc,
    Trash,
    System { all: bool },
}

fn name(tag: u8) -> String {
    format!(
        "{}:{}",
        ["app", "web", "org/x"][usize::from(tag % 3)],
        tag / 3
    )
}

fn verbs() -> impl Strategy<Value = Vec<(bool, Verb)>> {
    let verb = prop_oneof![
        2 => (0..9u8, any::<bool>()).prop_map(|(tag, force)| Verb::Rmi { tag, force }),
        4 => (0..4usize).prop_map(|image| Verb::ById { image }),
        1 => any::<bool>().prop_map(|all| Verb::Prune { all }),
        1 => (0..3usize, any::<bool>()).prop_map(|(images, version)| Verb::Keep { images, version }),
        1 => (0..400u64).prop_map(|kilobytes| Verb::MaxSize { kilobytes }),
        1 => Just(Verb::Gc),
        1 => Just(Verb::Trash),
        1 => any::<bool>().prop_map(|all| Verb::System { all }),
    ];
    // Each with or without the trash.
    proptest::collection::vec((any::<bool>(), verb), 2..8)
}

/// Disk space of blobs and indexes.
fn used(sandbox: &Sandbox) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let data = ["blobs", "layers"].map(|dir| sandbox.store().join(dir));
    let files = sandbox.store_files();
    let files = files
        .iter()
        .filter(|(path, _)| data.iter().any(|dir| path.starts_with(dir)));
    files
        .map(|(path, _)| std::fs::metadata(path).expect("stat").blocks() * 512)
        .sum()
}

fn build(images: &[Made], pinned: u8, stray: bool) -> (Sandbox, Store) {
    let sandbox = Sandbox::new();
    for (number, made) in images.iter().enumerate() {
        let mut image = ImageBuilder::new(&format!("own:{number}"));
        for layer in &made.layers {
            let size = 3000 * usize::from(*layer) + 10;
            image = image.layer(|l| l.file(format!("layer-{layer}"), vec![*layer; size]));
        }
        image = image.layer(|l| l.file("own", number.to_string()));
        for tag in &made.tags {
            image = image.tag(&name(*tag));
        }
        sandbox.load(&image);
        // Its first name was only to have one while it was loaded.
        if number % 2 == 0 {
            let store = Store::open(&sandbox.store(), OpenMode::Existing).expect("the store");
            let lock = store.lock().expect("the lock");
            let own = mica::oci::TagRef::parse(&format!("own:{number}")).expect("a tag");
            store
                .change(&lock, |names| names.untag(&own).map(drop))
                .expect("untag");
        }
    }
    let store = Store::open(&sandbox.store(), OpenMode::Create).expect("the store");
    // There may be no such tag.
    let _ = mica::ops::image::pin::set(&store, &[name(pinned)], true);
    if stray {
        let path = sandbox.store().join("blobs/sha256").join("0".repeat(64));
        std::fs::write(path, vec![0; 50_000]).expect("write");
    }
    (sandbox, store)
}

/// Carries a verb out; what it had announced, and what it then said.
fn run(store: &Store, verb: &Verb) -> Option<(u64, u64)> {
    let rmi = |argument: &str, force: bool| {
        let choose = |names: &mica::store::Names| -> Result<Target, mica::ops::image::ImageError> {
            Ok(resolve::image(names, argument)?.into())
        };
        let mut names = mica::store::Names::clone(&*store.names().expect("names"));
        let plan = remove::rehearse(store, &mut names, force, choose, |_, _, _, _| Ok(()));
        let done = remove::remove(store, force, choose, |_, _, _, _| Ok(()));
        assert_eq!(plan.is_ok(), done.is_ok(), "{argument}");
        Some((plan.ok()?.bytes, done.ok()?.bytes))
    };
    let pruned = |options: prune::Options| {
        let plan = prune::rehearse(store, &options).expect("a plan");
        let done = prune::prune(store, &options, None).expect("a removal");
        assert_eq!(plan, done);
        (plan.bytes, done.bytes)
    };
    match verb {
        Verb::Rmi { tag, force } => rmi(&name(*tag), *force),
        Verb::ById { image } => {
            let names = store.names().expect("names");
            let id = names.images.keys().nth(*image)?.to_string();
            rmi(&id, true)
        }
        Verb::Prune { all } => Some(pruned(prune::Options {
            all: *all,
            ..Default::default()
        })),
        Verb::Keep { images, version } => Some(pruned(prune::Options {
            keep: Some(Keep {
                images: *images,
                by: if *version {
                    Newest::Version
                } else {
                    Newest::Date
                },
            }),
            ..Default::default()
        })),
        Verb::MaxSize { kilobytes } => Some(pruned(prune::Options {
            max_size: Some(kilobytes * 1000),
            ..Default::default()
        })),
        Verb::Gc => {
            let plan = gc::gc(store, true).expect("a plan").bytes;
            Some((plan, gc::gc(store, false).expect("a collection").bytes))
        }
        Verb::Trash => {
            let plan = trash::rehearse(store).expect("a plan").bytes;
            Some((plan, trash::empty(store).expect("emptied").bytes))
        }
        // As `system prune` puts them together.
        Verb::System { all } => {
            let options = prune::Options {
                all: *all,
                empty_trash: true,
                ..Default::default()
            };
            let plan = [
                gc::gc(store, true).expect("a plan").bytes,
                trash::rehearse(store).expect("a plan").bytes,
                prune::rehearse(store, &options).expect("a plan").bytes,
            ];
            let done = [
                gc::gc(store, false).expect("a collection").bytes,
                trash::empty(store).expect("emptied").bytes,
                prune::prune(store, &options, None)
                    .expect("a removal")
                    .bytes,
            ];
            Some((plan.iter().sum(), done.iter().sum()))
        }
    }
}

#[test]
fn announced_bytes_are_freed_bytes() {
    let made = (
        proptest::collection::vec(0..3u8, 1..4),
        proptest::collection::vec(0..9u8, 0..3),
    );
    let made = made.prop_map(|(layers, tags)| Made { layers, tags });
    let strategy = (
        proptest::collection::vec(made, 2..5),
        0..20u8,
        any::<bool>(),
        verbs(),
    );
    let mut runner = TestRunner::new(Config {
        cases: 24,
        failure_persistence: None,
        max_shrink_iters: 60,
        ..Config::default()
    });
    let result = runner.run(&strategy, |(images, pinned, stray, verbs)| {
        let (sandbox, store) = build(&images, pinned, stray);
        // What interrupted work has left is `gc`'s to announce; a removal would take it along unsaid.
        let mut stray = stray;
        for (to_trash, verb) in verbs {
            if stray && !matches!(verb, Verb::Gc | Verb::System { .. }) {
                continue;
            }
            stray = false;
            let time = if to_trash { 3600 } else { 0 };
            store.use_trash(std::time::Duration::from_secs(time));
            let before = used(&sandbox);
            let said = run(&store, &verb);
            let freed = before - used(&sandbox);
            let (announced, reported) = said.unwrap_or((0, 0));
            prop_assert_eq!(announced, freed, "announced by {:?}", verb);
            prop_assert_eq!(reported, freed, "reported by {:?}", verb);
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}
