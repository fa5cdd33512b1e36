//! Images that are larger than they look.

use std::fs::{self, File};
use std::io::Write as _;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::build::{build, context};
use crate::common::image::{ImageBuilder, Pack};
use crate::common::sandbox::{Run, Sandbox};
use crate::common::tier;
use crate::registry::liar::Liar;

const MIB: usize = 1 << 20;

/// Layers of zeros, each other ones: some hundred bytes that become a megabyte.
fn swelling(layers: u8) -> ImageBuilder {
    let image = ImageBuilder::new("app:1").pack(Pack::Gzip);
    (0..layers).fold(image, |image, n| {
        image.layer(|l| l.file(format!("zeros{n}"), vec![n; MIB]))
    })
}

#[track_caller]
fn too_much(s: &Sandbox, run: Run, before: &[(std::path::PathBuf, u64)]) {
    let run = run.code(1);
    let words = "more than 3145728 bytes together, which is what is allowed (--max-image-size)";
    assert!(run.stderr().contains(words), "{}", run.describe());
    s.mica(["gc"]).ok();
    assert_eq!(s.store_files(), before, "{}", run.describe());
}

/// Every layer is within its own limit, and all together are not: refused before they are all there, nothing stays.
#[test]
fn net_regression_cve_2017_14992_layers_that_are_too_much_together() {
    let s = Sandbox::new();
    s.load(&ImageBuilder::new("kept:1").layer(|l| l.file("a", "b")));
    let before = s.store_files();
    let image = swelling(4);
    let limit = ["--max-image-size", "3m"];
    image.oci_archive(&s.path("oci.tar"));
    image.docker_archive(&s.path("docker.tar"));
    for archive in ["oci.tar", "docker.tar"] {
        too_much(
            &s,
            s.mica([&["load", "-i", archive], &limit[..]].concat()),
            &before,
        );
        let mica = env!("CARGO_BIN_EXE_mica");
        let run = s.sh(&format!(
            "cat {archive} | '{mica}' load {}",
            limit.join(" ")
        ));
        too_much(&s, run, &before);
    }
    let liar = Liar::start(&image, |_, answer| answer);
    let name = liar.name();
    too_much(&s, s.mica([&["pull", &name], &limit[..]].concat()), &before);
    fs::write(
        s.path("tree.tar"),
        ImageBuilder::new("")
            .layer(|l| l.file("f", vec![1; 4 * MIB]))
            .layers[0]
            .as_slice(),
    )
    .unwrap();
    too_much(
        &s,
        s.mica([&["import"], &limit[..], &["tree.tar"]].concat()),
        &before,
    );
    // What lies about its size is refused before it is fetched.
    let told = Liar::start(&image, |request, mut answer| {
        if request.path.contains("/manifests/") {
            let text = String::from_utf8(answer.body.clone()).unwrap();
            let mut manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
            for layer in manifest["layers"].as_array_mut().unwrap() {
                layer["size"] = serde_json::json!(2 * MIB);
            }
            answer.body = manifest.to_string().into_bytes();
            answer.length = Some(answer.body.len());
            answer.headers.retain(|(name, _)| name == "Content-Type");
        }
        answer
    });
    let name = told.name();
    too_much(&s, s.mica([&["pull", &name], &limit[..]].concat()), &before);
    assert_eq!(told.count("/blobs/") - told.count(&image.id()), 0);
    // With a limit that they are within, and with the usual one.
    s.mica(["load", "-i", "oci.tar", "--max-image-size", "5m"])
        .ok();
    s.mica(["rmi", "app:1"]).ok();
    s.mica(["load", "-i", "docker.tar"]).ok();
}

/// The stages of a build are one import.
#[test]
fn root_regression_cve_2017_14992_steps_that_are_too_much_together() {
    let s = Sandbox::new();
    context(
        &s,
        "src",
        &[("Dockerfile", "FROM scratch\nCOPY a /\nCOPY b /\n")],
    );
    for name in ["a", "b"] {
        fs::write(s.path("src").join(name), vec![name.as_bytes()[0]; 2 * MIB]).unwrap();
    }
    let run = build(&s, "src", &["-t", "app:1", "--max-image-size", "3m"]).fails();
    assert!(
        run.stderr().contains("--max-image-size"),
        "{}",
        run.describe()
    );
    assert_eq!(s.mica(["images", "-q", "app"]).ok().stdout(), "");
    build(&s, "src", &["-t", "app:1", "--max-image-size", "5m"]).ok();
}

/// Something of the disk stays free for everybody else.
#[test]
fn root_regression_cve_2017_14992_an_image_does_not_fill_the_disk() {
    tier::root();
    let s = Sandbox::new();
    let store = s.mkdir("store");
    mount("tmpfs", &store, "tmpfs", MountFlags::empty(), c"size=32m").unwrap();
    s.load(&ImageBuilder::new("kept:1").layer(|l| l.file("a", "b")));
    let before = s.store_files();
    let free = || {
        let stat = rustix::fs::statvfs(&store).unwrap();
        stat.f_bavail * stat.f_frsize
    };
    let image = swelling(6);
    image.oci_archive(&s.path("oci.tar"));
    let refused = |more: &[&str]| {
        let run = s.mica([&["load", "-i", "oci.tar"], more].concat()).code(1);
        let words = "No space left on device: ";
        assert!(run.stderr().contains(words), "{}", run.describe());
        assert!(run.stderr().contains("--keep-free"), "{}", run.describe());
        let mut files = s.store_files();
        files.retain(|(path, _)| !path.ends_with("filler"));
        assert_eq!(files, before, "{}", run.describe());
    };
    refused(&["--keep-free", "27m"]);
    s.mica(["load", "-i", "oci.tar", "--keep-free", "8m"]).ok();
    s.mica(["rmi", "app:1"]).ok();
    s.mica(["gc"]).ok();
    // A hundredth, unless told otherwise.
    let mut filler = File::create(store.join("filler")).unwrap();
    while free() > 300 << 10 {
        filler.write_all(&[1; 64 << 10]).unwrap();
    }
    refused(&[]);
    drop(filler);
    fs::remove_file(store.join("filler")).unwrap();
    s.mica(["load", "-i", "oci.tar"]).ok();
    unmount(&store, UnmountFlags::DETACH).unwrap();
}
