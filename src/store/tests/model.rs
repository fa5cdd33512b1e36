//! Random changes against a model.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::oci::{Repository, TagRef};

const TAGS: [&str; 4] = ["a:1", "a:2", "b:1", "org/c"];

#[derive(Debug, Clone)]
enum Step {
    Import(Vec<u32>, usize),
    Tag(usize, usize),
    Untag(usize),
    Rename(usize, usize),
    RenameRepository,
    DeleteDangling,
    Collect,
    /// An import begun, some layers found or written, then dropped.
    Abandon(Vec<u32>),
    /// As `Abandon`, but the process dies: the files stay, the lock goes.
    Crash(Vec<u32>),
    /// An import that stays open over the next steps.
    Begin(Vec<u32>),
    Finish(usize),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let layers = || prop::collection::vec(0u32..4, 0..3);
    let tag = || 0..TAGS.len();
    let step = prop_oneof![
        4 => (layers(), tag()).prop_map(|(l, t)| Step::Import(l, t)),
        2 => (tag(), tag()).prop_map(|(a, b)| Step::Tag(a, b)),
        4 => tag().prop_map(Step::Untag),
        1 => (tag(), tag()).prop_map(|(a, b)| Step::Rename(a, b)),
        1 => Just(Step::RenameRepository),
        2 => Just(Step::DeleteDangling),
        3 => Just(Step::Collect),
        2 => layers().prop_map(Step::Abandon),
        2 => layers().prop_map(Step::Crash),
        2 => layers().prop_map(Step::Begin),
        2 => tag().prop_map(Step::Finish),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..25)
}

#[derive(Default)]
struct Model {
    images: BTreeMap<ImageId, Vec<u32>>,
    tags: BTreeMap<TagRef, ImageId>,
}

impl Model {
    fn dangling(&self) -> Vec<ImageId> {
        let tagged: BTreeSet<_> = self.tags.values().collect();
        self.images
            .keys()
            .filter(|id| !tagged.contains(id))
            .copied()
            .collect()
    }
}

fn new_image(layers: &[u32], tags: Vec<TagRef>) -> NewImage {
    NewImage {
        config: config(layers),
        layers: layers.iter().map(|n| diff_id(*n)).collect(),
        tags,
        origins: vec![],
    }
}

fn run(steps: Vec<Step>) {
    let mut f = Fixture::new();
    let mut model = Model::default();
    let mut open: Option<(Import, Vec<u32>)> = None;
    for step in steps {
        apply(&mut f, &mut model, &mut open, step);
        let names = f.store.names().unwrap();
        let tags: BTreeMap<_, _> = names
            .tags
            .iter()
            .map(|(tag, record)| (tag.clone(), record.id))
            .collect();
        assert_eq!(tags, model.tags);
        assert!(names.images.keys().eq(model.images.keys()));
        let needed = model.images.values().flatten();
        for layer in needed.chain(open.iter().flat_map(|(_, layers)| layers)) {
            f.store.open_layer(&diff_id(*layer)).unwrap();
            assert_eq!(
                fs::read(f.store.blob_path(&diff_id(*layer).0)).unwrap(),
                tar(*layer)
            );
        }
    }
    drop(open);
    f.collect();
    assert_eq!(f.check(), []);
    let usage = f.store.disk_usage().unwrap();
    let layers: BTreeSet<_> = model.images.values().flatten().collect();
    assert_eq!(usage.layers, layers.len() as u64);
    assert_eq!(usage.tmp_bytes, 0);
    assert_eq!(fs::read_dir(f.store.layout().leases()).unwrap().count(), 0);
}

fn apply(f: &mut Fixture, model: &mut Model, open: &mut Option<(Import, Vec<u32>)>, step: Step) {
    let name = |number: usize| tag(TAGS[number]);
    let now = std::time::SystemTime::now;
    let begin = |layers: &[u32]| {
        let import = f.store.begin_import().unwrap();
        for layer in layers {
            write_layer(&import, *layer).unwrap();
        }
        import
    };
    match step {
        Step::Import(layers, to) => {
            let import = begin(&layers);
            let done = import
                .commit(vec![new_image(&layers, vec![name(to)])])
                .unwrap();
            assert_eq!(
                done.images[0].existed,
                model.images.contains_key(&done.images[0].id)
            );
            model.images.insert(done.images[0].id, layers);
            model.tags.insert(name(to), done.images[0].id);
        }
        Step::Tag(from, to) => {
            let Some(id) = model.tags.get(&name(from)).copied() else {
                return;
            };
            let lock = f.store.lock().unwrap();
            f.store
                .change(&lock, |names| names.tag(&name(to), id, now()))
                .unwrap();
            model.tags.insert(name(to), id);
        }
        Step::Untag(from) => {
            let lock = f.store.lock().unwrap();
            let done = f.store.change(&lock, |names| names.untag(&name(from)));
            assert_eq!(
                done.ok().map(|untagged| untagged.id),
                model.tags.remove(&name(from))
            );
        }
        Step::Rename(from, to) => {
            let lock = f.store.lock().unwrap();
            let done = f.store.change(&lock, |names| {
                names.rename_tag(&name(from), &name(to), now())
            });
            let possible =
                model.tags.contains_key(&name(from)) && !model.tags.contains_key(&name(to));
            assert_eq!(done.is_ok(), possible);
            if possible {
                let id = model.tags.remove(&name(from)).unwrap();
                model.tags.insert(name(to), id);
            }
        }
        Step::RenameRepository => {
            let (from, to) = (
                Repository::parse("a").unwrap(),
                Repository::parse("b").unwrap(),
            );
            let lock = f.store.lock().unwrap();
            let done = f
                .store
                .change(&lock, |names| names.rename_repository(&from, &to, now()));
            let moves: Vec<_> = model
                .tags
                .keys()
                .filter(|t| t.repository == from)
                .cloned()
                .collect();
            let target = |tag: &TagRef| TagRef {
                repository: to.clone(),
                tag: tag.tag.clone(),
            };
            let possible =
                !moves.is_empty() && !moves.iter().any(|t| model.tags.contains_key(&target(t)));
            assert_eq!(done.is_ok(), possible);
            for tag in moves.iter().filter(|_| possible) {
                let id = model.tags.remove(tag).unwrap();
                model.tags.insert(target(tag), id);
            }
        }
        Step::DeleteDangling => {
            let lock = f.store.lock().unwrap();
            for id in model.dangling() {
                f.store
                    .change(&lock, |names| names.delete_image(&id))
                    .unwrap();
                model.images.remove(&id);
            }
        }
        Step::Collect => drop(f.collect()),
        Step::Abandon(layers) => drop(begin(&layers)),
        Step::Crash(layers) => {
            let import = begin(&layers);
            let mut sink = import.new_layer().unwrap();
            sink.write_all(b"half").unwrap();
            std::mem::forget(sink);
            import.die();
        }
        Step::Begin(layers) => *open = Some((begin(&layers), layers)),
        Step::Finish(to) => {
            let Some((import, layers)) = open.take() else {
                return;
            };
            let done = import
                .commit(vec![new_image(&layers, vec![name(to)])])
                .unwrap();
            model.images.insert(done.images[0].id, layers);
            model.tags.insert(name(to), done.images[0].id);
        }
        Step::Reopen => f.store = Store::open(&f.path(), OpenMode::Existing).unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_changes_keeps_the_promises(steps in steps()) {
        run(steps);
    }
}
