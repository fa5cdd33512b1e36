//! Registries of other kinds: a proxy cache, one that wants client certificates, a token server that takes identity tokens;
//! and archives for podman and skopeo.

use std::fs;
use std::process::Command;

use serde_json::json;

use super::liar::{Answer, Liar};
use super::pulling::app;
use crate::common::image::{ImageBuilder, digest};
use crate::common::podman::Podman;
use crate::common::registry::{Kind, Registry, skopeo};
use crate::common::sandbox::Sandbox;
use crate::common::tier;
use crate::common::walk;

fn id(sandbox: &Sandbox, name: &str) -> String {
    let run = sandbox.mica(["images", "-q", "--no-trunc", name]).ok();
    run.stdout().trim().to_owned()
}

#[test]
fn net_pull_from_a_proxy_cache() {
    let sandbox = Sandbox::new();
    let origin = Registry::start(&sandbox, Kind::Plain);
    let image = app("app:1");
    let digest = origin.push_with_skopeo(&sandbox, &image, "org/app:1");
    let cache = Registry::start(&sandbox, Kind::CacheOf(origin.port));
    let name = cache.name("org/app:1");
    // A cache does not tell the digest of a tag it has not fetched; then again from what it has.
    for _ in 0..2 {
        let out = sandbox.mica(["pull", &name]).ok().stdout();
        assert!(out.contains(&format!("Digest: {digest}\n")), "{out}");
        assert_eq!(id(&sandbox, &name), image.id());
        sandbox.mica(["rmi", &name]).ok();
    }
    // A cache takes nothing.
    sandbox.load(&image);
    sandbox.mica(["tag", "app:1", &name]).ok();
    let run = sandbox.mica(["push", "--retry-for", "1", &name]).code(1);
    assert!(
        run.stderr().contains("405") || run.stderr().contains("unsupported"),
        "{}",
        run.stderr()
    );
}

#[test]
fn net_client_certificates() {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Kind::ClientTls);
    registry.trust(&sandbox);
    let image = app("app:1");
    sandbox.load(&image);
    let name = registry.name("app:1");
    sandbox.mica(["tag", "app:1", &name]).ok();
    let run = sandbox.mica(["push", "--retry-for", "1", &name]).code(1);
    assert!(run.stderr().contains("cannot reach"), "{}", run.stderr());
    registry.give_client_certificate(&sandbox);
    sandbox.mica(["push", &name]).ok();
    let dir = sandbox.path(format!(".config/docker/certs.d/{}", registry.host()));
    let other = Sandbox::new();
    let theirs = other.mkdir(&format!(".config/docker/certs.d/{}", registry.host()));
    other
        .sh(&format!("cp {}/* {}", dir.display(), theirs.display()))
        .ok();
    other.mica(["pull", &name]).ok();
    assert_eq!(id(&other, &name), image.id());
    // A certificate without its key, and a key that is none: errors that name the file.
    fs::write(theirs.join("client.key"), "nonsense").expect("write");
    let run = other.mica(["pull", &name]).code(1);
    assert!(
        run.stderr().contains("client.key: there is no private key"),
        "{}",
        run.stderr()
    );
    fs::remove_file(theirs.join("client.key")).expect("unlink");
    let run = other.mica(["pull", &name]).code(1);
    assert!(
        run.stderr().contains("client.key: No such file"),
        "{}",
        run.stderr()
    );
}

