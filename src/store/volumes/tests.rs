use super::*;
use crate::store::LeaseKind;
use crate::store::OpenMode;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store"), OpenMode::Create).unwrap();
    (dir, store)
}

fn name(text: &str) -> VolumeName {
    VolumeName::parse(text).unwrap()
}

fn new(text: &str, kind: VolumeKind) -> NewVolume {
    NewVolume {
        name: name(text),
        kind,
        labels: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
        anonymous: false,
        ownership: None,
    }
}

#[test]
fn a_volume_lives_through_reopening_renaming_and_removal() {
    let (_dir, store) = store();
    assert_eq!(store.volumes().unwrap(), []);
    let lock = store.lock().unwrap();
    let made = store
        .create_volume(&lock, new("data", VolumeKind::Persistent))
        .unwrap();
    fs::write(store.volume_root(&made).join("f"), "x").unwrap();
    let taken = store.create_volume(&lock, new("data", VolumeKind::ephemeral()));
    assert!(matches!(taken, Err(StoreError::VolumeExists(_))));
    drop(lock);

    let other = Store::open(store.path(), OpenMode::Existing).unwrap();
    assert_eq!(other.volume(&name("data")).unwrap(), Some(made.clone()));
    let lock = other.lock().unwrap();
    other
        .rename_volume(&lock, &name("data"), &name("files"))
        .unwrap();
    let renamed = store.volume(&name("files")).unwrap().unwrap();
    assert_eq!(store.volume_root(&renamed), store.volume_root(&made));
    assert_eq!(store.volume(&name("data")).unwrap(), None);

    let removed = store.remove_volume(&lock, &name("files")).unwrap();
    assert!(store.volume_root(&removed).join("f").exists());
    drop(lock);
    store.delete_volume_data(&removed).unwrap();
    assert_eq!(fs::read_dir(store.layout().volumes()).unwrap().count(), 0);
}

#[test]
fn data_is_deleted_only_of_a_removed_volume() {
    let (_dir, store) = store();
    let lock = store.lock().unwrap();
    let volume = store
        .create_volume(&lock, new("data", VolumeKind::ephemeral()))
        .unwrap();
    store.delete_volume_data(&volume).unwrap();
    assert!(store.volume_root(&volume).is_dir());
    let removed = store.remove_volume(&lock, &volume.name).unwrap();
    store.restore_volume(&lock, removed.clone()).unwrap();
    store.delete_volume_data(&removed).unwrap();
    assert!(store.volume_root(&volume).is_dir());
    assert_eq!(store.volumes().unwrap(), std::slice::from_ref(&volume));

    // A remover that died: the next one finds what to delete in the file, not by guessing.
    store.remove_volume(&lock, &volume.name).unwrap();
    fs::create_dir(store.layout().volumes().join("0".repeat(32))).unwrap();
    store.delete_removed_volumes().unwrap();
    assert!(!store.volume_root(&volume).exists());
    assert_eq!(store.stray_volumes().unwrap().len(), 1);
}

#[test]
fn data_that_its_owner_locked_away_is_deleted() {
    use std::os::unix::fs::PermissionsExt as _;
    let (_dir, store) = store();
    let lock = store.lock().unwrap();
    let volume = store
        .create_volume(&lock, new("data", VolumeKind::Persistent))
        .unwrap();
    let inner = store.volume_root(&volume).join("a/b");
    fs::create_dir_all(&inner).unwrap();
    for dir in [inner.as_path(), inner.parent().unwrap()] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o0)).unwrap();
    }
    let removed = store.remove_volume(&lock, &volume.name).unwrap();
    store.delete_volume_data(&removed).unwrap();
    assert!(!store.layout().volume(&volume.id).exists());
}

/// As a mica wrote it that knew no checksum.
fn without_sum(text: &str) -> String {
    let (sum, rest) = text.split_once(',').unwrap();
    assert!(sum.contains("\"sum\""), "{sum}");
    format!("{{{rest}")
}

#[test]
fn regression_every_flip_is_noticed() {
    let (_dir, store) = store();
    let lock = store.lock().unwrap();
    let bind = VolumeKind::Bind {
        source: PathBuf::from("/tmp"),
        read_only: false,
        file: false,
    };
    store.create_volume(&lock, new("www", bind)).unwrap();
    let good = fs::read(store.layout().volumes_json()).unwrap();
    let volumes = json::parse(&good).unwrap();
    for position in 0..good.len() {
        for bit in [1, 2, 0x20] {
            let mut bad = good.clone();
            bad[position] ^= bit;
            let read = json::parse(&bad);
            assert!(read.is_err(), "{}", String::from_utf8_lossy(&bad));
        }
    }
    // What an older mica has written: at best with the key behind all others, where it says nothing.
    let older = without_sum(&String::from_utf8(good).unwrap());
    assert_eq!(json::parse(older.as_bytes()).unwrap(), volumes);
    let behind = older.trim_end().strip_suffix('}').unwrap();
    let behind = format!("{}, \"sum\": \"0123456789abcdef\"\n}}\n", behind.trim_end());
    assert_eq!(json::parse(behind.as_bytes()).unwrap(), volumes);
}

