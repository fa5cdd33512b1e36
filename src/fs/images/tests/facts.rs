use super::*;

#[test]
fn a_tag_directory_shows_the_columns_of_docker_images() {
    let f = Fixture::new();
    let id = f.load(&[base(), own("a")], &["app:1"]);
    let attr = f.attr("images/app/1");
    let created = Timestamp {
        sec: 1_714_979_289,
        nsec: 123_456_789,
    };
    let used = f.store.last_used(&f.store.names().unwrap().images[&id]);
    assert_eq!((attr.mtime, attr.atime), (created, used.into()));
    assert_eq!(attr.size, 100_000 + 5 + 10 + 1);
    assert_eq!((attr.blocks, attr.nlink), (0, 1));
    let names = f.store.names().unwrap();
    let tagged = names.tags[&TagRef::parse("app:1").unwrap()].tagged;
    assert_eq!(attr.ctime, tagged.into());
    let text = |name: &str| f.xattr("images/app/1", &format!("user.mica.{name}"));
    assert_eq!(text("id"), Some(id.to_string()));
    assert_eq!(text("size"), Some("100016".to_owned()));
    assert_eq!(
        text("created").as_deref(),
        Some("2024-05-06T07:08:09.123456789Z")
    );
    assert_eq!(text("kind").as_deref(), Some("image"));
    assert_eq!(text("digest"), None);
    assert_eq!(text("nothing"), None);
    assert_eq!(f.xattrs("images/app/1"), [""; 0]);
    assert_eq!(f.xattr("images/app/1/etc", "user.mica.id"), None);
    assert_eq!(f.xattr("images", "user.mica.id"), None);
}

#[test]
fn every_file_knows_its_layer() {
    let f = Fixture::new();
    f.load(&[base(), own("a")], &["app:1"]);
    let layer = |path: &str| f.xattr(path, "user.mica.layer").unwrap();
    let (low, high) = (
        diff_id(&base().bytes).to_string(),
        diff_id(&own("a").bytes).to_string(),
    );
    assert_eq!(layer("images/app/1/etc/passwd"), low);
    assert_eq!(layer("images/app/1/etc"), low);
    assert_eq!(layer("images/app/1/usr/link"), low);
    assert_eq!(layer("images/app/1/own"), high);
    assert_eq!(f.xattrs("images/app/1/own"), [""; 0]);
}

#[test]
fn files_of_info_say_what_they_should() {
    let f = Fixture::new();
    let id = f.load(&[base(), own("a")], &["app:1"]);
    let text = |name: &str| f.text(&format!("info/images/app/1/{name}"));
    assert_eq!(text("id"), format!("{id}\n"));
    assert_eq!(text("size"), "100016\n");
    assert_eq!(crate::oci::Digest::of(text("config.json").as_bytes()), id.0);
    let layers = format!("{}\n{}\n", diff_id(&base().bytes), diff_id(&own("a").bytes));
    assert_eq!(text("layers"), layers);
    assert_eq!(text("digest"), "");
    assert_eq!(text("users"), "");
    assert!(text("history").starts_with("IMAGE"));
    let facts: serde_json::Value = serde_json::from_str(&text("inspect.json")).unwrap();
    assert_eq!(facts[0]["RepoTags"], serde_json::json!(["app:1"]));
    let manifest: serde_json::Value = serde_json::from_str(&text("manifest.json")).unwrap();
    assert_eq!(manifest["config"]["digest"], id.to_string());
    assert_eq!(
        f.text("info/version"),
        format!("mica {}\n", env!("CARGO_PKG_VERSION"))
    );
    let events = f.text("info/events");
    assert!(
        events.contains(&format!(" image tag {id} (")) && events.contains("name=app:1"),
        "{events}"
    );
    assert!(f.text("info/df").starts_with("TYPE"));
    let layer = format!("layers/{}", diff_id(&base().bytes).hex());
    let facts: serde_json::Value =
        serde_json::from_str(&f.text(&format!("{layer}/info.json"))).unwrap();
    assert_eq!(facts["content_size"], 100_015);
    assert_eq!(facts["images"], serde_json::json!([id.to_string()]));
    assert_eq!(f.read(f.at(&format!("{layer}/tar"))).unwrap(), base().bytes);
}

