//! OCI layouts as tools leave them: artifacts beside images, foreign layers.

use std::fs;

use serde_json::{Value, json};

use super::sample;
use crate::common::image::{descriptor, digest};
use crate::common::sandbox::Sandbox;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A chart as helm pushes it.
pub fn chart() -> Vec<u8> {
    let config = descriptor("application/vnd.cncf.helm.config.v1+json", b"{}");
    let manifest =
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []});
    manifest.to_string().into_bytes()
}

/// A signature as cosign pushes it: with the config of an image.
pub fn signature() -> Vec<u8> {
    let payload = br#"{"critical":{}}"#;
    let config = json!({"architecture": "", "os": "", "rootfs": {"type": "layers", "diff_ids": [digest(payload)]}});
    let config = descriptor(
        "application/vnd.oci.image.config.v1+json",
        config.to_string().as_bytes(),
    );
    let layer = descriptor("application/vnd.dev.cosign.simplesigning.v1+json", payload);
    let manifest =
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]});
    manifest.to_string().into_bytes()
}

#[test]
fn regression_artifacts_in_a_layout_are_passed_over() {
    passed_over(chart(), "helm");
    passed_over(signature(), "cosign.simplesigning");
}

fn passed_over(chart: Vec<u8>, kind: &str) {
    let s = Sandbox::new();
    let layout = s.mkdir("layout");
    sample("app:1").oci_dir(&layout);
    let blob = layout.join("blobs").join(digest(&chart).replace(':', "/"));
    fs::write(blob, &chart).unwrap();
    let file = layout.join("index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let entries = index["manifests"].as_array_mut().unwrap();
    entries.insert(0, descriptor(MANIFEST, &chart));
    fs::write(&file, index.to_string()).unwrap();
    let run = s.load_file(&layout).ok();
    let said = run.stdout() + &run.stderr();
    assert!(
        said.contains("passed over: ") && said.contains(kind),
        "{said}"
    );
    let ids = s.mica(["images", "-q", "--no-trunc"]).ok().stdout();
    assert_eq!(ids.trim(), sample("app:1").id());
    // With nothing else in it there is nothing to load.
    index["manifests"].as_array_mut().unwrap().truncate(1);
    fs::write(&file, index.to_string()).unwrap();
    let alone = s.load_file(&layout).code(1);
    assert!(
        alone.stderr().contains("not a container image"),
        "{}",
        alone.describe()
    );
}

/// Whoever has them may load them.
#[test]
fn regression_foreign_layers_that_are_there_are_loaded() {
    let s = Sandbox::new();
    let layout = s.mkdir("layout");
    sample("app:1").oci_dir(&layout);
    let blob = |digest: &str| layout.join("blobs").join(digest.replace(':', "/"));
    let file = layout.join("index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let entry = &mut index["manifests"][0];
    let manifest = fs::read_to_string(blob(entry["digest"].as_str().unwrap())).unwrap();
    let layer = "image.layer.v1.tar";
    assert!(manifest.contains(layer));
    let manifest = manifest.replace(layer, "image.layer.nondistributable.v1.tar");
    fs::write(blob(&digest(manifest.as_bytes())), &manifest).unwrap();
    entry["digest"] = json!(digest(manifest.as_bytes()));
    entry["size"] = json!(manifest.len());
    fs::write(&file, index.to_string()).unwrap();
    s.load_file(&layout).ok();
    let ids = s.mica(["images", "-q", "--no-trunc"]).ok().stdout();
    assert_eq!(ids.trim(), sample("app:1").id());
}
