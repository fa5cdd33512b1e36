//! OCI layouts: nested indexes, platforms, names, lies.

use crate::archive::tests::*;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(bytes).to_string(), "size": bytes.len()})
}

fn named(mut descriptor: Value, name: &str) -> Value {
    descriptor["annotations"] = json!({"io.containerd.image.name": name});
    descriptor
}

fn on(mut descriptor: Value, architecture: &str) -> Value {
    descriptor["platform"] = json!({"os": "linux", "architecture": architecture});
    descriptor
}

fn manifest(config: &[u8], layers: &[Vec<u8>]) -> Vec<u8> {
    let layers: Vec<Value> = layers
        .iter()
        .map(|l| descriptor("application/vnd.oci.image.layer.v1.tar+gzip", l))
        .collect();
    let config = descriptor("application/vnd.oci.image.config.v1+json", config);
    json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers})
        .to_string()
        .into_bytes()
}

fn index(entries: &[Value]) -> Vec<u8> {
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
        .to_string()
        .into_bytes()
}

/// The blobs of an image for one architecture; its manifest is the last.
fn image(architecture: &str, size: usize) -> Vec<Vec<u8>> {
    let plain = layer(size);
    let config = config_for(architecture, &[&plain]);
    let packed = gzip(&plain);
    let manifest = manifest(&config, std::slice::from_ref(&packed));
    vec![config, packed, manifest]
}

fn layout(blobs: &[Vec<u8>], entries: &[Value]) -> Vec<u8> {
    let tar = Tar::default().json("oci-layout", &json!({"imageLayoutVersion": "1.0.0"}));
    let tar = blobs.iter().fold(tar, |tar, blob| tar.blob(blob));
    tar.file("index.json", index(entries)).end()
}

#[test]
fn an_image_is_found_with_its_manifest_and_names() {
    let blobs = image("amd64", 10);
    let one = descriptor(MANIFEST, &blobs[2]);
    let entries = [
        named(one.clone(), "docker.io/library/app:1"),
        named(one, "example.com:5000/x/y:2"),
    ];
    let seen = read_archive(&layout(&blobs, &entries), None).unwrap();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].tags, ["app:1", "example.com:5000/x/y:2"]);
    assert_eq!(seen[0].origins, 1);
    assert_eq!(seen[0].layers[0].1.as_ref(), Some(&seen[0].layers[0].0));
}

#[test]
fn nested_indexes_are_followed_to_the_wanted_platform() {
    let (amd, arm) = (image("amd64", 10), image("arm64", 20));
    let inner = index(&[
        on(descriptor(MANIFEST, &arm[2]), "arm64"),
        on(descriptor(MANIFEST, &amd[2]), "amd64"),
        json!({"mediaType": MANIFEST, "digest": Digest::of(b"gone").to_string(), "size": 4,
            "platform": {"os": "unknown", "architecture": "unknown"},
            "annotations": {"vnd.docker.reference.type": "attestation-manifest"}}),
    ]);
    let middle = index(&[descriptor(INDEX, &inner)]);
    let blobs = [amd.clone(), arm.clone(), vec![inner, middle.clone()]].concat();
    let bytes = layout(
        &blobs,
        &[named(descriptor(INDEX, &middle), "docker.io/library/app:1")],
    );
    for (wanted, config) in [("linux/amd64", &amd[0]), ("linux/arm64", &arm[0])] {
        let seen = read_archive(&bytes, Some(wanted)).unwrap();
        assert_eq!(
            (seen.len(), &seen[0].id),
            (1, &Digest::of(config).short()),
            "{wanted}"
        );
    }
    let line = read_archive(&bytes, Some("linux/s390x")).unwrap_err();
    assert!(
        line.contains("no image for platform linux/s390x; it has linux/arm64"),
        "{line}"
    );
}

