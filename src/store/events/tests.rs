use super::*;
use crate::store::OpenMode;

fn store() -> (Store, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store"), OpenMode::Create).unwrap();
    (store, dir)
}

fn event(number: usize) -> Event {
    Event::now("image", "tag", &format!("id{number}")).with("name", "x".repeat(100))
}

#[test]
fn a_reader_follows_across_a_change_of_files() {
    let (store, _dir) = store();
    let mut reader = store.events();
    assert_eq!(reader.read().unwrap(), []);
    store.note(&[event(0), event(1)]);
    let ids = |events: Vec<Event>| -> Vec<String> { events.into_iter().map(|e| e.id).collect() };
    assert_eq!(ids(reader.read().unwrap()), ["id0", "id1"]);
    assert_eq!(reader.read().unwrap(), []);
    let mut seen = 2;
    let batch: Vec<Event> = (0..1000).map(event).collect();
    while !store.old_events_path().exists() {
        store.note(&batch);
        seen += batch.len();
        if seen % 3000 == 2 {
            let more = reader.read().unwrap();
            assert!(!more.is_empty());
        }
    }
    store.note(&[event(77)]);
    assert_eq!(ids(reader.read().unwrap()).last().unwrap(), "id77");
    // A new reader finds both files.
    assert_eq!(store.events().read().unwrap().len(), seen + 1);
    let last = store.last_events(10_000).unwrap();
    assert!(last.len() > 30 && last.len() < 100, "{}", last.len());
    assert_eq!(last.last().unwrap().id, "id77");
    let size = |path: PathBuf| fs::metadata(path).unwrap().len();
    assert!(size(store.old_events_path()) < MAX_BYTES + 300_000);
}

#[test]
fn a_torn_line_is_skipped_alone() {
    let (store, _dir) = store();
    store.note(&[event(1)]);
    let mut file = File::options()
        .append(true)
        .open(store.events_path())
        .unwrap();
    file.write_all(b"{\"time\":\"20").unwrap();
    let mut reader = store.events();
    assert_eq!(reader.read().unwrap().len(), 1);
    store.note(&[event(2)]);
    assert_eq!(reader.read().unwrap()[0].id, "id2");
}

#[test]
fn who_asked_through_a_mount_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("s"), OpenMode::Create).unwrap();
    let caller = store.on_behalf_of(Cause::process(17, 1000));
    // No label can say it.
    caller.note(&[Event::now("image", "tag", "x").with("pid", 1)]);
    store.note(&[Event::now("image", "tag", "y")]);
    let events = store.events().read().unwrap();
    let by = &events[0].attributes;
    assert_eq!((by["pid"].as_str(), by["uid"].as_str()), ("17", "1000"));
    assert!(events[1].attributes.is_empty());
}
