//! The command line as docker's users know it: whole outputs, exit statuses, and what goes where.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::common::image::{ImageBuilder, digest};
use crate::common::sandbox::Sandbox;

mod cut_short;
mod formatting;
mod histories;
mod listing;
mod managing;
mod plans;
mod pruning;
mod removing;
mod shells;
mod tutorial;
mod usage;
mod volumes;

/// An image of a year for which `CREATED` is stable for a while, with a shared and an own layer.
fn image(name: &str) -> ImageBuilder {
    ImageBuilder::new(name)
        .layer(|l| l.file("shared", vec![b's'; 4_613]))
        .layer(|l| l.file("own", name))
}

/// A store with these images, each as `image` makes it.
fn store(names: &[&str]) -> Sandbox {
    let sandbox = Sandbox::new();
    for name in names {
        sandbox.load(&image(name));
    }
    sandbox
}

/// A process in a directory.
fn sleeper(directory: &Path) -> Child {
    let mut sleep = Command::new("sleep");
    sleep.arg("1000").current_dir(directory);
    sleep.stdin(Stdio::null()).spawn().expect("sleep")
}

/// The first 12 digits of `sha256:<hex>`.
fn short(id: &str) -> String {
    id.trim_start_matches("sha256:")[..12].to_owned()
}

/// The chain IDs of an image, top first: what `Deleted:` lines show.
fn chains(image: &ImageBuilder) -> Vec<String> {
    let mut chains: Vec<String> = Vec::new();
    for diff_id in image.diff_ids() {
        let chain = match chains.last() {
            None => diff_id,
            Some(parent) => digest(format!("{parent} {diff_id}").as_bytes()),
        };
        chains.push(chain);
    }
    chains.reverse();
    chains
}

/// `CREATED` of the images here, whose date is fixed.
fn created(sandbox: &Sandbox, name: &str) -> String {
    let table = sandbox.mica(["images", name]).ok().stdout();
    let row = table.lines().nth(1).unwrap_or_default().to_owned();
    let ago = row
        .find(" ago")
        .unwrap_or_else(|| panic!("no age in {row}"));
    let columns: Vec<&str> = row[..ago + 4]
        .split("   ")
        .filter(|c| !c.is_empty())
        .collect();
    columns.last().unwrap_or(&"").trim().to_owned()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e} in {text}"))
}

#[test]
fn a_closed_reader_is_no_failure() {
    let sandbox = store(&["app:1"]);
    for verb in [
        "images",
        "inspect app:1",
        "history app:1",
        "gc",
        "images -h",
    ] {
        let script = format!(
            "{{ {} {verb}; echo $? >rc; }} | true; cat rc",
            env!("CARGO_BIN_EXE_mica")
        );
        for _ in 0..5 {
            assert_eq!(sandbox.sh(&script).ok().stdout(), "0\n", "{verb}");
        }
    }
}

#[test]
fn tag_is_silent_and_takes_several_targets() {
    let sandbox = store(&["app:1", "other:1"]);
    let run = sandbox
        .mica([
            "tag",
            "app:1",
            "app:latest",
            "registry.example.com:5000/org/app",
            "other:1",
        ])
        .ok();
    assert_eq!((run.stdout(), run.stderr()), (String::new(), String::new()));
    let ids = |name: &str| {
        sandbox
            .mica(["images", "-q", "--no-trunc", name])
            .ok()
            .stdout()
    };
    let id = format!("{}\n", image("app:1").id());
    for name in [
        "app:1",
        "app:latest",
        "registry.example.com:5000/org/app:latest",
        "other:1",
    ] {
        assert_eq!(ids(name), id, "{name}");
    }
    // Overwriting leaves the other image without a name.
    let all = sandbox.mica(["images", "-a"]).ok().stdout();
    assert!(
        all.contains("<none>       <none>") || all.contains("<none>  "),
        "{all}"
    );
    assert!(all.contains(&short(&image("other:1").id())), "{all}");

    sandbox
        .mica(["tag", &short(&image("app:1").id()), "by:prefix"])
        .ok();
    assert_eq!(ids("by:prefix"), id);
}

