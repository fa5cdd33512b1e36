//! Many importers of the same layers, removals and collections at once, in several processes.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mica::store::{OpenMode, Store, StoreError, check};

use super::helper::{self, diff_id, layer_tar, quick_dir, tag};

/// Enough to see a race that exists; the rest is the model's work.
const LASTS: Duration = Duration::from_secs(3);

/// An import that found a layer in the store can rely on it, whatever is removed meanwhile.
#[test]
fn importers_and_collections_do_not_hurt_each_other() {
    let dir = quick_dir();
    let path = dir.path().join("store");
    Store::open(&path, OpenMode::Create).expect("a store");
    let end = Instant::now() + LASTS;
    let imports = AtomicUsize::new(0);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut workers = Vec::new();
        for number in 0..4u32 {
            let (path, imports) = (&path, &imports);
            // Each with its own view of the store, as a process of its own would have.
            workers.push(scope.spawn(move || {
                let store = helper::open(path).expect("a store");
                let name = format!("image:{number}");
                while Instant::now() < end {
                    let layers = [1, 2, 3 + number % 2];
                    helper::import(&store, &layers, &[&name]).expect("an import");
                    let names = store.names().expect("names");
                    // This thread alone removes this tag.
                    let image = names.image_of(&tag(&name)).expect("the tag just made");
                    for (layer, number) in image.layers.iter().zip(layers) {
                        assert_eq!(*layer, diff_id(number));
                        store.open_layer(layer).expect("a layer of a tagged image");
                        let bytes = std::fs::read(store.blob_path(&layer.0)).expect("its tar");
                        assert_eq!(bytes, layer_tar(number));
                    }
                    helper::remove(&store, &[&name]).expect("a removal");
                    imports.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        let collector = scope.spawn(|| {
            let store = helper::open(&path).expect("a store");
            while !over.load(Ordering::Relaxed) {
                let lock = store.lock().expect("the lock");
                store.collect(&lock).expect("a collection");
            }
        });
        let processes = scope.spawn(|| {
            while Instant::now() < end {
                for verb in ["import", "gc", "remove"] {
                    let run = helper::command(verb, &path, &[])
                        .output()
                        .expect("a helper");
                    assert_eq!(run.status.code(), Some(helper::DONE), "{verb}: {run:?}");
                }
            }
        });
        let results: Vec<_> = workers.into_iter().map(|w| w.join()).collect();
        let processes = processes.join();
        over.store(true, Ordering::Relaxed);
        collector.join().expect("the collector");
        processes.expect("the processes");
        for result in results {
            result.expect("an importer");
        }
    });
    assert!(imports.load(Ordering::Relaxed) > 20);
    let store = helper::open(&path).expect("a store");
    for name in store.names().expect("names").tags.keys() {
        helper::remove(&store, &[&name.to_string()]).expect("a removal");
    }
    assert_eq!(check::run(&store, false).expect("a check"), []);
    let usage = store.disk_usage().expect("usage");
    assert_eq!(
        (
            usage.layer_bytes,
            usage.index_bytes,
            usage.document_bytes,
            usage.tmp_bytes
        ),
        (0, 0, 0, 0)
    );
}

/// A reader without the lock sees old or new names, and every image of its snapshot or a newer one.
#[test]
fn readers_survive_removals() {
    let dir = quick_dir();
    let path = dir.path().join("store");
    let store = Store::open(&path, OpenMode::Create).expect("a store");
    helper::import(&store, &[1], &["stays:1"]).expect("an import");
    let end = Instant::now() + Duration::from_secs(1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let store = helper::open(&path).expect("a store");
            while Instant::now() < end {
                helper::import(&store, &[1, 2], &["goes:1"]).expect("an import");
                helper::remove(&store, &["goes:1"]).expect("a removal");
            }
        });
        let reader = Store::open(&path, OpenMode::ReadOnly).expect("a store");
        let mut reads = 0;
        while Instant::now() < end {
            let layers = reader.read(|names| {
                let mut layers = 0;
                for image in names.images.values() {
                    reader.config(&image.id)?;
                    reader.manifest_bytes(image)?;
                    for layer in &image.layers {
                        reader.open_layer(layer)?;
                        layers += 1;
                    }
                }
                Ok::<_, StoreError>(layers)
            });
            assert!(matches!(layers, Ok(1 | 3)), "{layers:?}");
            reads += 1;
        }
        assert!(reads > 10);
    });
}
