//! What bad archives get from the binary: exit status 1, one line that says where, and a store as it was.

use std::fs;

use serde_json::{Value, json};

use super::*;
use crate::common::image::{Pack, descriptor, write_archive};

/// Loads `archive` by offset and as a stream; both must refuse with a line that holds all of `words`.
#[track_caller]
fn refused(sandbox: &Sandbox, words: &[&str]) {
    let mica = env!("CARGO_BIN_EXE_mica");
    for (name, run) in [
        ("bad.tar", sandbox.mica(["load", "-i", "bad.tar"])),
        ("stdin", sandbox.sh(&format!("cat bad.tar | '{mica}' load"))),
    ] {
        let run = run.code(1);
        assert!(run.stdout().is_empty(), "{}", run.describe());
        // Layers that were taken in before the bad one have their lines; the last is the error.
        let stderr = run.stderr();
        let last = stderr.lines().last().unwrap_or_default();
        assert!(
            stderr
                .lines()
                .rev()
                .skip(1)
                .all(|l| l.ends_with(": Loaded")),
            "{}",
            run.describe()
        );
        assert!(
            last.starts_with(&format!("mica: {name}: ")),
            "{}",
            run.describe()
        );
        for word in words {
            assert!(last.contains(word), "{last:?} lacks {word:?}");
        }
        sandbox.mica(["gc"]).ok();
        assert_empty(&sandbox.store());
    }
}

fn from_layer(sandbox: &Sandbox, image: ImageBuilder, words: &[&str]) {
    image.docker_archive(&sandbox.path("bad.tar"));
    refused(sandbox, words);
    for pack in [Pack::Gzip, Pack::Zstd] {
        image
            .clone()
            .pack(pack)
            .oci_archive(&sandbox.path("bad.tar"));
        refused(sandbox, words);
    }
}

/// Entries that no tree can hold name themselves and their layer.
#[test]
fn bad_entries() {
    let sandbox = Sandbox::new();
    let app = || ImageBuilder::new("app:1").layer(|l| l.dir("d", 0o755).file("d/f", "x"));
    let long = "n".repeat(256);
    let table: Vec<(ImageBuilder, &str)> = vec![
        (app().layer(|l| l.hardlink("link", "nothing")), "link"),
        (
            app().layer(|l| l.hardlink("link", "../../etc/passwd")),
            "link",
        ),
        (app().layer(|l| l.hardlink("link", "d")), "link"),
        (
            app().layer(|l| l.whiteout("d").hardlink("link", "d/f")),
            "link",
        ),
        (app().layer(|l| l.file("d/.wh.", "")), ".wh."),
        (app().layer(|l| l.file("d/.wh..", "")), ".wh.."),
        (app().layer(|l| l.file("d/.wh...", "")), ".wh..."),
        (
            app().layer(|l| l.file("file", "").file("file/below", "")),
            "file",
        ),
        (app().layer(|l| l.file(&long, "")), "nnn"),
    ];
    for (image, entry) in table {
        from_layer(&sandbox, image, &["layer ", entry]);
    }
}

