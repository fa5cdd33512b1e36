//! Every verb, stopped at every system call that matters, by SIGKILL, by a full disk and by a failing one.
//!
//! strace counts the calls of one undisturbed run and then injects at the first, the second, ... of each kind.
//! After every run the store is opened again, one more change runs, and then: every tag is whole, names are
//! old or new, nothing is left behind.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use mica::oci::ImageId;
use mica::store::{OpenMode, Store, check};

use parking_lot::Mutex;

use crate::common::sandbox::tell_at_once;

use super::helper::{self, copy_tree, files, quick_dir, tag};

const CALLS: &[&str] = &[
    "write",
    "fsync",
    "rename",
    "renameat2",
    "unlink",
    "unlinkat",
    "openat",
    "mkdir",
    "flock",
    "ftruncate",
    "read",
    "getdents64",
    "statx",
];

/// What is injected, as strace writes it.
const FAULTS: &[&str] = &["signal=KILL", "error=ENOSPC", "error=EIO"];

struct Sweep {
    verb: &'static str,
    dir: tempfile::TempDir,
    /// The store before the verb.
    before: PathBuf,
    /// The store after the verb, undisturbed.
    after: PathBuf,
}

impl Sweep {
    fn new(verb: &'static str, prepare: impl FnOnce(&Path)) -> Sweep {
        let dir = quick_dir();
        let before = dir.path().join("before");
        prepare(&before);
        let after = dir.path().join("after");
        copy_if_there(&before, &after);
        Sweep {
            verb,
            dir,
            before,
            after,
        }
    }

    /// Counts the calls of an undisturbed run, then runs all disturbed ones; each gets judged.
    fn run(&self, judge: impl Fn(&Run) + Sync) {
        let points = self.count();
        let total: usize = points.values().map(|(_, count)| count).sum();
        assert!(total > 10, "{points:?}");
        let runs: Vec<(&str, &str, usize)> = points
            .iter()
            .flat_map(|(call, (skip, count))| {
                (skip + 1..=skip + count).flat_map(move |number| {
                    FAULTS
                        .iter()
                        .map(move |fault| (call.as_str(), *fault, number))
                })
            })
            .collect();
        let next = AtomicUsize::new(0);
        let ends: Mutex<BTreeMap<Option<i32>, usize>> = Mutex::default();
        tell_at_once();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                // Named like a test, so that what it fails with is told beside the test.
                let named =
                    std::thread::Builder::new().name(format!("store::crash::{}", self.verb));
                let work = || {
                    while let Some((call, fault, number)) =
                        runs.get(next.fetch_add(1, Ordering::Relaxed))
                    {
                        let run = self.disturbed(call, fault, *number);
                        *ends.lock().entry(run.code).or_default() += 1;
                        judge(&run);
                    }
                };
                named.spawn_scoped(scope, work).expect("a thread");
            }
        });
        println!("{}: {points:?}: ends {ends:?}", self.verb);
        // Every kill must have hit, and most errors.
        let ends = ends.into_inner();
        let ended = |code| ends.get(&code).copied().unwrap_or(0);
        assert_eq!(ended(None), total, "{ends:?}");
        let failed = ended(Some(helper::FAILED)) + ended(Some(helper::NOT_COLLECTED));
        // What is done for onlookers only, such as the log of events, fails without consequence.
        assert!(failed > total / 2, "{ends:?}");
    }

    /// For each call: how many came before the verb began, and how many after.
    fn count(&self) -> BTreeMap<String, (usize, usize)> {
        let log = self.dir.path().join("log");
        let wrap = strace(&log, &[format!("--trace={}", CALLS.join(","))]);
        let status = status(helper::command(self.verb, &self.after, &wrap));
        assert_eq!(status, Some(helper::DONE), "the verb without any fault");
        let log = std::fs::read_to_string(log).expect("strace's log");
        let thread = log
            .lines()
            .find(|line| line.contains(helper::MARKER))
            .and_then(|line| line.split_whitespace().next())
            .expect("the helper's first call");
        let mut points: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        let mut begun = false;
        let mut others: BTreeMap<String, usize> = BTreeMap::new();
        for line in log.lines() {
            let mut words = line.splitn(2, char::is_whitespace);
            let ours = words.next() == Some(thread);
            let rest = words.next().unwrap_or_default().trim_start();
            let Some((call, _)) = rest.split_once('(') else {
                continue;
            };
            if !CALLS.contains(&call) {
                continue;
            }
            if ours {
                let (before, after) = points.entry(call.to_owned()).or_default();
                *if begun { after } else { before } += 1;
                begun |= line.contains(helper::MARKER);
            } else {
                *others.entry(call.to_owned()).or_default() += 1;
            }
        }
        for (call, (before, _)) in &points {
            assert!(*before >= helper::BURNT, "{call}: {points:?}");
            assert!(
                others.get(call).unwrap_or(&0) < before,
                "{call}: {others:?}"
            );
        }
        points
    }

    fn disturbed(&self, call: &str, fault: &str, number: usize) -> Run {
        let name = format!("{call}-{fault}-{number}");
        let store = self.dir.path().join(&name);
        copy_if_there(&self.before, &store);
        let wrap = strace(
            Path::new("/dev/null"),
            &[
                format!("--trace={call}"),
                format!("--inject={call}:{fault}:when={number}"),
            ],
        );
        let code = status(helper::command(self.verb, &store, &wrap));
        let what = format!("{}: {name}: exit code {code:?}", self.verb);
        if fault != "signal=KILL" {
            let known = [helper::FAILED, helper::NOT_COLLECTED, helper::DONE];
            assert!(code.is_some_and(|code| known.contains(&code)), "{what}");
        }
        Run { store, code, what }
    }
}

