//! `mica push`, `login` and `logout` against a real registry, read back by others.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use super::liar::{Answer, Liar};
use super::pulling::app;
use crate::common::image::ImageBuilder;
use crate::common::podman::Podman;
use crate::common::registry::{Kind, PASSWORD, Registry, USER, skopeo};
use crate::common::sandbox::Sandbox;
use crate::common::tier;
use crate::common::walk;

fn id(sandbox: &Sandbox, name: &str) -> String {
    let run = sandbox.mica(["images", "-q", "--no-trunc", name]).ok();
    run.stdout().trim().to_owned()
}

fn short(diff_id: &str) -> &str {
    &diff_id["sha256:".len()..][..12]
}

/// The manifest as the registry has it.
fn manifest(sandbox: &Sandbox, name: &str) -> Value {
    let raw = skopeo(
        sandbox,
        &[
            "inspect",
            "--raw",
            "--tls-verify=false",
            &format!("docker://{name}"),
        ],
    );
    serde_json::from_str(&raw).expect("JSON")
}

#[test]
fn net_push_says_what_docker_says_and_comes_back() {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Kind::Plain);
    let image = app("app:1");
    sandbox.load(&image);
    let name = registry.name("org/app:1");
    sandbox.mica(["tag", "app:1", &name]).ok();
    let out = sandbox.mica(["push", &name]).ok().stdout();
    let head = format!(
        "The push refers to repository [{}]\n",
        registry.name("org/app")
    );
    assert!(out.starts_with(&head), "{out}");
    for diff_id in image.diff_ids() {
        for state in ["Preparing", "Pushed"] {
            assert!(
                out.contains(&format!("{}: {state}\n", short(&diff_id))),
                "{out}"
            );
        }
    }
    let last = out.lines().last().unwrap_or_default().to_owned();
    let raw = skopeo(
        &sandbox,
        &[
            "inspect",
            "--raw",
            "--tls-verify=false",
            &format!("docker://{name}"),
        ],
    );
    let digest = crate::common::image::digest(raw.as_bytes());
    assert_eq!(last, format!("1: digest: {digest} size: {}", raw.len()));
    let rows = sandbox.mica(["images", "--digests"]).ok().stdout();
    assert!(rows.contains(&digest), "{rows}");

    // Again: everything is there.
    let again = sandbox.mica(["push", &name]).ok().stdout();
    for diff_id in image.diff_ids() {
        let line = format!("{}: Layer already exists\n", short(&diff_id));
        assert!(again.contains(&line), "{again}");
    }
    assert_eq!(again.lines().last().unwrap_or_default(), last);
    // Into another repository of the same registry: mounted, and the same manifest.
    let other = registry.name("other:2");
    sandbox.mica(["tag", "app:1", &other]).ok();
    let mounted = sandbox.mica(["push", &other]).ok().stdout();
    for diff_id in image.diff_ids() {
        let line = format!("{}: Mounted from org/app\n", short(&diff_id));
        assert!(mounted.contains(&line), "{mounted}");
    }
    assert!(mounted.contains(&digest), "{mounted}");

    // Another store pushes the same bytes; what is pulled back is the same image.
    let elsewhere = Sandbox::new();
    elsewhere.load(&image);
    let third = registry.name("third:1");
    elsewhere.mica(["tag", "app:1", &third]).ok();
    assert!(
        elsewhere
            .mica(["push", &third])
            .ok()
            .stdout()
            .contains(&digest)
    );
    let back = Sandbox::new();
    back.mica(["pull", &third]).ok();
    assert_eq!(id(&back, &third), image.id());
    assert_eq!(
        back.mica(["push", "-q", &third]).ok().stdout(),
        format!("{third}\n")
    );

    let run = sandbox.mica(["push", &registry.name("none:1")]).code(1);
    let said = format!(
        "An image does not exist locally with the tag: {}",
        registry.name("none:1")
    );
    assert!(run.stderr().contains(&said), "{}", run.stderr());
    sandbox.mica(["check"]).ok();
}

#[test]
fn net_a_pulled_image_is_pushed_unchanged() {
    let sandbox = Sandbox::new();
    let (one, two) = (
        Registry::start(&sandbox, Kind::Plain),
        Registry::start(&sandbox, Kind::Plain),
    );
    let image = app("app:1");
    let digest = one.push_with_skopeo(&sandbox, &image, "app:1");
    sandbox.mica(["pull", &one.name("app:1")]).ok();
    let copy = one.name("copy:1");
    sandbox.mica(["tag", &one.name("app:1"), &copy]).ok();
    let out = sandbox.mica(["push", &copy]).ok().stdout();
    assert!(
        out.contains("Mounted from app") && out.contains(&digest),
        "{out}"
    );
    // Another registry has none of it.
    let far = two.name("app:1");
    sandbox.mica(["tag", &copy, &far]).ok();
    let out = sandbox.mica(["push", &far]).ok().stdout();
    assert!(out.contains(": Pushed\n"), "{out}");
    let back = Sandbox::new();
    back.mica(["pull", &far]).ok();
    assert_eq!(id(&back, &far), image.id());
}

