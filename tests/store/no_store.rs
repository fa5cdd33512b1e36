//! A directory that is no store, given as one by mistake.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::common::sandbox::Sandbox;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("stat").permissions().mode() & 0o7777
}

/// `--store /etc`: no verb changes a mode in there, whatever names it finds.
#[test]
fn regression_what_is_no_store_is_left_as_it_is() {
    let sandbox = Sandbox::new();
    let dir = sandbox.mkdir("etc");
    for name in ["containers", "layers", "volumes", "other"] {
        fs::create_dir(dir.join(name)).unwrap();
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    for (name, text) in [
        ("lock", ""),
        ("meta.json", "{\"name\": \"something else\"}"),
        ("passwd", "x"),
    ] {
        fs::write(dir.join(name), text).unwrap();
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o644)).unwrap();
    }
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(sandbox.path("m")).unwrap();
    let store = dir.to_str().unwrap();
    let point = sandbox.path("m");
    let point = point.to_str().unwrap();
    let verbs = [
        &["images"][..],
        &["gc"],
        &["check"],
        &["system", "df"],
        &["volume", "create", "v1"],
        &["tag", "a", "b"],
        &["mount", point],
        &["login", "-u", "x", "-p", "y", "127.0.0.1:1"],
        &["run", "--rm", "a", "true"],
    ];
    // With and without what looks like a store's description.
    for without in [false, true] {
        if without {
            fs::remove_file(dir.join("meta.json")).unwrap();
        }
        for verb in verbs {
            let run = sandbox.mica([&["--store", store], verb].concat());
            let changed = ["", "containers", "layers", "volumes", "other"]
                .iter()
                .find(|name| mode(&dir.join(name)) != 0o755);
            assert_eq!(changed, None, "{}", run.describe());
            for file in ["lock", "passwd"] {
                assert_eq!(mode(&dir.join(file)), 0o644, "{}", run.describe());
            }
        }
    }
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 6);
}
