//! The same image, mounted by everyone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{UnmountFlags, unmount};

use crate::common::mount::Mount;
use crate::common::sandbox::Sandbox;
use crate::common::{podman, real};

pub struct System {
    pub name: &'static str,
    /// The image's root directory.
    pub root: PathBuf,
}

/// Kernel overlayfs, fuse-overlayfs twice, mica; in this order.
pub struct Systems {
    pub list: Vec<System>,
    pub mica: Mount,
    peers: Vec<PathBuf>,
}

pub const OVERLAYFS: usize = 0;
pub const FUSE_OVERLAYFS_1: usize = 1;
pub const FUSE_OVERLAYFS_2: usize = 2;
pub const MICA: usize = 3;

impl Systems {
    pub fn start(sandbox: &Sandbox) -> Systems {
        let overlay = podman::real_image(sandbox, "real");
        let lowers = lowerdirs(&overlay);
        let mut list = vec![System {
            name: "overlayfs",
            root: overlay,
        }];
        let mut peers = Vec::new();
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/bin/fuse-overlayfs");
        for (name, program) in [
            ("fuse-overlayfs 1", PathBuf::from("/usr/bin/fuse-overlayfs")),
            ("fuse-overlayfs 2", built),
        ] {
            let point = sandbox.mkdir(&name.replace(' ', "-"));
            let mut command = Command::new(program);
            command.arg("-o").arg(&lowers).arg(&point);
            sandbox.run(command).ok();
            peers.push(point.clone());
            list.push(System { name, root: point });
        }
        sandbox.load_file(&real::docker_archive("real")).ok();
        let mica = sandbox.mount();
        let root = mica.image("localhost/mica-test/real");
        list.push(System { name: "mica", root });
        for system in &list {
            assert!(
                system.root.join("usr/bin/python3").exists(),
                "{} is empty",
                system.name
            );
        }
        Systems { list, mica, peers }
    }
}

impl Drop for Systems {
    fn drop(&mut self) {
        for point in &self.peers {
            if let Err(error) = unmount(point, UnmountFlags::DETACH) {
                eprintln!("unmounting {}: {error}", point.display());
            }
        }
    }
}

/// The `lowerdir=` option of the overlay on this mount point.
fn lowerdirs(point: &Path) -> String {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo");
    let line = table
        .lines()
        .find(|line| line.split(' ').nth(4).map(Path::new) == Some(point));
    let options = line
        .and_then(|line| line.rsplit(' ').next())
        .expect("the overlay's mount");
    let lowers = options
        .split(',')
        .find(|option| option.starts_with("lowerdir="));
    lowers.expect("its layers").to_owned()
}

/// One line about where this was measured.
pub fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let model = read("/proc/cpuinfo");
    let model = model
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown processor", |line| {
        line.trim_start_matches([' ', '\t', ':'])
    });
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or("?");
    format!(
        "{cpus} x {model}, kernel {}, load before {load}",
        kernel.trim()
    )
}
