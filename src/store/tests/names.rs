//! Names and their file.

use std::time::{Duration, SystemTime};

use super::*;
use crate::oci::Digest;
use crate::oci::Repository;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn image(number: u8) -> ImageRecord {
    let digest = |kind: u8| Digest::of(&[kind, number]);
    ImageRecord {
        id: ImageId(digest(0)),
        manifest: super::super::names::manifest_descriptor(
            digest(1),
            7,
            Some(crate::oci::Platform::default()),
        ),
        layers: vec![DiffId(digest(2)), DiffId(digest(3))],
        created: (number > 0).then(|| "1970-01-01T00:00:01.5Z".parse().unwrap()),
        size: u64::from(number) << 40,
        added: at(5),
        origins: vec![],
        parent: None,
        tags: Default::default(),
    }
}

fn sample() -> Names {
    let mut names = Names::default();
    for number in 0..3 {
        let image = image(number);
        names.images.insert(image.id, image);
    }
    let id = image(1).id;
    for name in ["nginx:1", "nginx:2", "host.example:5000/org/app:x"] {
        names.tag(&tag(name), id, at(9)).unwrap();
    }
    names.tag(&tag("b"), image(2).id, at(10)).unwrap();
    let origin = |repository: Option<&str>, number| Origin {
        unproved: Vec::new(),
        repository: repository.map(|name| Repository::parse(name).unwrap()),
        digest: Digest::of(&[4, number]),
        media_type: "x \"y\"".to_owned(),
    };
    names.images.get_mut(&id).unwrap().origins = vec![origin(Some("nginx"), 1), origin(None, 2)];
    names
}

#[test]
fn the_file_says_everything() {
    let names = sample();
    let bytes = index_json::write(&names).unwrap();
    assert_eq!(index_json::parse(&bytes).unwrap(), names);
    let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(json["manifests"].as_array().unwrap().len(), 5);
}

#[test]
fn pins_parents_and_the_trash_are_in_the_file() {
    let mut names = sample();
    names.set_pin(&tag("nginx:2"), true).unwrap();
    names.images.get_mut(&image(2).id).unwrap().parent = Some(image(1).id);
    // One name of an image that stays, and an image with its last.
    let living = names.images[&image(1).id].clone();
    names.untag(&tag("nginx:1")).unwrap();
    names.put_in_trash(living, &[tag("nginx:1")], at(20), at(90));
    let gone = names.images[&image(2).id].clone();
    names.untag(&tag("b")).unwrap();
    names.delete_image(&gone.id).unwrap();
    names.put_in_trash(gone, &[tag("b")], at(21), at(91));
    names.settle(&sample()).unwrap();
    let bytes = index_json::write(&names).unwrap();
    let read = index_json::parse(&bytes).unwrap();
    assert_eq!(read, names);
    assert!(read.blobs().contains(&image(2).layers[0].0));
    // A tag in the trash that has been given anew is not taken from its image.
    let mut taken = names.clone();
    taken.tag(&tag("b"), image(0).id, at(30)).unwrap();
    let entry = taken
        .trash
        .entries
        .iter()
        .find(|e| e.name == Some(tag("b")));
    let entry = entry.unwrap().clone();
    assert!(matches!(
        taken.restore(&entry, at(31)),
        Err(StoreError::TagExists(_))
    ));
    // Brought back it is what it was, but for the time of the tag.
    let before = names.clone();
    names.restore(&entry, at(10)).unwrap();
    names.settle(&before).unwrap();
    assert_eq!(names.image_of(&tag("b")).unwrap().parent, Some(image(1).id));
    assert_eq!(names.trash.entries.len(), 1);
    assert!(names.trash.images.is_empty());
    assert!(!names.trash.expire(at(89)) && names.trash.expire(at(90)));
    assert!(names.trash.is_empty());
    // Pins hold.
    for refused in [
        names.untag(&tag("nginx:2")).map(drop),
        names.tag(&tag("nginx:2"), image(0).id, at(1)).map(drop),
        names.rename_tag(&tag("nginx:2"), &tag("c"), at(1)),
    ] {
        assert!(matches!(refused, Err(StoreError::Pinned(_))));
    }
    names.tag(&tag("nginx:2"), image(1).id, at(1)).unwrap();
}

/// As a mica wrote it that knew no checksum.
fn without_sum(bytes: Vec<u8>) -> String {
    let text = String::from_utf8(bytes).unwrap();
    let (sum, rest) = text.split_once("\"},").unwrap();
    assert!(sum.contains("io.mica.sum"), "{sum}");
    format!("{{{rest}")
}

#[test]
fn regression_every_flip_is_noticed() {
    let names = sample();
    let good = index_json::write(&names).unwrap();
    for position in 0..good.len() {
        for bit in [1, 2, 0x20] {
            let mut bad = good.clone();
            bad[position] ^= bit;
            let read = index_json::parse(&bad);
            assert!(read.is_err(), "{}", String::from_utf8_lossy(&bad));
        }
    }
    let older = without_sum(good);
    assert_eq!(index_json::parse(older.as_bytes()).unwrap(), names);
}