#[test]
fn regression_every_nested_index_is_looked_through() {
    let (amd, arm) = (image("amd64", 10), image("arm64", 20));
    let first = index(&[on(descriptor(MANIFEST, &arm[2]), "arm64")]);
    let second = index(&[on(descriptor(MANIFEST, &amd[2]), "amd64")]);
    let outer = index(&[descriptor(INDEX, &first), descriptor(INDEX, &second)]);
    let blobs = [amd.clone(), arm.clone(), vec![first, second, outer.clone()]].concat();
    let bytes = layout(&blobs, &[descriptor(INDEX, &outer)]);
    for (wanted, config) in [("linux/amd64", &amd[0]), ("linux/arm64", &arm[0])] {
        let seen = read_archive(&bytes, Some(wanted)).unwrap();
        assert_eq!(seen[0].id, Digest::of(config).short(), "{wanted}");
    }
    let line = read_archive(&bytes, Some("linux/s390x")).unwrap_err();
    assert!(line.contains("no image for platform"), "{line}");
}

/// Eight levels of indexes that all list the next one a thousand times: each is looked through once.
#[test]
fn regression_indexes_that_multiply_end_soon() {
    let arm = image("arm64", 20);
    let mut last = index(&[on(descriptor(MANIFEST, &arm[2]), "arm64")]);
    let mut blobs = arm;
    for _ in 0..6 {
        blobs.push(last.clone());
        last = index(&vec![descriptor(INDEX, &last); 1000]);
    }
    blobs.push(last.clone());
    let bytes = layout(&blobs, &[descriptor(INDEX, &last)]);
    let line = read_archive(&bytes, Some("linux/s390x")).unwrap_err();
    assert!(line.contains("no image for platform"), "{line}");
}

#[test]
fn platforms_side_by_side_in_index_json_are_one_image() {
    let (amd, arm) = (image("amd64", 10), image("arm64", 20));
    let entries = [
        on(descriptor(MANIFEST, &arm[2]), "arm64"),
        on(descriptor(MANIFEST, &amd[2]), "amd64"),
    ];
    let bytes = layout(&[amd.clone(), arm.clone()].concat(), &entries);
    let seen = read_archive(&bytes, Some("linux/arm64")).unwrap();
    assert_eq!((seen.len(), &seen[0].id), (1, &Digest::of(&arm[0]).short()));
    // Without a platform they are images of their own.
    let entries = [descriptor(MANIFEST, &arm[2]), descriptor(MANIFEST, &amd[2])];
    let bytes = layout(&[amd, arm].concat(), &entries);
    assert_eq!(read_archive(&bytes, None).unwrap().len(), 2);
}

#[test]
fn a_sole_image_is_loaded_whatever_its_platform_unless_another_is_asked_for() {
    let blobs = image("s390x", 10);
    let bytes = layout(&blobs, &[on(descriptor(MANIFEST, &blobs[2]), "s390x")]);
    assert_eq!(read_archive(&bytes, None).unwrap().len(), 1);
    let line = read_archive(&bytes, Some("linux/arm64")).unwrap_err();
    assert!(
        line.contains("no image for platform linux/arm64; it has linux/s390x"),
        "{line}"
    );
}

#[test]
fn docker_names_are_added_to_those_of_the_index() {
    let blobs = image("amd64", 10);
    let hex = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
    let list =
        json!([{"Config": hex(&blobs[0]), "RepoTags": ["app:docker"], "Layers": [hex(&blobs[1])]}]);
    let tar = blobs
        .iter()
        .fold(Tar::default(), |tar, blob| tar.blob(blob));
    let entry = named(descriptor(MANIFEST, &blobs[2]), "docker.io/library/app:oci");
    let bytes = tar
        .json("manifest.json", &list)
        .file("index.json", index(&[entry]))
        .end();
    assert_eq!(
        read_archive(&bytes, None).unwrap()[0].tags,
        ["app:oci", "app:docker"]
    );
}

#[test]
fn a_skopeo_directory_is_read() {
    let blobs = image("amd64", 10);
    let tar = Tar::default()
        .file("version", "Directory Transport Version: 1.1\n")
        .file("manifest.json", &blobs[2]);
    let bytes = blobs[..2]
        .iter()
        .fold(tar, |tar, blob| tar.file(&Digest::of(blob).hex(), blob))
        .end();
    let seen = read_archive(&bytes, None).unwrap();
    assert_eq!(
        (seen[0].tags.len(), seen[0].origins, seen[0].layers.len()),
        (0, 1, 1)
    );
}

