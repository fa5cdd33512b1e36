//! Stores with everything that work cut short can leave: what only looks changes nothing, and figures are those of the disk.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mica::ops::space::df;
use mica::ops::usage::images as users;
use mica::store::containers::{ContainerConfig, ContainerId, ContainerRecord};
use mica::store::{NewVolume, OpenMode, Store, VolumeKind, VolumeName};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::{Sandbox, image, store};

/// What can be left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Left {
    /// An import that was killed, with a layer it had finished.
    Import,
    /// A download that broke off.
    Download,
    /// A container half made.
    HalfContainer,
    /// A stopped container, which keeps an image and an anonymous volume.
    Stopped,
    /// A volume whose remover was killed.
    RemovedVolume,
    /// An ephemeral volume that nobody came for.
    Unwanted,
    /// Images in the trash, whose time is over or not.
    Trash,
    Expired,
    /// An image without a name.
    Dangling,
    /// A blob that nothing reaches.
    Stray,
    /// A new list of names that did not get its name.
    HalfIndex,
}

const ALL: [Left; 11] = [
    Left::Import,
    Left::Download,
    Left::HalfContainer,
    Left::Stopped,
    Left::RemovedVolume,
    Left::Unwanted,
    Left::Trash,
    Left::Expired,
    Left::Dangling,
    Left::Stray,
    Left::HalfIndex,
];

fn volume(store: &Store, name: &str, kind: VolumeKind, anonymous: bool) {
    let name = VolumeName::parse(name).expect("a name");
    let lock = store.lock_unswept().expect("the lock");
    let new = NewVolume {
        name: name.clone(),
        kind,
        labels: BTreeMap::new(),
        anonymous,
        ownership: None,
    };
    let volume = store.create_volume(&lock, new).expect("a volume");
    fs::write(store.volume_root(&volume).join("f"), vec![b'v'; 30_000]).expect("write");
}

fn stopped(store: &Store, name: &str, image: &str, volume: &str) {
    let image = image.parse().expect("an ID");
    let config = store.config(&image).expect("the config");
    let record = serde_json::json!({
        "version": 1, "id": ContainerId::random().expect("random"), "name": name, "image": image,
        "image_name": "kept:1", "layers": config.diff_ids, "created": "2024-01-02T03:04:05Z",
        "config": ContainerConfig { labels: BTreeMap::from([("a".to_owned(), "b".to_owned())]), ..Default::default() },
        "mounts": [{ "type": "volume", "name": volume, "anonymous": true, "destination": "/v" }],
    });
    let record: ContainerRecord = serde_json::from_value(record).expect("a record");
    let lock = store.lock_unswept().expect("the lock");
    let (container, running) = store.create_container(record, &lock).expect("a container");
    fs::write(container.upper().join("changed"), vec![b'c'; 50_000]).expect("write");
    fs::write(container.log(), vec![b'l'; 20_000]).expect("write");
    drop(running);
}

