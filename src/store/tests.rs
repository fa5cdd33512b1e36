//! A store on a real directory, from the outside.

mod damage;
#[path = "../../tests/store/made.rs"]
mod made;
mod model;
mod names;

use std::io::Write as _;
use std::path::Path;

use self::made::{config, diff_id, import, layer_tar as tar, put_layer, tag, write_layer};
use super::*;

/// A store in a directory that goes with it.
struct Fixture {
    store: Store,
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Fixture {
        // In memory: what is tested is the logic, not the disk.
        let memory = Path::new("/dev/shm");
        let dir = match memory.is_dir() {
            true => tempfile::tempdir_in(memory).unwrap(),
            false => tempfile::tempdir().unwrap(),
        };
        let store = Store::open(&dir.path().join("store"), OpenMode::Create).unwrap();
        Fixture { store, dir }
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("store")
    }

    /// Imports an image of the given layers under the given tags.
    fn import(&self, layers: &[u32], tags: &[&str]) -> ImageId {
        import(&self.store, layers, tags).unwrap()
    }

    fn untag(&self, name: &str) -> Untagged {
        let lock = self.store.lock().unwrap();
        self.store
            .change(&lock, |names| names.untag(&tag(name)))
            .unwrap()
    }

    fn collect(&self) -> GcPlan {
        let lock = self.store.lock().unwrap();
        self.store.collect(&lock).unwrap()
    }

    /// Every file of the store but the reserve, with its size, sorted.
    fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        list(&self.path(), &mut found);
        found.retain(|file| !file.contains("/reserve ") && !file.contains("/events.log "));
        found.sort();
        found
    }

    fn check(&self) -> Vec<check::Finding> {
        check::run(&self.store, false).unwrap()
    }
}

fn list(dir: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            list(&entry.path(), found);
        } else {
            found.push(format!(
                "{} {}",
                entry.path().display(),
                entry.metadata().unwrap().len()
            ));
        }
    }
}

#[test]
fn an_imported_image_is_whole_and_found_again() {
    let f = Fixture::new();
    let id = f.import(&[1, 2], &["nginx:1", "org/app"]);
    let again = Store::open(&f.path(), OpenMode::ReadOnly).unwrap();
    let names = again.names().unwrap();
    let image = &names.images[&id];
    assert_eq!(image.layers, [diff_id(1), diff_id(2)]);
    assert_eq!(
        image.created.unwrap().to_string(),
        "2024-05-06T07:08:09.123456789Z"
    );
    assert_eq!(image.size, 2 * tarred_content());
    assert_eq!(names.tags[&tag("org/app:latest")].id, id);
    assert_eq!(again.config(&id).unwrap().bytes, config(&[1, 2]).bytes);
    assert_eq!(
        again.blob(&image.origins[0].digest).unwrap(),
        b"the manifest of [1, 2]"
    );
    assert_eq!(f.check(), []);
    assert_eq!(
        *f.store.names().unwrap(),
        *names,
        "what was committed is what is read"
    );
}

fn tarred_content() -> u64 {
    let index = Fixture::new();
    index.import(&[1], &[]);
    index.store.layer_index(&diff_id(1)).unwrap().content_size()
}

#[test]
fn an_import_dropped_leaves_nothing() {
    let f = Fixture::new();
    let before = f.files();
    let import = f.store.begin_import().unwrap();
    put_layer(&import, 1).unwrap();
    let mut sink = import.new_layer().unwrap();
    sink.write_all(&vec![0; 3 << 20]).unwrap();
    drop(sink);
    assert_ne!(f.files(), before);
    drop(import);
    assert_eq!(f.files(), before);
}

#[test]
fn an_import_with_the_wrong_layers_is_refused_and_leaves_nothing() {
    let f = Fixture::new();
    let before = f.files();
    let import = f.store.begin_import().unwrap();
    put_layer(&import, 1).unwrap();
    let image = NewImage {
        config: config(&[1, 2]),
        layers: vec![diff_id(1)],
        tags: vec![tag("a")],
        origins: vec![],
    };
    let error = import.commit(vec![image]).unwrap_err();
    assert!(
        matches!(error, StoreError::LayersDisagree { .. }),
        "{error}"
    );
    assert_eq!(f.files(), before);
}

