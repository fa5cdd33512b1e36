//! docker's JSON, byte for byte.

use crate::oci::Digest;
use crate::ops::fixtures::{image, names, with_origins};
use crate::ops::image::inspect::*;
use crate::text::format;

#[test]
fn keys_and_order_are_dockers() {
    let config = ImageConfig::parse(
        br#"{"architecture": "arm64", "variant": "v8", "os": "linux", "created": "2024-05-06T07:08:09.120000000Z",
        "config": {"User": "u", "ExposedPorts": {"80/tcp": {}}, "Env": ["A=<&>"], "Cmd": ["c"], "Entrypoint": ["e"],
        "Volumes": {"/v": {}}, "WorkingDir": "/w", "Labels": {"k": "v"}, "StopSignal": "SIGQUIT",
        "Healthcheck": {"Test": ["CMD", "x"], "Interval": 5}, "OnBuild": ["RUN x"]},
        "rootfs": {"type": "layers", "diff_ids": []}}"#,
    )
    .unwrap();
    let mut record = with_origins(
        image("a", &["nginx", "nginx:1"], &["1"]),
        &[("nginx", "m"), ("", "n")],
    );
    record.size = 42;
    let names = names([record.clone()]);
    let text = format::json(&[inspection(&names, &record, &config)]).unwrap();
    let expected = r#"[
    {
        "Id": "ID",
        "RepoTags": [
            "nginx:1",
            "nginx:latest"
        ],
        "RepoDigests": [
            "nginx@DIGEST"
        ],
        "Comment": "",
        "Created": "2024-05-06T07:08:09.12Z",
        "Author": "",
        "Config": {
            "User": "u",
            "ExposedPorts": {
                "80/tcp": {}
            },
            "Env": [
                "A=<&>"
            ],
            "Entrypoint": [
                "e"
            ],
            "Cmd": [
                "c"
            ],
            "Volumes": {
                "/v": {}
            },
            "WorkingDir": "/w",
            "Labels": {
                "k": "v"
            },
            "StopSignal": "SIGQUIT",
            "Healthcheck": {
                "Test": [
                    "CMD",
                    "x"
                ],
                "Interval": 5
            },
            "OnBuild": [
                "RUN x"
            ]
        },
        "Architecture": "arm64",
        "Variant": "v8",
        "Os": "linux",
        "Size": 42,
        "GraphDriver": {
            "Data": null,
            "Name": "mica"
        },
        "RootFS": {
            "Type": "layers",
            "Layers": [
                "LAYER"
            ]
        },
        "Metadata": {
            "LastTagTime": "1970-01-01T00:00:02Z"
        }
    }
]
"#
    .replace("ID", &record.id.to_string())
    .replace("DIGEST", &Digest::of(b"m").to_string())
    .replace("LAYER", &record.layers[0].to_string());
    assert_eq!(text, expected);
}

#[test]
fn what_is_not_known_is_empty() {
    let config = ImageConfig::parse(br#"{"rootfs": {}}"#).unwrap();
    let record = image("a", &[], &[]);
    let names = names([record.clone()]);
    let value = serde_json::to_value(inspection(&names, &record, &config)).unwrap();
    assert_eq!(value["RepoTags"], serde_json::json!([]));
    assert_eq!(value["Config"], serde_json::json!({}));
    assert_eq!(value["Created"], "");
    assert_eq!(value["RootFS"], serde_json::json!({"Type": "layers"}));
    assert_eq!(value["Metadata"]["LastTagTime"], "0001-01-01T00:00:00Z");
    assert!(value.get("Variant").is_none() && value.get("OsVersion").is_none());
}

#[test]
fn fractions_end_without_zeros() {
    let table = [
        ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z"),
        ("2024-01-01T00:00:00.000Z", "2024-01-01T00:00:00Z"),
        (
            "2024-01-01T00:00:00.100+02:00",
            "2024-01-01T00:00:00.1+02:00",
        ),
        (
            "2024-01-01T00:00:00.123456789Z",
            "2024-01-01T00:00:00.123456789Z",
        ),
        ("nonsense.", "nonsense"),
    ];
    for (text, nano_text) in table {
        assert_eq!(nano(text), nano_text);
    }
}
