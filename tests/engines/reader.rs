//! A container that notices whatever is wrong with what it stands on.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use rustix::process::Pid;

use super::Engines;
use crate::common::keeper::wait_until;
use crate::common::mount::runs;
use crate::common::sandbox::Sandbox;

const LIMITS: &str = "--ulimit nofile=1024:1024 --ulimit nproc=1024:1024 --network none";

const READER: &str = "set -e; sum() { busybox find /data /cache /bin /etc -type f -exec busybox sha256sum {} + | busybox sort | busybox sha256sum; }; first=$(sum); while :; do test \"$(sum)\" = \"$first\"; echo x >> /out/rounds; done";

/// A container of podman's on the stores of a mount that reads everything that it stands on, again and again, and ends when that is not what it was.
pub(crate) struct Reader<'a> {
    engines: &'a Engines<'a>,
    name: &'static str,
    rounds: PathBuf,
    pid: Pid,
}

impl<'a> Reader<'a> {
    pub(crate) fn start(
        sandbox: &Sandbox,
        engines: &'a Engines<'a>,
        name: &'static str,
        options: &str,
    ) -> Reader<'a> {
        let out = sandbox.mkdir(name);
        fs::set_permissions(&out, Permissions::from_mode(0o777)).expect("chmod");
        engines.shown(&format!(
            "podman run -d --name {name} {LIMITS} --log-driver k8s-file -v {}:/out {options} app:1 sh -c -- {READER}",
            out.display()
        ));
        let pid = engines.shown(&format!(
            "podman inspect --format {{{{.State.Pid}}}} {name}"
        ));
        let container = Reader {
            engines,
            name,
            rounds: out.join("rounds"),
            pid: Pid::from_raw(pid.trim().parse().expect("a number")).expect("a process"),
        };
        wait_until("the container reads", || container.rounds() > 0);
        container
    }

    /// How often it has read everything.
    pub(crate) fn rounds(&self) -> usize {
        fs::read(&self.rounds).map_or(0, |rounds| rounds.len() / 2)
    }

    pub(crate) fn runs(&self) -> bool {
        runs(self.pid)
    }

    #[track_caller]
    pub(crate) fn is_well(&self) {
        let (engines, name) = (self.engines, self.name);
        let state = engines.shown(&format!(
            "podman inspect --format {{{{.State.Running}}}} {name}"
        ));
        let said = engines.run(&format!("podman logs {name}"));
        let said = format!("{}{}", said.stdout(), said.stderr());
        assert_eq!((state.trim(), said.as_str()), ("true", ""), "{name}");
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.engines
            .run(&format!("podman rm -f -t 0 {}", self.name));
    }
}