#[test]
fn damaged_files_are_refused() {
    let good = without_sum(index_json::write(&sample()).unwrap());
    let cases = [
        ("nothing", String::new()),
        ("half", good[..good.len() / 2].to_owned()),
        (
            "another version",
            good.replace("\"schemaVersion\":2", "\"schemaVersion\":1"),
        ),
        ("a bad tag", good.replace("\"nginx:2\"", "\"nginx:..\"")),
        ("a tag twice", good.replace("\"nginx:2\"", "\"nginx:1\"")),
        (
            "a bad digest",
            good.replace("\"digest\":\"sha256:", "\"digest\":\"sha512:"),
        ),
        (
            "no facts",
            good.replace("io.mica.image.size", "io.mica.image.sizes"),
        ),
        (
            "no ID",
            good.replace("\"io.mica.image\"", "\"io.mica.images\""),
        ),
        (
            "a bad time",
            good.replace("1970-01-01T00:00:09Z", "yesterday"),
        ),
        (
            "no manifests",
            "{\"schemaVersion\":2,\"mediaType\":\"x\"}".to_owned(),
        ),
    ];
    for (what, text) in cases {
        assert_ne!(text, good, "{what}");
        assert!(index_json::parse(text.as_bytes()).is_err(), "{what}");
    }
}

#[test]
fn untagging_drops_the_origins_of_a_repository_with_its_last_tag() {
    let mut names = sample();
    let first = names.untag(&tag("nginx:1")).unwrap();
    assert_eq!((first.origins.len(), first.dangling), (0, false));
    let second = names.untag(&tag("nginx:2")).unwrap();
    assert_eq!((second.origins.len(), second.dangling), (1, false));
    let last = names.untag(&tag("host.example:5000/org/app:x")).unwrap();
    assert_eq!((last.origins.len(), last.dangling), (0, true));
    assert!(names.untag(&tag("nginx:2")).is_err());
}

#[test]
fn deleting_a_tagged_image_is_refused() {
    let mut names = sample();
    let error = names.delete_image(&image(2).id).unwrap_err();
    assert!(matches!(error, StoreError::ImageTagged { .. }));
    names.untag(&tag("b")).unwrap();
    names.delete_image(&image(2).id).unwrap();
    assert!(matches!(
        names.delete_image(&image(2).id),
        Err(StoreError::NoSuchImage(_))
    ));
}

#[test]
fn renaming_never_overwrites_and_is_all_or_nothing() {
    let mut names = sample();
    let before = names.clone();
    let repository = |name: &str| Repository::parse(name).unwrap();
    let taken = names.rename_tag(&tag("nginx:1"), &tag("b"), at(20));
    assert!(matches!(taken, Err(StoreError::TagExists(_))));
    names.tag(&tag("web:2"), image(0).id, at(9)).unwrap();
    let clash = names.clone();
    let taken = names.rename_repository(&repository("nginx"), &repository("web"), at(20));
    assert!(matches!(taken, Err(StoreError::TagExists(t)) if t == tag("web:2")));
    assert_eq!(names, clash);
    names.untag(&tag("web:2")).unwrap();
    assert_eq!(names, before);

    let moved = names.rename_repository(&repository("nginx"), &repository("web"), at(20));
    assert_eq!(moved.unwrap(), 2);
    assert_eq!(names.tags_of(&repository("nginx")).count(), 0);
    assert_eq!(names.tags[&tag("web:1")].id, image(1).id);
    let origins = &names.images[&image(1).id].origins;
    assert_eq!(origins.len(), 2, "the bytes are kept");
    assert!(origins.iter().all(|origin| origin.repository.is_none()));
    let gone = names.rename_repository(&repository("nginx"), &repository("x"), at(20));
    assert!(matches!(gone, Err(StoreError::NoSuchRepository(_))));
}

#[test]
fn moving_a_tag_tells_which_image_lost_it() {
    let mut names = sample();
    let now = at(30);
    assert_eq!(names.tag(&tag("b"), image(2).id, now).unwrap(), None);
    assert_eq!(names.tags[&tag("b")].tagged, at(10), "nothing moved");
    let previous = names.tag(&tag("b"), image(0).id, now).unwrap();
    assert_eq!(previous, Some(image(2).id));
    assert_eq!(names.dangling().count(), 1);
}

#[test]
fn settling_makes_changes_by_hand_consistent() {
    let mut names = sample();
    names.tags.remove(&tag("b"));
    names.settle(&sample()).unwrap();
    assert!(names.images[&image(2).id].tags.is_empty());
    // Nor does it matter which of the two tables somebody has changed.
    let before = names.clone();
    let changed = names.images.get_mut(&image(1).id).unwrap();
    changed.tags = [tag("b")].into_iter().collect();
    names.settle(&before).unwrap();
    assert_eq!(names, before);
    names.images.remove(&image(1).id);
    assert!(names.settle(&before).is_err());
}

#[test]
fn ten_thousand_tags_come_back() {
    let mut names = Names::default();
    let record = image(1);
    for number in 0..10_000 {
        let id = ImageId(Digest::of(format!("{}", number / 2).as_bytes()));
        let record = ImageRecord {
            id,
            ..record.clone()
        };
        if !names.images.contains_key(&id) {
            names.images.insert(id, record);
        }
        names
            .tag(&tag(&format!("org/app-{number}:1.0")), id, at(1))
            .unwrap();
    }
    let bytes = index_json::write(&names).unwrap();
    let start = std::time::Instant::now();
    let read = index_json::parse(&bytes).unwrap();
    println!("{} bytes in {:?}", bytes.len(), start.elapsed());
    assert_eq!(read, names);
}
