use std::fs;
use std::process::{Child, Command};

use crate::ops::volume::ephemeral::{Times, sweep};
use crate::ops::volume::list::{Filters, Verb};
use crate::ops::volume::*;
use crate::store::{LeaseKind, OpenMode, VolumeNameError};

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store"), OpenMode::Create).unwrap();
    (dir, store)
}

fn name(text: &str) -> VolumeName {
    VolumeName::parse(text).unwrap()
}

fn make(store: &Store, text: &str, kind: CreateKind) -> Volume {
    create(store, &Create::new(Some(name(text)), kind)).unwrap()
}

fn bind(source: &Path) -> CreateKind {
    CreateKind::Bind {
        source: source.to_owned(),
        read_only: false,
    }
}

#[test]
fn creating_again_is_no_error_and_another_kind_is() {
    let (dir, store) = store();
    let data = make(&store, "data", CreateKind::Persistent);
    assert_eq!(make(&store, "data", CreateKind::Persistent), data);
    let again = Create::new(Some(name("data")), CreateKind::Ephemeral);
    let error = create(&store, &again).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("create data: volume name must be unique"),
        "{error}"
    );
    assert!(matches!(
        create_new(
            &store,
            &Create::new(Some(name("data")), CreateKind::Persistent)
        ),
        Err(VolumeError::Store(StoreError::VolumeExists(_)))
    ));
    make(&store, "host", bind(dir.path()));
    make(&store, "host", bind(dir.path()));
    let other = Create::new(Some(name("host")), bind(Path::new("/etc")));
    assert!(matches!(
        create(&store, &other),
        Err(VolumeError::Conflict { .. })
    ));
    let anonymous = create(&store, &Create::new(None, CreateKind::Ephemeral)).unwrap();
    assert!(anonymous.anonymous && anonymous.name.as_str().len() == 64);
    assert!(matches!(
        VolumeName::parse("x/y"),
        Err(VolumeNameError::Characters(_))
    ));
}

#[test]
fn binds_are_checked() {
    let (dir, store) = store();
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    let made = make(&store, "file", bind(&file));
    assert!(matches!(made.kind, VolumeKind::Bind { file: true, .. }));
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(store.path(), &link).unwrap();
    let mount = dir.path().join("mount");
    fs::create_dir_all(mount.join("images")).unwrap();
    let _lease = store
        .lease(LeaseKind::Daemon {
            mountpoint: mount.clone(),
        })
        .unwrap();
    let table = [
        (dir.path().join("none"), "does not exist"),
        (file.join("x"), "does not exist"),
        ("relative".into(), "must be absolute"),
        ("/dev/null".into(), "neither a directory nor a file"),
        (store.path().join("blobs"), "inside the store"),
        (link, "inside the store"),
        (mount.join("images"), "inside a mount of mica"),
    ];
    for (source, expected) in table {
        let new = Create::new(Some(name("bad")), bind(&source));
        let error = create(&store, &new).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(store.volumes().unwrap().len(), 1);
}

#[test]
fn a_used_volume_is_neither_removed_nor_renamed() {
    let (_dir, store) = store();
    let data = make(&store, "data", CreateKind::Persistent);
    let child = Command::new("sleep")
        .arg("60")
        .current_dir(store.volume_root(&data))
        .spawn()
        .unwrap();
    let child = Killed(child);
    let removal = Removal::default();
    let error = remove(&store, &data.name, &removal, &|| {}).unwrap_err();
    let expected = format!("remove data: volume is in use - [{}]", child.0.id());
    assert_eq!(error.to_string(), expected);
    let error = rename(&store, &data.name, &name("other"), &removal).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("rename data: volume is in use"),
        "{error}"
    );
    let pruned = prune::prune(
        &store,
        &prune::Options {
            all: true,
            ..Default::default()
        },
        None,
        &|| {},
    );
    assert_eq!(pruned.unwrap().volumes, []);
    drop(child);

    rename(&store, &data.name, &name("other"), &removal).unwrap();
    make(&store, "third", CreateKind::Persistent);
    let taken = rename(&store, &name("other"), &name("third"), &removal);
    assert!(matches!(
        taken,
        Err(VolumeError::Store(StoreError::VolumeExists(_)))
    ));
    fs::write(store.volume_root(&data).join("f"), "x").unwrap();
    let empty = Removal {
        only_empty: true,
        ..removal
    };
    let full = remove(&store, &name("other"), &empty, &|| {});
    assert!(matches!(full, Err(VolumeError::NotEmpty(_))));
    let told = std::cell::Cell::new(false);
    remove(&store, &name("other"), &removal, &|| {
        assert!(store.volume_root(&data).join("f").exists());
        told.set(true);
    })
    .unwrap();
    assert!(told.get());
    assert!(!store.layout().volume(&data.id).exists());
    let missing = remove(&store, &name("other"), &removal, &|| {}).unwrap_err();
    assert_eq!(missing.to_string(), "get other: no such volume");
}

