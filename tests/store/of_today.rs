//! A store of today as an earlier mica sees it, the one that has made the fixture of `of_before`: by its rules, written out here.
//!
//! `meta.json` says whether it may read and write: format 1, and no feature that it would have to know. So every file that it reads has
//! to be what it understands, and what it writes has to be understood today. An index of a layer has another version for it: EIO
//! for readers, until its `check --repair` has made it anew from the tar; today's mica does so by itself when it opens one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::common::image::{ImageBuilder, LayerBuilder};
use crate::common::sandbox::Sandbox;

fn read(path: &Path) -> Value {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).expect("JSON")
}

fn text<'a>(of: &'a Value, key: &str) -> &'a str {
    of[key].as_str().unwrap_or_else(|| panic!("{key} of {of}"))
}

/// A store with something of everything that an earlier mica knows.
fn full() -> Sandbox {
    let s = Sandbox::new();
    for (number, name) in ["app:1", "loose:1", "gone:1"].iter().enumerate() {
        let layer = |l: LayerBuilder| l.file("f", number.to_string());
        s.load(&ImageBuilder::new(name).layer(layer));
    }
    s.mica(["tag", "app:1", "reg.example.com/team/app:2"]).ok();
    s.mica(["pin", "app:1"]).ok();
    s.mica(["rmi", "--trash", "1h", "gone:1"]).ok();
    s.load(&ImageBuilder::new("loose:1").layer(|l| l.file("g", "another")));
    s.mica(["volume", "create", "--label", "a=b", "lasting"])
        .ok();
    s.mica(["volume", "create", "--ephemeral", "going"]).ok();
    s.mica(["volume", "create", "--bind", "/tmp", "bound"]).ok();
    s.mica(["volume", "create", "removed"]).ok();
    s.mica(["volume", "rm", "removed"]).ok();
    s.mica([
        "create",
        "--name",
        "made",
        "-v",
        "lasting:/v",
        "app:1",
        "true",
    ])
    .ok();
    s
}

/// What it decides on `meta.json`: whether to keep out, to write nothing, or neither.
fn admits(meta: &Value) -> (bool, bool) {
    let none = |kind: &str| meta["features"][kind].as_array().is_none_or(Vec::is_empty);
    let reads = meta["format"] == 1 && none("incompatible");
    (reads, reads && none("read_only_compatible"))
}

/// The tags that it reads from `index.json`.
fn tags(index: &Value) -> BTreeSet<String> {
    assert_eq!(index["schemaVersion"], 2);
    text(index, "mediaType");
    let mut images: BTreeMap<String, (Value, Value)> = BTreeMap::new();
    let mut tags = BTreeSet::new();
    for entry in index["manifests"].as_array().expect("entries") {
        text(entry, "mediaType");
        let annotations = entry["annotations"].as_object().expect("annotations");
        assert!(annotations.values().all(Value::is_string), "{entry}");
        let of = &entry["annotations"];
        let same = (entry["digest"].clone(), entry["size"].clone());
        let id = text(of, "io.mica.image").to_owned();
        if let Some(known) = images.get(&id) {
            assert_eq!(*known, same, "one manifest");
            text(of, "org.opencontainers.image.ref.name");
        } else {
            for layer in text(of, "io.mica.image.layers").split_ascii_whitespace() {
                assert!(layer.len() == 64, "{layer}");
            }
            text(of, "io.mica.image.size")
                .parse::<u64>()
                .expect("a size");
            time(text(of, "io.mica.image.added"));
            for (list, times) in [("origins", &[][..]), ("trash", &["removed", "until"])] {
                let Some(list) = annotations.get(&format!("io.mica.image.{list}")) else {
                    continue;
                };
                let list: Value = serde_json::from_str(list.as_str().expect("text")).expect("JSON");
                for one in list.as_array().expect("a list") {
                    times.iter().for_each(|key| time(text(one, key)));
                    if times.is_empty() {
                        text(one, "digest");
                        text(one, "mediaType");
                    }
                }
            }
            images.insert(id, same);
        }
        if let Some(name) = annotations.get("org.opencontainers.image.ref.name") {
            time(text(of, "io.mica.tagged"));
            assert!(
                !annotations.contains_key("io.mica.image.in-trash"),
                "{entry}"
            );
            assert!(
                tags.insert(name.as_str().expect("text").to_owned()),
                "{entry}"
            );
        }
    }
    tags
}

fn time(text: &str) {
    text.parse::<jiff::Timestamp>().expect(text);
}

