//! A snapshotter of a sandbox's store, and mounts as containerd makes them.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mica_snapshotter::proto::Mount;

use crate::client::Client;
use crate::common::image::{ImageBuilder, LayerBuilder};
use crate::common::sandbox::{Sandbox, program};
use crate::common::tier;

/// The program, running; ended at the end.
pub struct Running {
    child: Child,
    pub client: Client,
    pub socket: PathBuf,
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let pid = rustix::process::Pid::from_child(&self.child);
            // It takes its mounts away, unless it hangs.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let end = Instant::now() + Duration::from_secs(5);
            while self.child.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        self.kill();
    }
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn kill(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// As systemd does it.
    pub fn end(mut self) {
        // It has begun to listen to signals when it answers.
        self.client.list(&[]).expect("a list");
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("kill");
        assert!(self.child.wait().expect("wait").success());
    }
}

/// Waits for what takes a moment.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn command(sandbox: &Sandbox) -> Command {
    let mut command = Command::new(program("mica-snapshotter"));
    command
        .env("MICA_STORE", sandbox.store())
        .env("HOME", sandbox.dir())
        .arg("--socket")
        .arg(sandbox.path("snapshotter.sock"))
        .current_dir(sandbox.dir())
        .stdin(Stdio::null());
    command
}

/// Starts it, in the mount namespace of the calling thread.
pub fn start(sandbox: &Sandbox) -> Running {
    tier::root();
    let socket = sandbox.path("snapshotter.sock");
    let log = fs::File::options()
        .append(true)
        .create(true)
        .open(sandbox.path("snapshotter.log"))
        .expect("a log");
    let child = command(sandbox).stderr(log).spawn().expect("the program");
    wait_until("it listens", || {
        std::os::unix::net::UnixStream::connect(&socket).is_ok()
    });
    Running {
        child,
        client: Client::connect(&socket),
        socket,
    }
}

/// Where something is mounted; unmounted at the end.
pub struct Mounted<'a> {
    sandbox: &'a Sandbox,
    pub at: PathBuf,
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let mut command = Command::new("umount");
        command.arg("-l").arg(&self.at);
        self.sandbox.run(command);
    }
}

impl Mounted<'_> {
    /// A script with it as the working directory; the output.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        let at = self.at.display();
        let run = self.sandbox.sh(&format!("cd '{at}' && {{ {script}\n}}"));
        run.ok().stdout()
    }
}

/// Mounts what the snapshotter has answered.
#[track_caller]
pub fn mount<'a>(sandbox: &'a Sandbox, mounts: &[Mount]) -> Mounted<'a> {
    let [mount] = mounts else {
        panic!("one mount, not {mounts:?}");
    };
    let at = tempfile::tempdir_in(sandbox.dir())
        .expect("a directory")
        .keep();
    let mut command = Command::new("mount");
    match mount.r#type.as_str() {
        "bind" => {
            command.arg("--rbind").arg(&mount.source).arg(&at);
            let mode = format!("remount,bind,{}", mount.options[0]);
            assert_eq!(mount.options[1], "rbind");
            sandbox.run(command).ok();
            command = Command::new("mount");
            command.args(["-o", &mode]).arg(&at);
        }
        kind => {
            command.args(["-t", kind, "-o", &mount.options.join(",")]);
            command.current_dir(sandbox.dir());
            command.arg(&mount.source).arg(&at);
        }
    }
    sandbox.run(command).ok();
    Mounted { sandbox, at }
}

/// Three layers, with something that a chain of them has to get right.
pub fn image(name: &str) -> ImageBuilder {
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
        })
        .layer(|l| {
            l.whiteout("data/gone")
                .file("data/old", "new")
                .dir("cache", 0o755)
                .opaque("cache")
                .file("cache/b", "b")
        })
}

fn tools(layer: LayerBuilder) -> LayerBuilder {
    let busybox = fs::read("/bin/busybox").expect("busybox-static is installed");
    let layer = layer
        .dir("bin", 0o755)
        .file("bin/busybox", busybox)
        .mode(0o755);
    let points = ["proc", "sys", "dev", "run", "etc", "tmp"];
    let layer = points.iter().fold(layer, |l, point| l.dir(point, 0o755));
    let applets = ["sh", "cat", "ls", "touch", "echo", "sleep", "true", "stat"];
    applets
        .iter()
        .fold(layer, |l, name| l.symlink(format!("bin/{name}"), "busybox"))
}

/// The chain IDs of an image.
pub fn chains(image: &ImageBuilder) -> Vec<String> {
    let layers: Vec<mica::oci::DiffId> = image
        .diff_ids()
        .iter()
        .map(|diff_id| diff_id.parse().expect("a digest"))
        .collect();
    let chains = mica::oci::ChainId::chain(&layers).into_iter();
    chains.map(|chain| chain.to_string()).collect()
}