#[test]
fn a_lease_is_a_user() {
    let (_dir, store) = store();
    let data = make(&store, "data", CreateKind::Persistent);
    let lease = store
        .lease_volumes(std::slice::from_ref(&data.name))
        .unwrap();
    let error = remove(&store, &data.name, &Removal::default(), &|| {}).unwrap_err();
    let expected = format!("remove data: volume is in use - [{}]", std::process::id());
    assert_eq!(error.to_string(), expected);
    drop(lease);
    remove(&store, &data.name, &Removal::default(), &|| {}).unwrap();
}

/// Whoever has just closed a file in it may still count as a user: `rmdir` says the same at once and a moment later.
#[test]
fn regression_rmdir_of_a_full_volume_says_so_whoever_uses_it() {
    let (_dir, store) = store();
    let data = make(&store, "data", CreateKind::Persistent);
    fs::write(store.volume_root(&data).join("f"), "x").unwrap();
    let removal = Removal {
        only_empty: true,
        open_files: 1,
        ..Removal::default()
    };
    let full = remove(&store, &data.name, &removal, &|| {});
    assert!(matches!(full, Err(VolumeError::NotEmpty(_))), "{full:?}");
}

#[test]
fn removing_a_bind_leaves_the_host_alone() {
    let (dir, store) = store();
    let source = dir.path().join("src");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("f"), "x").unwrap();
    make(&store, "host", bind(&source));
    let empty = Removal {
        only_empty: true,
        ..Removal::default()
    };
    remove(&store, &name("host"), &empty, &|| {}).unwrap();
    assert!(source.join("f").exists());
    assert!(store.volumes().unwrap().is_empty());
    let error = {
        make(&store, "host", bind(&source));
        demote(&store, &name("host")).unwrap_err()
    };
    assert!(matches!(error, VolumeError::BindHasNoLife(_)));
}

/// Without a daemon the verbs look, and never count time that nobody has watched.
#[test]
fn a_sweep_ends_ephemeral_volumes_and_only_those() {
    let (_dir, store) = store();
    let hour = std::time::Duration::from_secs(3600);
    let now = std::time::Duration::ZERO;
    let times = |wait, linger| Times { wait, linger };
    let none: Vec<VolumeName> = Vec::new();
    make(&store, "kept", CreateKind::Persistent);
    make(&store, "promoted", CreateKind::Ephemeral);
    keep(&store, &name("promoted")).unwrap();
    let unused = make(&store, "unused", CreateKind::Ephemeral);
    let used = make(&store, "used", CreateKind::Ephemeral);
    let lease = store
        .lease_volumes(std::slice::from_ref(&used.name))
        .unwrap();
    assert_eq!(sweep(&store, times(hour, now)).unwrap(), none);
    assert_eq!(
        sweep(&store, times(now, hour)).unwrap(),
        std::slice::from_ref(&unused.name)
    );
    assert!(!store.layout().volume(&unused.id).exists());
    drop(lease);
    // The first look that finds nobody begins the time.
    assert_eq!(sweep(&store, times(now, now)).unwrap(), none);
    let child = Command::new("sleep")
        .arg("60")
        .current_dir(store.volume_root(&used))
        .spawn()
        .unwrap();
    let child = Killed(child);
    assert_eq!(sweep(&store, times(now, now)).unwrap(), none);
    drop(child);
    assert_eq!(sweep(&store, times(now, now)).unwrap(), none);
    assert_eq!(sweep(&store, times(now, hour)).unwrap(), none);
    assert_eq!(
        sweep(&store, times(now, now)).unwrap(),
        std::slice::from_ref(&used.name)
    );
    let left: Vec<_> = store
        .volumes()
        .unwrap()
        .into_iter()
        .map(|v| v.name)
        .collect();
    assert_eq!(left, [name("kept"), name("promoted")]);
    assert_eq!(fs::read_dir(store.layout().volumes()).unwrap().count(), 2);
}

