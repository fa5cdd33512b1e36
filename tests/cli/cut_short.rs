//! Stores after verbs that were really killed: what only looks changes nothing, figures are those of the disk.

use std::fs;
use std::os::unix::fs::MetadataExt;

use mica::ops::space::df;
use mica::ops::usage::images as users;
use mica::store::{OpenMode, Store};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::histories::{DATA, DRY, QUESTIONS, du, everything};
use super::{Sandbox, image, store};

/// What is done to a store, and the system calls that some of it is killed at.
const STEPS: [&str; 15] = [
    "load -i app.tar",
    "load -i web.tar",
    "load -i other.tar",
    "import tree.tar tree:1",
    "tag app:1 app:2",
    "tag web:1 app:2",
    "rmi app:1",
    "rmi -f web:1",
    "rmi --trash 1h other:1",
    "restore other:1",
    "image prune -af",
    "volume create data",
    "volume rm data",
    "trash --empty -f",
    "save -o saved.tar app:1",
];
const CALLS: [&str; 8] = [
    "/^rename",
    "/^unlink",
    "/^mkdir",
    "/^fsync",
    "/^write",
    "/^openat",
    "/^flock",
    "/^ftruncate",
];

/// A verb, and where it is killed: a call, and the how manieth of them.
type Step = (usize, Option<(usize, u8)>);

fn histories() -> impl Strategy<Value = Vec<Step>> {
    let killed = proptest::option::weighted(0.6, (0..CALLS.len(), 1..16u8));
    proptest::collection::vec((0..STEPS.len(), killed), 3..9)
}

fn step(sandbox: &Sandbox, (verb, killed): Step) {
    let words = STEPS[verb].split(' ');
    // Many have nothing to do, which is an error.
    let Some((call, number)) = killed else {
        drop(sandbox.mica(words));
        return;
    };
    let mut strace = std::process::Command::new("strace");
    let inject = format!("inject={}:signal=KILL:when={number}", CALLS[call]);
    strace.args(["-f", "-o", "/dev/null", "-e", &inject]);
    strace.arg(env!("CARGO_BIN_EXE_mica")).arg("--store");
    strace.arg(sandbox.store()).args(words);
    strace.current_dir(sandbox.dir());
    drop(sandbox.run(strace));
}

/// The store's files but those that are its lists, as `du` counts; and lists that did not get their names.
fn whole(sandbox: &Sandbox) -> u64 {
    let root = sandbox.store();
    let new = fs::read_dir(&root).expect("readdir").filter_map(|entry| {
        let path = entry.expect("an entry").path();
        let stat = fs::metadata(&path).expect("stat");
        (path.extension().is_some_and(|end| end == "new")).then_some(stat.blocks() * 512)
    });
    du(&root, &[&DATA[..], &["leases"]].concat()) + new.sum::<u64>()
}

/// Verbs that are really killed, at any of their calls: afterwards what only looks changes nothing, figures are the disk's, and one
/// collection takes all that is to be taken. Where nothing was killed there is nothing to collect after any verb.
#[test]
fn regression_histories_that_are_cut_short_are_told_whole() {
    let config = Config {
        cases: 6,
        failure_persistence: None,
        max_shrink_iters: 20,
        ..Config::default()
    };
    let begun = || {
        let sandbox = store(&["app:1"]);
        for name in ["app", "web", "other"] {
            image(&format!("{name}:1")).docker_archive(&sandbox.path(format!("{name}.tar")));
        }
        sandbox.sh("echo x >f; tar -cf tree.tar f").ok();
        sandbox
    };
    let nothing = "Total reclaimable space: 0B\n";
    let result = TestRunner::new(config).run(&histories(), |history| {
        let sandbox = begun();
        for (verb, _) in &history {
            step(&sandbox, (*verb, None));
            let left = sandbox.mica(["gc", "--dry-run"]).ok().stdout();
            prop_assert_eq!(left.as_str(), nothing, "after {}", STEPS[*verb]);
        }
        let sandbox = begun();
        for one in &history {
            step(&sandbox, *one);
        }
        let before = everything(&sandbox.store());
        let mica = env!("CARGO_BIN_EXE_mica");
        for line in DRY {
            // There may be no such image any more.
            drop(sandbox.mica(line.split(' ')));
            prop_assert!(everything(&sandbox.store()) == before, "{}", line);
        }
        for line in QUESTIONS {
            sandbox.sh(&format!("echo n | {mica} {line}")).ok();
            prop_assert!(everything(&sandbox.store()) == before, "{}", line);
        }
        let open = Store::open(&sandbox.store(), OpenMode::Existing).expect("the store");
        let (names, leases) = (
            open.names().expect("names"),
            open.live_leases().expect("leases"),
        );
        let users = users::counts(&leases, &names).expect("users");
        let df = df::of(&open, &names, &leases, &users).expect("df");
        let rows: u64 = df.all_rows().iter().map(|row| row.line.size).sum();
        let disk = whole(&sandbox);
        prop_assert_eq!(rows, disk, "{:?}", df.all_rows());
        drop(open);
        let dry = sandbox.mica(["gc", "--dry-run"]).ok().stdout();
        let run = sandbox.mica(["gc"]).ok().stdout();
        prop_assert_eq!(&run, &dry.replace("reclaimable", "reclaimed"));
        let freed = super::pruning::human(disk - whole(&sandbox));
        prop_assert!(run.ends_with(&format!(" {freed}\n")), "{}: {}", freed, run);
        let again = sandbox.mica(["gc", "--dry-run"]).ok().stdout();
        prop_assert_eq!(again.as_str(), nothing);
        sandbox.mica(["check"]).ok();
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}
