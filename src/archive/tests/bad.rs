//! What bad archives get: one clear line each, the same whichever way they are read.

use crate::archive::tests::*;

fn refused(bytes: &[u8]) -> String {
    match read_archive(bytes, None) {
        Err(line) => {
            assert!(!line.contains('\n'), "{line}");
            line
        }
        Ok(images) => panic!("accepted: {images:?}"),
    }
}

/// A docker-archive with one image, changed before it is written.
fn with(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let layer = layer(10);
    let mut manifest = json!([{"Config": "c.json", "RepoTags": ["app:1"], "Layers": ["l.tar"]}]);
    change(&mut manifest);
    Tar::default()
        .file("l.tar", &layer)
        .file("c.json", config(&[&layer]))
        .json("manifest.json", &manifest)
        .end()
}

#[test]
fn documents_that_make_no_sense_are_refused_by_name() {
    let layer = layer(10);
    let table: Vec<(Vec<u8>, &str)> = vec![
        (
            with(|m| m[0]["Layers"] = json!(["x.tar"])),
            "manifest.json: layer x.tar is not in the archive",
        ),
        (
            with(|m| m[0]["Config"] = json!("x.json")),
            "manifest.json: config x.json is not in the archive",
        ),
        (
            with(|m| m[0]["Layers"] = json!([])),
            "invalid manifest, layers length mismatch: expected 1, got 0",
        ),
        (
            with(|m| m[0]["Layers"] = json!(["../l.tar"])),
            "../l.tar: path leads outside the archive",
        ),
        (
            with(|m| m[0]["Config"] = json!("/../c.json")),
            "/../c.json: path leads outside the archive",
        ),
        (
            with(|m| m[0]["RepoTags"] = json!(["App:1"])),
            "invalid tag \"App:1\": ",
        ),
        (
            with(|m| m[0]["RepoTags"] = json!(["app"])),
            "invalid tag \"app\": it must be NAME:TAG",
        ),
        (
            with(|m| m[0]["RepoTags"] = json!(["a:1\u{1b}[2J"])),
            "invalid tag \"a:1\\u{1b}[2J\": ",
        ),
        (with(|m| *m = json!([])), "manifest.json: lists no image"),
        (with(|m| *m = json!("text")), "manifest.json: invalid type"),
        (
            with(|m| *m = json!({"schemaVersion": 2})),
            "document is neither an image manifest nor an index",
        ),
        (
            Tar::default().file("manifest.json", "[{\"Config\":").end(),
            "manifest.json: EOF while parsing",
        ),
        (
            Tar::default()
                .file(
                    "manifest.json",
                    "[{\"x\":".to_owned() + &"[".repeat(100_000),
                )
                .end(),
            "EOF while parsing a list",
        ),
        (
            Tar::default()
                .file("manifest.json", r#"[{"Config":"a","Config":"b"}]"#)
                .end(),
            "duplicate field",
        ),
        (
            Tar::default().file("etc/passwd", "root").end(),
            "no index.json and no manifest.json in it",
        ),
        (
            Tar::default().end(),
            "no index.json and no manifest.json in it",
        ),
        (
            Tar::default().file("../manifest.json", "[]").end(),
            "../manifest.json: path leads outside the archive",
        ),
        (
            b"this is no archive at all".repeat(100),
            "not a valid tar archive",
        ),
        (
            Tar::default()
                .raw("manifest.json", b'2', "manifest.json", b"")
                .end(),
            "manifest.json: too many levels of links",
        ),
        (
            Tar::default()
                .raw("l.tar", b'2', "../../etc/passwd", b"")
                .file("c.json", config(&[&layer]))
                .json(
                    "manifest.json",
                    &json!([{"Config": "c.json", "Layers": ["l.tar"]}]),
                )
                .end(),
            "../../etc/passwd: path leads outside the archive",
        ),
    ];
    for (bytes, expected) in table {
        let line = refused(&bytes);
        assert!(
            line.starts_with("stdin: ") && line.contains(expected),
            "{line:?} lacks {expected:?}"
        );
    }
}

#[test]
fn a_config_that_is_not_what_its_name_says_is_refused() {
    let layer = layer(10);
    let config = config(&[&layer]);
    let other = Digest::of(b"other").hex();
    for name in [format!("{other}.json"), format!("blobs/sha256/{other}")] {
        let manifest = json!([{"Config": name, "RepoTags": ["app:1"], "Layers": ["l.tar"]}]);
        let bytes = Tar::default()
            .file("l.tar", &layer)
            .file(&name, &config)
            .json("manifest.json", &manifest)
            .end();
        let line = refused(&bytes);
        let expected = format!("{name}: content has digest {}", Digest::of(&config));
        assert!(line.contains(&expected), "{line}");
    }
}

#[test]
fn two_images_of_one_name_are_refused() {
    let (one, two) = (layer(10), layer(20));
    let manifest = json!([
        {"Config": "1.json", "RepoTags": ["app:1"], "Layers": ["1.tar"]},
        {"Config": "2.json", "RepoTags": ["docker.io/library/app:1"], "Layers": ["2.tar"]},
    ]);
    let bytes = Tar::default()
        .file("1.tar", &one)
        .file("2.tar", &two)
        .file("1.json", config(&[&one]))
        .file("2.json", config(&[&two]))
        .json("manifest.json", &manifest)
        .end();
    assert!(refused(&bytes).contains("two images claim the name app:1: sha256:"));
}

#[test]
fn one_name_given_twice_to_one_image_counts_once() {
    let bytes = with(|m| m[0]["RepoTags"] = json!(["app:1", "docker.io/library/app:1"]));
    assert_eq!(read_archive(&bytes, None).unwrap()[0].tags, ["app:1"]);
}

#[test]
fn the_last_of_two_members_of_one_name_counts() {
    let layer = layer(10);
    let manifest = json!([{"Config": "c.json", "RepoTags": ["app:1"], "Layers": ["l.tar"]}]);
    let bytes = Tar::default()
        .file("c.json", "not JSON")
        .file("l.tar", &layer)
        .file("c.json", config(&[&layer]))
        .json("manifest.json", &manifest)
        .end();
    assert_eq!(read_archive(&bytes, None).unwrap()[0].tags, ["app:1"]);
}

#[test]
fn truncation_at_any_byte_is_an_error() {
    let bytes = with(|_| {});
    assert!(read_archive(&bytes, None).is_ok());
    for length in 0..bytes.len() {
        let cut = &bytes[..length];
        let line = as_file(cut, None).expect_err("by offset").to_string();
        let expected = if length == 0 {
            "empty file"
        } else {
            "truncated archive: it ends at byte"
        };
        assert!(line.contains(expected), "{length}: {line}");
        let line = as_pipe(cut, None).expect_err("as a stream").to_string();
        let expected = if length == 0 {
            "stdin is empty"
        } else {
            "truncated archive: it ends at byte"
        };
        assert!(line.contains(expected), "{length}: {line}");
    }
}

#[test]
fn truncation_of_a_compressed_archive_is_an_error_at_any_byte() {
    let packed = gzip(&with(|_| {}));
    for length in 1..packed.len() {
        assert!(
            as_file(&packed[..length], None).is_err(),
            "{length} of {}",
            packed.len()
        );
    }
    let mut wrong = packed.clone();
    let crc = packed.len() - 5;
    wrong[crc] ^= 0x40;
    assert!(as_pipe(&wrong, None).is_err());
}

#[test]
fn sizes_that_overflow_are_refused() {
    for size in [u64::MAX, 1 << 63, (1 << 63) - 1, 1 << 62] {
        let mut bytes = Tar::default().file("manifest.json", "[]").end();
        // Base-256, as GNU tar writes large sizes.
        bytes[124..136].copy_from_slice(&[&[0x80, 0, 0, 0][..], &size.to_be_bytes()].concat());
        bytes[148..156].copy_from_slice(b"        ");
        let sum: u32 = bytes[..512].iter().map(|b| u32::from(*b)).sum();
        bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        refused(&bytes);
    }
}

#[test]
fn a_document_beyond_the_limit_is_refused() {
    let bytes = Tar::default()
        .file("manifest.json", vec![b' '; 9 << 20])
        .end();
    let by_offset = as_file(&bytes, None).unwrap_err().to_string();
    assert!(
        by_offset.contains("manifest.json: document of 9437184 bytes, the limit is 8388608"),
        "{by_offset}"
    );
    assert_eq!(as_pipe(&bytes, None).unwrap_err().to_string(), by_offset);
}

#[test]
fn many_documents_do_not_fill_the_memory_of_a_stream() {
    let one = vec![b'{'; 100_000];
    let tar = (0..400).fold(Tar::default(), |tar, n| {
        tar.file(&format!("{n}.json"), &one)
    });
    let line = as_pipe(&tar.end(), None).unwrap_err().to_string();
    assert!(
        line.contains("more than 33554432 bytes of documents"),
        "{line}"
    );
}

#[test]
fn many_images_of_one_large_config_do_not_fill_the_memory() {
    let layer = layer(10);
    let mut config = config(&[&layer]);
    config.resize(1 << 20, b' ');
    let entry = json!({"Config": "c.json", "RepoTags": null, "Layers": ["l.tar"]});
    let bytes = Tar::default()
        .file("l.tar", &layer)
        .file("c.json", config)
        .json("manifest.json", &json!(vec![entry; 100]))
        .end();
    assert!(refused(&bytes).contains("more than 50331648 bytes of image configs"));
}

#[test]
fn a_file_that_does_not_exist_is_named_as_docker_does() {
    let error = open(Input::Path("/nonexistent/x.tar".into()))
        .map(|_| ())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "open /nonexistent/x.tar: no such file or directory"
    );
}