#[test]
fn an_import_without_one_of_its_layers_is_refused_and_leaves_nothing() {
    let f = Fixture::new();
    let before = f.files();
    let import = f.store.begin_import().unwrap();
    put_layer(&import, 1).unwrap();
    let image = NewImage {
        config: config(&[1, 2]),
        layers: vec![diff_id(1), diff_id(2)],
        tags: vec![tag("a")],
        origins: vec![],
    };
    let error = import.commit(vec![image]).unwrap_err();
    assert!(
        matches!(error, StoreError::LayerMissing(layer) if layer == diff_id(2)),
        "{error}"
    );
    assert_eq!(f.files(), before);
}

#[test]
fn a_layer_found_there_is_kept_from_collection_by_the_import() {
    let f = Fixture::new();
    let id = f.import(&[1], &["a"]);
    let import = f.store.begin_import().unwrap();
    assert!(import.has_layer(&diff_id(1)).unwrap());
    assert!(!import.has_layer(&diff_id(9)).unwrap());
    f.untag("a");
    let lock = f.store.lock().unwrap();
    f.store
        .change(&lock, |names| names.delete_image(&id))
        .unwrap();
    let plan = f.store.collect(&lock).unwrap();
    drop(lock);
    assert!(!plan.blobs.contains(&diff_id(1).0));
    assert!(import.has_layer(&diff_id(1)).unwrap());
    drop(import);
    assert_eq!(f.collect().blobs, [diff_id(1).0]);
}

#[test]
fn a_layer_just_written_is_kept_from_collection_by_the_import() {
    let f = Fixture::new();
    let import = f.store.begin_import().unwrap();
    put_layer(&import, 1).unwrap();
    assert!(f.collect().is_empty());
    f.store.open_layer(&diff_id(1)).unwrap();
}

#[test]
fn a_dry_run_and_a_plan_remove_nothing_and_count_what_dead_processes_left() {
    let f = Fixture::new();
    let import = f.store.begin_import().unwrap();
    put_layer(&import, 1).unwrap();
    let mut sink = import.new_layer().unwrap();
    sink.write_all(&[7; 2 << 20]).unwrap();
    std::mem::forget(sink);
    import.die();
    let before = f.files();
    let lock = f.store.lock_unswept().unwrap();
    let plan = gc::plan(&f.store, &f.store.names().unwrap(), &lock).unwrap();
    assert_eq!(f.files(), before);
    assert_eq!((plan.blobs.len(), plan.leavings.len()), (1, 2));
    assert!(plan.bytes > 2 << 20, "{}", plan.bytes);
    assert_eq!(f.store.collect(&lock).unwrap(), plan);
    assert_eq!(fs::read_dir(f.store.layout().tmp()).unwrap().count(), 0);
    assert_eq!(fs::read_dir(f.store.layout().leases()).unwrap().count(), 0);
}

#[test]
fn overwriting_a_tag_leaves_the_old_image_dangling() {
    let f = Fixture::new();
    let old = f.import(&[1], &["a"]);
    let new = f.import(&[2], &["a"]);
    let names = f.store.names().unwrap();
    assert_eq!(names.tags[&tag("a")].id, new);
    let dangling: Vec<ImageId> = names.dangling().map(|image| image.id).collect();
    assert_eq!(dangling, [old]);
    assert!(f.collect().is_empty(), "a dangling image is still there");
}

#[test]
fn removal_frees_what_nothing_else_needs() {
    let f = Fixture::new();
    f.import(&[1, 2], &["a"]);
    let baseline = f.files();
    let id = f.import(&[1, 3], &["b"]);
    let usage = f.store.disk_usage().unwrap();
    assert_eq!(usage.layers, 3);

    let names = f.store.names().unwrap();
    let only = gc::only_reached_by(&names, &[], &[id].into());
    assert_eq!(only.layers, [diff_id(3)].into());
    assert_eq!(only.documents.len(), 3, "config, manifest, origin");
    let freed = f.store.size_on_disk(&only.layers, &only.documents).unwrap();

    let lock = f.store.lock().unwrap();
    let after: Result<_, StoreError> = f.store.change(&lock, |names| {
        names.untag(&tag("b"))?;
        names.delete_image(&id)
    });
    assert_eq!(after.unwrap().layers, [diff_id(1), diff_id(3)]);
    let plan = f.store.collect(&lock).unwrap();
    assert_eq!(plan.bytes, freed);
    assert_eq!(plan.indexes, [diff_id(3)]);
    drop(lock);
    assert_eq!(without_index(f.files()), without_index(baseline));
}