#[test]
fn net_push_with_zstd_and_all_tags() {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Kind::Plain);
    for name in ["app:1", "app:2"] {
        sandbox.load(&app(name));
        sandbox.mica(["tag", name, &registry.name(name)]).ok();
    }
    let repository = registry.name("app");
    sandbox
        .mica(["push", "-a", "--compression", "zstd", &repository])
        .ok();
    for tag in ["1", "2"] {
        let name = format!("{repository}:{tag}");
        let manifest = manifest(&sandbox, &name);
        for layer in manifest["layers"].as_array().expect("layers") {
            let media_type = "application/vnd.oci.image.layer.v1.tar+zstd";
            assert_eq!(layer["mediaType"], media_type);
        }
        let back = Sandbox::new();
        back.mica(["pull", &name]).ok();
        assert_eq!(id(&back, &name), app(&format!("app:{tag}")).id());
    }
}

#[test]
fn root_podman_and_skopeo_pull_what_was_pushed() {
    tier::root();
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Kind::Plain);
    let image = ImageBuilder::new("app:1")
        .layer(|l| {
            let l = l.dir(".", 0o755).dir("etc", 0o755);
            l.file("etc/a", vec![b'a'; 3_000_000]).file("etc/b", "b")
        })
        // podman gives directories that a layer does not describe times of its own.
        .layer(|l| {
            l.dir(".", 0o755)
                .dir("etc", 0o755)
                .whiteout("etc/b")
                .symlink("etc/c", "a")
                .file("big", vec![b'x'; 70_000])
        });
    sandbox.load(&image);
    let name = registry.name("app:1");
    sandbox.mica(["tag", "app:1", &name]).ok();
    sandbox.mica(["push", &name]).ok();
    skopeo(
        &sandbox,
        &[
            "copy",
            "-q",
            "--src-tls-verify=false",
            &format!("docker://{name}"),
            &format!("dir:{}", sandbox.path("copy").display()),
        ],
    );
    let podman = Podman::new(&sandbox, sandbox.path("podman"));
    sandbox
        .run(podman.command(&["pull", "-q", "--tls-verify=false", &name]))
        .ok();
    let theirs = podman.mount(&sandbox, &name);
    let mount = sandbox.mount();
    let ours = mount.point.join("images/app/1");
    let mut differences = walk::differences(&theirs, &ours).expect("walk");
    // The root: podman's mount point has a mode of its own, a tag directory the time of the image.
    differences.retain(|line| !line.starts_with("/: "));
    assert_eq!(differences, Vec::<String>::new());
    // And the other way round.
    let from_podman = registry.name("from-podman:1");
    sandbox
        .run(podman.command(&["push", "-q", "--tls-verify=false", &name, &from_podman]))
        .ok();
    sandbox.mica(["pull", &from_podman]).ok();
    assert_eq!(id(&sandbox, &from_podman), image.id());
}

#[test]
fn net_login_and_logout() {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Kind::Password);
    sandbox.load(&app("app:1"));
    let name = registry.name("app:1");
    let host = registry.host();
    sandbox.mica(["tag", "app:1", &name]).ok();
    let run = sandbox.mica(["push", &name]).code(1);
    assert!(run.stderr().contains("mica login"), "{}", run.stderr());
    let mica = env!("CARGO_BIN_EXE_mica");
    let login = |password: &str| {
        let home = sandbox.dir().display();
        let script = format!(
            "printf '%s\\n' {password} | HOME={home} {mica} login -u {USER} --password-stdin {host}"
        );
        sandbox.sh(&script)
    };
    let config = sandbox.mkdir(".docker").join("config.json");
    fs::write(
        &config,
        r#"{"auths":{"example.com":{"auth":"eDp5"}},"detachKeys":"ctrl-x"}"#,
    )
    .expect("write");
    let before = fs::read(&config).expect("read");
    let run = login("wr0ng-one").code(1);
    assert!(!run.stderr().contains("wr0ng-one"), "{}", run.stderr());
    assert_eq!(fs::read(&config).expect("read"), before);
    let run = login(PASSWORD).ok();
    assert_eq!(run.stdout(), "Login Succeeded\n");
    let mode = fs::metadata(&config).expect("stat").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = fs::read_to_string(&config).expect("read");
    assert!(
        text.contains("example.com") && text.contains("ctrl-x") && text.contains(&host),
        "{text}"
    );
    sandbox.mica(["push", &name]).ok();
    sandbox.mica(["pull", &name]).ok();
    // skopeo finds it in the same place.
    let script = format!(
        "HOME={} skopeo inspect --tls-verify=false docker://{name}",
        sandbox.dir().display()
    );
    sandbox.sh(&script).ok();
    let out = sandbox.mica(["logout", &host]).ok().stdout();
    assert_eq!(out, format!("Removing login credentials for {host}\n"));
    let out = sandbox.mica(["logout", &host]).ok().stdout();
    assert_eq!(out, format!("Not logged in to {host}\n"));
    let text = fs::read_to_string(&config).expect("read");
    assert!(
        text.contains("example.com") && !text.contains(&host),
        "{text}"
    );
}