/// One disturbed run that is over.
struct Run {
    store: PathBuf,
    /// `None`: killed.
    code: Option<i32>,
    what: String,
}

impl Run {
    /// Opens the store again and lets one change sweep it; then nothing may be wrong with it.
    fn recover(&self) -> Store {
        let store = helper::open(&self.store).unwrap_or_else(|e| panic!("{}: {e}", self.what));
        let lock = store.lock().expect("the lock of a dead process");
        store.collect(&lock).expect("a collection");
        drop(lock);
        let found = check::run(&store, false).expect("a check");
        assert_eq!(found, [], "{}", self.what);
        store
    }

    fn image(&self, store: &Store, name: &str) -> Option<ImageId> {
        let names = store.names().expect("names");
        names.image_of(&tag(name)).map(|image| image.id)
    }

    fn same_files(&self, as_in: &Path) {
        assert_eq!(files(&self.store), files(as_in), "{}", self.what);
        // Thousands of runs: keep memory free.
        std::fs::remove_dir_all(&self.store).expect("removing a store");
    }
}

fn copy_if_there(from: &Path, to: &Path) {
    if from.exists() {
        copy_tree(from, to);
    }
}

pub fn strace(log: &Path, more: &[String]) -> Vec<String> {
    let found = Command::new("strace").arg("--version").output();
    assert!(found.is_ok(), "this test needs strace: install it");
    let log = log.display().to_string();
    // Not --seccomp-bpf: strace 6.1 then forgets the signals.
    let mut args: Vec<String> = ["strace", "-f", "-o", &log].map(str::to_owned).into();
    args.extend_from_slice(more);
    args.push("--".to_owned());
    args
}

fn status(mut command: Command) -> Option<i32> {
    command.output().expect("starting strace").status.code()
}

/// Image (1, 2) as a:1, and something that nothing reaches.
fn prepare(path: &Path) {
    let store = Store::open(path, OpenMode::Create).expect("a store");
    helper::import(&store, &[1, 2], &["a:1"]).expect("an import");
}

#[test]
fn root_an_import_stopped_anywhere_is_whole_or_absent() {
    let sweep = Sweep::new("import", prepare);
    let old = helper::config(&[1, 2]).id;
    let new = helper::config(&[2, 3]).id;
    sweep.run(|run| {
        let store = run.recover();
        let tags = (run.image(&store, "a:1"), run.image(&store, "b:1"));
        let done = tags == (Some(new), Some(new));
        assert!(done || tags == (Some(old), None), "{}: {tags:?}", run.what);
        match run.code {
            Some(helper::DONE) => assert!(done, "{}", run.what),
            Some(helper::FAILED) => assert!(!done, "{}", run.what),
            _ => {}
        }
        run.same_files(if done { &sweep.after } else { &sweep.before });
    });
}

#[test]
fn root_an_untag_stopped_anywhere_leaves_the_tag_whole_or_absent() {
    let sweep = Sweep::new("untag", |path| {
        prepare(path);
        let store = helper::open(path).expect("a store");
        helper::import(&store, &[2, 3], &["b:1"]).expect("an import");
    });
    sweep.run(|run| {
        let store = run.recover();
        let there = run.image(&store, "a:1").is_some();
        assert!(run.image(&store, "b:1").is_some());
        match run.code {
            Some(helper::DONE | helper::NOT_COLLECTED) => assert!(!there, "{}", run.what),
            Some(helper::FAILED) => assert!(there, "{}", run.what),
            _ => {}
        }
        run.same_files(if there { &sweep.before } else { &sweep.after });
    });
}

#[test]
fn root_a_collection_stopped_anywhere_loses_nothing_and_is_ended_by_the_next() {
    let sweep = Sweep::new("gc", |path| {
        prepare(path);
        let store = helper::open(path).expect("a store");
        let id = helper::import(&store, &[2, 3], &[]).expect("an import");
        let lock = store.lock().expect("the lock");
        let forget = store.change(&lock, |names| names.delete_image(&id));
        forget.expect("a dangling image");
    });
    sweep.run(|run| {
        let store = run.recover();
        assert!(run.image(&store, "a:1").is_some(), "{}", run.what);
        run.same_files(&sweep.after);
    });
}

#[test]
fn root_a_creation_stopped_anywhere_is_ended_by_the_next() {
    let sweep = Sweep::new("create", |_| {});
    sweep.run(|run| {
        let again = Store::open(&run.store, OpenMode::Create);
        again.unwrap_or_else(|error| panic!("{}: {error}", run.what));
        run.recover();
        run.same_files(&sweep.after);
    });
}
