//! containerd itself, with `ctr`, and its CRI plugin, as the kubelet drives it.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::common::image::{ImageBuilder, digest};
use crate::common::registry::{Kind, Registry};
use crate::common::sandbox::{Run, Sandbox};
use crate::common::tier;
use crate::work::{chains, image, start, wait_until};

mod cri;

/// containerd with everything it has in the sandbox; ended with all its containers.
pub struct Containerd<'a> {
    sandbox: &'a Sandbox,
    child: Child,
    /// Sockets have short names.
    state: PathBuf,
}

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
    fn start(sandbox: &'a Sandbox) -> Containerd<'a> {
        Containerd::start_with(sandbox, "localhost/pause:1")
    }

    /// With an image for pods to stand on.
    fn start_with(sandbox: &'a Sandbox, pause: &str) -> Containerd<'a> {
        Containerd::configure(sandbox, pause);
        let conf = sandbox.path("containerd.toml");
        let text = fs::read_to_string(&conf).expect("the configuration");
        fs::write(conf, format!("{text}{}\n", proxy(sandbox))).expect("the configuration");
        Containerd::launch(sandbox)
    }

    /// Writes the configuration, without the snapshotter.
    pub fn configure(sandbox: &Sandbox, pause: &str) {
        let at = state(sandbox).display().to_string();
        let unused = ["aufs", "btrfs", "devmapper", "zfs"]
            .map(|name| format!("\"io.containerd.snapshotter.v1.{name}\", "))
            .concat();
        let text = format!(
            "version = 2\nroot = {root:?}\nstate = \"{at}/s\"\n\
             disabled_plugins = [{unused}\"io.containerd.internal.v1.opt\"]\n\
             [grpc]\n  address = \"{at}/c.sock\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"{pause}\"\n  disable_tcp_service = true\n  restrict_oom_score_adj = true\n\
             [plugins.\"io.containerd.grpc.v1.cri\".containerd]\n  snapshotter = \"mica\"\n  disable_snapshot_annotations = false\n",
            root = sandbox.path("containerd"),
        );
        fs::write(sandbox.path("containerd.toml"), text).expect("the configuration");
    }

    /// Starts it with the configuration that is there.
    pub fn launch(sandbox: &'a Sandbox) -> Containerd<'a> {
        tier::root();
        let state = state(sandbox);
        fs::create_dir_all(&state).expect("mkdir");
        let containerd = Containerd {
            child: spawn(sandbox),
            sandbox,
            state,
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

    fn restart(&mut self) {
        self.kill();
        self.child = spawn(self.sandbox);
        self.wait();
    }

    fn socket(&self) -> PathBuf {
        self.state.join("c.sock")
    }

    /// `ctr` with words split at blanks; what follows ` -- ` is a script.
    fn run(&self, line: &str) -> Run {
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
        self.sandbox.run(command)
    }

    #[track_caller]
    pub fn shown(&self, line: &str) -> String {
        self.run(line).ok().stdout()
    }
}

fn state(sandbox: &Sandbox) -> PathBuf {
    let name = digest(sandbox.dir().as_os_str().as_encoded_bytes());
    PathBuf::from(format!("/run/mica-c-{}", &name[7..15]))
}

/// The lines of containerd's configuration.
fn proxy(sandbox: &Sandbox) -> String {
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

fn snapshots(containerd: &Containerd) -> String {
    containerd.shown("snapshots --snapshotter mica ls")
}

/// `ctr`: pull, run, list, remove; containerd, the snapshotter and the mount go and come, in any order, under a container.
#[test]
fn net_root_containerd_ctr() {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Kind::Plain);
    let app = image("app:1");
    let name = pushed(&sandbox, &registry, &app, "team/app:1");
    sandbox.mica(["pull", "-q", &name]).ok();
    let m = sandbox.mount();
    let mut snapshotter = start(&sandbox);
    let mut containerd = Containerd::start(&sandbox);
    containerd.shown(&format!(
        "images pull --plain-http --snapshotter mica {name}"
    ));
    // Unpacked by the client, and then the store's all the same.
    let listed = snapshots(&containerd);
    assert!(
        chains(&app).iter().all(|chain| listed.contains(chain)),
        "{listed}"
    );
    assert_eq!(sandbox.sh("ls store/snapshots").ok().stdout(), "log\n");
    let run = format!("run --rm --snapshotter mica {name}");
    let seen = containerd.shown(&format!(
        "{run} one -- cat /data/old; ls /cache; touch /mine"
    ));
    assert_eq!(seen, "newb\n");
    // One that stays.
    containerd.shown(&format!(
        "run -d --snapshotter mica {name} web -- while :; do sleep 1; done"
    ));
    let exec = |containerd: &Containerd, script: &str| {
        containerd.shown(&format!("task exec --exec-id x web -- {script}"))
    };
    exec(&containerd, "echo 1 >>/mine");
    let refused = sandbox.mica(["rmi", &name]).fails();
    assert!(refused.stderr().contains("web"), "{}", refused.describe());
    let users = sandbox.mica(["users", &name]).ok().stdout();
    assert!(users.contains("containerd"), "{users}");
    snapshotter.kill();
    assert_eq!(exec(&containerd, "cat /data/old /mine"), "new1\n");
    containerd.restart();
    drop(snapshotter);
    let mut snapshotter = start(&sandbox);
    containerd.restart();
    snapshotter.kill();
    assert_eq!(exec(&containerd, "cat /data/old; echo 2 >>/mine"), "new");
    let _snapshotter = start(&sandbox);
    // The mount goes on for whoever has something of it, and a new one is there for the next.
    sandbox
        .mica(["umount", "-l", m.path("").to_str().unwrap()])
        .ok();
    m.forget();
    let m = sandbox.mount();
    assert_eq!(exec(&containerd, "cat /data/old /mine"), "new1\n2\n");
    wait_until("containerd has connected again", || {
        let list = "snapshots --snapshotter mica ls";
        containerd.run(list).status.success()
    });
    let seen = containerd.shown(&format!("{run} two -- cat /data/old"));
    assert_eq!(seen, "new");
    containerd.shown("task kill -s SIGKILL web");
    wait_until("the container has ended", || {
        containerd.run("task rm web").status.success()
    });
    containerd.shown("container rm web");
    containerd.shown(&format!("images rm --sync {name}"));
    // Nobody has anything any more: containerd gives it back, and the image can go.
    wait_until("containerd has collected", || {
        snapshots(&containerd).lines().count() == 1
    });
    sandbox.mica(["rmi", &name]).ok();
    assert_eq!(sandbox.sh("ls store/snapshots").ok().stdout(), "log\n");
    sandbox.mica(["check"]).ok();
    drop(containerd);
    m.unmount();
}

/// Private content: an image that mica has not, unpacked, run, committed on, beside the same by containerd's own overlayfs.
#[test]
fn net_root_containerd_without_mica_s_layers() {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Kind::Plain);
    let app = image("app:1");
    let name = pushed(&sandbox, &registry, &app, "team/app:1");
    let m = sandbox.mount();
    let _snapshotter = start(&sandbox);
    let containerd = Containerd::start(&sandbox);
    let script = "cat /data/old; ls /cache /data; stat -c %u:%g:%a /data /bin/busybox";
    let mut seen = Vec::new();
    for snapshotter in ["mica", "overlayfs"] {
        containerd.shown(&format!(
            "images pull --plain-http --snapshotter {snapshotter} {name}"
        ));
        let run = format!("run --rm --snapshotter {snapshotter} {name} one");
        seen.push(containerd.shown(&format!("{run} -- {script}")));
    }
    assert_eq!(seen[0], seen[1]);
    let chains = chains(&app);
    let usage = |name: &str| {
        let line = format!("snapshots --snapshotter {name} usage -b {}", chains[1]);
        let text = containerd.shown(&line);
        let row = text.lines().nth(1).unwrap_or_default().to_owned();
        row.split_whitespace()
            .skip(1)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(usage("mica"), usage("overlayfs"));
    assert_eq!(sandbox.mica(["images", "-aq"]).ok().stdout(), "");
    containerd.shown(&format!("images rm --sync {name}"));
    wait_until("containerd has collected", || {
        snapshots(&containerd).lines().count() == 1
    });
    assert_eq!(sandbox.sh("ls store/snapshots").ok().stdout(), "log\n");
    drop(containerd);
    m.unmount();
}

/// Whether a registry was asked for a blob.
fn blobs_fetched(registry: &Registry) -> usize {
    let log = registry.log();
    let fetched = |line: &&str| line.contains("\"GET /v2/") && line.contains("/blobs/");
    log.lines().filter(fetched).count()
}