#[test]
fn net_a_damaged_layer_is_never_pushed() {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Kind::Plain);
    let image = app("app:1");
    sandbox.load(&image);
    let name = registry.name("app:1");
    sandbox.mica(["tag", "app:1", &name]).ok();
    let layer = image.diff_ids()[1].replace("sha256:", "");
    let blob = sandbox.store().join("blobs/sha256").join(layer);
    let mut bytes = fs::read(&blob).expect("the layer");
    bytes[512] ^= 1;
    fs::write(&blob, bytes).expect("write");
    let run = sandbox.mica(["push", &name]).code(1);
    assert!(run.stderr().contains("it is damaged"), "{}", run.stderr());
    let run = Sandbox::new().mica(["pull", &name]).code(1);
    assert!(run.stderr().contains("not found"), "{}", run.stderr());
}

#[test]
fn net_push_to_a_liar() {
    // Refused, broken off, another digest, another place: an error, soon.
    for (status, part) in [(403, "uploads"), (500, "uploads"), (201, "manifests")] {
        let sandbox = Sandbox::new();
        let image = app("app:1");
        sandbox.load(&image);
        let liar = Liar::start(&image, move |request, answer| {
            let wrong = format!("sha256:{}", "0".repeat(64));
            match request.method.as_str() {
                "GET" | "HEAD" if request.path == "/v2/" || status == 201 => answer,
                "GET" | "HEAD" => Answer::new(404, ""),
                _ if request.path.contains(part) => {
                    Answer::new(status, "").header("Docker-Content-Digest", wrong)
                }
                _ => Answer::new(404, ""),
            }
        });
        let name = liar.name();
        sandbox.mica(["tag", "app:1", &name]).ok();
        if status == 201 {
            // Everything is there already, says its HEAD; so only the manifest is sent.
            sandbox.mica(["rmi", "app:1", &name]).ok();
            sandbox.mica(["pull", &name]).ok();
        }
        let run = sandbox.mica(["push", "--retry-for", "1", &name]).code(1);
        let words = match status {
            403 => "access denied",
            500 => "answered 500",
            _ => "its bytes are",
        };
        assert!(run.stderr().contains(words), "{}", run.describe());
    }
}

/// Mounting from another repository needs a token for both; nothing else gets more than it needs.
#[test]
fn net_tokens_for_mounting_name_both_repositories() {
    let image = app("app:1");
    let token = Liar::start(&image, |request, _| {
        // The token says what it is for.
        let scope = request.path.matches("scope=").count();
        Answer::new(200, format!(r#"{{"token":"for-{scope}"}}"#))
    });
    let challenge = format!(
        "Bearer realm=\"http://{}/token\",service=\"s\"",
        token.host()
    );
    let liar = Liar::start(&image, move |request, answer| {
        let given = request
            .headers
            .get("authorization")
            .cloned()
            .unwrap_or_default();
        let path = request.path.clone();
        let mounting = path.contains("mount=");
        let good = match (request.method.as_str(), mounting) {
            _ if path == "/v2/" => false,
            (_, true) => given == "Bearer for-2",
            _ => given == "Bearer for-1",
        };
        match (request.method.as_str(), path.as_str()) {
            _ if !good => Answer::new(401, "").header("WWW-Authenticate", &challenge),
            ("HEAD", path) if path.starts_with("/v2/copy/") => Answer::new(404, ""),
            ("POST", _) if mounting => Answer::new(201, ""),
            ("POST", _) => Answer::new(202, "").header("Location", "/v2/copy/blobs/uploads/x"),
            ("PUT", _) => Answer::new(201, ""),
            _ => answer,
        }
    });
    let sandbox = Sandbox::new();
    sandbox.mica(["pull", "-q", &liar.name()]).ok();
    let copy = format!("{}/copy:1", liar.host());
    sandbox.mica(["tag", &liar.name(), &copy]).ok();
    let out = sandbox.mica(["push", &copy]).ok().stdout();
    assert_eq!(out.matches(": Mounted from app\n").count(), 2, "{out}");
    let asked: Vec<String> = token
        .seen
        .lock()
        .expect("the log")
        .iter()
        .filter(|request| request.path.matches("scope=").count() == 2)
        .map(|request| request.path.clone())
        .collect();
    assert!(!asked.is_empty());
    for path in asked {
        for scope in [
            "scope=repository%3Acopy%3Apull%2Cpush",
            "scope=repository%3Aapp%3Apull",
        ] {
            assert!(path.contains(scope), "{path}");
        }
    }
}
