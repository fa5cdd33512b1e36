//! `mica pull` from a real registry.

use std::fs;

use serde_json::json;

use crate::common::image::{ImageBuilder, Pack, descriptor, digest};
use crate::common::registry::{Kind, PASSWORD, Registry, USER, skopeo};
use crate::common::sandbox::Sandbox;

pub fn app(name: &str) -> ImageBuilder {
    ImageBuilder::new(name)
        .layer(|l| l.dir("etc", 0o755).file("etc/shared", vec![b's'; 300_000]))
        .layer(|l| l.file("etc/own", name).symlink("etc/link", "own"))
}

/// Twelve digits of the layers' compressed digests, as docker names them.
fn blobs(image: &ImageBuilder) -> Vec<String> {
    let layers = image.layers.iter();
    layers
        .map(|tar| digest(&image.pack.apply(tar))["sha256:".len()..][..12].to_owned())
        .collect()
}

fn id(sandbox: &Sandbox, name: &str) -> String {
    let run = sandbox.mica(["images", "-q", "--no-trunc", name]).ok();
    run.stdout().trim().to_owned()
}

#[test]
fn net_pull_says_what_docker_says() {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Kind::Plain);
    let image = app("app:latest");
    let digest = registry.push_with_skopeo(&sandbox, &image, "org/app:latest");
    let name = registry.name("org/app");
    let run = sandbox.mica(["pull", &name]).ok();
    let out = run.stdout();
    let blobs = blobs(&image);
    assert!(
        out.starts_with("Using default tag: latest\nlatest: Pulling from org/app\n"),
        "{out}"
    );
    for blob in &blobs {
        for state in ["Pulling fs layer", "Pull complete"] {
            assert!(out.contains(&format!("{blob}: {state}\n")), "{out}");
        }
    }
    let end = format!(
        "Digest: {digest}\nStatus: Downloaded newer image for {name}:latest\n{name}:latest\n"
    );
    assert!(out.ends_with(&end), "{out}");
    assert_eq!(run.stderr(), "");
    assert_eq!(id(&sandbox, &name), image.id());
    let rows = sandbox.mica(["images", "--digests"]).ok().stdout();
    assert!(rows.contains(&digest), "{rows}");

    // Again: nothing happens.
    let before = sandbox.store_files();
    let out = sandbox.mica(["pull", &name]).ok().stdout();
    let expected = format!(
        "Using default tag: latest\nlatest: Pulling from org/app\nDigest: {digest}\n\
         Status: Image is up to date for {name}:latest\n{name}:latest\n"
    );
    assert_eq!(out, expected);
    assert_eq!(sandbox.store_files(), before);

    // Another image on the same base: the base is not downloaded.
    let other = app("app:2");
    registry.push_with_skopeo(&sandbox, &other, "org/app:2");
    let out = sandbox.mica(["pull", &format!("{name}:2")]).ok().stdout();
    assert!(
        out.contains(&format!("{}: Already exists\n", blobs[0])),
        "{out}"
    );
    let quiet = sandbox
        .mica(["pull", "-q", &name, &format!("{name}:2")])
        .ok();
    assert_eq!(quiet.stdout(), format!("{name}:latest\n{name}:2\n"));

    // The tag moves in the registry: the image that had it is left without one.
    registry.push_with_skopeo(&sandbox, &other, "org/app:latest");
    sandbox.mica(["pull", &name]).ok();
    assert_eq!(id(&sandbox, &format!("{name}:latest")), other.id());
    let dangling = ["images", "-q", "--no-trunc", "-f", "dangling=true"];
    let old = format!("{}\n", image.id());
    assert_eq!(sandbox.mica(dangling).ok().stdout(), old);
    let pruned = sandbox.mica(["image", "prune", "-f"]).ok().stdout();
    assert!(pruned.contains(&format!("deleted: {old}")), "{pruned}");
    let left = sandbox.mica(["images", "-aq"]).ok().stdout();
    assert_eq!(left.lines().count(), 1);
    sandbox.mica(["check"]).ok();
}

