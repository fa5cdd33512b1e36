//! Every form in which an image arrives gives the same image.

use std::fs::{self, File};
use std::process::{Command, Stdio};

use serde_json::json;

use super::*;
use crate::common::image::{self, Pack, write_archive};
use crate::common::podman::Podman;
use crate::common::{real, tier};

/// docker's lines last on stdout, one line per layer on stderr.
#[test]
fn output_is_dockers() {
    let sandbox = Sandbox::new();
    let image = sample("app:1").tag("example.com:5000/org/app:2");
    let run = sandbox.load(&image);
    assert_eq!(
        lines(&run),
        [
            "Loaded image: app:1",
            "Loaded image: example.com:5000/org/app:2"
        ]
    );
    let loaded: String = image
        .diff_ids()
        .iter()
        .map(|d| format!("{}: Loaded\n", short(d)))
        .collect();
    assert_eq!(run.stderr(), loaded);

    let run = sandbox.load(&sample("other:1"));
    assert_eq!(run.stderr(), loaded.replace("Loaded", "Already exists"));

    let run = sandbox.load(&ImageBuilder::new("").layer(|l| l.file("a", "b")));
    assert!(
        run.stdout().starts_with("Loaded image ID: sha256:"),
        "{}",
        run.describe()
    );

    let archive = sandbox.path("quiet.tar");
    sample("quiet:1").docker_archive(&archive);
    let run = sandbox.mica(["load", "-q", "-i", "quiet.tar"]).ok();
    assert_eq!(
        (run.stdout(), run.stderr()),
        ("Loaded image: quiet:1\n".to_owned(), String::new())
    );
}

/// A name that another image had moves, and docker's sentence says so.
#[test]
fn a_name_moves_to_the_image_loaded_last() {
    let sandbox = Sandbox::new();
    let old = sample("app:1");
    sandbox.load(&old);
    let run = sandbox.load(&ImageBuilder::new("app:1").layer(|l| l.file("new", "")));
    let renamed = format!(
        "The image app:1 already exists, renaming the old one with ID {} to empty string",
        old.id()
    );
    assert_eq!(lines(&run), [renamed.as_str(), "Loaded image: app:1"]);
}

/// docker-archive, oci-archive and layout directory, layers plain and compressed: one image, stored once.
#[test]
fn every_format_gives_the_same_image() {
    let sandbox = Sandbox::new();
    sandbox.load(&sample("app:docker"));
    let before = stored_layers(&sandbox);
    assert_eq!(before.len(), 2);
    for (name, pack) in [
        ("plain", Pack::None),
        ("gzip", Pack::Gzip),
        ("zstd", Pack::Zstd),
    ] {
        let image = sample(&format!("app:{name}")).pack(pack);
        image.oci_archive(&sandbox.path(format!("{name}.tar")));
        image.oci_dir(&sandbox.mkdir(name));
        for form in [format!("{name}.tar"), name.to_owned()] {
            let run = sandbox.mica(["load", "-i", &form]).ok();
            assert_eq!(lines(&run), [format!("Loaded image: app:{name}")]);
        }
    }
    assert_eq!(stored_layers(&sandbox), before);
    // The manifests they came by are kept, byte for byte.
    for pack in [Pack::None, Pack::Gzip, Pack::Zstd] {
        let (blobs, _) = sample("").pack(pack).oci_blobs();
        let (digest, manifest) = blobs.last().expect("the manifest");
        let kept = sandbox
            .store()
            .join("blobs/sha256")
            .join(&digest["sha256:".len()..]);
        assert!(
            fs::read(&kept).is_ok_and(|bytes| bytes == *manifest),
            "{pack:?}"
        );
    }
    assert_whole(&sandbox);
}

