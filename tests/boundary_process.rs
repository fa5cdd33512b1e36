//! What a process in a container tries against the process that starts it: each test is a published attack, or one that once got
//! through. Each is tried as root and as an ordinary user, by `run`, `exec` and `start`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::common::image::{ImageBuilder, LayerBuilder};
use crate::common::sandbox::{Run, Sandbox};
use crate::common::tier;
use crate::running::{image, wait_until};

mod binary;
mod ends;
mod inherited;
mod streams;

const USER: u32 = 54_340;

/// A store with images, and a copy of mica that belongs to whoever runs it.
pub(crate) struct World {
    pub(crate) s: Sandbox,
    user: bool,
}

impl World {
    pub(crate) fn root() -> World {
        tier::root();
        let s = Sandbox::new();
        copy_of_mica(&s.path("mica"), None);
        World { s, user: false }
    }

    fn user() -> World {
        let s = Sandbox::as_user(USER);
        tier::subordinate_ids(USER);
        std::os::unix::fs::chown(s.path("mica"), Some(USER), Some(USER)).unwrap();
        World { s, user: true }
    }

    /// As root, and as an ordinary user.
    fn both() -> [World; 2] {
        [World::root(), World::user()]
    }

    /// The same with the image `app:1`.
    fn ready() -> [World; 2] {
        let worlds = World::both();
        for w in &worlds {
            w.s.load(&image("app:1"));
        }
        worlds
    }

    /// A shell script of the host, run by the user in the sandbox's directory. `$mica` is the program.
    pub(crate) fn sh(&self, script: &str) -> Run {
        let mut command = match self.user {
            true => crate::common::user::as_user(USER, "bash"),
            false => Command::new("bash"),
        };
        command.args(["-euc", script]).current_dir(self.s.dir());
        command.env("MICA_STORE", self.s.store());
        command.env("HOME", self.s.dir()).env("LC_ALL", "C.UTF-8");
        command.env("mica", self.s.path("mica"));
        self.s.run(command)
    }

    /// The output of a script that must succeed.
    #[track_caller]
    pub(crate) fn shown(&self, script: &str) -> String {
        self.sh(script).ok().stdout()
    }
}

/// How often what is left to luck is tried; more in the long form of the tests (contrib/soak).
fn tries(usual: u32) -> String {
    let wanted = std::env::var("MICA_ATTACK_TRIES").ok();
    wanted.unwrap_or_else(|| usual.to_string())
}

/// Not by `fs::copy`: children that other tests fork meanwhile would hold the copy open for writing.
fn copy_of_mica(to: &Path, owner: Option<u32>) {
    let mut command = Command::new("install");
    command.args(["-m", "755"]);
    if let Some(owner) = owner {
        command.args(["-o", &owner.to_string()]);
    }
    let copied = command.args([Path::new(env!("CARGO_BIN_EXE_mica")), to]);
    assert!(copied.status().unwrap().success(), "copying the binary");
}

/// A static program made of the C source in this directory.
fn compiled(source: &str, flags: &[&str]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("source.c"), dir.path().join("program"));
    fs::write(&from, source).unwrap();
    let mut command = Command::new("cc");
    command.args(["-O1", "-static"]).args(flags);
    let made = command.arg("-o").arg(&to).arg(&from).status();
    assert!(made.expect("this test needs cc").success(), "compiling");
    fs::read(to).unwrap()
}

/// Asks the kernel things that no shell can.
fn probe() -> &'static [u8] {
    static PROBE: OnceLock<Vec<u8>> = OnceLock::new();
    PROBE.get_or_init(|| compiled(include_str!("boundary_process/probe.c"), &[]))
}

/// Writes the probe where the host can run it.
fn probe_on(host: &Sandbox) -> PathBuf {
    let path = host.path("probe");
    fs::write(&path, probe()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn with_probe(layer: LayerBuilder) -> LayerBuilder {
    layer.file("bin/probe", probe()).mode(0o755)
}
