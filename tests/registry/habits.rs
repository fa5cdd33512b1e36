//! What registries and their users do within the rules: any form of a Location, credentials of a namespace, artifacts, indexes in
//! indexes, one image under several names.

use std::fs;

use serde_json::json;

use super::liar::{Answer, Liar, Request};
use super::pulling::app;
use crate::common::image::{descriptor, digest};
use crate::common::registry::{Kind, Registry};
use crate::common::sandbox::Sandbox;
use crate::common::tier;
use crate::load::layouts::{chart, signature};
use crate::running;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn served(media_type: &str, bytes: &[u8]) -> Answer {
    Answer::new(200, bytes)
        .header("Content-Type", media_type)
        .header("Docker-Content-Digest", digest(bytes))
}

#[test]
fn regression_net_push_follows_any_location() {
    let image = app("app:1");
    for first in [
        "one",
        "./one",
        "../uploads/one",
        "HTTP://HOST/v2/app/blobs/uploads/one",
    ] {
        let liar = Liar::start(&image, move |request: &Request, _| {
            let accepted = |location: &str| Answer::new(202, "").header("Location", location);
            let host = &request.headers["host"];
            match request.method.as_str() {
                "GET" => Answer::new(200, "{}"),
                "HEAD" => Answer::new(404, ""),
                "POST" => accepted(&first.replace("HOST", host)),
                "PATCH" => accepted("../uploads/two?_state=x"),
                _ => Answer::new(201, ""),
            }
        });
        let s = Sandbox::new();
        s.load(&image);
        s.mica(["tag", "app:1", &liar.name()]).ok();
        s.mica(["push", "-q", &liar.name()]).ok();
        let seen = liar.seen.lock().unwrap().clone();
        let sent = |method: &str, path: &str| {
            seen.iter()
                .any(|r| r.method == method && r.path.starts_with(path))
        };
        assert!(
            sent("PATCH", "/v2/app/blobs/uploads/one"),
            "{first}: {seen:?}"
        );
        assert!(
            sent("PUT", "/v2/app/blobs/uploads/two?_state=x&digest="),
            "{first}"
        );
        assert!(sent("PUT", "/v2/app/blobs/uploads/one?digest="), "{first}");
    }
}

#[test]
fn regression_net_pull_follows_a_relative_redirect() {
    let image = app("app:1");
    let liar = Liar::start(&image, |request, answer| {
        match request.path.strip_prefix("/v2/app/blobs/") {
            Some(name) => {
                let target = format!("../../plain/./blobs/{name}");
                Answer::new(307, "").header("Location", target)
            }
            None => answer,
        }
    });
    let s = Sandbox::new();
    s.mica(["pull", "-q", &liar.name()]).ok();
    s.mica(["check"]).ok();
}

#[test]
fn regression_net_credentials_of_the_closest_namespace_are_used() {
    let image = app("app:1");
    // right:p
    let liar = Liar::start(&image, |request, answer| {
        match request.headers.get("authorization").map(String::as_str) {
            Some("Basic cmlnaHQ6cA==") => answer,
            _ => Answer::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\""),
        }
    });
    let host = liar.host();
    let name = format!("{host}/org/team/app:1");
    let (right, wrong) = (
        json!({"auth": "cmlnaHQ6cA=="}),
        json!({"auth": "d3Jvbmc6eA=="}),
    );
    for (places, good) in [
        (vec![("/org", &right)], true),
        (vec![("/org", &right), ("", &wrong)], true),
        (vec![("/org/team/app", &right), ("/org/team", &wrong)], true),
        (vec![("", &right), ("/other", &wrong)], true),
        (vec![("/or", &right)], false),
        (vec![("/org", &wrong), ("", &right)], false),
    ] {
        let s = Sandbox::new();
        let auths = places
            .iter()
            .map(|(place, auth)| (format!("{host}{place}"), (*auth).clone()));
        let auths: serde_json::Map<_, _> = auths.collect();
        let file = s.path("auth.json");
        fs::write(&file, json!({"auths": auths}).to_string()).unwrap();
        let mut command = s.command();
        command
            .env("REGISTRY_AUTH_FILE", &file)
            .args(["pull", "-q", &name]);
        s.run(command).code(if good { 0 } else { 1 });
    }
    let s = Sandbox::new();
    fs::write(s.mkdir(".docker").join("config.json"), "{,}").unwrap();
    let run = s.mica(["pull", "-q", &name]).code(1);
    assert!(
        run.stderr().contains("is not valid JSON"),
        "{}",
        run.describe()
    );
}

