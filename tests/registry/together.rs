//! Push, pull, login: killed at any moment, two at once, on a full disk.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::pulling::app;
use crate::common::image::ImageBuilder;
use crate::common::registry::{Kind, PASSWORD, Registry, USER};
use crate::common::sandbox::Sandbox;
use crate::common::tier;

fn id(sandbox: &Sandbox, name: &str) -> String {
    let run = sandbox.mica(["images", "-q", "--no-trunc", name]).ok();
    run.stdout().trim().to_owned()
}

fn spawn(mut command: Command) -> Child {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().expect("mica")
}

fn kill(mut child: Child, after: Duration) {
    thread::sleep(after);
    child.kill().and_then(|()| child.wait()).expect("kill");
}

fn large() -> ImageBuilder {
    ImageBuilder::new("app:1")
        .layer(|l| l.file("one", b"abcdefgh".repeat(1_000_000)))
        .layer(|l| l.file("two", b"ijklmnop".repeat(1_000_000)))
}

/// A push that was killed has not made a tag of anything that is not whole, and can be done again.
#[test]
fn net_a_push_killed_at_any_moment() {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Kind::Plain);
    let image = large();
    sandbox.load(&image);
    let before = sandbox.store_files();
    for number in 0..8 {
        let name = registry.name(&format!("app{number}:1"));
        sandbox.mica(["tag", "app:1", &name]).ok();
        let mut push = sandbox.command();
        push.args(["push", "--compression", "gzip", &name]);
        kill(spawn(push), Duration::from_millis(number * 40));
        // Whole, or not there.
        let back = Sandbox::new();
        let run = back.mica(["pull", "-q", &name]);
        match run.status.code() {
            Some(0) => assert_eq!(id(&back, &name), image.id()),
            _ => assert!(run.stderr().contains("not found"), "{}", run.describe()),
        }
        sandbox.mica(["push", "-q", &name]).ok();
        back.mica(["pull", "-q", &name]).ok();
        assert_eq!(id(&back, &name), image.id());
        sandbox.mica(["rmi", &name]).ok();
    }
    sandbox.mica(["gc"]).ok();
    let names =
        |files: Vec<(std::path::PathBuf, u64)>| files.into_iter().map(|f| f.0).collect::<Vec<_>>();
    assert_eq!(names(sandbox.store_files()), names(before));
    sandbox.mica(["check"]).ok();
}

/// A pull that was killed has left a whole image or none.
#[test]
fn net_a_pull_killed_at_any_moment() {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Kind::Plain);
    let image = large();
    registry.push_with_skopeo(&sandbox, &image, "app:1");
    let name = registry.name("app:1");
    for number in 0..15 {
        let sandbox = Sandbox::new();
        let mut pull = sandbox.command();
        pull.args(["pull", &name]);
        kill(spawn(pull), Duration::from_millis(number * 15));
        let mut whole = false;
        // It may have been killed before there was a store.
        if sandbox.store().join("meta.json").exists() {
            let ids = sandbox
                .mica(["images", "-a", "-q", "--no-trunc"])
                .ok()
                .stdout();
            whole = ids.trim() == image.id();
            assert!(ids.is_empty() || whole, "{ids}");
        }
        sandbox.mica(["pull", "-q", &name]).ok();
        assert_eq!(id(&sandbox, &name), image.id());
        // Killed when all was done but the end of its lease, it may have left that, and the directory it worked in, to whoever
        // changes something next; a pull of what is there does not.
        let collected = sandbox.mica(["gc"]).ok().stdout();
        let data = |line: &&str| {
            let left = line.contains("/leases/") || (whole && line.contains("/tmp/import-"));
            line.starts_with("Deleted: ") && !left
        };
        assert_eq!(collected.lines().find(data), None);
        assert_eq!(
            sandbox.mica(["gc"]).ok().stdout(),
            "Total reclaimed space: 0B\n"
        );
        sandbox.mica(["check"]).ok();
    }
}

#[test]
fn net_pushes_at_the_same_time() {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Kind::Plain);
    let image = large();
    sandbox.load(&image);
    let names: Vec<String> = ["app:1", "app:1", "app:2", "other:1"]
        .map(|n| registry.name(n))
        .into();
    for name in &names {
        sandbox.mica(["tag", "app:1", name]).ok();
    }
    let pushes: Vec<Child> = names
        .iter()
        .map(|name| {
            let mut push = sandbox.command();
            push.args(["push", name]);
            spawn(push)
        })
        .collect();
    for mut push in pushes {
        assert!(push.wait().expect("wait").success());
    }
    let back = Sandbox::new();
    for name in &names {
        back.mica(["pull", "-q", name]).ok();
        assert_eq!(id(&back, name), image.id());
    }
    sandbox.mica(["check"]).ok();
}

