//! What a document is, as a table of documents.

use super::*;
use crate::oci::media_type::{
    DOCKER_LIST, DOCKER_MANIFEST, DOCKER_SCHEMA1_SIGNED, OCI_CONFIG, OCI_EMPTY, OCI_INDEX,
    OCI_LAYER, OCI_MANIFEST,
};

const D1: &str = "sha256:7cc4b5aefd1d0cadf8d97d4350462ba51c694ebca145b08d7d41b41acc8db5aa";

fn parse(text: &str, declared: Option<&str>) -> Result<ManifestOrIndex, DocumentError> {
    let declared = declared.map(|t| MediaType(t.to_owned()));
    ManifestOrIndex::parse(expand(text).as_bytes(), declared.as_ref())
}

/// `CONFIG`, `LAYER`, `D1` stand for valid pieces.
fn expand(text: &str) -> String {
    let config = format!(r#"{{"mediaType": "{OCI_CONFIG}", "digest": "D1", "size": 7}}"#);
    let layer = format!(r#"{{"mediaType": "{OCI_LAYER}+gzip", "digest": "D1", "size": 7}}"#);
    text.replace("CONFIG", &config)
        .replace("LAYER", &layer)
        .replace("D1", D1)
}

#[test]
fn manifests_and_indexes_are_told_apart() {
    let manifest = r#"{"schemaVersion": 2, "config": CONFIG, "layers": [LAYER, LAYER]}"#;
    for declared in [
        None,
        Some(OCI_MANIFEST),
        Some(DOCKER_MANIFEST),
        Some("application/json"),
        Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8"),
    ] {
        match parse(manifest, declared).unwrap() {
            ManifestOrIndex::Manifest(m) => assert_eq!((m.layers.len(), m.config.size), (2, 7)),
            other => panic!("{other:?}"),
        }
    }
    let index = r#"{"schemaVersion": 2, "manifests": [{"mediaType": "x", "digest": "D1", "size": 1,
        "platform": {"os": "linux", "architecture": "arm64", "variant": ""}, "annotations": {"a": null, "b": "c"}},
        {"digest": "D1", "platform": {}, "annotations": null}]}"#;
    match parse(index, Some(OCI_INDEX)).unwrap() {
        ManifestOrIndex::Index(entries) => {
            assert_eq!(
                entries[0].platform.as_ref().unwrap().to_string(),
                "linux/arm64"
            );
            assert_eq!(
                entries[0].annotations.get("b").map(String::as_str),
                Some("c")
            );
            assert_eq!(entries[1].platform, None);
        }
        other => panic!("{other:?}"),
    }
    let empty = r#"{"schemaVersion": 2, "manifests": null}"#;
    assert_eq!(
        parse(empty, Some(DOCKER_LIST)),
        Ok(ManifestOrIndex::Index(Vec::new()))
    );
    let no_layers =
        format!(r#"{{"mediaType": "{OCI_MANIFEST}", "config": CONFIG, "layers": null}}"#);
    assert!(
        matches!(parse(&no_layers, None), Ok(ManifestOrIndex::Manifest(m)) if m.layers.is_empty())
    );
}