/// A pipe, a redirected file and every outer compression.
#[test]
fn streams_give_the_same_image() {
    for image in [sample("app:1"), sample("app:1").pack(Pack::Gzip)] {
        let sandbox = Sandbox::new();
        let archive = sandbox.path("app.tar");
        let forms = ["cat", "gzip -c", "zstd -qc", "xz -0 -c", "bzip2 -1 -c"];
        for form in forms {
            match image.pack {
                Pack::None => image.docker_archive(&archive),
                _ => image.oci_archive(&archive),
            }
            let store = sandbox.path(form.replace([' ', '-'], "_"));
            let mica = format!(
                "\"{}\" --store \"{}\" load",
                env!("CARGO_BIN_EXE_mica"),
                store.display()
            );
            let script = format!(
                "{form} <app.tar >out; cat out | {mica}; {mica} <out; {mica} -i out; cat out | {mica}"
            );
            let run = sandbox.sh(&script).ok();
            assert_eq!(lines(&run), ["Loaded image: app:1"; 4], "{form}");
            let loaded = run
                .stderr()
                .lines()
                .filter(|l| l.ends_with(": Loaded"))
                .count();
            assert_eq!(loaded, 2, "{form}: {}", run.describe());
        }
    }
}

/// Several images share a layer; it is stored once.
#[test]
fn several_images_in_one_archive() {
    let sandbox = Sandbox::new();
    let (one, two) = (
        sample("app:1"),
        sample("app:2").layer(|l| l.file("more", "")),
    );
    image::docker_archive(&[&one, &two], &sandbox.path("two.tar"));
    let run = sandbox.mica(["load", "-i", "two.tar"]).ok();
    assert_eq!(lines(&run), ["Loaded image: app:1", "Loaded image: app:2"]);
    assert_eq!(stored_layers(&sandbox).len(), 3);
    let run = sandbox
        .sh("cat two.tar | \"$0\" load"
            .replace("$0", env!("CARGO_BIN_EXE_mica"))
            .as_str())
        .ok();
    assert_eq!(lines(&run), ["Loaded image: app:1", "Loaded image: app:2"]);
    assert_eq!(stored_layers(&sandbox).len(), 3);
}

/// A stream's layers are taken in before anybody knows whether an image needs them; those that none needs do not stay.
#[test]
fn what_no_image_of_a_stream_needs_does_not_stay() {
    let sandbox = Sandbox::new();
    let image = ImageBuilder::new("app:1").layer(|l| l.file("small", "content"));
    let stray = sample("").layers.remove(0);
    let config = image.config_bytes();
    let files = vec![
        ("stray.tar".to_owned(), stray),
        ("l.tar".to_owned(), image.layers[0].clone()),
        ("c.json".to_owned(), config),
        (
            "manifest.json".to_owned(),
            json!([{"Config": "c.json", "RepoTags": ["app:1"], "Layers": ["l.tar"]}])
                .to_string()
                .into_bytes(),
        ),
    ];
    write_archive(&sandbox.path("stray.tar"), &files);
    sandbox
        .sh("cat stray.tar | \"$0\" load"
            .replace("$0", env!("CARGO_BIN_EXE_mica"))
            .as_str())
        .ok();
    assert_eq!(
        stored_layers(&sandbox),
        [format!("{}.idx", &image.diff_ids()[0]["sha256:".len()..])]
    );
    // Layer, config, manifest.
    assert_eq!(
        fs::read_dir(sandbox.store().join("blobs/sha256"))
            .expect("readdir")
            .count(),
        3
    );
}

/// `-` and no `-i` at all are standard input; a terminal there is docker's error.
#[test]
fn standard_input() {
    let sandbox = Sandbox::new();
    sample("app:1").docker_archive(&sandbox.path("app.tar"));
    for args in [
        &["load"][..],
        &["load", "-i", "-"][..],
        &["load", "--input=-"][..],
    ] {
        let mut command = sandbox.command();
        let stdin = File::open(sandbox.path("app.tar")).expect("the archive");
        let output = command
            .args(args)
            .stdin(Stdio::from(stdin))
            .output()
            .expect("mica");
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "Loaded image: app:1\n"
        );
    }
    let run = sandbox.mica(["load"]).code(1);
    assert!(
        run.stderr()
            .contains("requested load from stdin, but stdin is empty"),
        "{}",
        run.describe()
    );
    let mut script = Command::new("script");
    script.args([
        "-qec",
        &format!("'{}' load", env!("CARGO_BIN_EXE_mica")),
        "/dev/null",
    ]);
    script.env("MICA_STORE", sandbox.store());
    let run = sandbox.run(script).code(1);
    assert!(
        run.stdout()
            .contains("requested load from stdin, but stdin is empty"),
        "{}",
        run.describe()
    );
}