fn login(sandbox: &Sandbox, registry: &Registry) -> Command {
    let mut command = sandbox.command();
    command.args(["login", "-u", USER, "-p", PASSWORD, &registry.host()]);
    command
}

/// docker's file is the old one or the new one, whole, for its owner only, and alone in its directory.
#[test]
fn net_logins_killed_and_at_the_same_time() {
    let sandbox = Sandbox::new();
    let registries: Vec<Registry> = (0..4)
        .map(|_| Registry::start(&sandbox, Kind::Password))
        .collect();
    let dir = sandbox.mkdir(".docker");
    let config = dir.join("config.json");
    let old = r#"{"auths":{"example.com":{"auth":"eDp5"}}}"#;
    let check = |wanted: usize| {
        let text = fs::read_to_string(&config).expect("read");
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text:?}"));
        let auths = value["auths"].as_object().expect("auths").len();
        assert!(auths >= wanted, "{text}");
        assert_eq!(fs::read_dir(&dir).expect("readdir").count(), 1);
    };
    for number in 0..20 {
        fs::write(&config, old).expect("write");
        kill(
            spawn(login(&sandbox, &registries[0])),
            Duration::from_millis(number * 3),
        );
        check(1);
    }
    fs::write(&config, old).expect("write");
    // All of them are in the file afterwards.
    for _ in 0..3 {
        let logins: Vec<Child> = registries
            .iter()
            .map(|r| spawn(login(&sandbox, r)))
            .collect();
        for mut login in logins {
            assert!(login.wait().expect("wait").success());
        }
        check(5);
        let logouts: Vec<Child> = registries
            .iter()
            .map(|registry| {
                let mut command = sandbox.command();
                command.args(["logout", &registry.host()]);
                spawn(command)
            })
            .collect();
        for mut logout in logouts {
            assert!(logout.wait().expect("wait").success());
        }
        let text = fs::read_to_string(&config).expect("read");
        assert!(
            !registries.iter().any(|r| text.contains(&r.host())),
            "{text}"
        );
    }
    let mode = fs::metadata(&config).expect("stat").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// A full disk: a login and a save fail and change nothing, a push works all the same, and a registry that is full is said so.
#[test]
fn root_full_disks() {
    tier::root();
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Kind::Password);
    let image = app("app:1");
    let disk = sandbox.mkdir("disk");
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("tmpfs", &disk, "tmpfs", flags, c"size=4m").expect("tmpfs");
    sandbox.sh("mkdir disk/home disk/home/.docker").ok();
    let config = disk.join("home/.docker/config.json");
    fs::write(&config, "{\"auths\":{}}").expect("write");
    let store = disk.join("store");
    let mica = |args: &[&str]| {
        let mut command = sandbox.command();
        command
            .env("HOME", disk.join("home"))
            .env("MICA_STORE", &store)
            .args(args);
        sandbox.run(command)
    };
    let archive = sandbox.path("app.tar");
    image.docker_archive(&archive);
    mica(&["load", "-q", "-i", &archive.display().to_string()]).ok();
    let name = registry.name("app:1");
    mica(&["tag", "app:1", &name]).ok();
    let login = ["login", "-u", USER, "-p", PASSWORD, &registry.host()];
    mica(&login).ok();
    let full = fs::read(&config).expect("read");
    sandbox
        .sh("cat /dev/zero > disk/filler 2>/dev/null || true")
        .ok();

    let run = mica(&[
        "login",
        "-u",
        USER,
        "-p",
        PASSWORD,
        &format!("localhost:{}", registry.port),
    ])
    .code(1);
    assert!(run.stderr().contains("No space left"), "{}", run.stderr());
    assert_eq!(fs::read(&config).expect("read"), full);
    let target = disk.join("saved.tar").display().to_string();
    let run = mica(&["save", "-o", &target, "app:1"]).code(1);
    assert!(run.stderr().contains("No space left"), "{}", run.stderr());
    assert_eq!(fs::read_dir(&disk).expect("readdir").count(), 3);
    // A push needs no room; only what would have spared the next one compressing is not kept.
    let run = mica(&["push", &name]).ok();
    assert!(run.stdout().contains("digest: sha256:"), "{}", run.stdout());
    rustix::mount::unmount(&disk, rustix::mount::UnmountFlags::DETACH).expect("umount");
}
