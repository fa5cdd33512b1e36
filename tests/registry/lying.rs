//! A registry that lies, about one thing at a time: a clear error and an empty store, or the right image; never long.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::liar::{Answer, Liar, Request, layer_digest};
use super::pulling::app;
use crate::common::image::{ImageBuilder, digest};
use crate::common::sandbox::{Run, Sandbox};

/// How long a request is tried again in these tests, and how long a verb may then take.
const RETRY: &str = "1";
const PATIENCE: Duration = Duration::from_secs(20);

fn pull(sandbox: &Sandbox, liar: &Liar) -> Run {
    let start = Instant::now();
    let run = sandbox.mica(["pull", "--retry-for", RETRY, &liar.name()]);
    assert!(start.elapsed() < PATIENCE, "{}", run.describe());
    run
}

/// The lie is refused with these words, and nothing stays.
#[track_caller]
fn refused(
    image: &ImageBuilder,
    words: &str,
    lie: impl Fn(&Request, Answer) -> Answer + Send + Sync + 'static,
) -> Liar {
    let sandbox = Sandbox::new();
    let liar = Liar::start(image, lie);
    let run = pull(&sandbox, &liar).code(1);
    assert!(
        run.stderr().contains(words),
        "{words:?} is not in\n{}",
        run.describe()
    );
    assert_eq!(sandbox.mica(["images", "-a", "-q"]).ok().stdout(), "");
    assert_eq!(
        sandbox.mica(["gc"]).ok().stdout(),
        "Total reclaimed space: 0B\n"
    );
    let left = sandbox.store_files();
    let blobs = left
        .iter()
        .filter(|(p, _)| p.to_string_lossy().contains("/blobs/"));
    assert_eq!(blobs.count(), 0, "{left:?}");
    liar
}

/// The image comes in right all the same.
#[track_caller]
fn accepted(
    image: &ImageBuilder,
    lie: impl Fn(&Request, Answer) -> Answer + Send + Sync + 'static,
) -> Liar {
    let sandbox = Sandbox::new();
    let liar = Liar::start(image, lie);
    pull(&sandbox, &liar).ok();
    let id = sandbox.mica(["images", "-q", "--no-trunc"]).ok().stdout();
    assert_eq!(id.trim(), image.id());
    sandbox.mica(["check"]).ok();
    liar
}

fn is_blob(request: &Request, digest: &str) -> bool {
    request.path.ends_with(&format!("/blobs/{digest}"))
}

#[test]
fn net_an_honest_liar_is_believed() {
    accepted(&app("app:1"), |_, answer| answer);
}

#[test]
fn net_wrong_digests_are_refused() {
    let image = app("app:1");
    let layer = layer_digest(&image, 1);
    let other =
        ImageBuilder::new("").layer(|l| l.file("etc/own", "app:2").symlink("etc/link", "own"));
    let swapped = image.pack.apply(&other.layers[0]);
    let length = image.pack.apply(&image.layers[1]).len();
    let flipped = layer.clone();
    // The same number of bytes, another content: of the config, the manifest and a layer.
    refused(&image, "its bytes are", move |request, mut answer| {
        if is_blob(request, &flipped) && swapped.len() == length {
            answer.body.clone_from(&swapped);
        } else if is_blob(request, &flipped) {
            answer.body[length - 9] ^= 0;
            answer.body[4] ^= 1;
        }
        answer
    });
    let id = image.id();
    refused(&image, "its bytes are", move |request, mut answer| {
        if is_blob(request, &id) {
            answer.body[5] ^= 1;
        }
        answer
    });
    refused(&image, "its bytes are", |request, mut answer| {
        if request.path.contains("/manifests/") {
            answer.body.push(b' ');
            answer.length = Some(answer.body.len());
        }
        answer
    });
}

