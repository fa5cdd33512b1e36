//! `mica save`: what it writes, who can read it, and what a failure leaves.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::common::image::{ImageBuilder, descriptor};
use crate::common::sandbox::Sandbox;

fn app(name: &str) -> ImageBuilder {
    ImageBuilder::new(name)
        .layer(|l| l.dir("etc", 0o755).file("etc/shared", vec![b's'; 5000]))
        .layer(|l| l.file("etc/own", name).symlink("etc/link", "own"))
}

fn members(path: &Path) -> Vec<String> {
    let file = fs::File::open(path).expect("the archive");
    let mut archive = tar::Archive::new(file);
    let entries = archive.entries().expect("a tar");
    entries
        .map(|e| {
            let entry = e.expect("an entry");
            String::from_utf8_lossy(&entry.path_bytes()).into_owned()
        })
        .collect()
}

fn save(sandbox: &Sandbox, name: &str, images: &[&str]) -> std::path::PathBuf {
    let path = sandbox.path(name);
    let mut args = vec!["save", "-o", path.to_str().expect("UTF-8")];
    args.extend(images);
    sandbox.mica(args).ok();
    path
}

#[test]
fn save_and_load_give_the_same_images() {
    let sandbox = Sandbox::new();
    let (one, two) = (app("app:1"), app("app:2").tag("other/name:x"));
    for image in [&one, &two] {
        sandbox.load(image);
    }
    let path = save(&sandbox, "all.tar", &["app", "other/name:x"]);
    let mode = fs::metadata(&path).expect("stat").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    // The shared layer, two own layers, two configs, two manifests: each once.
    let blobs: Vec<String> = members(&path)
        .into_iter()
        .filter(|m| m.starts_with("blobs/sha256/") && m.len() > 20)
        .collect();
    assert_eq!(blobs.len(), 7, "{blobs:?}");
    for name in ["index.json", "manifest.json", "oci-layout", "repositories"] {
        assert!(members(&path).contains(&name.to_owned()), "{name}");
    }
    let other = Sandbox::new();
    let loaded = other.load_file(&path).ok().stdout();
    assert_eq!(
        loaded,
        "Loaded image: app:1\nLoaded image: app:2\nLoaded image: other/name:x\n"
    );
    let ids = |s: &Sandbox| {
        let text = s.mica(["images", "--no-trunc"]).ok().stdout();
        let mut rows: Vec<String> = text.lines().map(str::to_owned).collect();
        rows.sort();
        rows
    };
    assert_eq!(ids(&other), ids(&sandbox));
    // Saved again from there: the same bytes.
    let again = save(&other, "again.tar", &["app", "other/name:x"]);
    assert_eq!(
        fs::read(again).expect("read"),
        fs::read(&path).expect("read")
    );
}

#[test]
fn save_by_id_has_no_name_and_by_tag_has_one() {
    let sandbox = Sandbox::new();
    let image = app("app:1").tag("app:2");
    sandbox.load(&image);
    let path = save(&sandbox, "id.tar", &[&image.id()]);
    let other = Sandbox::new();
    let loaded = other.load_file(&path).ok().stdout();
    assert_eq!(loaded, format!("Loaded image ID: {}\n", image.id()));
    let path = save(&sandbox, "tag.tar", &["app:2"]);
    let loaded = Sandbox::new().load_file(&path).ok().stdout();
    assert_eq!(loaded, "Loaded image: app:2\n");
}

#[test]
fn save_to_stdout_and_never_to_a_terminal() {
    let sandbox = Sandbox::new();
    sandbox.load(&app("app:1"));
    let path = save(&sandbox, "file.tar", &["app:1"]);
    let stdout = sandbox.mica(["save", "app:1"]).ok().stdout;
    assert_eq!(stdout, fs::read(path).expect("read"));
    let script = format!(
        "script -qec '{} save app:1' /dev/null",
        env!("CARGO_BIN_EXE_mica")
    );
    let run = sandbox.sh(&script).code(1);
    let said = "cowardly refusing to save to a terminal. Use the -o flag or redirect";
    assert!(run.stdout().contains(said), "{}", run.describe());
}

#[test]
fn a_failed_save_leaves_the_old_file() {
    let sandbox = Sandbox::new();
    let image = app("app:1");
    sandbox.load(&image);
    let dir = sandbox.mkdir("out");
    let path = dir.join("file.tar");
    fs::write(&path, "old").expect("write");
    let target = path.to_str().expect("UTF-8");
    let run = sandbox
        .mica(["save", "-o", target, "app:1", "no:such"])
        .code(1);
    assert_eq!(
        run.stderr(),
        "Error response from daemon: No such image: no:such\n"
    );
    // A bit of the top layer's content turns over.
    let layer = image.diff_ids()[1].replace("sha256:", "");
    let blob = sandbox.store().join("blobs/sha256").join(layer);
    let mut bytes = fs::read(&blob).expect("the layer");
    bytes[512] ^= 1;
    fs::write(&blob, bytes).expect("write");
    let run = sandbox.mica(["save", "-o", target, "app:1"]).code(1);
    assert!(run.stderr().contains("is damaged"), "{}", run.describe());
    assert_eq!(fs::read(&path).expect("read"), b"old");
    assert_eq!(fs::read_dir(&dir).expect("readdir").count(), 1);
}

#[test]
fn net_skopeo_reads_what_save_writes() {
    let sandbox = Sandbox::new();
    let image = app("app:1");
    sandbox.load(&image);
    let path = save(&sandbox, "file.tar", &["app:1"]);
    let path = path.display();
    for (source, number) in [
        (format!("docker-archive:{path}:docker.io/library/app:1"), 1),
        (format!("oci-archive:{path}:1"), 2),
    ] {
        let target = sandbox.path(format!("copy{number}"));
        let mut skopeo = Command::new("skopeo");
        skopeo
            .args(["--insecure-policy", "copy", "-q", &source])
            .arg(format!("dir:{}", target.display()));
        sandbox.run(skopeo).ok();
        let manifest = fs::read(target.join("manifest.json")).expect("a manifest");
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("JSON");
        let config = descriptor("", &image.config_bytes())["digest"].clone();
        assert_eq!(manifest["config"]["digest"], config, "{source}");
    }
}
