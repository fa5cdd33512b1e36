//! A node: containerd with all it has in a sandbox.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::common::image::{ImageBuilder, digest};
use crate::common::registry::{Registry, skopeo};
use crate::common::sandbox::{Run, Sandbox};
use crate::common::tier;
use crate::work::wait_until;

/// containerd with everything it has in the sandbox; ended with all its containers.
pub struct Containerd<'a> {
    sandbox: &'a Sandbox,
    child: Child,
    /// Sockets have short names.
    state: PathBuf,
    _alone: Option<MutexGuard<'static, ()>>,
}

/// All of them have one directory of runc's, by the names of containers.
static ALONE: Mutex<()> = Mutex::new(());

impl Drop for Containerd<'_> {
    fn drop(&mut self) {
        for namespace in ["default", "k8s.io"] {
            let tasks = self.run(&format!("-n {namespace} task ls -q"));
            for task in tasks.stdout().lines() {
                self.run(&format!("-n {namespace} task rm -f {task}"));
            }
        }
        self.kill();
        // Sandboxes of pods have mounts of their own there.
        let script = format!(
            "for m in $(grep -o ' {0}[^ ]*' /proc/self/mountinfo | sort -r); do umount -l $m; done; rm -rf {0}",
            self.state.display()
        );
        self.sandbox.sh(&script);
    }
}