#[test]
fn net_pull_by_digest_and_all_tags() {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Kind::Plain);
    let (one, two) = (app("app:1"), app("app:2"));
    let digest = registry.push_with_skopeo(&sandbox, &one, "app:1");
    registry.push_with_skopeo(&sandbox, &two, "app:2");
    let name = registry.name("app");
    let by_digest = format!("{name}@{digest}");
    let out = sandbox.mica(["pull", &by_digest]).ok().stdout();
    assert!(
        out.starts_with(&format!("{by_digest}: Pulling from app\n")),
        "{out}"
    );
    let end =
        format!("Digest: {digest}\nStatus: Downloaded newer image for {by_digest}\n{by_digest}\n");
    assert!(out.ends_with(&end), "{out}");
    assert_eq!(sandbox.mica(["images", "-q"]).ok().stdout(), "");
    let inspect = sandbox.mica(["inspect", &by_digest]).ok().stdout();
    assert!(inspect.contains(&one.id()), "{inspect}");

    sandbox.mica(["pull", "-a", &name]).ok();
    for image in [&one, &two] {
        let tag = format!("{name}:{}", &image.tags[0][4..]);
        assert_eq!(id(&sandbox, &tag), image.id());
    }
    let run = sandbox.mica(["pull", "-a", &format!("{name}:1")]).code(1);
    assert_eq!(run.stderr(), "mica: tag can't be used with --all-tags/-a\n");
    // What does not exist, in docker's words; the others are pulled all the same.
    let other = Sandbox::new();
    let run = other
        .mica([
            "pull",
            "-q",
            &format!("{name}:nothing"),
            &format!("{name}:1"),
        ])
        .code(1);
    assert_eq!(run.stdout(), format!("{name}:1\n"));
    let said = format!("manifest for {name}:nothing not found: manifest unknown: manifest unknown");
    assert!(run.stderr().contains(&said), "{}", run.stderr());
}

#[test]
fn net_pull_takes_every_compression() {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Kind::Plain);
    for (pack, tag) in [
        (Pack::None, "plain"),
        (Pack::Gzip, "gzip"),
        (Pack::Zstd, "zstd"),
    ] {
        let image = app(&format!("app:{tag}")).pack(pack);
        let name = format!("app:{tag}");
        registry.push_with_skopeo(&sandbox, &image, &name);
        sandbox.mica(["pull", "-q", &registry.name(&name)]).ok();
        assert_eq!(id(&sandbox, &registry.name(&name)), image.id());
    }
    sandbox.mica(["check"]).ok();
}

#[test]
fn net_pull_chooses_the_platform() {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Kind::Plain);
    // An index of two images, put together by hand and copied as it is.
    let layout = sandbox.mkdir("layout");
    let mut images = Vec::new();
    let mut entries = Vec::new();
    for (architecture, variant) in [("amd64", None), ("arm64", Some("v8")), ("arm", Some("v7"))] {
        let image = app(&format!("app:{architecture}")).config(|c| {
            c["architecture"] = json!(architecture);
            c["variant"] = json!(variant);
        });
        image.oci_dir(&layout);
        let (blobs, mut descriptors) = image.oci_blobs();
        assert!(!blobs.is_empty());
        let mut entry = descriptors.remove(0);
        entry["annotations"].take();
        entry["platform"] =
            json!({"os": "linux", "architecture": architecture, "variant": variant});
        entries.push(entry);
        images.push(image);
    }
    let index_type = "application/vnd.oci.image.index.v1+json";
    let index = json!({"schemaVersion": 2, "mediaType": index_type, "manifests": entries});
    let index = serde_json::to_vec(&index).expect("JSON");
    let blob = layout.join(format!("blobs/{}", digest(&index).replace(':', "/")));
    fs::write(blob, &index).expect("the index");
    let top = json!({"schemaVersion": 2, "manifests": [descriptor(index_type, &index)]});
    fs::write(layout.join("index.json"), top.to_string()).expect("index.json");
    let name = registry.name("app:1");
    skopeo(
        &sandbox,
        &[
            "copy",
            "-q",
            "--all",
            "--dest-tls-verify=false",
            &format!("oci:{}", layout.display()),
            &format!("docker://{name}"),
        ],
    );
    for (platform, image) in [("linux/arm64", 1), ("linux/arm/v7", 2), ("linux/amd64", 0)] {
        let out = sandbox
            .mica(["pull", "--platform", platform, &name])
            .ok()
            .stdout();
        assert!(
            out.contains(&format!("Digest: {}\n", digest(&index))),
            "{out}"
        );
        assert_eq!(id(&sandbox, &name), images[image].id(), "{platform}");
    }
    let run = sandbox
        .mica(["pull", "--platform", "linux/s390x", &name])
        .code(1);
    let said = "no matching manifest for linux/s390x in the manifest list entries";
    assert!(run.stderr().contains(said), "{}", run.stderr());
    // The same platform again is up to date.
    let out = sandbox
        .mica(["pull", "--platform", "linux/amd64", &name])
        .ok()
        .stdout();
    assert!(out.contains("Image is up to date"), "{out}");
}