/// A store with some of it, and an image that stays.
fn left(what: &BTreeSet<Left>) -> (Sandbox, Store) {
    let sandbox = store(&["app:1", "kept:1", "gone:1", "late:1", "old:1"]);
    let open = Store::open(&sandbox.store(), OpenMode::Existing).expect("the store");
    // What comes last takes no lock that sweeps.
    for (left, name, time) in [
        (Left::Trash, "gone:1", Duration::from_secs(3600)),
        (Left::Expired, "late:1", Duration::from_millis(1)),
    ] {
        if what.contains(&left) {
            let time = format!("{}ms", time.as_millis());
            sandbox.mica(["rmi", "--trash", &time, name]).ok();
        } else {
            sandbox.mica(["rmi", name]).ok();
        }
    }
    std::thread::sleep(Duration::from_millis(2));
    let mut tags: Vec<[&str; 3]> = Vec::new();
    if what.contains(&Left::Dangling) {
        tags.push(["tag", "app:1", "old:1"]);
    }
    for args in tags {
        let lock = open.lock_unswept().expect("the lock");
        let tag = |text: &str| mica::oci::TagRef::parse(text).expect("a tag");
        open.change(&lock, |names| {
            let id = names.tags.get(&tag(args[1])).expect("the tag").id;
            names
                .tag(&tag(args[2]), id, std::time::SystemTime::now())
                .map(drop)
        })
        .expect("tagged");
    }
    let layout = open.layout();
    for left in what {
        match left {
            Left::Import => {
                let blob = "1".repeat(64);
                fs::write(layout.blobs().join(&blob), vec![b'i'; 70_000]).expect("write");
                fs::write(
                    layout.layers().join(format!("{blob}.idx")),
                    vec![b'x'; 9_000],
                )
                .expect("write");
                let lease = format!(
                    "{}\n\"sha256:{blob}\"\n",
                    r#"{"kind":"import","pid":1,"since":"2024-01-02T03:04:05Z"}"#
                );
                fs::write(layout.leases().join("import-1-1-0.json"), lease).expect("write");
                let dir = layout.tmp().join("import-1-1-0");
                fs::create_dir(&dir).expect("mkdir");
                fs::write(dir.join("store.0"), vec![b't'; 90_000]).expect("write");
            }
            Left::Download => {
                fs::create_dir_all(layout.partial()).expect("mkdir");
                fs::write(layout.partial().join("2".repeat(64)), vec![b'p'; 110_000])
                    .expect("write");
            }
            Left::HalfContainer => {
                let dir = layout.containers().join("3".repeat(64)).join("upper/a/b");
                fs::create_dir_all(&dir).expect("mkdir");
                fs::write(dir.join("f"), vec![b'h'; 40_000]).expect("write");
                fs::hard_link(dir.join("f"), dir.join("g")).expect("link");
            }
            Left::Stopped => {
                let anonymous = "4".repeat(64);
                volume(&open, &anonymous, VolumeKind::Persistent, true);
                stopped(&open, "stopped", &image("kept:1").id(), &anonymous);
            }
            Left::RemovedVolume => {
                volume(&open, "removed", VolumeKind::Persistent, false);
                let name = VolumeName::parse("removed").expect("a name");
                let lock = open.lock_unswept().expect("the lock");
                open.remove_volume(&lock, &name).expect("removed");
            }
            Left::Unwanted => {
                let since = "2024-01-02T03:04:05Z".parse().expect("a time");
                let (used, idle) = (false, None);
                volume(
                    &open,
                    "unwanted",
                    VolumeKind::Ephemeral { since, used, idle },
                    false,
                );
            }
            Left::Stray => {
                fs::write(layout.blobs().join("5".repeat(64)), vec![b's'; 25_000]).expect("write");
            }
            Left::HalfIndex => {
                fs::write(layout.root().join("index.json.new"), "{").expect("write");
            }
            Left::Trash | Left::Expired | Left::Dangling => {}
        }
    }
    (sandbox, open)
}

/// Every file and directory of a store, its bytes included; but for what a look may write to.
pub(super) fn everything(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).expect("readdir") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => {
                    found.insert(path.clone(), Vec::new());
                    todo.push(path);
                }
                false => {
                    let bytes = fs::read(&path).expect("read");
                    found.insert(path, bytes);
                }
            }
        }
    }
    found
}

/// What the files below some directories take, as `du` counts, but for the directories themselves.
pub(super) fn du(root: &Path, below: &[&str]) -> u64 {
    let mut seen = HashSet::new();
    let mut bytes = 0;
    let dirs = below.iter().map(|dir| root.join(dir));
    let mut todo: Vec<PathBuf> = dirs.filter(|dir| dir.is_dir()).collect();
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).expect("readdir") {
            let path = entry.expect("an entry").path();
            let stat = fs::symlink_metadata(&path).expect("stat");
            match stat.is_dir() {
                true => {
                    // A container can be nothing but directories: its own count.
                    if path.starts_with(root.join("containers")) {
                        bytes += stat.blocks() * 512;
                    }
                    todo.push(path);
                }
                false if seen.insert((stat.dev(), stat.ino())) => bytes += stat.blocks() * 512,
                false => {}
            }
        }
    }
    bytes
}

/// Everything but the store's own records.
pub(super) const DATA: [&str; 6] = ["blobs", "layers", "tmp", "partial", "containers", "volumes"];

pub(super) const DRY: [&str; 18] = [
    "builder prune --dry-run",
    "builder prune -af --dry-run",
    "gc --dry-run",
    "image prune --dry-run",
    "image prune -f --dry-run",
    "image prune -a --dry-run",
    "image prune -a --keep 0 --dry-run",
    "image prune --max-size 0 --dry-run",
    "volume prune --dry-run",
    "volume prune -af --dry-run",
    "container prune --dry-run",
    "container prune -f --dry-run",
    "system prune --dry-run",
    "system prune -f --dry-run",
    "system prune -a --volumes --dry-run",
    "trash --empty --dry-run",
    "trash --empty -f --dry-run",
    "rmi -f --dry-run app:1",
];
pub(super) const QUESTIONS: [&str; 11] = [
    "builder prune -a",
    "image prune",
    "image prune -a",
    "volume prune",
    "volume prune -a",
    "container prune",
    "container prune --filter label=a",
    "system prune",
    "system prune -a --volumes",
    "system prune --filter label=a",
    "trash --empty",
];

