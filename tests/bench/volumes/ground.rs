//! One file system of the host, with everybody's directory on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::common::mount::Mount;
use crate::common::sandbox::Sandbox;

#[derive(Clone, Copy, Eq, PartialEq)]
pub enum Host {
    /// Where the benchmark's directory is.
    Disk,
    /// A tmpfs: what is left without a disk's noise.
    Memory,
}

/// A place to write to, and who has it.
pub struct Place {
    pub name: &'static str,
    pub root: PathBuf,
}

pub const HOST: usize = 0;
pub const MICA: usize = 1;
pub const FUSE_OVERLAYFS_1: usize = 2;
pub const FUSE_OVERLAYFS_2: usize = 3;
pub const PASSTHROUGH_HP: usize = 4;
pub const PASSTHROUGH_HP_NOCACHE: usize = 5;

/// The fields are dropped in this order.
pub struct Ground {
    /// In the order of the constants.
    pub places: Vec<Place>,
    pub mica: Mount,
    _others: Unmount,
    _memory: Unmount,
    pub host: Host,
    pub file_system: String,
    sandbox: Sandbox,
}

impl Ground {
    pub fn new(host: Host) -> Ground {
        let sandbox = Sandbox::new();
        let mut memory = Unmount::default();
        if host == Host::Memory {
            let flags = MountFlags::empty();
            mount("mica-bench", sandbox.dir(), "tmpfs", flags, None).expect("a tmpfs");
            memory.0.push(sandbox.dir().to_owned());
        }
        let mut places = vec![Place {
            name: "host",
            root: sandbox.mkdir("host"),
        }];
        let mica = sandbox.mount();
        let root = mica.path("volumes/data");
        fs::create_dir(&root).expect("a volume");
        places.push(Place { name: "mica", root });
        let mut others = Unmount::default();
        for name in ["fuse-overlayfs 1", "fuse-overlayfs 2"] {
            let root = fuse_overlayfs(&sandbox, name);
            others.0.push(root.clone());
            places.push(Place { name, root });
        }
        for (name, options) in [
            ("passthrough_hp", &[][..]),
            ("same, --nocache", &["--nocache"]),
        ] {
            let root = passthrough_hp(&sandbox, name, options);
            others.0.push(root.clone());
            places.push(Place { name, root });
        }
        Ground {
            places,
            mica,
            _others: others,
            _memory: memory,
            host,
            file_system: file_system(&sandbox),
            sandbox,
        }
    }

    /// Mounts fuse-overlayfs anew. After one `rm -r`, version 2.0.0 takes new directories for those that it has removed: "Directory
    /// renamed before its status could be extracted", "fts_read failed".
    pub fn renew(&self, place: usize) {
        if place == FUSE_OVERLAYFS_1 || place == FUSE_OVERLAYFS_2 {
            let place = &self.places[place];
            unmount(&place.root, UnmountFlags::DETACH).expect("unmounting a peer");
            fuse_overlayfs(&self.sandbox, place.name);
        }
    }

    /// A script by `mica hold -v`, in which `$ROOT` is the volume's own directory.
    pub fn held(&self, text: &str) -> Command {
        let at = self.sandbox.mkdir("held");
        let mut command = self.sandbox.command();
        command.args(["hold", "-v", &format!("data:{}", at.display())]);
        command.args(["--", "sh", "-euc", text]);
        command.env("ROOT", at).env("LC_ALL", "C");
        command
    }

    /// A directory that is nobody's place.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.sandbox.mkdir(name)
    }

    /// How many requests of each kind a run asks the daemon of the volumes; the sum is `total`.
    pub fn requests(&self, run: impl FnOnce()) -> Vec<(String, u64)> {
        let before = self.mica.requests();
        run();
        let after = self.mica.requests();
        let asked = after.into_iter().filter_map(|(kind, count)| {
            let count = count - before.get(&kind).copied().unwrap_or(0);
            let kind = kind.strip_prefix("volumes.")?.to_owned();
            (count != 0).then_some((kind, count))
        });
        asked.collect()
    }
}

fn peer(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("target/peers/bin")
        .join(name)
}

/// An overlay with nothing below: all that is written goes to its upper directory.
fn fuse_overlayfs(sandbox: &Sandbox, name: &str) -> PathBuf {
    let program = match name {
        "fuse-overlayfs 1" => PathBuf::from("/usr/bin/fuse-overlayfs"),
        _ => peer("fuse-overlayfs"),
    };
    let dir = |what: &str| sandbox.mkdir(&format!("{}/{what}", name.replace(' ', "-")));
    let (lower, upper, work) = (dir("lower"), dir("upper"), dir("work"));
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        upper.display(),
        work.display()
    );
    let point = dir("merged");
    let mut command = Command::new(program);
    command.args(["-o", &options]).arg(&point);
    sandbox.run(command).ok();
    point
}

/// libfuse's mirror of a directory, the fastest of its examples.
fn passthrough_hp(sandbox: &Sandbox, name: &str, options: &[&str]) -> PathBuf {
    let dir = |what: &str| {
        let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        sandbox.mkdir(&format!("{name}/{what}"))
    };
    let (source, point) = (dir("source"), dir("mirror"));
    let mut command = Command::new(peer("passthrough_hp"));
    command.args(options).arg(&source).arg(&point);
    sandbox.run(command).ok();
    point
}

fn file_system(sandbox: &Sandbox) -> String {
    let mut command = Command::new("findmnt");
    command
        .args(["-n", "-o", "FSTYPE", "-T"])
        .arg(sandbox.dir());
    sandbox.run(command).ok().stdout().trim().to_owned()
}

/// Mounts that are taken down with it.
#[derive(Default)]
struct Unmount(Vec<PathBuf>);

impl Drop for Unmount {
    fn drop(&mut self) {
        for point in &self.0 {
            if let Err(error) = unmount(point, UnmountFlags::DETACH) {
                eprintln!("unmounting {}: {error}", point.display());
            }
        }
    }
}
