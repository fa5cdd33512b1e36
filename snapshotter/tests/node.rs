//! A node: containerd with all it has in a sandbox.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::common::image::{ImageBuilder, digest};
use crate::common::registry::Registry;
use crate::common::sandbox::{Run, Sandbox};
use crate::common::tier;
use crate::work::wait_until;

/// containerd with everything it has in the sandbox; ended with all its containers.
pub struct Containerd<'a> {
    sandbox: &'a Sandbox,
    child: Child,
    /// Sockets have short names.
    state: PathBuf,
    _alone: MutexGuard<'static, ()>,
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
        let text = format!(
            "version = {version}\nroot = {root:?}\nstate = \"{at}/s\"\n\
             disabled_plugins = [{unused}\"io.containerd.internal.v1.opt\"]\n\
             [grpc]\n  address = \"{at}/c.sock\"\n{plugins}",
            root = sandbox.path("containerd"),
        );
        fs::write(sandbox.path("containerd.toml"), text).expect("the configuration");
    }

    /// Starts it with the configuration that is there.
    pub fn launch(sandbox: &'a Sandbox) -> Containerd<'a> {
        tier::root();
        let state = state(sandbox);
        fs::create_dir_all(&state).expect("mkdir");
        // Whoever failed has cleaned up.
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
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

    fn kill(&mut self) {
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
    let socket = sandbox.path("snapshotter.sock");
    format!("[proxy_plugins.mica]\n  type = \"snapshot\"\n  address = {socket:?}")
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

/// Whether a registry was asked for a blob.
pub fn blobs_fetched(registry: &Registry) -> usize {
    let log = registry.log();
    let fetched = |line: &&str| line.contains("\"GET /v2/") && line.contains("/blobs/");
    log.lines().filter(fetched).count()
}
