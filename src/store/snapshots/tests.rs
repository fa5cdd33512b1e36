use std::fs;

use super::log::SLACK;
use super::*;
use crate::oci::{DiffId, Digest};
use crate::store::OpenMode;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store"), OpenMode::Create).unwrap();
    (dir, store)
}

fn snapshot(name: &str, parent: Option<&str>, number: u64) -> Snapshot {
    Snapshot {
        name: name.to_owned(),
        parent: parent.map(str::to_owned),
        kind: SnapshotKind::Committed,
        number,
        chain: None,
        created: Timestamp::UNIX_EPOCH,
        updated: Timestamp::UNIX_EPOCH,
        labels: BTreeMap::new(),
        usage: None,
    }
}

fn put(snapshot: Snapshot) -> Change {
    Change::Put(Box::new(snapshot))
}

fn chain(layers: &[&str]) -> ChainId {
    let layers: Vec<DiffId> = layers
        .iter()
        .map(|text| DiffId(Digest::of(text.as_bytes())))
        .collect();
    *ChainId::chain(&layers).last().unwrap()
}

#[test]
fn what_was_changed_is_there_when_it_is_opened_again() {
    let (_dir, store) = store();
    let mut log = store.snapshot_log().unwrap().unwrap();
    assert!(store.snapshot_log().unwrap().is_none(), "one at a time");
    log.change(vec![put(snapshot("a", None, 0))]).unwrap();
    log.change(vec![put(snapshot("b\n", Some("a"), 1))])
        .unwrap();
    // Together: the name of an active snapshot becomes another.
    let both = vec![
        Change::Remove("b\n".to_owned()),
        put(snapshot("c", Some("a"), 1)),
    ];
    log.change(both).unwrap();
    let before = log.snapshots().clone();
    assert_eq!(before.next(), 2);
    let children: Vec<_> = before.children("a").map(|s| s.name.as_str()).collect();
    assert_eq!(children, ["c"]);
    drop(log);
    assert_eq!(store.snapshots().unwrap(), before);
    assert_eq!(*store.snapshot_log().unwrap().unwrap().snapshots(), before);
}

/// At each length that a crash can leave: what was acknowledged is there, what was not is not, and new lines can be written.
#[test]
fn a_line_cut_short_anywhere_counts_as_not_written() {
    let (_dir, store) = store();
    let mut log = store.snapshot_log().unwrap().unwrap();
    log.change(vec![put(snapshot("a", None, 0))]).unwrap();
    let path = store.path().join("snapshots/log");
    let first = fs::read(&path).unwrap();
    log.change(vec![put(snapshot("b", Some("a"), 1))]).unwrap();
    drop(log);
    let both = fs::read(&path).unwrap();
    for length in first.len()..both.len() {
        for tail in [&both[first.len()..length], &vec![0; length - first.len()]] {
            fs::write(&path, [&first, tail].concat()).unwrap();
            assert_eq!(store.snapshots().unwrap().len(), 1, "{length}");
            let mut log = store.snapshot_log().unwrap().unwrap();
            log.change(vec![put(snapshot("c", Some("a"), 2))]).unwrap();
            drop(log);
            assert_eq!(store.snapshots().unwrap().len(), 2, "{length}");
        }
    }
    // In the middle it is damage: neither opened nor passed over.
    for at in [0, 10, 20, first.len() - 2] {
        let mut bytes = both.clone();
        bytes[at] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(store.snapshots().is_err(), "{at}");
        assert!(store.snapshot_log().is_err(), "{at}");
        assert!(store.live_leases().is_err(), "{at}");
        assert_eq!(faults(store.layout(), |_| true).unwrap().len(), 1);
    }
}

#[test]
fn a_long_log_is_written_anew_and_numbers_are_never_given_twice() {
    let (_dir, store) = store();
    let mut log = store.snapshot_log().unwrap().unwrap();
    log.change(vec![put(snapshot("kept", None, 0))]).unwrap();
    let longest = u64::try_from(2 * SLACK).unwrap();
    for number in 1..longest {
        let name = number.to_string();
        log.change(vec![put(snapshot(&name, Some("kept"), number))])
            .unwrap();
        log.change(vec![Change::Remove(name)]).unwrap();
    }
    let lines = fs::read_to_string(store.path().join("snapshots/log")).unwrap();
    assert!(lines.lines().count() < SLACK + 3);
    assert_eq!(log.snapshots().next(), longest);
    drop(log);
    let log = store.snapshot_log().unwrap().unwrap();
    assert_eq!(
        (log.snapshots().len(), log.snapshots().next()),
        (1, longest)
    );
    assert!(
        store.snapshot_log().unwrap().is_none(),
        "still one at a time"
    );
}

#[test]
fn directories_of_no_snapshot_go_and_others_stay() {
    let (_dir, store) = store();
    let mut log = store.snapshot_log().unwrap().unwrap();
    let kept = log.make_directories(0).unwrap();
    log.change(vec![put(snapshot("a", None, 0))]).unwrap();
    let left = log.make_directories(1).unwrap();
    fs::write(left.join("fs/file"), "x").unwrap();
    let foreign = store.path().join("snapshots/notes");
    fs::write(&foreign, "mine").unwrap();
    drop(log);
    drop(store.snapshot_log().unwrap().unwrap());
    assert!(kept.join("work").exists() && !left.exists() && foreign.exists());
    fs::remove_dir(kept.join("fs")).unwrap();
    assert_eq!(faults(store.layout(), |_| true).unwrap().len(), 1);
}

/// Whoever stands on layers of the store keeps them: the ends of what containerd has, by the names that it has there.
#[test]
fn the_ends_of_chains_are_users() {
    let (_dir, store) = store();
    let mut log = store.snapshot_log().unwrap().unwrap();
    let of_store = |name: &str, parent, number, layers: &[&str]| {
        put(Snapshot {
            chain: Some(chain(layers)),
            ..snapshot(name, parent, number)
        })
    };
    log.change(vec![
        of_store("one", None, 0, &["1"]),
        of_store("two", Some("one"), 1, &["1", "2"]),
        of_store("three", Some("two"), 2, &["1", "2", "3"]),
        put(snapshot("own", Some("two"), 3)),
        put(snapshot("private", None, 4)),
    ])
    .unwrap();
    let mut users = store.snapshots().unwrap().users();
    users.sort_by(|a, b| a.1.cmp(&b.1));
    let expected = [
        (chain(&["1", "2"]), "own".to_owned()),
        (chain(&["1", "2", "3"]), "three".to_owned()),
    ];
    assert_eq!(users, expected);
    let leases = store.live_leases().unwrap();
    assert_eq!(leases.len(), 2);
    let names: Vec<_> = log.snapshots().chain("own").map(|s| &s.name).collect();
    assert_eq!(names, ["own", "two", "one"]);
    let missing = faults(store.layout(), |known| *known != chain(&["1", "2", "3"])).unwrap();
    // Two private ones without directories, and a chain that no image has.
    assert_eq!(missing.len(), 3, "{missing:?}");
}