#[test]
fn lies_are_refused_by_name() {
    let blobs = image("amd64", 10);
    let good = descriptor(MANIFEST, &blobs[2]);
    let lie = |change: &dyn Fn(&mut Value)| {
        let mut entry = good.clone();
        change(&mut entry);
        layout(&blobs, &[entry])
    };
    let plain = layer(10);
    let two = config_for("amd64", &[&plain, &plain]);
    let short = manifest(&two, &[blobs[1].clone()]);
    let both =
        json!({"schemaVersion": 2, "config": descriptor("", &two), "layers": [], "manifests": []});
    let both = both.to_string().into_bytes();
    let deep = (0..12).fold(blobs[2].clone(), |inner, level| {
        index(&[descriptor(
            if level == 0 { MANIFEST } else { INDEX },
            &inner,
        )])
    });
    let mut nest = vec![blobs[2].clone()];
    for level in 0..12 {
        let inner = nest.last().unwrap();
        nest.push(index(&[descriptor(
            if level == 0 { MANIFEST } else { INDEX },
            inner,
        )]));
    }
    assert_eq!(nest.last(), Some(&deep));
    let swapped: Vec<u8> = {
        let tar = Tar::default().file(
            &format!("blobs/sha256/{}", Digest::of(&blobs[2]).hex()),
            &blobs[0],
        );
        tar.file("index.json", index(&[descriptor(MANIFEST, &blobs[2])]))
            .end()
    };
    let table: Vec<(Vec<u8>, &str)> = vec![
        (lie(&|e| e["size"] = json!(5)), "its descriptor says 5"),
        (lie(&|e| e["size"] = json!(-5)), "index.json: "),
        (
            lie(&|e| e["digest"] = json!(Digest::of(b"x").to_string())),
            "is not in the archive",
        ),
        (lie(&|e| e["digest"] = json!("sha512:00")), "index.json: "),
        (
            lie(&|e| e["digest"] = json!("sha256:../../etc/passwd")),
            "index.json: ",
        ),
        (lie(&|e| e["mediaType"] = json!(INDEX)), "manifest sha256:"),
        (
            lie(&|e| e["annotations"] = json!({"io.containerd.image.name": "BAD:1"})),
            "invalid tag \"BAD:1\": ",
        ),
        (
            layout(&blobs[1..], std::slice::from_ref(&good)),
            "config sha256:",
        ),
        (
            layout(
                &[blobs[0].clone(), blobs[2].clone()],
                std::slice::from_ref(&good),
            ),
            "layer sha256:",
        ),
        (
            layout(
                &[blobs[1].clone(), two, short.clone()],
                &[descriptor(MANIFEST, &short)],
            ),
            "expected 2, got 1",
        ),
        (
            layout(std::slice::from_ref(&both), &[descriptor(MANIFEST, &both)]),
            "both an image manifest and an index",
        ),
        (
            layout(&nest, &[descriptor(INDEX, &deep)]),
            "indexes nested deeper than 8",
        ),
        (layout(&blobs, &[]), "index.json: lists no image"),
        (swapped, ": "),
        (
            Tar::default().file("index.json", "{").end(),
            "index.json: invalid JSON",
        ),
        (
            Tar::default().file("index.json", &blobs[2]).end(),
            "index.json: ",
        ),
        (
            Tar::default()
                .json("oci-layout", &json!({"imageLayoutVersion": "9.0"}))
                .end(),
            "oci-layout: unknown image layout version 9.0",
        ),
    ];
    for (bytes, expected) in table {
        match read_archive(&bytes, None) {
            Err(line) => assert!(
                line.contains(expected) && !line.contains('\n'),
                "{line:?} lacks {expected:?}"
            ),
            Ok(seen) => panic!("accepted ({expected}): {seen:?}"),
        }
    }
}
