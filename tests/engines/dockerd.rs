//! docker's own engine, as Debian has it, with storage and sockets of its own and mica's volume plugin beside it.

use super::plugin::{Process, plugin};
use super::*;

/// Where docker looks for plugins; `/run/docker` is this test's alone.
const PLUGIN: &str = "/run/docker/plugins/mica.sock";

/// It ends its containerd when it is asked to, not when it is killed.
struct Engine(Child);

impl Drop for Engine {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        // It may have ended.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

pub(super) struct Dockerd<'a> {
    sandbox: &'a Sandbox,
    pub(super) address: String,
    _engine: Engine,
    _plugin: Process,
}

impl<'a> Dockerd<'a> {
    /// An engine that answers, with the image `app:1`.
    pub(super) fn start(sandbox: &'a Sandbox) -> Dockerd<'a> {
        crate::common::tier::root();
        sandbox
            .sh("mkdir -p /run/docker && mount -t tmpfs tmpfs /run/docker && mkdir d")
            .ok();
        let plugin = plugin(sandbox, Path::new(PLUGIN));
        let log = fs::File::create(sandbox.path("dockerd.log")).unwrap();
        let address = format!("unix://{}", sandbox.path("d.sock").display());
        let mut engine = Command::new("dockerd");
        engine
            .args([
                "--iptables=false",
                "--bridge=none",
                "--default-ulimit",
                "nofile=1024:1024",
            ])
            .args(["--host", &address])
            .arg("--data-root")
            .arg(sandbox.path("d/data"))
            .arg("--exec-root")
            .arg(sandbox.path("d/exec"))
            .arg("--pidfile")
            .arg(sandbox.path("d/pid"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let engine = engine.spawn();
        let dockerd = Dockerd {
            sandbox,
            address,
            _engine: Engine(engine.expect("dockerd: is the package docker.io installed?")),
            _plugin: plugin,
        };
        let log = || fs::read_to_string(sandbox.path("dockerd.log")).unwrap_or_default();
        let end = Instant::now() + Duration::from_secs(60);
        while !dockerd.docker("version").status.success() {
            assert!(Instant::now() < end, "no dockerd:\n{}", log());
            std::thread::sleep(Duration::from_millis(100));
        }
        // docker takes no layer with a name given twice.
        let plain = ImageBuilder::new("app:1").layer(tools);
        let plain = plain.layer(|l| l.dir("data", 0o755).file("data/old", "new"));
        plain.docker_archive(&sandbox.path("app.tar"));
        dockerd.docker("load -q -i app.tar").ok();
        dockerd
    }

    /// A client of this engine, to be completed.
    pub(super) fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("DOCKER_HOST", &self.address)
            .env("HOME", self.sandbox.dir())
            .current_dir(self.sandbox.dir());
        command
    }

    /// `docker` with words split at blanks; what follows ` -- ` is one word.
    pub(super) fn docker(&self, line: &str) -> Run {
        let (words, script) = line.split_once(" -- ").unwrap_or((line, ""));
        let mut command = self.client("docker");
        command.args(words.split_whitespace());
        command.args(Some(script).filter(|script| !script.is_empty()));
        self.sandbox.run(command)
    }
}
