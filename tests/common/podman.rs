//! podman as the reference: the same archive in storage of its own, mounted by kernel overlayfs.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::real;
use super::sandbox::Sandbox;

/// `f_type` of kernel overlayfs.
const OVERLAYFS_SUPER_MAGIC: i64 = 0x794c_7630;

/// A storage of podman's, with nothing of this machine's configuration in it.
pub struct Podman {
    storage: PathBuf,
    runroot: PathBuf,
    conf: PathBuf,
    temporary: bool,
}

impl Drop for Podman {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = fs::remove_dir_all(&self.runroot)
        {
            eprintln!("removing {}: {error}", self.runroot.display());
        }
    }
}

/// podman's database insists on the same place every time, and podman on at most 50 bytes.
fn runroot(storage: &Path) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    storage.hash(&mut hasher);
    PathBuf::from(format!("/run/mica-test-{:016x}", hasher.finish()))
}

impl Podman {
    /// Storage in this directory, which may exist from earlier runs.
    pub fn new(sandbox: &Sandbox, storage: PathBuf) -> Podman {
        fs::create_dir_all(&storage).expect("mkdir");
        if !overlay_works(sandbox, &storage) {
            // The directory is itself on an overlay, as in a container: memory can hold an upper directory.
            sandbox
                .run(on("mount", &["-t", "tmpfs", "tmpfs"], &storage))
                .ok();
        }
        let name = storage
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let podman = Podman {
            runroot: runroot(&storage),
            conf: sandbox.path(format!("{name}.conf")),
            temporary: storage.starts_with(sandbox.dir()),
            storage,
        };
        fs::create_dir_all(&podman.runroot).expect("mkdir");
        // A storage.conf of the machine could put fuse-overlayfs in the kernel's place.
        let (root, run) = (podman.root(), &podman.runroot);
        let text =
            format!("[storage]\ndriver = \"overlay\"\ngraphroot = {root:?}\nrunroot = {run:?}\n");
        fs::write(&podman.conf, text).expect("the configuration");
        podman
    }

    fn root(&self) -> PathBuf {
        self.storage.join("root")
    }

    /// podman on this storage, to be completed.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut podman = Command::new("podman");
        podman
            .arg("--root")
            .arg(self.root())
            .arg("--runroot")
            .arg(&self.runroot);
        podman.args([
            "--storage-driver",
            "overlay",
            "--cgroup-manager",
            "cgroupfs",
        ]);
        podman.args(["--events-backend", "file"]).args(args);
        podman
            .env("CONTAINERS_STORAGE_CONF", &self.conf)
            .env("HOME", &self.runroot);
        podman
    }

    /// `podman run` of what goes away by itself and asks this machine for little, to be completed.
    pub fn run(&self, args: &[&str]) -> Command {
        let mut podman = self.command(&["--runtime", "runc", "run", "--rm", "--network", "none"]);
        podman.args(["--ulimit", "nofile=1024:1024"]);
        podman.args(["--ulimit", "nproc=1024:1024"]).args(args);
        podman
    }

    /// Loads the archive, unless this storage holds it already.
    pub fn load(&self, sandbox: &Sandbox, archive: &Path) {
        let metadata = fs::metadata(archive).expect("stat");
        let (seconds, nanoseconds) = (metadata.mtime(), metadata.mtime_nsec());
        let stamp = format!("{} {seconds}.{nanoseconds}", metadata.size());
        let stamp_file = self.storage.join("loaded");
        if fs::read_to_string(&stamp_file).ok().as_deref() == Some(stamp.as_str()) {
            return;
        }
        if self.root().exists() {
            fs::remove_dir_all(self.root()).expect("removing the old storage");
        }
        let archive = archive.to_str().expect("a UTF-8 path");
        sandbox
            .run(self.command(&["load", "--quiet", "--input", archive]))
            .ok();
        fs::write(&stamp_file, stamp).expect("the stamp");
    }

    /// Mounts the image and returns where.
    pub fn mount(&self, sandbox: &Sandbox, image: &str) -> PathBuf {
        let run = sandbox.run(self.command(&["image", "mount", image])).ok();
        let point = PathBuf::from(run.stdout().trim());
        let kind = rustix::fs::statfs(&point).expect("statfs").f_type;
        assert_eq!(
            kind,
            OVERLAYFS_SUPER_MAGIC,
            "{} is no overlay",
            point.display()
        );
        point
    }
}

/// One of the real images in kernel overlayfs; podman's storage is kept from run to run.
pub fn real_image(sandbox: &Sandbox, name: &str) -> PathBuf {
    let storage = real::directory().join(format!("podman-{name}"));
    let lock = fs::File::create(storage.with_extension("lock")).expect("the lock");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("flock");
    let podman = Podman::new(sandbox, storage);
    podman.load(sandbox, &real::docker_archive(name));
    podman.mount(sandbox, &format!("localhost/mica-test:{name}"))
}

fn overlay_works(sandbox: &Sandbox, dir: &Path) -> bool {
    let trial = tempfile::tempdir_in(dir).expect("a directory");
    for name in ["lower", "upper", "work", "merged"] {
        fs::create_dir(trial.path().join(name)).expect("mkdir");
    }
    let at = trial.path().display();
    let options = format!("lowerdir={at}/lower,upperdir={at}/upper,workdir={at}/work");
    let merged = trial.path().join("merged");
    let works = sandbox
        .run(on(
            "mount",
            &["-t", "overlay", "-o", &options, "overlay"],
            &merged,
        ))
        .status
        .success();
    if works {
        sandbox.run(on("umount", &[], &merged)).ok();
    }
    works
}

fn on(program: &str, args: &[&str], path: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(args).arg(path);
    command
}