#[test]
fn who_comes_at_the_last_moment_gets_the_volume_back() {
    let (_dir, store) = store();
    let volume = make(&store, "late", CreateKind::Ephemeral);
    fs::write(store.volume_root(&volume).join("f"), "x").unwrap();
    let late = std::cell::RefCell::new(None);
    let ended = crate::ops::volume::ephemeral::evaporate(
        &store,
        std::slice::from_ref(&volume),
        None,
        &|| {
            let mut late = late.borrow_mut();
            if late.is_none() {
                let file = fs::File::open(store.volume_root(&volume).join("f")).unwrap();
                let child = Command::new("sleep").arg("60").stdin(file).spawn().unwrap();
                *late = Some(Killed(child));
            }
        },
    );
    assert!(ended.unwrap().is_empty());
    assert_eq!(store.volume(&volume.name).unwrap().unwrap().id, volume.id);
    assert!(store.volume_root(&volume).join("f").exists());
    drop(late);
    let ended = crate::ops::volume::ephemeral::evaporate(
        &store,
        std::slice::from_ref(&volume),
        None,
        &|| {},
    );
    assert_eq!(ended.unwrap().len(), 1);
}

#[test]
fn filters_choose_volumes() {
    let (dir, store) = store();
    for number in [10, 9, 1] {
        make(&store, &format!("vol{number}"), CreateKind::Persistent);
    }
    let mut labelled = Create::new(Some(name("eph")), CreateKind::Ephemeral);
    labelled.labels.insert("env".to_owned(), "test".to_owned());
    create(&store, &labelled).unwrap();
    make(&store, "host", bind(dir.path()));
    let chosen = |filters: &[(&str, &str)]| -> Vec<String> {
        let given: Vec<_> = filters
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let filters = Filters::parse(&given, Verb::Ls).unwrap();
        let users = crate::ops::usage::volumes::VolumeUsers::default();
        let rows = list::list(&store, &filters, Some(&users), false).unwrap();
        rows.into_iter()
            .map(|row| row.volume.name.to_string())
            .collect()
    };
    assert_eq!(chosen(&[]), ["eph", "host", "vol1", "vol9", "vol10"]);
    assert_eq!(chosen(&[("name", "ol1")]), ["vol1", "vol10"]);
    assert_eq!(chosen(&[("label", "env")]), ["eph"]);
    assert_eq!(chosen(&[("label", "env=prod")]), [""; 0]);
    assert_eq!(
        chosen(&[("kind", "bind"), ("kind", "ephemeral")]),
        ["eph", "host"]
    );
    assert_eq!(chosen(&[("driver", "nfs")]), [""; 0]);
    assert_eq!(chosen(&[("dangling", "true")]).len(), 5);
    assert_eq!(chosen(&[("dangling", "false")]).len(), 0);
    for bad in [("dangling", "maybe"), ("until", "1h"), ("kind", "tape")] {
        let given = [(bad.0.to_owned(), bad.1.to_owned())];
        assert!(Filters::parse(&given, Verb::Ls).is_err());
    }
}

/// Who comes at the last moment finds the files, whatever other verbs clear away meanwhile.
#[test]
fn regression_who_comes_at_the_last_moment_keeps_the_data() {
    let (_dir, store) = store();
    let volume = make(&store, "shared", CreateKind::Ephemeral);
    let file = store.volume_root(&volume).join("file");
    std::fs::write(&file, "data").unwrap();
    let there = std::cell::RefCell::new(None);
    let come = || {
        store.delete_removed_volumes().unwrap();
        let mut there = there.borrow_mut();
        if there.is_none()
            && let Ok(open) = fs::File::open(&file)
        {
            let child = Command::new("sleep").arg("60").stdin(open).spawn().unwrap();
            *there = Some(Killed(child));
        }
    };
    let ended = crate::ops::volume::ephemeral::evaporate(
        &store,
        std::slice::from_ref(&volume),
        None,
        &come,
    )
    .unwrap();
    assert_eq!(ended, []);
    assert_eq!(std::fs::read(&file).unwrap(), b"data");
    assert_eq!(store.volumes().unwrap(), std::slice::from_ref(&volume));
    // The same for a removal that somebody has asked for.
    drop(there.take());
    let removed = remove(&store, &volume.name, &Removal::default(), &come);
    assert!(
        matches!(removed, Err(VolumeError::InUse { .. })),
        "{removed:?}"
    );
    assert_eq!(std::fs::read(&file).unwrap(), b"data");
    drop(there.take());
    remove(&store, &volume.name, &Removal::default(), &|| {}).unwrap();
    assert!(!file.exists());
}