/// An identity token is exchanged for access tokens (OAuth2's refresh), is sent to nobody but the token server, and is shown
/// nowhere.
#[test]
fn net_identity_tokens() {
    let image = app("app:1");
    let token = Liar::start(&image, |request, _| match request.method.as_str() {
        "POST" => Answer::new(200, r#"{"access_token":"acc3ss"}"#),
        _ => Answer::new(405, ""),
    });
    let challenge = format!(
        "Bearer realm=\"http://{}/token\",service=\"s\"",
        token.host()
    );
    let liar = Liar::start(&image, move |request, answer| {
        match request.headers.get("authorization").map(String::as_str) {
            Some("Bearer acc3ss") => answer,
            _ => Answer::new(401, "").header("WWW-Authenticate", &challenge),
        }
    });
    let sandbox = Sandbox::new();
    let config = sandbox.mkdir(".docker").join("config.json");
    let auths = json!({"auths": {liar.host(): {"auth": "", "identitytoken": "1dentity-t0ken"}}});
    fs::write(&config, auths.to_string()).expect("write");
    let mut command = sandbox.command();
    command
        .env("MICA_LOG", "trace")
        .args(["pull", &liar.name()]);
    let run = sandbox.run(command).ok();
    for secret in ["1dentity-t0ken", "acc3ss"] {
        assert!(!run.describe().contains(secret), "{}", run.describe());
    }
    assert_eq!(id(&sandbox, &liar.name()), image.id());
    let asked = token.seen.lock().expect("the log").clone();
    assert_eq!(asked.len(), 1);
    let body = &asked[0].body;
    for part in [
        "grant_type=refresh_token",
        "refresh_token=1dentity-t0ken",
        "service=s",
        "scope=repository%3Aapp%3Apull",
    ] {
        assert!(body.contains(part), "{body}");
    }
    let told = liar.seen.lock().expect("the log").clone();
    assert!(
        told.iter()
            .all(|request| !format!("{request:?}").contains("1dentity"))
    );
    // One that is not taken any more says where to log in.
    let refusing = Liar::start(&image, |_, _| Answer::new(401, "{}"));
    let challenge = format!(
        "Bearer realm=\"http://{}/token\",service=\"s\"",
        refusing.host()
    );
    let liar = Liar::start(&image, move |_, _| {
        Answer::new(401, "").header("WWW-Authenticate", &challenge)
    });
    let auths = json!({"auths": {liar.host(): {"auth": "", "identitytoken": "1dentity-t0ken"}}});
    fs::write(&config, auths.to_string()).expect("write");
    let run = sandbox.mica(["pull", &liar.name()]).code(1);
    assert!(run.stderr().contains("mica login"), "{}", run.stderr());
    assert!(!run.describe().contains("1dentity"), "{}", run.describe());
}

/// What mica saves is read by podman and, in both of its formats, by skopeo; the images and their trees are the same.
#[test]
fn root_podman_and_skopeo_load_what_was_saved() {
    tier::root();
    let sandbox = Sandbox::new();
    let image = ImageBuilder::new("localhost/app:1")
        .layer(|l| {
            l.dir(".", 0o755)
                .dir("etc", 0o755)
                .file("etc/a", vec![b'a'; 100_000])
                .file("etc/b", "b")
        })
        .layer(|l| {
            l.dir(".", 0o755)
                .dir("etc", 0o755)
                .whiteout("etc/b")
                .symlink("etc/c", "a")
        });
    let other = app("localhost/other:2").tag("localhost/third:x");
    sandbox.load(&image);
    sandbox.load(&other);
    let archive = sandbox.path("saved.tar").display().to_string();
    sandbox
        .mica([
            "save",
            "-o",
            &archive,
            "localhost/app:1",
            "localhost/other",
            "localhost/third:x",
        ])
        .ok();
    let podman = Podman::new(&sandbox, sandbox.path("podman"));
    let loaded = sandbox
        .run(podman.command(&["load", "-i", &archive]))
        .ok()
        .stdout();
    for name in ["localhost/app:1", "localhost/other:2", "localhost/third:x"] {
        assert!(loaded.contains(name), "{loaded}");
    }
    let list = [
        "images",
        "--no-trunc",
        "--format",
        "{{.ID}} {{.Repository}}:{{.Tag}}",
    ];
    let rows = sandbox.run(podman.command(&list)).ok().stdout();
    for (image, name) in [(&image, "localhost/app:1"), (&other, "localhost/third:x")] {
        let row = format!("{} {name}", image.id());
        assert!(rows.contains(&row), "{row}\n{rows}");
    }
    let mount = sandbox.mount();
    let mut found = walk::differences(
        &podman.mount(&sandbox, "localhost/app:1"),
        &mount.point.join("images/localhost/app/1"),
    )
    .expect("walk");
    found.retain(|line| !line.starts_with("/: "));
    assert_eq!(found, Vec::<String>::new());

    // docker-archive to oci would be written anew by skopeo.
    for (source, target) in [
        (
            format!("docker-archive:{archive}:localhost/app:1"),
            "docker-archive",
        ),
        (format!("oci-archive:{archive}:1"), "oci-archive"),
    ] {
        let copy = sandbox.path(target);
        let place = format!("{target}:{}:localhost/app:1", copy.display());
        skopeo(&sandbox, &["copy", "-q", &source, &place]);
        let back = Sandbox::new();
        back.load_file(&copy).ok();
        let ids = back
            .mica(["images", "-a", "-q", "--no-trunc"])
            .ok()
            .stdout();
        assert_eq!(ids.trim(), image.id(), "{source}");
    }
}

/// docker's credential helpers and an archive through a pipe: what a user types.
#[test]
fn net_a_saved_archive_through_a_pipe() {
    let sandbox = Sandbox::new();
    let image = app("app:1");
    sandbox.load(&image);
    let mica = env!("CARGO_BIN_EXE_mica");
    let other = sandbox.mkdir("other").display().to_string();
    let out = sandbox
        .sh(&format!(
            "{mica} save app:1 | gzip | MICA_STORE={other}/store {mica} load -q"
        ))
        .ok()
        .stdout();
    assert_eq!(out, "Loaded image: app:1\n");
    let mut command = Command::new(mica);
    command
        .args(["images", "-q", "--no-trunc"])
        .env("MICA_STORE", format!("{other}/store"));
    let ids = sandbox.run(command).ok().stdout();
    assert_eq!(ids.trim(), digest(&image.config_bytes()));
}