/// A layer cut anywhere, or no tar at all.
#[test]
fn bad_layers() {
    let sandbox = Sandbox::new();
    let whole = sample("").layers.remove(0);
    for length in [100, 511, 513, 1500, whole.len() / 2, whole.len() - 2000] {
        let image = ImageBuilder::new("app:1").layer_tar(whole[..length].to_vec());
        from_layer(&sandbox, image, &["layer "]);
    }
    let noise: Vec<u8> = (0..300_000u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    for bytes in [noise, b"text".repeat(1000)] {
        from_layer(
            &sandbox,
            ImageBuilder::new("app:1").layer_tar(bytes),
            &["layer "],
        );
    }
}

/// docker's words for a config that disagrees with the layers.
#[test]
fn layers_that_are_not_those_of_the_config() {
    let sandbox = Sandbox::new();
    let lie = format!("sha256:{}", "1".repeat(64));
    let image = sample("app:1").config(|c| c["rootfs"]["diff_ids"][1] = json!(lie));
    from_layer(
        &sandbox,
        image,
        &[
            "invalid diffID for layer 1: expected \"sha256:1111",
            "got \"sha256:",
        ],
    );
    let image = sample("app:1").config(|c| {
        c["rootfs"]["diff_ids"]
            .as_array_mut()
            .expect("a list")
            .pop();
    });
    from_layer(
        &sandbox,
        image,
        &["layers length mismatch: expected 1, got 2"],
    );
}

/// A layer that is in the store already does not excuse an archive that lies about it.
#[test]
fn a_lie_about_a_layer_that_is_there() {
    let sandbox = Sandbox::new();
    sandbox.load(&sample("app:1"));
    let before = sandbox.store_files();
    let mut image = sample("lie:1");
    image.layers[0] = ImageBuilder::new("")
        .layer(|l| l.file("evil", ""))
        .layers
        .remove(0);
    let mica = env!("CARGO_BIN_EXE_mica");
    for pack in [None, Some(Pack::None), Some(Pack::Gzip)] {
        match pack {
            None => image.docker_archive(&sandbox.path("bad.tar")),
            Some(pack) => image
                .clone()
                .pack(pack)
                .oci_archive(&sandbox.path("bad.tar")),
        }
        for run in [
            sandbox.mica(["load", "-i", "bad.tar"]),
            sandbox.sh(&format!("cat bad.tar | '{mica}' load")),
        ] {
            let run = run.code(1);
            assert!(
                run.stderr().contains("invalid diffID for layer 0"),
                "{}",
                run.describe()
            );
        }
    }
    sandbox.mica(["gc"]).ok();
    assert_eq!(sandbox.store_files(), before);
}

/// Blobs that are not what their descriptors say.
#[test]
fn blobs_that_lie() {
    let sandbox = Sandbox::new();
    let image = sample("app:1");
    let (blobs, entries) = image.oci_blobs();
    let write = |change: &dyn Fn(usize, &mut Vec<u8>)| {
        let mut files = Vec::new();
        for (n, (name, bytes)) in blobs.iter().enumerate() {
            let mut bytes = bytes.clone();
            change(n, &mut bytes);
            files.push((format!("blobs/{}", name.replace(':', "/")), bytes));
        }
        let index: Value = json!({"schemaVersion": 2, "manifests": entries});
        files.push(("index.json".to_owned(), index.to_string().into_bytes()));
        write_archive(&sandbox.path("bad.tar"), &files);
    };
    // Config, two layers, manifest.
    for (n, (digest, _)) in blobs.iter().enumerate() {
        let hex = &digest["sha256:".len()..];
        write(&|at, bytes| {
            if at == n {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
            }
        });
        refused(&sandbox, &[hex]);
        write(&|at, bytes| {
            if at == n {
                bytes.push(0);
            }
        });
        refused(&sandbox, &[hex, "its descriptor says"]);
    }
    let mut files: Vec<(String, Vec<u8>)> = blobs
        .iter()
        .map(|(d, b)| (format!("blobs/{}", d.replace(':', "/")), b.clone()))
        .collect();
    let wrong = json!({"schemaVersion": 2, "manifests": [descriptor("application/vnd.oci.image.manifest.v1+json", b"x")]});
    files.push(("index.json".to_owned(), wrong.to_string().into_bytes()));
    write_archive(&sandbox.path("bad.tar"), &files);
    refused(
        &sandbox,
        &["index.json: manifest sha256:", "is not in the archive"],
    );
}

/// The layer is one gigabyte of zeros in one megabyte.
#[test]
fn a_layer_that_decompresses_without_end() {
    let sandbox = Sandbox::new();
    let mut image = ImageBuilder::new("app:1").layer(|l| l.file("zeros", vec![0u8; 64 << 20]));
    image.pack = Pack::Gzip;
    image.oci_archive(&sandbox.path("bomb.tar"));
    let run = sandbox
        .mica(["load", "-i", "bomb.tar", "--max-layer-size", "1m"])
        .code(1);
    assert!(
        run.stderr().contains("bomb.tar: blobs/sha256/"),
        "{}",
        run.describe()
    );
    assert!(run.stderr().contains("1048576"), "{}", run.describe());
    sandbox.mica(["gc"]).ok();
    assert_empty(&sandbox.store());
    let many =
        ImageBuilder::new("app:1").layer(|l| (0..100).fold(l, |l, n| l.file(format!("{n}"), "")));
    many.docker_archive(&sandbox.path("many.tar"));
    let run = sandbox
        .mica(["load", "-i", "many.tar", "--max-layer-entries", "99"])
        .code(1);
    assert!(run.stderr().contains("99"), "{}", run.describe());
    sandbox
        .mica(["load", "-i", "many.tar", "--max-layer-entries", "100"])
        .ok();
}

/// One bad image in an archive of several: none is loaded.
#[test]
fn all_or_nothing() {
    let sandbox = Sandbox::new();
    let good = sample("good:1");
    let bad = sample("bad:1").layer(|l| l.hardlink("link", "nothing"));
    crate::common::image::docker_archive(&[&good, &bad], &sandbox.path("bad.tar"));
    refused(&sandbox, &["link"]);
    let twins = [
        sample("same:1"),
        sample("same:1").layer(|l| l.file("x", "")),
    ];
    crate::common::image::docker_archive(&[&twins[0], &twins[1]], &sandbox.path("bad.tar"));
    refused(&sandbox, &["two images claim the name same:1"]);
}

/// Neither a file that is not there nor a directory without an image makes a store entry.
#[test]
fn no_archive() {
    let sandbox = Sandbox::new();
    let run = sandbox.mica(["load", "-i", "nothing.tar"]).code(1);
    assert_eq!(
        run.stderr(),
        "mica: open nothing.tar: no such file or directory\n"
    );
    sandbox.mkdir("empty");
    let run = sandbox.mica(["load", "-i", "empty"]).code(1);
    let line = "mica: empty: no index.json and no manifest.json in it: this is no image archive\n";
    assert_eq!(run.stderr(), line);
    fs::write(sandbox.path("zero"), "").expect("a file");
    sandbox.mica(["load", "-i", "zero"]).code(1);
    assert_empty(&sandbox.store());
}