/// `--platform` takes that image of an index, and refuses an image for another.
#[test]
fn a_platform_can_be_chosen() {
    let sandbox = Sandbox::new();
    let images = ["amd64", "arm64"].map(|architecture| {
        let image = ImageBuilder::new("").layer(|l| l.file("arch", architecture));
        image.config(|c| c["architecture"] = json!(architecture))
    });
    let mut files = Vec::new();
    let mut entries = Vec::new();
    for (image, architecture) in images.iter().zip(["amd64", "arm64"]) {
        let (blobs, mut descriptors) = image.oci_blobs();
        files.extend(
            blobs
                .into_iter()
                .map(|(d, b)| (format!("blobs/{}", d.replace(':', "/")), b)),
        );
        descriptors[0]["platform"] = json!({"os": "linux", "architecture": architecture});
        entries.extend(descriptors);
    }
    let inner = json!({"schemaVersion": 2, "manifests": entries})
        .to_string()
        .into_bytes();
    let mut outer = image::descriptor("application/vnd.oci.image.index.v1+json", &inner);
    outer["annotations"] = json!({"io.containerd.image.name": "docker.io/library/app:multi"});
    files.push((format!("blobs/{}", digest(&inner).replace(':', "/")), inner));
    files.push((
        "index.json".into(),
        json!({"schemaVersion": 2, "manifests": [outer]})
            .to_string()
            .into_bytes(),
    ));
    write_archive(&sandbox.path("multi.tar"), &files);

    sandbox.mica(["load", "-i", "multi.tar"]).ok();
    let host = usize::from(image::host_architecture() == "arm64");
    let held = |id: &str| {
        sandbox
            .store()
            .join("blobs/sha256")
            .join(&id["sha256:".len()..])
            .exists()
    };
    assert!(held(&images[host].id()) && !held(&images[1 - host].id()));
    sandbox
        .mica(["load", "-i", "multi.tar", "--platform", "linux/arm64"])
        .ok();
    assert!(held(&images[1].id()));
    let run = sandbox
        .mica(["load", "-i", "multi.tar", "--platform", "linux/s390x"])
        .code(1);
    assert!(
        run.stderr().contains("no image for platform linux/s390x"),
        "{}",
        run.describe()
    );
    sandbox
        .mica(["load", "-i", "multi.tar", "--platform", "a/b/c/d"])
        .code(125);
}