fn subsets() -> impl Strategy<Value = BTreeSet<Left>> {
    proptest::sample::subsequence(ALL.to_vec(), 1..ALL.len())
        .prop_map(|left| left.into_iter().collect())
}

fn check(cases: u32, test: impl Fn(&BTreeSet<Left>)) {
    test(&ALL.into_iter().collect());
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 12,
        ..Config::default()
    };
    let result = TestRunner::new(config).run(&subsets(), |what| {
        test(&what);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn regression_dry_runs_and_questions_answered_no_change_nothing() {
    check(3, |what| {
        let (sandbox, _) = left(what);
        let before = everything(&sandbox.store());
        let unchanged = |line: &str| {
            let after = everything(&sandbox.store());
            let names = |all: &BTreeMap<PathBuf, Vec<u8>>| all.keys().cloned().collect::<Vec<_>>();
            assert_eq!(names(&after), names(&before), "{line} with {what:?}");
            assert!(after == before, "bytes changed by {line} with {what:?}");
        };
        for line in DRY {
            sandbox.mica(line.split(' ')).ok();
            unchanged(line);
        }
        for line in QUESTIONS {
            let mica = env!("CARGO_BIN_EXE_mica");
            let run = sandbox.sh(&format!("echo n | {mica} {line}")).ok();
            let text = run.stdout();
            assert!(text.ends_with("[y/N] "), "{}", run.describe());
            // Nothing has gone yet.
            assert!(
                !text.contains("deleted:") && !text.contains("untagged:"),
                "{text}"
            );
            unchanged(line);
        }
    });
}

#[test]
fn every_verb_with_a_dry_run_or_a_question_is_tried() {
    let sandbox = Sandbox::new();
    sandbox.mica(["man", "man"]).ok();
    for page in fs::read_dir(sandbox.path("man/man1")).expect("pages") {
        let page = page.expect("a page").path();
        let text = fs::read_to_string(&page).expect("a page");
        let verb = page
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .replace("mica-", "");
        let verb = verb.replace('-', " ").replace("image rm", "rmi");
        let begins = format!("{verb} ");
        let has = |lines: &[&str]| {
            let mut lines = lines.iter();
            lines.any(|line| *line == verb || line.starts_with(&begins))
        };
        assert!(
            !text.contains("\\-\\-dry\\-run") || has(&DRY),
            "{verb} has --dry-run"
        );
        assert!(
            !text.contains("Do not ask") || has(&QUESTIONS),
            "{verb} asks"
        );
    }
}

#[test]
fn regression_gc_announces_what_it_frees() {
    check(3, |what| {
        let (sandbox, _) = left(what);
        let root = sandbox.store();
        let all = [&DATA[..], &["leases"]].concat();
        let top = || {
            let new = fs::metadata(root.join("index.json.new"));
            new.map_or(0, |stat| stat.blocks() * 512)
        };
        let before = du(&root, &all) + top();
        let dry = sandbox.mica(["gc", "--dry-run"]).ok().stdout();
        let run = sandbox.mica(["gc"]).ok().stdout();
        assert_eq!(run, dry.replace("reclaimable", "reclaimed"), "{what:?}");
        let freed = super::pruning::human(before - du(&root, &all) - top());
        assert!(
            run.ends_with(&format!(" {freed}\n")),
            "{what:?}: {freed}\n{run}"
        );
        // Nothing is left that a second one could take.
        let again = sandbox.mica(["gc"]).ok().stdout();
        assert_eq!(again, "Total reclaimed space: 0B\n", "{what:?}");
    });
}

#[test]
fn regression_rows_of_df_add_up_to_the_store() {
    check(6, |what| {
        let (sandbox, store) = left(what);
        // One that is at work.
        let import = store.begin_import().expect("an import");
        fs::write(import.dir().join("store.9"), vec![b'w'; 33_000]).expect("write");
        let live = store
            .partial(&mica::oci::Digest::of(b"live"), 1 << 21)
            .map(|mut partial| {
                assert!(partial.add(&[b'd'; 44_000]));
                partial
            });
        let names = store.names().expect("names");
        let leases = store.live_leases().expect("leases");
        let users = users::counts(&leases, &names).expect("users");
        let df = df::of(&store, &names, &leases, &users).expect("df");
        let rows = df.all_rows();
        let sum: u64 = rows.iter().map(|row| row.line.size).sum();
        let all = [&DATA[..], &["leases"]].concat();
        let leases = du(&sandbox.store(), &["leases"]);
        let dead = match what.contains(&Left::Import) {
            true => fs::metadata(store.layout().leases().join("import-1-1-0.json"))
                .map_or(0, |s| s.blocks() * 512),
            false => 0,
        };
        let top = fs::metadata(store.layout().root().join("index.json.new"))
            .map_or(0, |s| s.blocks() * 512);
        let disk = du(&sandbox.store(), &all) - leases + dead + top;
        assert_eq!(sum, disk, "{what:?}: {rows:?}");
        drop((import, live));
        // The row of leftovers is what `gc` would free but for volumes and the trash, which have rows of their own.
        let text = sandbox.mica(["system", "df"]).ok().stdout();
        let leftovers = [
            Left::Import,
            Left::Download,
            Left::HalfContainer,
            Left::RemovedVolume,
            Left::Stray,
            Left::HalfIndex,
        ];
        let any = leftovers.iter().any(|left| what.contains(left));
        assert_eq!(
            text.contains("\nLeftovers "),
            any || text.contains("Leftovers"),
            "{text}"
        );
        assert!(!any || text.contains("\nLeftovers "), "{what:?}: {text}");
    });
}

#[test]
fn regression_system_prune_takes_stopped_containers_first() {
    let what = BTreeSet::from([Left::Stopped, Left::Dangling]);
    let (sandbox, store) = left(&what);
    let id = store.containers().expect("containers")[0].record.id.clone();
    let mica = env!("CARGO_BIN_EXE_mica");
    let asked = sandbox
        .sh(&format!("echo n | {mica} system prune -a --volumes"))
        .ok()
        .stdout();
    let begin = format!(
        "WARNING! This will remove:\n  - all stopped containers\n  - anonymous local volumes not used by at least one container\n  \
         - all images that no process, mount or lease uses\n  - unused build cache\n  - what interrupted work has left\n\n  \
         would delete: container {} (stopped)\n  would delete: volume {}\n",
        id.short(),
        "4".repeat(64)
    );
    assert!(asked.starts_with(&begin), "{asked}");
    // By a filter that is about images, no container goes.
    sandbox
        .mica(["system", "prune", "-f", "--filter", "reference=nothing"])
        .ok();
    sandbox
        .mica(["system", "prune", "-f", "--filter", "label=other"])
        .ok();
    sandbox
        .mica(["container", "prune", "-f", "--filter", "until=2023-01-01"])
        .ok();
    sandbox
        .mica(["container", "prune", "-f", "--filter", "label!=a"])
        .ok();
    assert_eq!(store.containers().expect("containers").len(), 1);
    let error = sandbox
        .mica(["container", "prune", "-f", "--filter", "x=y"])
        .code(1);
    assert_eq!(
        error.stderr(),
        "Error response from daemon: invalid filter 'x'\n"
    );

    let dry = sandbox
        .mica(["system", "prune", "-a", "--volumes", "--dry-run"])
        .ok()
        .stdout();
    let before = du(&sandbox.store(), &DATA);
    let run = sandbox
        .mica(["system", "prune", "-af", "--volumes"])
        .ok()
        .stdout();
    assert_eq!(run, dry.replace("reclaimable", "reclaimed"));
    assert!(
        run.starts_with(&format!("Deleted Containers:\n{id}\n\nDeleted Volumes:\n")),
        "{run}"
    );
    assert!(run.contains("untagged: kept:1\n"), "{run}");
    let freed = super::pruning::human(before - du(&sandbox.store(), &DATA));
    assert!(run.ends_with(&format!(" {freed}\n")), "{freed} {run}");
    assert!(store.containers().expect("containers").is_empty());
    assert_eq!(sandbox.mica(["images", "-aq"]).ok().stdout(), "");
}

/// A container that does not run, with an anonymous volume.
pub(super) fn stopped_container(sandbox: &Sandbox, name: &str, image_name: &str) {
    let store = Store::open(&sandbox.store(), OpenMode::Existing).expect("the store");
    let anonymous = "6".repeat(64);
    volume(&store, &anonymous, VolumeKind::Persistent, true);
    stopped(&store, name, &image(image_name).id(), &anonymous);
}