/// The volumes that it reads from `volumes.json`.
fn volumes(list: &Value) -> BTreeSet<String> {
    assert_eq!(list["format"], 1);
    let mut ids = BTreeSet::new();
    let mut names = BTreeSet::new();
    for volume in list["volumes"].as_array().expect("volumes") {
        time(text(volume, "created"));
        match text(volume, "kind") {
            "persistent" => {}
            "ephemeral" => {
                time(text(volume, "since"));
                assert!(volume["used"].is_boolean());
            }
            "bind" => assert!(text(volume, "source").starts_with('/')),
            kind => panic!("{kind}"),
        }
        assert!(ids.insert(text(volume, "id")) && names.insert(text(volume, "name").to_owned()));
    }
    let removed = list["removed"].as_array().map_or(&[][..], Vec::as_slice);
    assert!(
        removed
            .iter()
            .all(|id| !ids.contains(id.as_str().expect("an id")))
    );
    names
}

#[test]
fn root_a_store_of_today_is_read_and_written_by_one_of_before() {
    crate::common::tier::root();
    let s = full();
    let store = s.store();
    assert_eq!(admits(&read(&store.join("meta.json"))), (true, true));
    let index = read(&store.join("index.json"));
    let expected = ["app:1", "loose:1", "reg.example.com/team/app:2"];
    assert_eq!(tags(&index), expected.map(str::to_owned).into());
    let list = read(&store.join("volumes.json"));
    let expected = ["bound", "going", "lasting"];
    assert_eq!(volumes(&list), expected.map(str::to_owned).into());
    let container = fs::read_dir(store.join("containers"))
        .expect("containers")
        .next();
    let directory = container.expect("a container").expect("readdir").path();
    let config = read(&directory.join("config.json"));
    assert_eq!(config["version"], 1);
    for key in ["id", "name", "image", "image_name", "created"] {
        text(&config, key);
    }
    assert!(config["layers"].is_array() && config["config"].is_object());
    assert_eq!(read(&directory.join("state.json"))["status"], "created");
    for index in fs::read_dir(store.join("layers")).expect("layers") {
        let header = fs::read(index.expect("readdir").path()).expect("an index");
        assert_eq!(header.get(..8), Some(&b"mica.idx"[..]));
        assert_ne!(
            header.get(8..12),
            Some(&1u32.to_le_bytes()[..]),
            "it would be read as its own"
        );
    }

    // It writes what it knows, in its order, and keeps of volumes what it does not know; the checksums are old then, or not there.
    let mut written = index.clone();
    written
        .as_object_mut()
        .expect("an object")
        .remove("annotations");
    let mut entry = written["manifests"][0].clone();
    entry["annotations"]["org.opencontainers.image.ref.name"] = json!("of:before");
    entry["annotations"]["io.containerd.image.name"] = json!("docker.io/library/of:before");
    entry["annotations"]["io.mica.tagged"] = json!("2024-05-06T07:08:09Z");
    written["manifests"]
        .as_array_mut()
        .expect("entries")
        .push(entry);
    fs::write(store.join("index.json"), written.to_string()).expect("index.json");
    let mut kept = list.as_object().expect("an object").clone();
    let own: Vec<String> = ["format", "volumes", "removed"]
        .iter()
        .map(|key| format!("{}:{}", json!(key), kept.remove(*key).unwrap_or(json!([]))))
        .collect();
    let others = kept
        .iter()
        .map(|(key, value)| format!("{}:{value}", json!(key)));
    let all: Vec<String> = own.into_iter().chain(others).collect();
    fs::write(store.join("volumes.json"), format!("{{{}}}", all.join(","))).expect("volumes.json");
    let images = s
        .mica(["images", "--format", "{{.Repository}}:{{.Tag}}"])
        .ok();
    assert!(
        images.stdout().contains("of:before\n"),
        "{}",
        images.describe()
    );
    s.mica(["volume", "create", "more"]).ok();
    s.mica(["check"]).ok();
    let list = read(&store.join("volumes.json"));
    assert_eq!(volumes(&list).len(), 4);
}

/// What it would have to know it is told of in `meta.json`: by today's rules, which are the same, it keeps out or writes nothing.
#[test]
fn features_that_are_not_known_keep_out_or_from_writing() {
    for (kind, reads) in [
        ("incompatible", false),
        ("read_only_compatible", true),
        ("compatible", true),
    ] {
        let s = Sandbox::new();
        s.load(&ImageBuilder::new("app:1").layer(|l| l.file("f", "x")));
        let meta = json!({"format": 1, "features": {kind: ["of-tomorrow"]}});
        fs::write(s.store().join("meta.json"), meta.to_string()).expect("meta.json");
        let writes = kind == "compatible";
        assert_eq!(admits(&meta), (reads, writes));
        let images = s.mica(["images", "-q"]);
        assert_eq!(images.status.success(), reads, "{}", images.describe());
        let tag = s.mica(["tag", "app:1", "app:2"]);
        assert_eq!(tag.status.success(), writes, "{}", tag.describe());
        let said = tag.stderr();
        assert!(writes || said.contains("of-tomorrow"), "{said}");
    }
}