#[test]
fn unknown_keys_are_kept_and_damage_is_refused() {
    let (_dir, store) = store();
    let lock = store.lock().unwrap();
    let source = PathBuf::from("/etc/hosts");
    let bind = VolumeKind::Bind {
        source,
        read_only: true,
        file: true,
    };
    store.create_volume(&lock, new("hosts", bind)).unwrap();
    let path = store.layout().volumes_json();
    let text = without_sum(&fs::read_to_string(&path).unwrap());
    let later = text
        .replacen("\"name\"", "\"colour\": \"red\", \"name\"", 1)
        .replacen("\"format\"", "\"later\": [1], \"format\"", 1);
    fs::write(&path, &later).unwrap();
    store
        .rename_volume(&lock, &name("hosts"), &name("other"))
        .unwrap();
    let kept = without_sum(&fs::read_to_string(&path).unwrap());
    assert!(kept.contains("colour") && kept.contains("later"), "{kept}");

    let entry = kept.find("{\n      \"name\"").unwrap();
    let end = kept.rfind("    }").unwrap() + 5;
    let twice = format!("{},{}", &kept[..end], &kept[entry..]);
    for damaged in [
        "",
        "{}",
        &kept[..kept.len() / 2],
        &twice,
        &kept.replace("\"bind\"", "\"tape\""),
        &kept.replace("\"other\"", "\"../x\""),
        &kept.replace("/etc/hosts", "etc/hosts"),
        &kept.replace("\"format\": 1", "\"format\": 2"),
    ] {
        fs::write(&path, damaged).unwrap();
        let error = store.volumes().unwrap_err();
        assert!(
            matches!(error, StoreError::VolumesDamaged { .. }),
            "{error}: {damaged}"
        );
        let refused = store.create_volume(&lock, new("more", VolumeKind::Persistent));
        assert!(matches!(refused, Err(StoreError::VolumesDamaged { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), damaged);
    }
}

#[test]
fn a_lease_needs_its_volumes_and_marks_them_used() {
    let (_dir, store) = store();
    let lock = store.lock().unwrap();
    store
        .create_volume(&lock, new("data", VolumeKind::ephemeral()))
        .unwrap();
    drop(lock);
    let missing = store.lease_volumes(&[name("data"), name("none")]);
    assert!(matches!(missing, Err(StoreError::NoSuchVolume(_))));
    assert_eq!(store.live_leases().unwrap().len(), 0);
    let lease = store.lease_volumes(&[name("data")]).unwrap();
    let live = store.live_leases().unwrap();
    let volumes = vec![name("data")];
    assert_eq!(live[0].record.kind, LeaseKind::Volume { volumes });
    let kind = store.volume(&name("data")).unwrap().unwrap().kind;
    assert!(matches!(kind, VolumeKind::Ephemeral { used: true, .. }));
    drop(lease);
    assert_eq!(store.live_leases().unwrap().len(), 0);
}

#[test]
fn check_finds_what_volumes_have_lost() {
    use crate::store::check::{self, Problem};
    let (_dir, store) = store();
    let lock = store.lock().unwrap();
    let volume = store
        .create_volume(&lock, new("data", VolumeKind::Persistent))
        .unwrap();
    drop(lock);
    let problems = || -> Vec<Problem> {
        let found = check::run(&store, true).unwrap();
        found.into_iter().map(|finding| finding.problem).collect()
    };
    assert_eq!(problems(), []);
    let path = store.volume_root(&volume);
    fs::remove_dir(&path).unwrap();
    let stray = store.layout().volumes().join("0".repeat(32));
    fs::create_dir(&stray).unwrap();
    let name = volume.name;
    let expected = [
        Problem::VolumeMissing { name, path },
        Problem::VolumeStray {
            path: stray.clone(),
        },
    ];
    assert_eq!(problems(), expected);
    assert!(stray.is_dir());
    fs::write(store.layout().volumes_json(), "{").unwrap();
    assert!(matches!(problems()[..], [Problem::VolumesDamaged { .. }]));
}

#[test]
fn many_are_made_at_once_or_none() {
    let (_dir, store) = store();
    let lock = store.lock().unwrap();
    let many = |from: u32, to: u32| {
        let names = (from..to).map(|number| new(&format!("v{number}"), VolumeKind::Persistent));
        store.create_volumes(&lock, names.collect())
    };
    assert_eq!(many(0, 100).unwrap().len(), 100);
    let taken = many(99, 200).unwrap_err();
    assert!(matches!(taken, StoreError::VolumeExists(_)), "{taken}");
    let twice = store.create_volumes(
        &lock,
        vec![
            new("twice", VolumeKind::Persistent),
            new("twice", VolumeKind::Persistent),
        ],
    );
    assert!(matches!(twice, Err(StoreError::VolumeExists(_))));
    assert_eq!(store.volumes().unwrap().len(), 100);
    assert_eq!(fs::read_dir(store.layout().volumes()).unwrap().count(), 100);
    assert_eq!(store.stray_volumes().unwrap(), Vec::<PathBuf>::new());
}

#[test]
fn one_that_has_ended_is_remembered_for_a_while() {
    let (_dir, store) = store();
    let lock = store.lock().unwrap();
    let gone = || store.check_not_ended(&name("gone")).is_err();
    let make = || {
        store
            .create_volume(&lock, new("gone", VolumeKind::ephemeral()))
            .unwrap()
    };
    make();
    store.end_volumes(&lock, &[name("gone")]).unwrap();
    assert!(gone());
    let other = Store::open(store.path(), OpenMode::Existing).unwrap();
    assert!(other.check_not_ended(&name("gone")).is_err());
    make();
    assert!(!gone());
    store.remove_volume(&lock, &name("gone")).unwrap();
    assert!(!gone(), "somebody removed it");
    make();
    let removed = store.end_volumes(&lock, &[name("gone")]).unwrap();
    let removed = removed.into_iter().next().unwrap();
    store.restore_volume(&lock, removed).unwrap();
    assert!(!gone());
}