impl<'a> Containerd<'a> {
    pub fn start(sandbox: &'a Sandbox) -> Containerd<'a> {
        Containerd::start_with(sandbox, "localhost/pause:1")
    }

    /// With an image for pods to stand on.
    pub fn start_with(sandbox: &'a Sandbox, pause: &str) -> Containerd<'a> {
        Containerd::start_on(sandbox, pause, "mica")
    }

    /// With the snapshotter that pods stand on; both are there.
    pub fn start_on(sandbox: &'a Sandbox, pause: &str, snapshotter: &str) -> Containerd<'a> {
        Containerd::configure(sandbox, pause);
        let conf = sandbox.path("containerd.toml");
        let text = fs::read_to_string(&conf).expect("the configuration");
        let text = text.replacen("\"mica\"", &format!("{snapshotter:?}"), 1);
        fs::write(conf, format!("{text}{}\n", proxy(sandbox))).expect("the configuration");
        Containerd::launch(sandbox)
    }

    /// Writes the configuration, without the snapshotter.
    pub fn configure(sandbox: &Sandbox, pause: &str) {
        let at = state(sandbox).display().to_string();
        let unused = ["aufs", "btrfs", "devmapper", "zfs"]
            .map(|name| format!("\"io.containerd.snapshotter.v1.{name}\", "))
            .concat();
        let old = format!(
            "[plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"{pause}\"\n  disable_tcp_service = true\n  restrict_oom_score_adj = true\n{}\n",
            for_pods(1),
        );
        let new = format!(
            "[plugins.\"io.containerd.cri.v1.images\".pinned_images]\n  sandbox = \"{pause}\"\n\
             [plugins.\"io.containerd.cri.v1.runtime\"]\n  restrict_oom_score_adj = true\n{}\n",
            for_pods(2),
        );
        let (version, plugins) = match is_two() {
            true => (3, new),
            false => (2, old),
        };
        let (images, runtime) = match is_two() {
            true => (
                "io.containerd.cri.v1.images",
                "io.containerd.cri.v1.runtime",
            ),
            false => ("io.containerd.grpc.v1.cri", "io.containerd.grpc.v1.cri"),
        };
        let mut more = String::new();
        let hosts = sandbox.path("hosts");
        if hosts.exists() {
            more = format!("[plugins.{images:?}.registry]\n  config_path = {hosts:?}\n");
        }
        let cni = sandbox.path("cni");
        if cni.exists() {
            more.push_str(&format!(
                "[plugins.{runtime:?}.cni]\n  bin_dir = {cni:?}\n  conf_dir = {cni:?}\n"
            ));
        }
        let text = format!(
            "version = {version}\nroot = {root:?}\nstate = \"{at}/s\"\n\
             disabled_plugins = [{unused}\"io.containerd.internal.v1.opt\"]\n\
             [grpc]\n  address = \"{at}/c.sock\"\n{plugins}{more}",
            root = sandbox.path("containerd"),
        );
        fs::write(sandbox.path("containerd.toml"), text).expect("the configuration");
    }

    /// Starts it with the configuration that is there.
    pub fn launch(sandbox: &'a Sandbox) -> Containerd<'a> {
        // Whoever failed has cleaned up.
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        Containerd::launch_if(sandbox, Some(alone))
    }

    /// Another node's, beside this one: the same test gives its containers other names.
    pub fn beside<'b>(&self, sandbox: &'b Sandbox, pause: &str) -> Containerd<'b> {
        Containerd::configure(sandbox, pause);
        let conf = sandbox.path("containerd.toml");
        let text = fs::read_to_string(&conf).expect("the configuration");
        fs::write(conf, format!("{text}{}\n", proxy(sandbox))).expect("the configuration");
        Containerd::launch_if(sandbox, None)
    }

    fn launch_if(sandbox: &'a Sandbox, alone: Option<MutexGuard<'static, ()>>) -> Containerd<'a> {
        tier::root();
        let state = state(sandbox);
        fs::create_dir_all(&state).expect("mkdir");
        let containerd = Containerd {
            child: spawn(sandbox),
            sandbox,
            state,
            _alone: alone,
        };
        containerd.wait();
        containerd
    }

    fn wait(&self) {
        wait_until("containerd answers", || {
            self.run("version").status.success()
        });
    }

    pub fn kill(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn restart(&mut self) {
        self.kill();
        self.child = spawn(self.sandbox);
        self.wait();
    }

    pub fn socket(&self) -> PathBuf {
        self.state.join("c.sock")
    }

    /// `ctr` with words split at blanks; what follows ` -- ` is a script.
    pub fn run(&self, line: &str) -> Run {
        self.sandbox.run(self.command(line))
    }

    pub fn command(&self, line: &str) -> Command {
        let (words, script) = match line.split_once(" -- ") {
            Some((words, script)) => (words, Some(script)),
            None => (line, None),
        };
        let mut command = Command::new("ctr");
        command
            .arg("-a")
            .arg(self.socket())
            .args(words.split_whitespace());
        if let Some(script) = script {
            command.args(["sh", "-c", script]);
        }
        command
    }

    /// What `ctr` shows, which has to succeed.
    #[track_caller]
    pub fn shown(&self, line: &str) -> String {
        // When a program has ended, ctr drops what it has not copied of its output yet.
        let line = match line.contains(" -- ") {
            true => format!("{line}; status=$?; sleep 0.5; exit $status"),
            false => line.to_owned(),
        };
        self.run(&line).ok().stdout()
    }
}

fn version() -> String {
    let output = Command::new("containerd").arg("--version").output();
    String::from_utf8_lossy(&output.expect("containerd").stdout).into_owned()
}

/// Whether this machine's containerd is one of 2.x.
pub fn is_two() -> bool {
    version().contains("/v2 ")
}

/// Whether it is one of 1.6.
pub fn is_one_six() -> bool {
    version().contains("containerd 1.6.")
}

/// The document's lines for pods, for containerd 1.x or 2.x.
fn for_pods(version: usize) -> String {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../doc/KUBERNETES.md");
    let text = fs::read_to_string(document).expect("the document");
    let mut blocks = text.split("```\n").filter(|block| block.starts_with('['));
    blocks.nth(version - 1).expect("a block").to_owned()
}

fn state(sandbox: &Sandbox) -> PathBuf {
    let name = digest(sandbox.dir().as_os_str().as_encoded_bytes());
    PathBuf::from(format!("/run/mica-c-{}", &name[7..15]))
}

/// The lines of containerd's configuration.
pub fn proxy(sandbox: &Sandbox) -> String {
    mica::ops::engines::containerd::lines(&sandbox.path("snapshotter.sock")).expect("a path")
}

/// Gives pods of this sandbox's containerd networks of their own with nothing in them: of what the kubelet's plugins say only the form
/// is there.
pub fn empty_networks(sandbox: &Sandbox) {
    let dir = sandbox.mkdir("cni");
    let conf = r#"{"cniVersion": "0.4.0", "name": "test", "plugins": [{"type": "empty"}]}"#;
    fs::write(dir.join("10-test.conflist"), conf).expect("a file");
    let script = r#"#!/bin/sh
cat >/dev/null
case $CNI_COMMAND in
ADD) echo '{"cniVersion": "0.4.0", "interfaces": [{"name": "eth0", "sandbox": "'$CNI_NETNS'"}], "ips": [{"version": "4", "interface": 0, "address": "10.1.0.2/24"}], "dns": {}}' ;;
VERSION) echo '{"cniVersion": "0.4.0", "supportedVersions": ["0.3.0", "0.3.1", "0.4.0", "1.0.0"]}' ;;
esac
"#;
    for name in ["empty", "loopback"] {
        fs::write(dir.join(name), script).expect("a script");
    }
    sandbox.sh("chmod 755 cni/empty cni/loopback").ok();
}