#[test]
fn net_a_config_that_lies_about_its_layers_is_refused() {
    let lying = app("app:1").config(|c| {
        c["rootfs"]["diff_ids"][1] = json!(digest(b"something else"));
    });
    refused(&lying, "the image's config says", |_, answer| answer);
    let swapped = app("app:1").config(|c| {
        let ids = c["rootfs"]["diff_ids"].as_array_mut().expect("a list");
        ids.swap(0, 1);
    });
    refused(&swapped, "the image's config says", |_, answer| answer);
    let short = app("app:1").config(|c| {
        c["rootfs"]["diff_ids"]
            .as_array_mut()
            .expect("a list")
            .pop();
    });
    refused(&short, "lists 2 layers, its config 1", |_, answer| answer);
}

#[test]
fn net_short_and_long_bodies() {
    let image = app("app:1");
    let layer = layer_digest(&image, 0);
    // A lost connection, once: it goes on where it broke off.
    let (wanted, tries) = (layer.clone(), AtomicUsize::new(0));
    let liar = accepted(&image, move |request, mut answer| {
        if is_blob(request, &wanted) && tries.fetch_add(1, Ordering::SeqCst) < 2 {
            answer.cut = Some(answer.body.len() / 2);
        }
        answer
    });
    let ranges = liar.seen.lock().expect("the log").clone();
    assert!(
        ranges.iter().any(|r| r.headers.contains_key("range")),
        "{ranges:?}"
    );
    // The same from a server that knows no ranges.
    let (wanted, tries) = (layer.clone(), AtomicUsize::new(0));
    let whole = image.pack.apply(&image.layers[0]);
    accepted(&image, move |request, answer| {
        if !is_blob(request, &wanted) {
            return answer;
        }
        let mut answer = Answer::new(200, whole.clone());
        if tries.fetch_add(1, Ordering::SeqCst) == 0 {
            answer.cut = Some(whole.len() / 2);
        }
        answer
    });
    // Always.
    let wanted = layer.clone();
    refused(
        &image,
        "the connection broke after",
        move |request, mut answer| {
            if is_blob(request, &wanted) {
                answer.cut = Some(0);
            }
            answer
        },
    );
    // Fewer or more bytes announced than the manifest says.
    for change in [-1isize, 1] {
        let wanted = layer.clone();
        refused(&image, "that were announced", move |request, mut answer| {
            if is_blob(request, &wanted) {
                answer.length = answer.length.and_then(|l| l.checked_add_signed(change));
            }
            answer
        });
    }
    // No end at all.
    let wanted = layer.clone();
    refused(&image, "is larger than", move |request, mut answer| {
        if is_blob(request, &wanted) {
            (answer.length, answer.endless) = (None, true);
        }
        answer
    });
    refused(
        &image,
        "is larger than 4194304 bytes",
        |request, mut answer| {
            if request.path.contains("/manifests/") {
                (answer.length, answer.endless) = (None, true);
            }
            answer
        },
    );
}

#[test]
fn net_partial_content_that_is_not() {
    let image = app("app:1");
    let layer = layer_digest(&image, 0);
    // "206" to a request without a range, and without saying which part: the digest decides.
    let wanted = layer.clone();
    accepted(&image, move |request, mut answer| {
        if is_blob(request, &wanted) {
            answer.status = 206;
        }
        answer
    });
    // Another part than the one asked for.
    for range in ["bytes 7-99/100", "bytes x", "nonsense"] {
        let wanted = layer.clone();
        refused(&image, "blob sha256:", move |request, mut answer| {
            if is_blob(request, &wanted) {
                answer.status = 206;
                answer
                    .headers
                    .push(("Content-Range".to_owned(), range.to_owned()));
            }
            answer
        });
    }
}

