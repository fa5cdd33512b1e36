//! Volumes as file systems: what programs do to files, on the mount and on the host at once.
//!
//! The cases are scripts in `contrib/conformance`, which pass on a plain directory as well; pjdfstest and fsx are built into
//! `target/peers` by `contrib/peers`.

mod budgets;
mod host;
mod hostile;
mod kept;
mod life;
mod waiting;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags};

use crate::common::mount::Mount;
use crate::common::sandbox::Sandbox;
use crate::common::user::as_user;

const USER: u32 = 54_321;

/// A persistent volume made with `mkdir`: where it is in the mount, and on the host.
#[track_caller]
fn volume(sandbox: &Sandbox, mount: &Mount, name: &str) -> (PathBuf, PathBuf) {
    let inside = mount.path("volumes").join(name);
    let before: Vec<_> = directories(&sandbox.store().join("volumes"));
    sandbox.sh(&format!("mkdir {}", inside.display())).ok();
    let after = directories(&sandbox.store().join("volumes"));
    let new = after.into_iter().find(|dir| !before.contains(dir));
    (inside, new.expect("a directory in the store").join("_data"))
}

fn directories(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("contrib/conformance")
        .join(name)
}

/// A program of `contrib/peers`.
fn peer(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("target/peers/bin")
        .join(name);
    assert!(
        path.exists(),
        "{name} is not there: run contrib/peers {name}"
    );
    path
}

/// Runs every case of `posix.py`.
#[track_caller]
fn posix(sandbox: &Sandbox, host: &Path, inside: &Path, user: Option<u32>, passthrough: bool) {
    let mut command = match user {
        None => Command::new("/usr/bin/python3"),
        Some(uid) => as_user(uid, "/usr/bin/python3"),
    };
    // The clone may lie where the user may not read.
    let cases = sandbox.path("posix.py");
    fs::copy(script("posix.py"), &cases).unwrap();
    command.arg(&cases).args([host, inside]).current_dir("/");
    command.env("PASSTHROUGH", if passthrough { "1" } else { "0" });
    let run = sandbox.run(command).ok();
    assert!(run.stdout().contains(" 0 failed"), "{}", run.describe());
}

fn kernel_has_passthrough() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|n| n.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap(), numbers.next().unwrap());
    version >= (6, 9)
}

#[test]
fn fuse_the_cases_pass_on_a_plain_directory() {
    let sandbox = Sandbox::new();
    let plain = sandbox.mkdir("plain");
    crate::common::tier::root();
    posix(&sandbox, &plain, &plain, None, true);
}

#[test]
fn fuse_a_persistent_volume_passes_every_case() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount_with(&["-o", "volume_cache=off"]);
    let (inside, host) = volume(&sandbox, &mount, "data");
    posix(&sandbox, &host, &inside, None, kernel_has_passthrough());
    mount.unmount();
}

#[test]
fn fuse_a_bind_passes_every_case() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let host = sandbox.mkdir("host");
    let inside = mount.path("volumes/bound");
    sandbox
        .sh(&format!("ln -s {} {}", host.display(), inside.display()))
        .ok();
    posix(&sandbox, &host, &inside, None, kernel_has_passthrough());
}

#[test]
fn fuse_an_ordinary_users_volume_passes_every_case() {
    let sandbox = Sandbox::as_user(USER);
    let mount = sandbox.mount();
    let host = sandbox.mkdir("host");
    let inside = mount.path("volumes/bound");
    let mut bind = sandbox.command();
    bind.args(["volume", "create", "--bind"])
        .arg(&host)
        .arg("bound");
    sandbox.run(bind).ok();
    posix(&sandbox, &host, &inside, Some(USER), false);
    mount.unmount();
}

#[test]
fn fuse_a_store_on_overlayfs_has_volumes_without_passthrough() {
    let sandbox = Sandbox::new();
    let upper = sandbox.mkdir("upper");
    rustix::mount::mount("upper", &upper, "tmpfs", MountFlags::empty(), None).unwrap();
    for name in ["lower", "u", "w"] {
        fs::create_dir(upper.join(name)).unwrap();
    }
    let host = sandbox.mkdir("host");
    let options = format!(
        "lowerdir={0}/lower,upperdir={0}/u,workdir={0}/w",
        upper.display()
    );
    let options = std::ffi::CString::new(options).unwrap();
    let flags = MountFlags::empty();
    rustix::mount::mount("overlay", &host, "overlay", flags, Some(&*options)).unwrap();
    let mount = sandbox.mount();
    let inside = mount.path("volumes/bound");
    sandbox
        .sh(&format!("ln -s {} {}", host.display(), inside.display()))
        .ok();
    let mut both = Command::new("/usr/bin/python3");
    both.arg(script("twosides.py")).args([&host, &inside]);
    both.args(["1500", "3"]).env("MAPPED", "0");
    sandbox.run(both).ok();
    mount.unmount();
    rustix::mount::unmount(&host, UnmountFlags::DETACH).unwrap();
    rustix::mount::unmount(&upper, UnmountFlags::DETACH).unwrap();
}