#[test]
fn a_dynamic_file_moves_its_time_exactly_when_its_content_moves() {
    let f = Fixture::new();
    f.load(&[base()], &["app:1"]);
    let events = f.at("info/events");
    let attr = || f.sb.getattr(&f.caller, events).unwrap();
    let first = attr();
    assert_eq!(first.ttl, Ttl::Zero);
    assert_eq!(attr().attr.mtime, first.attr.mtime);
    f.load(&[base(), own("b")], &["b:1"]);
    // What is read is what the last stat has measured.
    assert_eq!(f.read(events).unwrap().len() as u64, first.attr.size);
    let second = attr();
    assert!(second.attr.mtime > first.attr.mtime);
    let inspect = f.at("info/images/app/1/inspect.json");
    let before = f.sb.getattr(&f.caller, inspect).unwrap().attr;
    let lock = f.store.lock().unwrap();
    let tag = TagRef::parse("app:again").unwrap();
    let id =
        f.sb.view()
            .tag(&TagRef::parse("app:1").unwrap())
            .unwrap()
            .id;
    f.store
        .change(&lock, |names| {
            names.tag(&tag, id, std::time::SystemTime::now())
        })
        .unwrap();
    drop(lock);
    f.sb.refresh().unwrap();
    let after = f.sb.getattr(&f.caller, inspect).unwrap().attr;
    assert!(after.mtime > before.mtime && after.size > before.size);
}

#[test]
fn directories_of_names_move_their_time() {
    let f = Fixture::new();
    f.load(&[base()], &["app:1"]);
    let times = || {
        ["images", "images/app", "by-id", "layers", "info/images"].map(|path| f.attr(path).mtime)
    };
    let before = times();
    f.load(&[base(), own("b")], &["app:2"]);
    let after = times();
    let moved: Vec<bool> = before
        .iter()
        .zip(after)
        .map(|(before, after)| after > *before)
        .collect();
    assert_eq!(moved, [false, true, true, true, false]);
    f.load(&[base(), own("c")], &["c:2"]);
    assert!(times()[0] > after[0]);
}

#[test]
fn space_is_that_of_the_place() {
    let f = Fixture::new();
    f.load(&[base(), own("a")], &["app:1", "app:2"]);
    f.load(&[base(), own("bb")], &["app:3"]);
    let used = |path: &str| {
        let space = f.sb.statfs(&f.caller, f.at(path)).unwrap();
        (space.blocks - space.free) * u64::from(space.block_size)
    };
    let blocks = |bytes: u64| bytes.next_multiple_of(4096);
    assert_eq!(used("images/app/1"), blocks(100_016));
    assert_eq!(used("images/app/1/etc"), blocks(100_016));
    assert_eq!(used("images/app"), blocks(100_018));
    assert!(used("images") >= blocks(100_018));
    assert_eq!(
        f.sb.statfs(&f.caller, f.at("images/app/1"))
            .unwrap()
            .available,
        0
    );
    assert!(f.sb.statfs(&f.caller, f.at("images")).unwrap().available > 0);
}

/// Every `stat` of `info/df` renders it, and a walk over all volumes would keep the thread that serves it.
#[test]
fn regression_no_request_walks_volumes() {
    use crate::ops::space::df::{self, WALKS};
    use crate::ops::volume::{Create, CreateKind, create};

    let f = Fixture::new();
    f.load(&[base()], &["app:1"]);
    let name = crate::store::VolumeName::parse("vol").unwrap();
    let volume = create(&f.store, &Create::new(Some(name), CreateKind::Persistent)).unwrap();
    std::fs::write(f.store.volume_root(&volume).join("f"), [1; 100_000]).unwrap();
    let row = |text: &str| {
        let mut lines = text.lines();
        let line = lines.find(|line| line.starts_with("Local Volumes"));
        line.map(|line| line.split_whitespace().skip(2).map(str::to_owned).collect())
    };
    let start = std::time::Instant::now();
    let shown: Vec<String> = loop {
        let text = f.text("info/df");
        match text.contains("being measured") {
            true => assert_eq!(row(&text), Some(vec!["-".to_owned(); 5])),
            false => break row(&text).unwrap(),
        }
        assert!(start.elapsed() < std::time::Duration::from_secs(20));
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    assert_eq!(shown.first().map(String::as_str), Some("1"));
    assert!(
        shown.last().unwrap().parse::<u64>().unwrap() >= 100_000,
        "{shown:?}"
    );
    assert_eq!(WALKS.get(), 0);
    // Those of this thread are counted.
    let (names, leases) = (f.store.names().unwrap(), f.store.live_leases().unwrap());
    df::of(&f.store, &names, &leases, &Default::default()).unwrap();
    assert_eq!(WALKS.get(), 1);
}