#[test]
fn regression_net_pull_of_all_tags_passes_artifacts_over() {
    let image = app("app:1");
    let liar = Liar::start(&image, |request, answer| {
        let path = request.path.split('?').next().unwrap_or_default();
        match path.rsplit('/').next() {
            Some("list") => Answer::new(200, r#"{"name":"app","tags":["0","00","1"]}"#),
            Some("0") => served(MANIFEST, &chart()),
            Some("00") => served(MANIFEST, &signature()),
            _ => answer,
        }
    });
    let s = Sandbox::new();
    let run = s.mica(["pull", "-a", &format!("{}/app", liar.host())]).ok();
    assert_eq!(
        run.stderr().matches("passed over").count(),
        2,
        "{}",
        run.describe()
    );
    let ids = s.mica(["images", "-q", "--no-trunc"]).ok().stdout();
    assert_eq!(ids.trim(), image.id());
    s.mica(["pull", &format!("{}/app:0", liar.host())]).code(1);
}

#[test]
fn regression_net_every_nested_index_is_looked_through() {
    let image = app("app:1");
    let (_, manifests) = image.oci_blobs();
    let on = |architecture: &str, digest: &str| {
        let mut entry = manifests[0].clone();
        entry["digest"] = json!(digest);
        entry["platform"] = json!({"os": "linux", "architecture": architecture});
        entry
    };
    let index = |entries: &[serde_json::Value]| {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
        index.to_string().into_bytes()
    };
    let own = manifests[0]["digest"].as_str().unwrap();
    let here = crate::common::image::host_architecture();
    let first = index(&[on("s390x", &digest(b"elsewhere"))]);
    let second = index(&[on(here, own)]);
    let outer = index(&[descriptor(INDEX, &first), descriptor(INDEX, &second)]);
    let liar = Liar::start(&image, move |request, answer| {
        let name = request
            .path
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_owned();
        match [&first, &second]
            .into_iter()
            .find(|index| digest(index) == name)
        {
            Some(index) => served(INDEX, index),
            None if name == "1" => served(INDEX, &outer),
            None => answer,
        }
    });
    let s = Sandbox::new();
    s.mica(["pull", "-q", &liar.name()]).ok();
    let ids = s.mica(["images", "-q", "--no-trunc"]).ok().stdout();
    assert_eq!(ids.trim(), image.id());
    let other = s.mica(["pull", "--platform", "linux/riscv64", &liar.name()]);
    assert!(other.code(1).stderr().contains("no matching manifest"));
}

#[test]
fn regression_net_a_new_name_is_a_newer_image() {
    let image = app("app:1");
    let liar = Liar::start(&image, |_, answer| answer);
    let s = Sandbox::new();
    let status = |name: &str| {
        let run = s.mica(["pull", &format!("{}/{name}:1", liar.host())]).ok();
        let out = run.stdout();
        let line = out.lines().find(|line| line.starts_with("Status: "));
        line.unwrap().split_whitespace().nth(1).unwrap().to_owned()
    };
    assert_eq!(status("app"), "Downloaded");
    assert_eq!(status("app"), "Image");
    assert_eq!(status("other"), "Downloaded");
    assert_eq!(status("other"), "Image");
    // Moved to an image that is here.
    s.load(&app("else:1"));
    s.mica(["tag", "else:1", &liar.name()]).ok();
    assert_eq!(status("app"), "Downloaded");
    assert_eq!(status("app"), "Image");
}

#[test]
fn regression_net_root_run_gets_its_image_from_an_insecure_registry() {
    tier::root();
    let s = Sandbox::new();
    let registry = Registry::start(&s, Kind::Tls);
    registry.push_with_skopeo(&s, &running::image("app:1"), "app:1");
    let name = registry.name("app:1");
    let refused = s.mica(["run", "--rm", &name, "echo", "here"]).code(125);
    assert!(
        refused.stderr().contains("certificate"),
        "{}",
        refused.describe()
    );
    let host = registry.host();
    // Quiet, as docker's: the command's output alone. What is wrong is said all the same.
    let words = [
        "run",
        "--rm",
        "-q",
        "--insecure-registry",
        &host,
        &name,
        "echo",
        "here",
    ];
    let quiet = s.mica(words).ok();
    assert_eq!(
        (quiet.stdout().as_str(), quiet.stderr().as_str()),
        ("here\n", "")
    );
    s.mica(["rmi", &name]).ok();
    assert!(
        s.mica(["run", "-q", &name, "true"])
            .code(125)
            .stderr()
            .contains("certificate")
    );
    let run = s.mica([
        "run",
        "--rm",
        "--insecure-registry",
        &host,
        &name,
        "echo",
        "here",
    ]);
    assert_eq!(run.ok().stdout(), "here\n");
}

/// What may not be given away can be had where it is.
#[test]
fn regression_net_foreign_layers_that_the_registry_has_are_pulled() {
    let image = app("app:1");
    let liar = Liar::start(&image, |request, answer| {
        if !request.path.contains("/manifests/") {
            return answer;
        }
        let (blobs, descriptors) = app("app:1").oci_blobs();
        let own = descriptors[0]["digest"].as_str().unwrap().to_owned();
        let (_, manifest) = blobs.iter().find(|(digest, _)| *digest == own).unwrap();
        let text = String::from_utf8(manifest.clone()).unwrap();
        assert!(text.contains("image.layer.v1.tar"));
        let text = text.replace("image.layer.v1.tar", "image.layer.nondistributable.v1.tar");
        served(MANIFEST, text.as_bytes())
    });
    let s = Sandbox::new();
    s.mica(["pull", "-q", &liar.name()]).ok();
    let ids = s.mica(["images", "-q", "--no-trunc"]).ok().stdout();
    assert_eq!(ids.trim(), image.id());
    s.mica(["check"]).ok();
}
