//! A tree made of the memory of an earlier one.

use std::fs::File;

use super::*;

/// A tree that remembers, and the names that it has shown.
struct Remembered {
    fixture: Fixture,
    memory: Arc<Lasting>,
    shown: Arc<Mutex<Vec<Arc<File>>>>,
}

fn remembered() -> Remembered {
    let mut fixture = Fixture::new();
    let memory = Lasting::new().unwrap();
    let shown: Arc<Mutex<Vec<Arc<File>>>> = Arc::default();
    let follower = shown.clone();
    memory.follow(move |file| follower.lock().push(file));
    let options = options(RmPolicy::Own);
    let cache = fixture.kernel.clone();
    fixture.sb =
        Superblock::lasting(fixture.store.clone(), options, cache, memory.clone()).unwrap();
    Remembered {
        fixture,
        memory,
        shown,
    }
}

impl Remembered {
    /// Ends the tree and makes the next.
    fn again(mut self) -> Fixture {
        let [table, counters] = self.memory.files().unwrap();
        let memory = Lasting::open(table, counters).unwrap();
        let shown = self.shown.lock();
        let shown: Vec<File> = shown.iter().map(|file| file.try_clone().unwrap()).collect();
        self.fixture.kernel.0.lock().clear();
        let options = options(RmPolicy::Own);
        let (store, cache) = (self.fixture.store.clone(), self.fixture.kernel.clone());
        let old = Arc::downgrade(&self.fixture.sb.trees);
        self.fixture.sb = Superblock::inherited(store, options, cache, memory, &shown).unwrap();
        // Its thread may take a moment; in another process nothing would be left.
        while old.strong_count() > 0 {
            std::thread::yield_now();
        }
        self.fixture
    }
}

#[test]
fn every_number_means_what_it_meant() {
    let before = remembered();
    let f = &before.fixture;
    f.load(&[base()], &["org/app:1"]);
    let mut known = vec![f.at("images/org/app"), f.at("info/images/org")];
    f.load(
        &[base(), Tar::new().file(b"usr/own", b"x").end()],
        &["org/app:2"],
    );
    // Three views, and the tree of the last is in none of the others.
    f.load(&[Tar::new().file(b"etc/other", b"y").end()], &["last:1"]);
    for path in [
        "images/org/app/1/etc",
        "images/org/app/2/usr",
        "images/org/app/2/usr/own",
        "images/last/1",
        "images/last/1/etc/other",
    ] {
        known.push(f.at(path));
    }
    let layer = names_in(f, "layers").remove(0);
    known.push(f.at(&format!("layers/{layer}/diff")));
    known.push(f.at(&format!("layers/{layer}/tar")));
    // Times of directories of names are of the views that were gone through.
    let attr = |f: &Fixture, ino| {
        let attr = f.sb.getattr(&f.caller, ino).unwrap().attr;
        (attr.ino, attr.kind, attr.mode, attr.size, attr.nlink)
    };
    let old: Vec<_> = known.iter().map(|ino| attr(f, *ino)).collect();
    assert!(before.shown.lock().len() > 3);

    let f = before.again();
    for (ino, old) in known.iter().zip(old) {
        assert_eq!(attr(&f, *ino), old);
    }
    assert_eq!(f.at("images/org/app/2/usr/own"), known[4]);
    assert!(matches!(
        f.sb.getattr(&f.caller, InodeNo(known[2].0 + 999)),
        Err(FsError::Stale(_))
    ));
}

#[test]
fn what_changed_between_two_servers_is_told() {
    let before = remembered();
    let f = &before.fixture;
    f.load(&[base()], &["app:1", "app:2"]);
    let app = f.at("images/app");
    let own = f.at("images/app/1/etc");
    let tag = TagRef::parse("app:1").unwrap();
    {
        let lock = f.store.lock().unwrap();
        f.store.change(&lock, |names| names.untag(&tag)).unwrap();
    }
    let f = before.again();
    assert!(f.kernel.0.lock().contains(&Told::Entry(app, "1".into())));
    assert!(f.sb.getattr(&f.caller, own).is_err());
    assert!(f.exists("/images/app/2"));
    assert!(!f.exists("/images/app/1"));
}

#[test]
fn references_are_counted_on() {
    let before = remembered();
    let f = &before.fixture;
    f.load(&[base()], &["app:1"]);
    let file = f.at("images/app/1/etc/passwd");
    let f = before.again();
    assert_eq!(f.sb.slots.open_count(), 1);
    f.sb.forget(file, 1);
    assert_eq!(f.sb.slots.open_count(), 0);
}

fn names_in(f: &Fixture, path: &str) -> Vec<String> {
    let mut names = Vec::new();
    let ino = f.at(path);
    f.sb.readdir(&f.caller, ino, 0, false, &mut |entry| {
        names.push(String::from_utf8_lossy(entry.name).into_owned());
        Full::No
    })
    .unwrap();
    names.retain(|name| !name.starts_with('.'));
    names
}