#[test]
fn net_server_errors_are_tried_again() {
    let image = app("app:1");
    for status in [500, 502, 503, 429] {
        let tries = AtomicUsize::new(0);
        accepted(&image, move |request, answer| {
            match request.path != "/v2/" && tries.fetch_add(1, Ordering::SeqCst) % 3 == 1 {
                true => Answer::new(status, "busy"),
                false => answer,
            }
        });
    }
    refused(&image, "answered 503", |request, answer| {
        match request.path == "/v2/" {
            true => answer,
            false => Answer::new(503, "busy").header("Retry-After", "100000"),
        }
    });
    // What will not get better is not tried again.
    let liar = refused(&image, "answered 418", |request, answer| {
        match request.path.contains("/blobs/") {
            true => Answer::new(
                418,
                r#"{"errors":[{"code":"TEAPOT","message":"\u001b[31mred"}]}"#,
            ),
            false => answer,
        }
    });
    assert_eq!(liar.count("/blobs/"), 1);
}

#[test]
fn net_redirects() {
    let image = app("app:1");
    let layer = layer_digest(&image, 0);
    // To elsewhere and back; no credential may go there.
    let wanted = layer.clone();
    let whole = image.pack.apply(&image.layers[0]);
    let elsewhere = Liar::start(&image, move |_, _| Answer::new(200, whole.clone()));
    let target = format!("http://{}/data?signature=abc", elsewhere.host());
    accepted(&image, move |request, answer| {
        match is_blob(request, &wanted) {
            true => Answer::new(307, "").header("Location", &target),
            false => answer,
        }
    });
    let seen = elsewhere.seen.lock().expect("the log").clone();
    assert!(!seen.is_empty());
    assert!(
        seen.iter()
            .all(|r| !r.headers.contains_key("authorization"))
    );
    for (location, words) in [
        ("/v2/app/blobs/again", "more than 5 redirects"),
        ("ftp://127.0.0.1/x", "a redirect to nowhere"),
        ("", "a redirect to nowhere"),
    ] {
        refused(&image, words, move |request, answer| {
            match request.path.contains("/blobs/") {
                true => Answer::new(307, "").header("Location", location),
                false => answer,
            }
        });
    }
}