/// Lets mica and containerd in this sandbox talk to a registry that is not on the loopback device, and has no certificate.
pub fn trust(sandbox: &Sandbox, registry: &Registry) {
    let host = registry.host();
    let dir = sandbox.mkdir(".config/docker");
    let text = format!("{{\"insecure-registries\": [{host:?}]}}");
    fs::write(dir.join("daemon.json"), text).expect("daemon.json");
    let dir = sandbox.mkdir(&format!("hosts/{host}"));
    let text = format!(
        "server = \"http://{host}\"\n[host.\"http://{host}\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
    );
    fs::write(dir.join("hosts.toml"), text).expect("hosts.toml");
}

fn spawn(sandbox: &Sandbox) -> Child {
    let log = fs::File::options()
        .append(true)
        .create(true)
        .open(sandbox.path("containerd.log"))
        .expect("a log");
    Command::new("containerd")
        .arg("--config")
        .arg(sandbox.path("containerd.toml"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("containerd")
}

/// The image, in a registry and not in the store.
pub fn pushed(sandbox: &Sandbox, registry: &Registry, image: &ImageBuilder, name: &str) -> String {
    let name = registry.name(name);
    let tag = "pushing:1";
    sandbox.load(image);
    sandbox.mica(["tag", &image.id(), &name]).ok();
    sandbox.mica(["tag", &image.id(), tag]).ok();
    sandbox.mica(["push", "-q", &name]).ok();
    sandbox.mica(["rmi", "-f", &image.id()]).ok();
    name
}

/// How often each client's address has been given each blob.
pub fn fetches(registry: &Registry) -> BTreeMap<(String, String), usize> {
    let mut fetches = BTreeMap::new();
    let log = registry.log();
    for line in log.lines().filter(|line| line.contains("\"GET /v2/")) {
        let address = line.split(' ').next().unwrap_or_default();
        if let Some((_, rest)) = line.split_once("/blobs/") {
            let digest = rest.split([' ', '"', '?']).next().unwrap_or_default();
            *fetches
                .entry((address.to_owned(), digest.to_owned()))
                .or_default() += 1;
        }
    }
    fetches
}

/// Whether a registry was asked for a blob.
pub fn blobs_fetched(registry: &Registry) -> usize {
    let log = registry.log();
    let fetched = |line: &&str| line.contains("\"GET /v2/") && line.contains("/blobs/");
    log.lines().filter(fetched).count()
}

/// The digests of an image's layers as the registry has them.
pub fn blobs(sandbox: &Sandbox, name: &str) -> Vec<String> {
    let name = format!("docker://{name}");
    let said = skopeo(sandbox, &["inspect", "--tls-verify=false", &name]);
    let json: serde_json::Value = serde_json::from_str(&said).unwrap();
    let layers = json["Layers"].as_array().unwrap().iter();
    layers.map(|l| l.as_str().unwrap().to_owned()).collect()
}