/// Without `index.json`, whose size depends on the digits of times.
fn without_index(files: Vec<String>) -> Vec<String> {
    files
        .into_iter()
        .filter(|f| !f.contains("index.json"))
        .collect()
}

#[test]
fn a_failed_edit_changes_nothing() {
    let f = Fixture::new();
    f.import(&[1], &["a"]);
    let before = f.store.names().unwrap();
    let lock = f.store.lock().unwrap();
    let result: Result<(), StoreError> = f.store.change(&lock, |names| {
        names.untag(&tag("a"))?;
        names.untag(&tag("missing")).map(drop)
    });
    assert!(matches!(result, Err(StoreError::NoSuchTag(_))));
    assert_eq!(f.store.names().unwrap(), before);
}

#[test]
fn a_removed_layer_stays_readable_for_who_has_it_open() {
    let f = Fixture::new();
    let id = f.import(&[1], &["a"]);
    let open = f.store.open_layer(&diff_id(1)).unwrap();
    f.untag("a");
    let lock = f.store.lock().unwrap();
    f.store
        .change(&lock, |names| names.delete_image(&id))
        .unwrap();
    f.store.collect(&lock).unwrap();
    assert!(matches!(
        f.store.open_layer(&diff_id(1)),
        Err(StoreError::LayerMissing(_))
    ));
    assert_eq!(open.index.tar_size(), tar(1).len() as u64);
}

#[test]
fn reading_starts_again_when_a_removal_overtakes_it() {
    let f = Fixture::new();
    f.import(&[1], &["a"]);
    let other = f.import(&[2], &["b"]);
    let mut rounds = 0;
    let result = f.store.read(|names| {
        rounds += 1;
        if rounds == 1 {
            f.untag("a");
        }
        match names.image_of(&tag("a")) {
            Some(_) => Err(StoreError::LayerMissing(diff_id(1))),
            None => Ok(names.image_of(&tag("b")).unwrap().id),
        }
    });
    assert_eq!((result.unwrap(), rounds), (other, 2));
    let lasting: Result<(), _> = f.store.read(|_| Err(StoreError::LayerMissing(diff_id(1))));
    assert!(matches!(lasting, Err(StoreError::LayerMissing(_))));
}

#[test]
fn names_are_read_again_when_another_process_changes_them() {
    let f = Fixture::new();
    let other = Store::open(&f.path(), OpenMode::Existing).unwrap();
    for round in 0..50 {
        // Same length each time, on quick file systems within one tick of the clock.
        import(&f.store, &[round % 2], &["a"]).unwrap();
        let seen = other.names().unwrap().tags[&tag("a")].id;
        assert_eq!(seen, config(&[round % 2]).id);
    }
}

#[test]
fn a_live_mount_is_told_and_a_silent_one_named() {
    use std::io::Read as _;
    use std::os::unix::net::UnixListener;

    let f = Fixture::new();
    let lease = |mountpoint: &str| {
        let mountpoint = mountpoint.into();
        f.store.lease(LeaseKind::Daemon { mountpoint }).unwrap()
    };
    let good = lease("/good");
    let silent = lease("/silent");
    let socket = UnixListener::bind(good.socket_path()).unwrap();
    let daemon = std::thread::spawn(move || {
        let (mut stream, _) = socket.accept().unwrap();
        let mut asked = [0; 5];
        stream.read_exact(&mut asked).unwrap();
        stream.write_all(b"ok\n").unwrap();
        asked
    });
    let failed = f.store.notify_mounts();
    assert_eq!(&daemon.join().unwrap(), b"sync\n");
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].id, *silent.id());
    assert!(f.store.notify_other_mounts(silent.id()).len() == 1);
    let live = f.store.live_leases().unwrap();
    assert_eq!(live.len(), 2);
    drop((good, silent));
    assert_eq!(f.store.live_leases().unwrap().len(), 0);
    assert_eq!(fs::read_dir(f.store.layout().leases()).unwrap().count(), 0);
}

#[test]
fn a_mount_point_that_is_not_utf8_survives() {
    use std::os::unix::ffi::OsStrExt as _;

    let f = Fixture::new();
    let mountpoint: PathBuf = std::ffi::OsStr::from_bytes(b"/mnt/\xff").into();
    let kind = LeaseKind::Daemon { mountpoint };
    let _lease = f.store.lease(kind.clone()).unwrap();
    assert_eq!(f.store.live_leases().unwrap()[0].record.kind, kind);
}