#[test]
fn fuse_random_operations_from_both_sides_agree_with_a_model() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount_with(&["-o", "volume_cache=off"]);
    let (inside, host) = volume(&sandbox, &mount, "data");
    let mut both = Command::new("/usr/bin/python3");
    both.arg(script("twosides.py")).args([&host, &inside]);
    both.arg("3000");
    both.env("MAPPED", if kernel_has_passthrough() { "1" } else { "0" });
    sandbox.run(both).ok();
}

/// The kernel refuses to truncate a running program only after it has opened it: the open must not have truncated it by then.
#[test]
fn fuse_a_running_program_is_not_truncated() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let (inside, host) = volume(&sandbox, &mount, "data");
    let program = inside.join("sleep");
    fs::copy("/bin/sleep", &program).unwrap();
    let size = fs::metadata(host.join("sleep")).unwrap().len();
    let mut child = Command::new(&program).arg("60").spawn().unwrap();
    let truncating = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::TRUNC;
    let refused = rustix::fs::open(&program, truncating, rustix::fs::Mode::empty());
    let left = fs::metadata(host.join("sleep")).unwrap().len();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(refused.unwrap_err(), rustix::io::Errno::TXTBSY);
    assert_eq!(left, size);
}

#[test]
fn root_pjdfstest_passes_on_a_volume() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let (inside, _) = volume(&sandbox, &mount, "data");
    fs::set_permissions(&inside, fs::Permissions::from_mode(0o777)).unwrap();
    let mut suite = Command::new(peer("pjdfstest"));
    suite
        .arg("-c")
        .arg(script("pjdfstest.toml"))
        .arg("-p")
        .arg(&inside);
    let run = sandbox.run(suite).ok();
    let text = run.stdout();
    assert!(text.contains("Summary: 0 failed"), "{}", run.describe());
    // What is left out is known, with its reason.
    let known = fs::read_to_string(script("exclusions.txt")).unwrap();
    for line in text
        .lines()
        .filter(|line| line.trim_end().ends_with("skipped"))
    {
        let name = line.split_whitespace().next().unwrap();
        assert!(
            known
                .lines()
                .any(|k| k.split_whitespace().next() == Some(name)),
            "{name} was skipped and is not in exclusions.txt"
        );
    }
}

#[test]
fn root_fsx_passes_on_a_volume() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let (inside, host) = volume(&sandbox, &mount, "data");
    // At once on the mount and, on another file, on the host.
    let fsx = |name: &str, path: PathBuf, seed: &str| {
        let mut fsx = Command::new(peer("fsx"));
        let artifacts = sandbox.mkdir(name);
        fsx.args(["-q", "-N", "4000", "-S", seed, "-P"])
            .arg(artifacts)
            .arg(path);
        fsx
    };
    let mut beside = fsx("host-side", host.join("beside"), "11").spawn().unwrap();
    sandbox
        .run(fsx("mount-side", inside.join("file"), "12"))
        .ok();
    assert!(beside.wait().unwrap().success());
}

#[test]
fn fuse_an_ordinary_user_makes_changes_and_removes_volumes() {
    let sandbox = Sandbox::as_user(USER);
    let mount = sandbox.mount();
    let home = sandbox.mkdir("home");
    let m = mount.point.display();
    let script = sandbox.path("try.sh");
    let text = format!(
        "set -eu; test -L {m}/volumes; mkdir {m}/volumes/data; echo x > {m}/volumes/data/f; \
         mv {m}/volumes/data {m}/volumes/other; test $(cat {m}/volumes/other/f) = x; \
         ln -s {home} {m}/volumes/home; echo y > {m}/volumes/home/f; test $(cat {home}/f) = y; \
         rmdir {m}/volumes/home; rm -r {m}/volumes/other; test -z \"$(ls {m}/volumes/)\"",
        home = home.display()
    );
    fs::write(&script, text).unwrap();
    chown(&script, Some(USER), Some(USER)).unwrap();
    let mut command = as_user(USER, "sh");
    command.arg(&script);
    sandbox.run(command).ok();
    mount.unmount();
    assert!(home.join("f").exists());
}
