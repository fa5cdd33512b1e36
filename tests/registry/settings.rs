//! What docker's `daemon.json` says of registries, and what a pull of layers that are here is good for.

use std::fs;

use super::pulling::app;
use crate::common::registry::{Kind, Registry};
use crate::common::sandbox::Sandbox;

fn daemon_json(sandbox: &Sandbox, text: &str) {
    let dir = sandbox.path(".config/docker");
    fs::create_dir_all(&dir).expect("a directory");
    fs::write(dir.join("daemon.json"), text).expect("daemon.json");
}

/// `insecure-registries` counts for every verb, by host and by network; a file that is none gets a word and nothing else.
#[test]
fn net_insecure_registries_are_set_once() {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Kind::Tls);
    sandbox.load(&app("app:1"));
    let name = registry.name("org/app:1");
    sandbox.mica(["tag", "app:1", &name]).ok();
    let refused = |sandbox: &Sandbox| sandbox.mica(["push", "--retry-for", "0", &name]).fails();
    assert!(refused(&sandbox).stderr().contains("certificate"));
    let host = registry.host();
    for entry in [host.as_str(), "127.0.0.0/8", &format!("https://{host}")] {
        daemon_json(
            &sandbox,
            &format!(r#"{{"insecure-registries": ["{entry}"]}}"#),
        );
        sandbox.mica(["push", "-q", &name]).ok();
        sandbox.mica(["rmi", &name]).ok();
        sandbox.mica(["pull", "-q", &name]).ok();
    }
    for other in [
        r#"{"insecure-registries": ["127.0.0.1"]}"#,
        r#"{"insecure-registries": ["10.0.0.0/8"]}"#,
        "{}",
    ] {
        daemon_json(&sandbox, other);
        refused(&sandbox);
    }
    daemon_json(&sandbox, "{\"insecure-registries\": \"x\"}");
    let told = refused(&sandbox).stderr();
    // A warning is a message, without the time and the module of a log line.
    assert!(
        told.lines().all(|line| line.starts_with("mica: ")),
        "{told}"
    );
    assert!(
        told.contains(
            "daemon.json: \"insecure-registries\" is no list of texts; it counts for nothing"
        ),
        "{told}"
    );
}

/// One that is set so may speak plain HTTP, too: that is asked when it has no TLS. Nobody else may, unless it is this machine.
#[test]
fn net_insecure_registries_may_speak_plain_http() {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Kind::Plain);
    sandbox.load(&app("app:1"));
    let host = registry.host().replace("127.0.0.1", "registry.test");
    let name = format!("{host}/org/app:1");
    sandbox.mica(["tag", "app:1", &name]).ok();
    fs::write(sandbox.path("hosts"), "127.0.0.1 localhost registry.test\n").expect("hosts");
    let hosts = sandbox.path("hosts");
    let mica = |words: &str| {
        sandbox.sh(&format!(
            "HOME=$PWD unshare --mount sh -euc 'mount --bind {} /etc/hosts; exec {} {words}'",
            hosts.display(),
            env!("CARGO_BIN_EXE_mica")
        ))
    };
    mica(&format!("push -q --retry-for 0 {name}")).fails();
    let entry = format!(r#"{{"insecure-registries": ["{host}"]}}"#);
    daemon_json(&sandbox, &entry);
    mica(&format!("push -q {name}")).ok();
    sandbox.mica(["rmi", &name]).ok();
    mica(&format!("pull -q {name}")).ok();
}

/// Mirrors are asked for Docker Hub's images, one after the other, and for no other registry's.
#[test]
fn net_mirrors_are_asked_before_docker_hub() {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Kind::Plain);
    let empty = Registry::start(&sandbox, Kind::Plain);
    let image = app("app:1");
    registry.push_with_skopeo(&sandbox, &image, "library/app:1");
    registry.push_with_skopeo(&sandbox, &image, "team/app:1");
    let mirrors = format!(
        r#"{{"registry-mirrors": ["http://{}", "http://{}/"]}}"#,
        empty.host(),
        registry.host()
    );
    daemon_json(&sandbox, &mirrors);
    for (name, whole) in [
        ("app:1", "docker.io/library/app:1"),
        ("team/app:1", "docker.io/team/app:1"),
    ] {
        let run = sandbox.mica(["pull", name]).ok();
        assert!(
            run.stdout().ends_with(&format!("{whole}\n")),
            "{}",
            run.describe()
        );
        let passed = format!("http://{}: ", empty.host());
        assert!(run.stderr().contains(&passed), "{}", run.describe());
    }
    let listed = sandbox.mica(["images", "--format", "{{.Repository}}"]).ok();
    assert!(
        listed.stdout().contains("team/app\n"),
        "{}",
        listed.describe()
    );
    let other = empty.name("team/app:1");
    let run = sandbox.mica(["pull", &other]).fails();
    assert!(run.stderr().contains("not found"), "{}", run.describe());
}

/// A pull of layers that are here remembers where they are: a push to another repository of that registry has it take them from
/// there, if what is here compresses to the very bytes that the manifest names. What a manifest merely says is no proof.
#[test]
fn regression_net_a_pull_of_what_is_here_is_a_source_for_mounting() {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Kind::Plain);
    let image = app("app:1");
    let first = Sandbox::new();
    first.load(&image);
    let name = registry.name("one/app:1");
    first.mica(["tag", "app:1", &name]).ok();
    first.mica(["push", "-q", &name]).ok();

    sandbox.load(&image);
    let out = sandbox.mica(["pull", &name]).ok().stdout();
    assert_eq!(out.matches(": Already exists\n").count(), 2, "{out}");
    let copy = registry.name("two/app:1");
    sandbox.mica(["tag", &name, &copy]).ok();
    let out = sandbox.mica(["push", &copy]).ok().stdout();
    assert_eq!(out.matches(": Mounted from one/app\n").count(), 2, "{out}");
    // It is the image, for somebody who has nothing.
    let fresh = Sandbox::new();
    fresh.mica(["pull", "-q", &copy]).ok();
    assert_eq!(
        fresh.mica(["images", "-q", "--no-trunc"]).ok().stdout(),
        first
            .mica(["images", "-q", "--no-trunc", "app:1"])
            .ok()
            .stdout()
    );

    // Compressed by others it is not the same bytes: sent.
    let other = Sandbox::new();
    let theirs = app("other:1");
    registry.push_with_skopeo(&other, &theirs, "three/app:1");
    other.load(&theirs);
    other
        .mica(["pull", "-q", &registry.name("three/app:1")])
        .ok();
    let copy = registry.name("four/app:1");
    other.mica(["tag", "other:1", &copy]).ok();
    let out = other.mica(["push", &copy]).ok().stdout();
    assert_eq!(out.matches("Mounted from").count(), 0, "{out}");
    assert_eq!(out.matches(": Pushed\n").count(), 2, "{out}");
}
