//! The store is an OCI image layout to others.

use std::fs;
use std::process::Command;

use mica::store::{OpenMode, Store};

use super::helper::{self, diff_id, layer_tar, quick_dir};

fn skopeo(args: &[&str]) -> serde_json::Value {
    let run = Command::new("skopeo").args(args).output();
    let run = run.expect("this test needs skopeo: install it");
    assert!(run.status.success(), "skopeo {args:?}: {run:?}");
    serde_json::from_slice(&run.stdout).unwrap_or_default()
}

/// `skopeo inspect` and `skopeo copy` work on a store by the names that mica prints.
#[test]
fn root_skopeo_reads_a_store() {
    let dir = quick_dir();
    let path = dir.path().join("store");
    let store = Store::open(&path, OpenMode::Create).expect("a store");
    helper::import(&store, &[7], &[]).expect("a dangling image");
    let names = ["nginx:latest", "org/app:1.0", "host.example:5000/org/app:2"];
    helper::import(&store, &[1, 2], &names).expect("an import");
    for name in names {
        let source = format!("oci:{}:{name}", path.display());
        let inspected = skopeo(&["inspect", &source]);
        assert_eq!(inspected["Layers"][0], diff_id(1).to_string());
        assert_eq!(inspected["Architecture"], "amd64");
        let config = skopeo(&["inspect", "--config", &source]);
        assert_eq!(config["rootfs"]["diff_ids"][1], diff_id(2).to_string());
    }
    let copy = dir.path().join("copy");
    let source = format!("oci:{}:nginx:latest", path.display());
    let target = format!("dir:{}", copy.display());
    skopeo(&["--insecure-policy", "copy", &source, &target]);
    let copied = fs::read(copy.join(diff_id(2).hex())).expect("the second layer");
    assert_eq!(copied, layer_tar(2));
    let copied = fs::read(copy.join(helper::config(&[1, 2]).id.hex())).expect("the config");
    assert_eq!(copied, helper::config(&[1, 2]).bytes);
}
