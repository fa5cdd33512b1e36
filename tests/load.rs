//! `mica load`: what goes in, what is refused, what is left.

mod bad;
mod formats;
pub mod layouts;
mod safety;

use std::fs;
use std::path::Path;

use crate::common::image::{ImageBuilder, digest};
use crate::common::sandbox::{Run, Sandbox};

/// Two layers: entries of several kinds below, a deletion and a replacement above.
fn sample(tag: &str) -> ImageBuilder {
    let large: Vec<u8> = (0..400_000u32).flat_map(|n| n.to_le_bytes()).collect();
    ImageBuilder::new(tag)
        .layer(|l| {
            l.dir("etc", 0o755)
                .file("etc/hostname", "one")
                .file("etc/gone", "two")
                .dir("usr", 0o755)
                .file("usr/large", &large)
                .symlink("usr/link", "large")
        })
        .layer(|l| {
            l.whiteout("etc/gone")
                .file("etc/hostname", "three")
                .hardlink("usr/hard", "usr/large")
        })
}

/// The layers in the store, by hex digits, sorted.
fn stored_layers(sandbox: &Sandbox) -> Vec<String> {
    let mut layers: Vec<String> = fs::read_dir(sandbox.store().join("layers"))
        .expect("readdir")
        .map(|e| {
            e.expect("readdir")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .collect();
    layers.sort();
    layers
}

fn short(digest: &str) -> &str {
    &digest["sha256:".len()..][..12]
}

/// A run's stdout, as lines.
fn lines(run: &Run) -> Vec<String> {
    run.stdout().lines().map(str::to_owned).collect()
}

/// The blobs of the store, each checked against its name.
fn assert_whole(sandbox: &Sandbox) {
    for entry in fs::read_dir(sandbox.store().join("blobs/sha256")).expect("readdir") {
        let path = entry.expect("readdir").path();
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .expect("a name")
            .to_owned();
        assert_eq!(
            digest(&fs::read(&path).expect("the blob")),
            format!("sha256:{name}")
        );
    }
}

/// Nothing that a load brought is there.
#[track_caller]
fn assert_empty(store: &Path) {
    for dir in ["blobs/sha256", "layers", "tmp"] {
        let left: Vec<_> = fs::read_dir(store.join(dir))
            .expect("readdir")
            .flatten()
            .map(|e| e.path())
            .collect();
        assert!(left.is_empty(), "left behind: {left:?}");
    }
    let index = fs::read_to_string(store.join("index.json")).expect("index.json");
    assert!(!index.contains("sha256:"), "{index}");
}