#[test]
fn tag_changes_all_or_nothing() {
    let sandbox = store(&["app:1"]);
    let before = fs::read(sandbox.store().join("index.json")).expect("index.json");
    let table: [(&[&str], &str); 4] = [
        (
            &["tag", "app:1", "good:1", "Bad:1"],
            "mica: error parsing reference: \"Bad:1\" is not a valid repository/tag: invalid reference format: repository name (library/Bad) must be lowercase\n",
        ),
        (
            &["tag", "app:1", "good:1", "a:b:c"],
            "mica: error parsing reference: \"a:b:c\" is not a valid repository/tag: invalid reference format\n",
        ),
        (
            &["tag", "nothing", "good:1"],
            "Error response from daemon: No such image: nothing:latest\n",
        ),
        (
            &[
                "tag",
                "app:1",
                "good@sha256:7cc4b5aefd1d0cadf8d97d4350462ba51c694ebca145b08d7d41b41acc8db5aa",
            ],
            "mica: refusing to create a tag with a digest reference\n",
        ),
    ];
    for (args, error) in table {
        let run = sandbox.mica(args).code(1);
        assert_eq!((run.stdout().as_str(), run.stderr().as_str()), ("", error));
        let after = fs::read(sandbox.store().join("index.json")).expect("index.json");
        assert_eq!(after, before, "{args:?}");
    }
}

#[test]
fn gc_and_check_of_a_sound_store() {
    let sandbox = store(&["app:1"]);
    assert_eq!(
        sandbox.mica(["gc"]).ok().stdout(),
        "Total reclaimed space: 0B\n"
    );
    assert_eq!(sandbox.mica(["check"]).ok().stdout(), "");

    let stray = sandbox.store().join("blobs/sha256").join("0".repeat(64));
    fs::write(&stray, vec![0; 100_000]).expect("write");
    let line = format!("Deleted: sha256:{}\n", "0".repeat(64));
    let dry = sandbox.mica(["gc", "--dry-run"]).ok().stdout();
    assert!(
        dry.starts_with(&line) && dry.contains("Total reclaimable space: "),
        "{dry}"
    );
    // Waste is shown, and is no damage.
    let check = sandbox.mica(["check"]).ok().stdout();
    assert!(check.contains(&"0".repeat(64)) && stray.exists(), "{check}");
    let run = sandbox.mica(["gc"]).ok().stdout();
    assert_eq!(run, dry.replace("reclaimable", "reclaimed"));
    assert!(!stray.exists());
    assert_eq!(sandbox.mica(["check"]).ok().stdout(), "");
}

#[test]
fn check_names_damage_and_repairs_indexes() {
    let sandbox = store(&["app:1"]);
    let layer = image("app:1").diff_ids()[0].replace("sha256:", "");
    let index = sandbox.store().join("layers").join(format!("{layer}.idx"));
    let good = fs::read(&index).expect("the index");
    fs::remove_file(&index).expect("unlink");
    let run = sandbox.mica(["check"]).code(1);
    assert!(run.stdout().contains(&layer), "{}", run.describe());
    assert_eq!(run.stderr(), "mica: the store is damaged: 1 finding\n");
    let run = sandbox.mica(["check", "--repair"]).ok();
    assert!(run.stdout().contains("(repaired)"), "{}", run.describe());
    assert_eq!(fs::read(&index).expect("the index"), good);
    sandbox.mica(["check"]).ok();

    let blob = sandbox.store().join("blobs/sha256").join(&layer);
    fs::write(&blob, b"other bytes").expect("write");
    let run = sandbox.mica(["check", "--repair"]).code(1);
    assert!(run.stdout().contains(&layer), "{}", run.describe());
}