#[test]
fn net_pull_with_a_password() {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Kind::Password);
    let image = app("app:1");
    let layout = sandbox.mkdir("layout");
    image.oci_dir(&layout);
    let name = registry.name("app:1");
    skopeo(
        &sandbox,
        &[
            "copy",
            "-q",
            "--dest-tls-verify=false",
            &format!("--dest-creds={USER}:{PASSWORD}"),
            &format!("oci:{}:app:1", layout.display()),
            &format!("docker://{name}"),
        ],
    );
    let run = sandbox.mica(["pull", &name]).code(1);
    assert!(run.stderr().contains("mica login"), "{}", run.stderr());
    // docker's file, then podman's, then a helper.
    let base64 = |text: &str| {
        let script = format!("printf %s '{text}' | base64 -w0");
        sandbox.sh(&script).ok().stdout()
    };
    let good = json!({"auths": {registry.host(): {"auth": base64(&format!("{USER}:{PASSWORD}"))}}});
    let bad = json!({"auths": {registry.host(): {"auth": base64(&format!("{USER}:wr0ng-one"))}}});
    let docker = sandbox.mkdir(".docker").join("config.json");
    fs::write(&docker, bad.to_string()).expect("write");
    let mut command = sandbox.command();
    command.env("MICA_LOG", "trace").args(["pull", &name]);
    let run = sandbox.run(command).code(1);
    let said = format!("{}{}", run.stdout(), run.stderr());
    assert!(said.contains("access denied"), "{said}");
    assert!(
        !said.contains("wr0ng-one") && !said.contains(&base64("tester:wr0ng-one")),
        "{said}"
    );
    fs::write(&docker, good.to_string()).expect("write");
    sandbox.mica(["pull", &name]).ok();
    fs::remove_file(&docker).expect("unlink");
    let pull_again = |prepare: &dyn Fn(&mut std::process::Command)| {
        sandbox.mica(["rmi", &name]).ok();
        let mut command = sandbox.command();
        prepare(&mut command);
        command.args(["pull", &name]);
        let run = sandbox.run(command).ok();
        assert!(!run.describe().contains(PASSWORD));
    };
    let podman = sandbox.path("auth.json");
    fs::write(&podman, good.to_string()).expect("write");
    pull_again(&|command| {
        command.env("REGISTRY_AUTH_FILE", &podman);
    });
    let bin = sandbox.mkdir("bin");
    let helper = format!(
        "#!/bin/sh\nread server\n[ \"$1 $server\" = 'get {}' ] || {{ echo 'credentials not found in native keychain'; exit 1; }}\n\
         echo '{{\"ServerURL\":\"x\",\"Username\":\"{USER}\",\"Secret\":\"{PASSWORD}\"}}'\n",
        registry.host()
    );
    fs::write(bin.join("docker-credential-test"), helper).expect("write");
    sandbox.sh("chmod +x bin/docker-credential-test").ok();
    fs::write(&docker, r#"{"credsStore":"test"}"#).expect("write");
    let path = format!(
        "{}:{}",
        bin.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    pull_again(&|command| {
        command.env("PATH", &path);
    });
}

#[test]
fn net_pull_checks_certificates() {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Kind::Tls);
    let image = app("app:1");
    registry.push_with_skopeo(&sandbox, &image, "app:1");
    let name = registry.name("app:1");
    let run = sandbox.mica(["pull", &name]).code(1);
    assert!(run.stderr().contains("certificate"), "{}", run.stderr());
    sandbox
        .mica(["pull", "--insecure-registry", &registry.host(), &name])
        .ok();
    sandbox.mica(["rmi", &name]).ok();
    registry.trust(&sandbox);
    sandbox.mica(["pull", &name]).ok();
    assert_eq!(id(&sandbox, &name), image.id());
}
