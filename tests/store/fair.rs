//! How long who wants to change a store waits for others who do.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mica::store::{OpenMode, Store};

use crate::common::image::ImageBuilder;
use crate::common::sandbox::Sandbox;

const BUSY: usize = 20;
const WAITS: usize = 30;
/// So many changes of others may come before one's own: each of theirs has its turn a few times. Not a time: machines differ.
const MOST: usize = BUSY * 4;

/// Twenty that do nothing but change the store keep nobody out who comes later. `contrib/faults locks` measures how long it takes.
#[test]
fn the_lock_of_a_store_is_fair_enough() {
    let sandbox = Sandbox::new();
    sandbox.load(&ImageBuilder::new("app:1").layer(|l| l.file("f", "x")));
    let store = Store::open(&sandbox.store(), OpenMode::Existing).expect("the store");
    let (done, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let mut waits = Vec::new();
    thread::scope(|scope| {
        for number in 0..BUSY {
            let (sandbox, done, stop) = (&sandbox, &done, &stop);
            scope.spawn(move || {
                let name = format!("busy:{number}");
                while !stop.load(Ordering::Relaxed) {
                    for verb in [&["tag", "app:1", &name][..], &["rmi", &name]] {
                        let mut mica = sandbox.command();
                        let output = mica.args(verb).output().expect("mica");
                        assert!(output.status.success(), "{output:?}");
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        while done.load(Ordering::Relaxed) < BUSY {
            thread::sleep(Duration::from_millis(10));
        }
        for _ in 0..WAITS {
            let (before, begin) = (done.load(Ordering::Relaxed), Instant::now());
            let lock = store.lock();
            waits.push((done.load(Ordering::Relaxed) - before, begin.elapsed()));
            drop(lock);
            thread::sleep(Duration::from_millis(5));
        }
        stop.store(true, Ordering::Relaxed);
        let lock = store.lock();
        drop(lock.expect("the lock"));
    });
    let longest = waits.iter().map(|(_, time)| *time).max();
    let others = waits.iter().map(|(others, _)| *others).max();
    println!(
        "{} verbs beside, {WAITS} waits, at most for {others:?}, {longest:?}",
        done.into_inner()
    );
    assert!(others.is_some_and(|others| others <= MOST), "{waits:?}");
}