#[test]
fn bad_documents_are_refused() {
    let manifest = r#"{"schemaVersion": 2, "config": CONFIG, "layers": [LAYER]}"#;
    let embedded = |t: &str| format!(r#"{{"mediaType": "{t}", "config": CONFIG, "layers": []}}"#);
    let config_of = |t: &str| {
        format!(r#"{{"config": {{"mediaType": "{t}", "digest": "D1", "size": 2}}, "layers": []}}"#)
    };
    let layer_of = |t: &str| {
        format!(
            r#"{{"config": CONFIG, "layers": [{{"mediaType": "{t}", "digest": "D1", "size": 2}}]}}"#
        )
    };
    let deep = format!(r#"{{"config": CONFIG, "layers": {}"#, "[".repeat(200));
    let table: Vec<(String, Option<&str>, &str)> = vec![
        (
            r#"{"config": CONFIG, "layers": [], "manifests": []}"#.into(),
            None,
            "ambiguous document",
        ),
        (
            r#"{"layers": [], "manifests": []}"#.into(),
            Some(OCI_INDEX),
            "ambiguous document",
        ),
        (
            r#"{"config": CONFIG, "manifests": []}"#.into(),
            Some(OCI_MANIFEST),
            "ambiguous document",
        ),
        (
            manifest.into(),
            Some(OCI_INDEX),
            "media type \"application/vnd.oci.image.index.v1+json\" does not fit",
        ),
        (
            r#"{"manifests": []}"#.into(),
            Some(OCI_MANIFEST),
            "media type \"application/vnd.oci.image.manifest.v1+json\" does not fit",
        ),
        (
            embedded(OCI_INDEX),
            None,
            "media type \"application/vnd.oci.image.index.v1+json\" does not fit",
        ),
        (
            embedded(DOCKER_MANIFEST),
            Some(OCI_MANIFEST),
            "document declared as \"application/vnd.oci",
        ),
        (
            embedded("application/vnd.oci.artifact.manifest.v1+json"),
            None,
            "unsupported media type",
        ),
        (
            manifest.into(),
            Some("application/vnd.evil"),
            "unsupported media type \"application/vnd.evil\"",
        ),
        (
            r#"{"schemaVersion": 1, "fsLayers": [], "history": []}"#.into(),
            None,
            "manifest schema 1 is not supported",
        ),
        (
            r#"{"schemaVersion": 2, "fsLayers": [], "layers": []}"#.into(),
            None,
            "manifest schema 1 is not supported",
        ),
        (
            manifest.into(),
            Some(DOCKER_SCHEMA1_SIGNED),
            "manifest schema 1 is not supported",
        ),
        (
            r#"{"schemaVersion": 3, "manifests": []}"#.into(),
            None,
            "unsupported manifest schema version 3",
        ),
        ("{}".into(), None, "document is neither"),
        ("{}".into(), Some(OCI_MANIFEST), "document is neither"),
        (r#"{"layers": []}"#.into(), None, "artifact of type"),
        (
            config_of("application/vnd.cncf.helm.config.v1+json"),
            None,
            "artifact of type \"application/vnd.cncf.helm",
        ),
        (config_of(OCI_EMPTY), None, "artifact of type"),
        (
            layer_of("application/vnd.oci.image.layer.v1.tar+gzip+encrypted"),
            None,
            "layer sha256:7cc4b5aefd1d0cadf8d97d4350462ba51c694ebca145b08d7d41b41acc8db5aa has the unsupported",
        ),
        (
            layer_of("application/vnd.in-toto+json"),
            None,
            "artifact of type \"application/vnd.in-toto+json\" is not",
        ),
        (
            r#"{"config": {"digest": "sha512:00"}, "layers": []}"#.into(),
            None,
            "config: unsupported digest algorithm",
        ),
        (
            r#"{"config": {"digest": "SHA256:00"}, "layers": []}"#.into(),
            None,
            "config: unsupported digest algorithm",
        ),
        (
            r#"{"config": {"digest": "D1", "size": -1}, "layers": []}"#.into(),
            None,
            "config: invalid size -1",
        ),
        (
            r#"{"config": {"digest": "D1", "size": 1e30}, "layers": []}"#.into(),
            None,
            "invalid JSON",
        ),
        (
            r#"{"config": {"digest": "D1", "digest": "D1"}, "layers": []}"#.into(),
            None,
            "invalid JSON: duplicate field `digest`",
        ),
        (
            r#"{"layers": [], "layers": [LAYER]}"#.into(),
            None,
            "invalid JSON: duplicate field `layers`",
        ),
        (deep, None, "invalid JSON"),
        ("nonsense".into(), None, "invalid JSON"),
    ];
    for (text, declared, error) in &table {
        match parse(text, *declared) {
            Err(e) => assert!(e.to_string().starts_with(error), "{e} for {text:.200}"),
            Ok(parsed) => panic!("{parsed:?} for {text:.200}"),
        }
    }
    let huge = vec![b' '; MAX_MANIFEST_BYTES + 1];
    assert!(matches!(
        ManifestOrIndex::parse(&huge, None),
        Err(DocumentError::TooLarge { .. })
    ));
    assert!(Manifest::parse(br#"{"manifests": []}"#, None).is_err());
}

/// Go's decoder, and so docker, takes these names for fields that are there; for others they are nothing.
#[test]
fn regression_cve_2021_41190_names_in_another_case_are_refused() {
    let table = [
        r#"{"schemaVersion": 2, "config": CONFIG, "layers": [LAYER], "Layers": []}"#,
        r#"{"schemaVersion": 2, "config": CONFIG, "LaYeRs": [LAYER]}"#,
        r#"{"config": CONFIG, "layers": [], "Manifests": []}"#,
        r#"{"manifests": [], "Config": CONFIG}"#,
        r#"{"config": {"digest": "D1", "Digest": "D1"}, "layers": []}"#,
        r#"{"manifests": [{"digest": "D1", "platform": {"OS": "linux"}}]}"#,
        "{\"config\": CONFIG, \"layer\u{17f}\": [], \"layers\": []}",
        r#"{"mediatype": "x", "config": CONFIG, "layers": []}"#,
    ];
    for text in table {
        let error = parse(text, None).unwrap_err().to_string();
        assert!(
            error.contains("some readers take it for"),
            "{error} for {text}"
        );
    }
    let own = r#"{"config": {"digest": "D1", "annotations": {"Digest": "x"}}, "layers": [], "x": {"Layers": 1}}"#;
    parse(own, None).unwrap();
}

#[test]
fn layer_types_tell_the_compression() {
    use LayerEncoding::*;
    let table = [
        ("application/vnd.oci.image.layer.v1.tar", Tar),
        ("application/vnd.oci.image.layer.v1.tar+gzip", Gzip),
        ("application/vnd.oci.image.layer.v1.tar+zstd", Zstd),
        ("application/vnd.docker.image.rootfs.diff.tar", Tar),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", Gzip),
        ("application/vnd.docker.image.rootfs.diff.tar.zstd", Zstd),
        ("application/octet-stream", Unknown),
        ("", Unknown),
    ];
    for (text, encoding) in table {
        let descriptor = Descriptor {
            media_type: MediaType(text.to_owned()),
            digest: D1.parse().unwrap(),
            size: 0,
            annotations: BTreeMap::new(),
            platform: None,
        };
        assert_eq!(descriptor.layer_encoding(), Ok(encoding), "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn parse_never_panics(bytes: Vec<u8>, text in r#"\{("(config|layers|manifests|schemaVersion)":(\[\]|\{\}|null|1|2),?){0,4}\}"#) {
        let _ = ManifestOrIndex::parse(&bytes, None);
        let _ = ManifestOrIndex::parse(text.as_bytes(), None);
    }
}

#[test]
fn regression_foreign_layers_are_layers() {
    for text in [
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ] {
        let layer = Descriptor {
            media_type: MediaType(text.to_owned()),
            digest: Digest::of(b""),
            size: 0,
            annotations: BTreeMap::new(),
            platform: None,
        };
        assert_eq!(layer.layer_encoding(), Ok(LayerEncoding::Gzip));
    }
}
