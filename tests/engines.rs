//! podman, buildah, skopeo and the docker client on the images of M, through `M/stores/containers`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::image::{ImageBuilder, LayerBuilder, digest};
use crate::common::registry::{Kind, Registry};
use crate::common::sandbox::{Mount, Run, Sandbox};

mod bad;
mod compose;
mod configuration;
mod dockerd;
mod facts;
mod page;
mod plugin;
mod plugin_attacks;
pub(crate) mod reader;
pub(crate) mod rootless;
mod shifted;
mod store;
mod system;
mod systemd;
mod together;
mod users;

/// Engines with storage of their own and M as an additional image store.
pub(crate) struct Engines<'a> {
    sandbox: &'a Sandbox,
    conf: PathBuf,
    /// podman allows 50 bytes.
    runroot: PathBuf,
}

impl Drop for Engines<'_> {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.runroot) {
            eprintln!("removing {}: {error}", self.runroot.display());
        }
    }
}

impl<'a> Engines<'a> {
    pub(crate) fn new(sandbox: &'a Sandbox, mount: &Mount) -> Engines<'a> {
        let name = digest(sandbox.dir().as_os_str().as_encoded_bytes());
        let runroot = PathBuf::from(format!("/run/mica-e-{}", &name[7..19]));
        fs::create_dir_all(&runroot).expect("mkdir");
        let conf = sandbox.path("storage.conf");
        let text = format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = {:?}\nrunroot = {runroot:?}\n\
             [storage.options]\nadditionalimagestores = [{:?}]\n",
            sandbox.path("engine"),
            mount.path("stores/containers"),
        );
        fs::write(&conf, text).expect("the configuration");
        Engines {
            sandbox,
            conf,
            runroot,
        }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("CONTAINERS_STORAGE_CONF", &self.conf)
            .env("HOME", &self.runroot)
            .env("TMPDIR", &self.runroot)
            .current_dir(self.sandbox.dir());
        if program == "podman" {
            command.args(["--cgroup-manager", "cgroupfs", "--events-backend", "file"]);
            command.args(["--runtime", "runc"]);
        }
        command
    }

    /// A program with words split at blanks; what follows ` -- ` is one word.
    pub(crate) fn run(&self, line: &str) -> Run {
        let (words, script) = match line.split_once(" -- ") {
            Some((words, script)) => (words, Some(script)),
            None => (line, None),
        };
        let mut words = words.split_whitespace();
        let mut command = self.command(words.next().expect("a program"));
        command.args(words).args(script);
        self.sandbox.run(command)
    }

    #[track_caller]
    pub(crate) fn shown(&self, line: &str) -> String {
        self.run(line).ok().stdout()
    }

    /// `podman run` of what goes away by itself and asks this machine for little.
    #[track_caller]
    pub(crate) fn container(&self, options: &str, image: &str, script: &str) -> String {
        let limits = "--ulimit nofile=1024:1024 --ulimit nproc=1024:1024";
        self.shown(&format!(
            "podman run --rm --network none {limits} {options} {image} sh -c -- {script}"
        ))
    }
}

fn tools(layer: LayerBuilder) -> LayerBuilder {
    let busybox = fs::read("/bin/busybox").expect("busybox-static is installed");
    let layer = layer
        .dir("bin", 0o755)
        .file("bin/busybox", busybox)
        .mode(0o755)
        .dir("etc", 0o755)
        .file("etc/passwd", "root:x:0:0::/:/bin/sh\n")
        .dir("tmp", 0o1777);
    let points = ["proc", "sys", "dev", "run"];
    let layer = points.iter().fold(layer, |l, point| l.dir(point, 0o755));
    let applets = [
        "sh", "cat", "id", "ls", "stat", "touch", "echo", "rm", "chown", "true", "su", "chmod",
    ];
    applets
        .iter()
        .fold(layer, |l, name| l.symlink(format!("bin/{name}"), "busybox"))
}

/// Three layers with everything that a tar-split and an overlay have to get right.
pub(crate) fn image(name: &str) -> ImageBuilder {
    ImageBuilder::new(name)
        .config(|config| {
            config["config"] = serde_json::json!({"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]});
        })
        .layer(tools)
        .layer(|l| {
            l.dir("data", 0o750)
                .owner(7, 8)
                .file("data/old", "old")
                .file("data/gone", "gone")
                .dir("cache", 0o755)
                .file("cache/a", "a")
                .file("data/big", vec![7u8; 100_000])
                .hardlink("data/big.link", "data/big")
                .file("data/\u{e9}", "accent")
                .file(b"data/\xff".as_slice(), "not UTF-8")
                .file("data/empty", "")
        })
        .layer(|l| {
            l.whiteout("data/gone")
                .file("data/old", "new")
                .dir("cache", 0o755)
                .opaque("cache")
                .file("cache/b", "b")
                // Given twice: the first stays in the tar, and nowhere else.
                .file("data/twice", "first")
                .file("data/twice", "second")
        })
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}