#[test]
fn net_challenges_without_end() {
    let image = app("app:1");
    for challenge in [
        "Basic realm=\"x\"",
        "Negotiate",
        "Bearer realm=\"",
        "Bearer realm=\"ftp://x/\"",
    ] {
        let liar = Liar::start(&image, move |_, _| {
            Answer::new(401, "").header("WWW-Authenticate", challenge)
        });
        let sandbox = Sandbox::new();
        pull(&sandbox, &liar).code(1);
        assert!(liar.count("/v2/app/") <= 4, "{challenge}");
    }
    // Tokens that are never good enough.
    let port = crate::common::registry::free_port();
    let realm = Liar::start(&image, |_, _| Answer::new(200, r#"{"token":"abc"}"#));
    let challenge = format!(
        "Bearer realm=\"http://{}/token\",service=\"s\"",
        realm.host()
    );
    assert_ne!(port, 0);
    let liar = refused(&image, "access denied", move |_, _| {
        Answer::new(401, "").header("WWW-Authenticate", &challenge)
    });
    assert!(liar.count("/v2/app/") <= 4 && realm.count("/token") <= 4);
    let asked = realm.seen.lock().expect("the log")[0].path.clone();
    assert!(
        asked.contains("scope=repository%3Aapp%3Apull") && asked.contains("service=s"),
        "{asked}"
    );
}

#[test]
fn net_tokens_are_used_and_not_told() {
    let image = app("app:1");
    let token = Liar::start(&image, |_, _| {
        Answer::new(200, r#"{"access_token":"s3cr3t-t0ken"}"#)
    });
    let challenge = format!(
        "Bearer realm=\"http://{}/token\",service=\"s\"",
        token.host()
    );
    let liar = Liar::start(&image, move |request, answer| {
        let given = request.headers.get("authorization").map(String::as_str);
        match given == Some("Bearer s3cr3t-t0ken") {
            true => answer,
            false => Answer::new(401, "").header("WWW-Authenticate", &challenge),
        }
    });
    let sandbox = Sandbox::new();
    let mut command = sandbox.command();
    command
        .env("MICA_LOG", "trace")
        .args(["pull", &liar.name()]);
    let run = sandbox.run(command).ok();
    assert!(
        !run.describe().contains("s3cr3t-t0ken"),
        "{}",
        run.describe()
    );
    assert_eq!(token.count("/token"), 1);
}

#[test]
fn net_documents_that_are_none() {
    let image = app("app:1");
    let manifest = |bytes: Vec<u8>, media_type: &'static str| {
        move |request: &Request, answer: Answer| match request.path.contains("/manifests/") {
            true => Answer::new(200, bytes.clone()).header("Content-Type", media_type),
            false => answer,
        }
    };
    let oci = "application/vnd.oci.image.manifest.v1+json";
    let index = "application/vnd.oci.image.index.v1+json";
    refused(
        &image,
        "invalid JSON",
        manifest(b"{\"schemaVersion\":2,".to_vec(), oci),
    );
    refused(&image, "invalid JSON", manifest(vec![b'['; 3_000_000], oci));
    refused(&image, "manifest", manifest(b"{}".to_vec(), oci));
    // A manifest that is also an index, and one called the other (CVE-2021-41190).
    let (blobs, _) = image.oci_blobs();
    let honest = blobs.last().expect("the manifest").1.clone();
    let mut both: Value = serde_json::from_slice(&honest).expect("JSON");
    both["manifests"] = json!([]);
    refused(
        &image,
        "both an image manifest and an index",
        manifest(both.to_string().into(), oci),
    );
    refused(
        &image,
        "does not fit the document",
        manifest(honest.clone(), index),
    );
    let mut named: Value = serde_json::from_slice(&honest).expect("JSON");
    named["mediaType"] = json!(index);
    refused(
        &image,
        "media type",
        manifest(named.to_string().into(), oci),
    );
    // Sizes nobody can mean.
    for (size, words) in [
        (json!(1_u64 << 60), "more than the"),
        (json!(-1), "invalid size"),
    ] {
        let mut huge: Value = serde_json::from_slice(&honest).expect("JSON");
        huge["layers"][0]["size"] = size;
        refused(&image, words, manifest(huge.to_string().into(), oci));
    }
    let mut huge: Value = serde_json::from_slice(&honest).expect("JSON");
    huge["config"]["size"] = json!(1_u64 << 40);
    refused(
        &image,
        "is larger than",
        manifest(huge.to_string().into(), oci),
    );
    // An index that leads to itself or to nothing.
    let digest = digest(b"nothing");
    let entry = json!({"mediaType": oci, "digest": digest, "size": 7,
        "platform": {"os": "linux", "architecture": crate::common::image::host_architecture()}});
    let nothing = json!({"schemaVersion": 2, "mediaType": index, "manifests": [entry]});
    refused(
        &image,
        "its bytes are",
        manifest(nothing.to_string().into(), index),
    );
}

#[test]
fn net_a_trickle_is_no_progress() {
    let image = app("app:1");
    let layer = layer_digest(&image, 0);
    let wanted = layer.clone();
    let slow = Duration::from_millis(100);
    refused(&image, "are no progress", move |request, mut answer| {
        if is_blob(request, &wanted) {
            answer.trickle = Some(slow);
        }
        answer
    });
    refused(&image, "are no progress", move |request, mut answer| {
        if request.path.contains("/manifests/") && request.method == "GET" {
            answer.trickle = Some(slow);
        }
        answer
    });
}

#[test]
fn net_nobody_there() {
    let sandbox = Sandbox::new();
    let start = Instant::now();
    let name = format!("127.0.0.1:{}/app:1", crate::common::registry::free_port());
    let run = sandbox.mica(["pull", &name]).code(1);
    assert!(
        run.stderr().contains("cannot reach 127.0.0.1"),
        "{}",
        run.stderr()
    );
    assert!(start.elapsed() < Duration::from_secs(5));
    // A server that never says anything is given up on; here it closes at once.
    let image = app("app:1");
    let liar = Liar::start(&image, |_, mut answer| {
        (answer.status, answer.length, answer.cut) = (0, None, Some(0));
        answer
    });
    pull(&sandbox, &liar).code(1);
}
