use std::collections::BTreeMap;
use std::fs;

use super::*;
use crate::oci::{Digest, ImageId};
use crate::store::{OpenMode, Store};

fn record(name: &str) -> ContainerRecord {
    ContainerRecord {
        version: record::VERSION,
        id: ContainerId::random().unwrap(),
        name: name.to_owned(),
        image: ImageId(Digest::of(b"image")),
        image_name: "image:latest".to_owned(),
        layers: vec![crate::oci::DiffId(Digest::of(b"layer"))],
        created: jiff::Timestamp::now(),
        config: ContainerConfig {
            labels: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
            ..ContainerConfig::default()
        },
        mounts: vec![MountUse {
            destination: "/data".into(),
            source: MountSource::Volume {
                name: "data".to_owned(),
                anonymous: false,
                subpath: String::new(),
            },
            read_only: true,
            no_copy: false,
        }],
        auto_remove: false,
        detached: false,
        read_only: false,
        init: false,
        hostname: "h".to_owned(),
        extra_hosts: Vec::new(),
        shm_size: None,
        ulimits: Vec::new(),
        capabilities: vec![0, 1],
        security: Default::default(),
        ids: None,
    }
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("s"), OpenMode::Create).unwrap();
    (dir, store)
}

#[test]
fn a_container_is_read_back_as_it_was_written() {
    let (_dir, store) = store();
    assert_eq!(store.containers().unwrap().len(), 0);
    let record = record("one");
    let lock = store.lock().unwrap();
    let (made, _held) = store.create_container(record.clone(), &lock).unwrap();
    assert!(made.upper().is_dir());
    let found = store.container(&record.id).unwrap().unwrap();
    assert_eq!(found.record, record);
    assert_eq!(found.state, ContainerState::default());
}

#[test]
fn it_runs_as_long_as_it_is_locked() {
    let (_dir, store) = store();
    let record = record("one");
    let lock = store.lock().unwrap();
    let (mut made, held) = store.create_container(record.clone(), &lock).unwrap();
    let started = jiff::Timestamp::now();
    let state = ContainerState {
        status: Status::Running { pid: 1, started },
        ..ContainerState::default()
    };
    made.write_state(state.clone(), &held).unwrap();
    let look = || store.container(&record.id).unwrap().unwrap();
    assert_eq!(look().state, state);
    assert!(look().try_lock().unwrap().is_none());
    drop(held);
    assert!(matches!(
        look().state.status,
        Status::Exited { code: 137, .. }
    ));
    assert!(look().try_lock().unwrap().is_some());
}

#[test]
fn who_waits_learns_the_exit_code_of_what_is_removed() {
    let (_dir, store) = store();
    let started = jiff::Timestamp::now();
    let running = Status::Running { pid: 1, started };
    let exited = Status::Exited {
        code: 42,
        started,
        finished: started,
    };
    // The last one: its supervisor is killed and says nothing.
    for (name, end, code) in [("one", Some(exited), 42), ("two", None, 137)] {
        let (mut made, held) = {
            let lock = store.lock().unwrap();
            store.create_container(record(name), &lock).unwrap()
        };
        let state = |status| ContainerState {
            status,
            ..ContainerState::default()
        };
        made.write_state(state(running), &held).unwrap();
        let seen = store.container(&made.record.id).unwrap().unwrap();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| seen.wait().unwrap());
            // It has the lock file open.
            std::thread::sleep(std::time::Duration::from_millis(100));
            assert!(!waiter.is_finished());
            match end {
                Some(end) => {
                    made.write_state(state(end), &held).unwrap();
                    store.remove_container(&made, held).unwrap();
                }
                None => drop(held),
            }
            assert_eq!(waiter.join().unwrap(), Some(code));
        });
    }
}

#[test]
fn it_keeps_its_image_running_or_not() {
    let (_dir, store) = store();
    let record = record("one");
    let lock = store.lock().unwrap();
    let (_, held) = store.create_container(record.clone(), &lock).unwrap();
    drop(held);
    let leases = store.live_leases().unwrap();
    let [lease] = leases.as_slice() else {
        panic!("{leases:?}")
    };
    assert!(lease.held.contains(&record.layers[0].0));
    assert!(lease.held.contains(&record.image.0));
}

#[test]
fn what_is_not_a_container_is_none() {
    let (_dir, store) = store();
    let id = ContainerId::random().unwrap();
    fs::create_dir_all(store.layout().containers().join(id.as_str())).unwrap();
    fs::create_dir_all(store.layout().containers().join("other")).unwrap();
    assert_eq!(store.containers().unwrap().len(), 0);
    fs::write(
        store.layout().containers().join(id.as_str()).join(CONFIG),
        "{",
    )
    .unwrap();
    assert!(matches!(
        store.containers(),
        Err(StoreError::MetaDamaged { .. })
    ));
}
