//! Damaged, foreign and newer stores.

use super::*;
use check::{Problem, Role};

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_directory_with_other_things_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("precious"), b"").unwrap();
    let error = Store::open(dir.path(), OpenMode::Create).unwrap_err();
    assert!(matches!(error, StoreError::NotEmpty { .. }), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let error = Store::open(dir.path(), OpenMode::Existing).unwrap_err();
    assert!(matches!(error, StoreError::NotAStore { .. }), "{error}");
}

#[test]
fn a_creation_cut_short_is_completed() {
    let f = Fixture::new();
    fs::remove_file(f.store.layout().meta_json()).unwrap();
    fs::remove_file(f.store.layout().index_json()).unwrap();
    fs::write(f.path().join("index.json.new"), b"{").unwrap();
    let store = Store::open(&f.path(), OpenMode::Create).unwrap();
    import(&store, &[1], &["a"]).unwrap();
    assert!(!f.path().join("index.json.new").exists());
}

#[test]
fn unknown_features_are_obeyed() {
    let f = Fixture::new();
    f.import(&[1], &["a"]);
    let meta = |text: &str| fs::write(f.store.layout().meta_json(), text).unwrap();
    let open = || Store::open(&f.path(), OpenMode::Existing);

    meta(r#"{"format":1,"features":{"compatible":["x"],"later":["y"]},"more":1}"#);
    open().unwrap().lock().unwrap();
    meta(r#"{"format":1,"features":{"read_only_compatible":["x"]}}"#);
    let store = open().unwrap();
    assert!(store.names().unwrap().tags.contains_key(&tag("a")));
    assert!(matches!(store.lock(), Err(StoreError::ReadOnly { .. })));
    assert!(matches!(
        store.begin_import(),
        Err(StoreError::ReadOnly { .. })
    ));
    meta(r#"{"format":1,"features":{"incompatible":["x"]}}"#);
    assert!(matches!(open(), Err(StoreError::TooNew { .. })));
    meta(r#"{"format":2}"#);
    assert!(matches!(open(), Err(StoreError::TooNew { .. })));
    meta("{");
    assert!(matches!(open(), Err(StoreError::MetaDamaged { .. })));
}

#[test]
fn damaged_names_stop_every_change() {
    let f = Fixture::new();
    f.import(&[1], &["a"]);
    let good = fs::read(f.store.layout().index_json()).unwrap();
    for bad in [&b""[..], b"[]", &good[..good.len() - 9]] {
        fs::write(f.store.layout().index_json(), bad).unwrap();
        let before = f.files();
        let error = f.store.names().unwrap_err();
        assert!(error.to_string().contains("mica check"), "{error}");
        let error = import(&f.store, &[2], &["b"]).unwrap_err();
        assert!(matches!(error, StoreError::NamesDamaged { .. }), "{error}");
        let lock = f.store.lock().unwrap();
        assert!(f.store.collect(&lock).is_err());
        drop(lock);
        let found = f.check();
        assert!(matches!(found[0].problem, Problem::NamesDamaged { .. }));
        check::run(&f.store, true).unwrap();
        for file in before {
            assert!(f.files().contains(&file), "{file}");
        }
    }
    fs::write(f.store.layout().index_json(), good).unwrap();
    f.collect();
    assert_eq!(f.check(), []);
}

/// Each blob flipped, cut, emptied and removed: found, and healed by importing again.
#[test]
fn every_damaged_blob_is_found_and_healed_by_importing_again() {
    let f = Fixture::new();
    let id = f.import(&[1, 2], &["a"]);
    let names = f.store.names().unwrap();
    let image = &names.images[&id];
    let blobs = [
        (image.layers[0].0, Role::Layer),
        (id.0, Role::Config),
        (image.manifest.digest, Role::Manifest),
        (image.origins[0].digest, Role::Origin),
    ];
    for (digest, role) in blobs {
        let path = f.store.blob_path(&digest);
        let cut = |len| {
            let file = fs::File::options().write(true).open(&path).unwrap();
            file.set_len(len).unwrap();
        };
        for damage in 0..4 {
            match damage {
                0 => flip(&path),
                1 => cut(5),
                2 => cut(0),
                _ => fs::remove_file(&path).unwrap(),
            }
            let found = f.check();
            let missing = damage == 3;
            assert!(
                found.iter().any(|finding| match &finding.problem {
                    Problem::BlobMissing {
                        digest: d,
                        role: r,
                        images,
                    } => missing && (*d, *r) == (digest, role) && *images == [id],
                    Problem::BlobDamaged {
                        digest: d,
                        role: r,
                        images,
                        ..
                    } => !missing && (*d, *r) == (digest, role) && *images == [id],
                    _ => false,
                }),
                "{role} {damage}: {found:?}"
            );
            let repaired = check::run(&f.store, true).unwrap();
            assert!(
                repaired.iter().all(|finding| !finding.repaired),
                "{repaired:?}"
            );
            f.import(&[1, 2], &["a"]);
            assert_eq!(f.check(), [], "{role} {damage}");
        }
    }
}

#[test]
fn damaged_indexes_are_rebuilt_from_the_tar() {
    let f = Fixture::new();
    f.import(&[1, 2], &["a"]);
    let path = f.store.layout().layer_index(&diff_id(1));
    let good = fs::read(&path).unwrap();
    for damage in 0..3 {
        match damage {
            0 => flip(&path),
            1 => fs::write(&path, b"").unwrap(),
            _ => fs::remove_file(&path).unwrap(),
        }
        if damage > 0 {
            let error = f.store.open_layer(&diff_id(1)).unwrap_err();
            assert!(error.to_string().contains("check --repair"), "{error}");
        }
        let damaged = |found: &[check::Finding]| match found {
            [one] => {
                matches!(&one.problem, Problem::IndexDamaged { layer, .. } if *layer == diff_id(1))
            }
            _ => false,
        };
        let found = f.check();
        assert!(damaged(&found) && !found[0].repaired, "{found:?}");
        let found = check::run(&f.store, true).unwrap();
        assert!(damaged(&found) && found[0].repaired, "{found:?}");
        assert_eq!(fs::read(&path).unwrap(), good);
        assert_eq!(f.check(), []);
    }
}

#[test]
fn a_layer_damaged_and_loaded_again_is_read_from_the_new_file() {
    let f = Fixture::new();
    f.import(&[1], &["a"]);
    let old = f.store.open_layer(&diff_id(1)).unwrap();
    flip(&f.store.blob_path(&diff_id(1).0));
    f.check();
    f.import(&[1], &["a"]);
    let new = f.store.open_layer(&diff_id(1)).unwrap();
    assert!(!Arc::ptr_eq(&old, &new));
    assert_eq!(f.check(), []);
}

#[test]
fn what_dead_processes_left_is_found_and_swept_by_the_next_change() {
    let f = Fixture::new();
    f.import(&[1], &["a"]);
    let clean = f.files();
    let layout = f.store.layout();
    fs::write(layout.leases().join("import-1-2-3.json"), b"{").unwrap();
    fs::write(layout.leases().join("daemon-1-2-3.sock"), b"").unwrap();
    fs::create_dir(layout.tmp().join("import-1-2-3")).unwrap();
    fs::write(layout.tmp().join("import-1-2-3/store.0"), b"half a layer").unwrap();
    fs::write(layout.blob(&diff_id(7).0), tar(7)).unwrap();
    fs::write(layout.layer_index(&diff_id(7)), b"").unwrap();
    fs::write(f.path().join("index.json.new"), b"{").unwrap();
    assert_eq!(f.store.live_leases().unwrap().len(), 0);

    let found = f.check();
    let count = |wanted: fn(&Problem) -> bool| {
        found
            .iter()
            .filter(|finding| wanted(&finding.problem))
            .count()
    };
    assert_eq!(count(|p| matches!(p, Problem::DeadLease { .. })), 1);
    assert_eq!(count(|p| matches!(p, Problem::Leftover { .. })), 3);
    assert_eq!(count(|p| matches!(p, Problem::Unreferenced { .. })), 2);
    assert_eq!(found.len(), 6);
    assert!(found.iter().all(|finding| !finding.is_damage()));

    drop(f.store.lock().unwrap());
    assert_eq!(f.files(), clean);
}

#[test]
fn foreign_files_are_told_and_left() {
    let f = Fixture::new();
    let path = f.store.layout().blobs().join("README");
    fs::write(&path, b"").unwrap();
    let found = check::run(&f.store, true).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].problem, Problem::Foreign { path: path.clone() });
    assert!(path.exists());
}

#[test]
fn a_store_opened_for_reading_is_checked_without_writing() {
    let f = Fixture::new();
    f.import(&[1], &["a"]);
    fs::remove_file(f.store.layout().layer_index(&diff_id(1))).unwrap();
    let before = f.files();
    let store = Store::open(&f.path(), OpenMode::ReadOnly).unwrap();
    let found = check::run(&store, false).unwrap();
    assert!(matches!(found[0].problem, Problem::IndexDamaged { .. }));
    assert!(check::run(&store, true).is_err());
    assert_eq!(f.files(), before);
}