/// What skopeo makes of an image in each of its formats is loaded as the same image, and it reads our store.
#[test]
fn skopeo_formats() {
    let sandbox = Sandbox::new();
    sample("docker.io/library/app:1").docker_archive(&sandbox.path("app.tar"));
    sandbox
        .sh("
        copy() { skopeo --insecure-policy copy -q docker-archive:app.tar \"$@\"; }
        copy docker-archive:d.tar:app:docker
        copy oci-archive:o.tar:app:oci
        copy oci:layout:app:layout
        copy --dest-compress-format zstd oci:zstd:app:zstd
        copy --dest-compress oci:bare:latest
        copy dir:plain
        copy --dest-compress dir:packed
        ")
        .ok();
    let id = sample("app:1").id();
    // Into OCI formats skopeo writes the config anew, the same each time.
    let first: serde_json::Value = {
        let read = |path: &str| fs::read(sandbox.path("bare").join(path)).expect("the layout");
        let index: serde_json::Value = serde_json::from_slice(&read("index.json")).expect("JSON");
        let digest = index["manifests"][0]["digest"].as_str().expect("a digest");
        serde_json::from_slice(&read(&format!("blobs/{}", digest.replace(':', "/")))).expect("JSON")
    };
    let converted = first["config"]["digest"].as_str().expect("a digest");
    for (from, line) in [
        ("d.tar", "Loaded image: app:docker".to_owned()),
        ("o.tar", "Loaded image: app:oci".to_owned()),
        ("layout", "Loaded image: app:layout".to_owned()),
        ("zstd", "Loaded image: app:zstd".to_owned()),
        ("bare", format!("Loaded image ID: {converted}")),
        ("plain", format!("Loaded image ID: {id}")),
        ("packed", format!("Loaded image ID: {id}")),
    ] {
        let run = sandbox.mica(["load", "-i", from]).ok();
        assert_eq!(lines(&run), [line], "{from}");
        assert_eq!(
            run.stderr().contains("names this image only \"latest\""),
            from == "bare"
        );
    }
    assert_eq!(stored_layers(&sandbox).len(), 2);
    sandbox
        .sh("skopeo --insecure-policy copy -q oci:store:app:docker dir:back && ls back")
        .ok();
    assert!(sandbox.path("back").join(&id["sha256:".len()..]).is_file());
}

/// `podman save` in all its formats, one or several images at once.
#[test]
fn root_podman_save() {
    tier::root();
    let sandbox = Sandbox::new();
    // Without the link into the lower layer, which podman cannot unpack.
    let sample = |tag| {
        let mut image = sample(tag);
        image.layers.truncate(1);
        image
            .config(|c| {
                c["rootfs"]["diff_ids"]
                    .as_array_mut()
                    .expect("a list")
                    .truncate(1)
            })
            .layer(|l| l.whiteout("etc/gone").file("etc/hostname", "three"))
    };
    sample("localhost/app:1").docker_archive(&sandbox.path("app.tar"));
    let podman = Podman::new(&sandbox, sandbox.path("podman"));
    sample("localhost/app:2")
        .layer(|l| l.file("x", "y"))
        .docker_archive(&sandbox.path("two.tar"));
    let run = |args: &[&str]| {
        let mut command = podman.command(args);
        command.current_dir(sandbox.dir());
        sandbox.run(command).ok()
    };
    run(&["load", "-q", "-i", "app.tar"]);
    run(&["load", "-q", "-i", "two.tar"]);
    for format in ["docker-archive", "oci-archive", "oci-dir", "docker-dir"] {
        run(&[
            "save",
            "-q",
            "--format",
            format,
            "-o",
            format,
            "localhost/app:1",
        ]);
        let run = sandbox.mica(["load", "-i", format]).ok();
        // Into OCI formats podman writes the config anew, so the name may move.
        let lines = lines(&run);
        let last = lines.last().expect("a line");
        match format {
            "docker-dir" => assert!(last.starts_with("Loaded image ID: sha256:"), "{last}"),
            _ => assert_eq!(last, "Loaded image: localhost/app:1", "{format}"),
        }
    }
    run(&[
        "save",
        "-q",
        "-m",
        "-o",
        "both.tar",
        "localhost/app:1",
        "localhost/app:2",
    ]);
    let seen = lines(&sandbox.mica(["load", "-i", "both.tar"]).ok());
    for name in ["localhost/app:1", "localhost/app:2"] {
        assert!(seen.contains(&format!("Loaded image: {name}")), "{seen:?}");
    }
    assert_eq!(stored_layers(&sandbox).len(), 3);
    assert_whole(&sandbox);
}

/// A real Debian image of several layers, as docker-archive, oci-archive and through a pipe.
#[test]
fn root_a_real_image() {
    tier::root();
    let sandbox = Sandbox::new();
    sandbox.load_file(&real::oci_archive("small")).ok();
    let before = sandbox.store_files();
    let run = sandbox.load_file(&real::docker_archive("small")).ok();
    assert!(!run.stderr().contains(": Loaded"), "{}", run.describe());
    let layers = stored_layers(&sandbox);
    let mica = env!("CARGO_BIN_EXE_mica");
    let archive = real::docker_archive("small");
    let run = sandbox
        .sh(&format!("cat '{}' | '{mica}' load", archive.display()))
        .ok();
    assert!(!run.stderr().contains(": Loaded"), "{}", run.describe());
    assert_eq!(stored_layers(&sandbox), layers);
    assert_eq!(before.len(), sandbox.store_files().len());
    assert_whole(&sandbox);
}
