//! Files in volumes; `tests/volume_files*` has all the operations.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::errno;
use crate::common::mount::Mount;
use crate::common::sandbox::Sandbox;
use crate::common::tier;
use crate::common::user::as_user;

/// A bind of a directory of the sandbox: on the host, in the mount.
fn bound(sandbox: &Sandbox, mount: &Mount) -> (PathBuf, PathBuf) {
    let (host, inside) = (sandbox.mkdir("host"), mount.path("volumes/bound"));
    std::os::unix::fs::symlink(&host, &inside).expect("ln -s");
    (host, inside)
}

/// What is written, renamed or removed on one side is seen on the others at once, names, attributes and content: of a bind on the host and in the mount, of a volume in the store in every mount and in containers.
#[test]
fn fuse_volume_files_are_the_hosts_at_every_moment() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let bound = bound(&sandbox, &mount);
    let second = sandbox.mount();
    fs::create_dir(mount.path("volumes/data")).expect("mkdir");
    let kept = (mount.path("volumes/data"), second.path("volumes/data"));
    for round in 0..100 {
        let (host, inside) = if round < 50 { &bound } else { &kept };
        let (one, other) = match round % 2 {
            0 => (host, inside),
            _ => (inside, host),
        };
        fs::write(one.join("f"), "x".repeat(round)).expect("write");
        assert_eq!(fs::read(other.join("f")).expect("read").len(), round);
        fs::rename(one.join("f"), one.join("g")).expect("rename");
        assert_eq!(errno(fs::metadata(other.join("f"))), Errno::NOENT);
        assert_eq!(
            fs::metadata(other.join("g")).expect("stat").len(),
            round as u64
        );
        fs::remove_file(other.join("g")).expect("unlink");
        assert!(!one.join("g").exists());
    }
}

/// A symbolic link in a volume is data, and a directory that the host swaps for a link leads nobody outside.
#[test]
fn fuse_volume_links_are_data() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let (host, inside) = bound(&sandbox, &mount);
    std::os::unix::fs::symlink("/no/such/place", host.join("link")).expect("ln -s");
    let target = fs::read_link(inside.join("link")).expect("readlink");
    assert_eq!(target, PathBuf::from("/no/such/place"));
    // The source of a bind itself.
    fs::rename(&host, sandbox.path("moved")).expect("mv");
    std::os::unix::fs::symlink("/etc", &host).expect("ln -s");
    assert_eq!(errno(fs::metadata(inside.join("passwd"))), Errno::NOENT);
}

/// Between volumes `mv` copies and `ln` fails with EXDEV, as between mounts.
#[test]
fn fuse_volumes_are_apart() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let (_, inside) = bound(&sandbox, &mount);
    let other = mount.path("volumes/other");
    fs::create_dir(&other).expect("mkdir");
    fs::write(inside.join("f"), "x").expect("write");
    assert_eq!(
        errno(fs::hard_link(inside.join("f"), other.join("f"))),
        Errno::XDEV
    );
    assert_eq!(
        errno(fs::rename(inside.join("f"), other.join("f"))),
        Errno::XDEV
    );
    sandbox
        .sh(&format!("mv {}/f {}/f", inside.display(), other.display()))
        .ok();
    assert_eq!(fs::read(other.join("f")).expect("read"), b"x");
}

/// Locks of a file in a volume, `F_OFD_SETLK` among them, meet those of the host and end with their owner's descriptors, however he ends.
#[test]
fn fuse_volume_locks_are_the_hosts() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let (host, inside) = bound(&sandbox, &mount);
    fs::write(host.join("f"), "x").expect("write");
    let lock = "import fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.fcntl(fd, 37, struct.pack('hhqqixxxx', fcntl.F_WRLCK, 0, 0, 0, 0))
";
    let takes = |at: &Path| {
        let mut python = std::process::Command::new("python3");
        python.arg("-c").arg(lock).arg(at.join("f"));
        sandbox.run(python).status.success()
    };
    for (holder, other) in [(&inside, &host), (&host, &inside)] {
        let mut python = std::process::Command::new("python3");
        let code = format!("{lock}print('held', flush=True); sys.stdin.read()");
        python.arg("-c").arg(code).arg(holder.join("f"));
        python.stdin(std::process::Stdio::piped());
        python.stdout(std::process::Stdio::piped());
        let mut child = python.spawn().expect("python3");
        let mut said = [0; 5];
        let out = child.stdout.as_mut().expect("stdout");
        std::io::Read::read_exact(out, &mut said).expect("held");
        assert!(!takes(other) && !takes(holder));
        child.kill().expect("SIGKILL");
        child.wait().expect("wait");
        let free = (0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            takes(other)
        });
        assert!(free && takes(holder));
    }
}

/// A file without a name (`O_TMPFILE`) cannot be made through M: EOPNOTSUPP; on the host and in `mica run` it can.
#[test]
fn fuse_volume_files_have_names() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let (host, inside) = bound(&sandbox, &mount);
    let unnamed = |at: &Path| rustix::fs::open(at, OFlags::TMPFILE | OFlags::RDWR, Mode::RWXU);
    assert_eq!(unnamed(&inside).expect_err("O_TMPFILE"), Errno::OPNOTSUPP);
    unnamed(&host).expect("O_TMPFILE on the host");
    assert_eq!(fs::read_dir(&inside).expect("ls").count(), 0);
}

/// inotify on a volume in M tells what is done through M, not what the host does.
#[test]
fn fuse_volume_watchers_see_the_mount() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let (host, inside) = bound(&sandbox, &mount);
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK).expect("inotify");
    inotify::add_watch(&watch, &inside, inotify::WatchFlags::CREATE).expect("watch");
    let names = || {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&watch, &mut buffer);
        let mut names = Vec::new();
        while let Ok(event) = reader.next() {
            names.push(event.file_name().expect("a name").to_owned());
        }
        names
    };
    fs::write(host.join("unseen"), "x").expect("write");
    assert!(inside.join("unseen").exists());
    assert_eq!(names().len(), 0);
    fs::write(inside.join("seen"), "x").expect("write");
    assert_eq!(names(), [c"seen".to_owned()]);
}

/// Volumes in M are nosuid and nodev whatever the mount options: set-id bits and devices are kept and shown, and have no effect there; set-id programs have it in `hold -v`, and in `run` with `--security-opt no-new-privileges=false`.
#[test]
fn root_volume_set_id_bits_have_no_effect() {
    const USER: u32 = 54_321;
    tier::root();
    let sandbox = Sandbox::new();
    let mount = sandbox.mount_with(&["-o", "suid,dev"]);
    let (host, inside) = bound(&sandbox, &mount);
    fs::copy("/usr/bin/id", host.join("id")).expect("cp");
    fs::set_permissions(host.join("id"), fs::Permissions::from_mode(0o4755)).expect("chmod");
    fs::set_permissions(&host, fs::Permissions::from_mode(0o755)).expect("chmod");
    let program = inside.join("id");
    assert_eq!(
        fs::metadata(&program).expect("stat").mode() & 0o7777,
        0o4755
    );
    let mut id = as_user(USER, program.to_str().expect("a path"));
    id.arg("-u");
    assert_eq!(sandbox.run(id).ok().stdout(), format!("{USER}\n"));
    sandbox
        .sh(&format!("mknod -m 666 {}/null c 1 3", inside.display()))
        .ok();
    assert_eq!(errno(fs::read(inside.join("null"))), Errno::ACCESS);
    assert_eq!(fs::metadata(host.join("null")).expect("stat").rdev(), 0x103);
    sandbox.load(&crate::running::image("app:1"));
    // It says whether it may become root, by number of the call: setuid(0).
    let probe = crate::running::syscalls::probe(64);
    fs::write(host.join("probe"), probe).expect("write");
    fs::set_permissions(host.join("probe"), fs::Permissions::from_mode(0o4755)).expect("chmod");
    let volume = format!("{}:/v", host.display());
    for (option, expected) in [("true", "105 1\n"), ("false", "105 0\n")] {
        let option = format!("no-new-privileges={option}");
        let options = [
            "run",
            "--rm",
            "-u",
            "bob",
            "--security-opt",
            &option,
            "-v",
            &volume,
        ];
        let words = ["app:1", "/v/probe", "105", "0"];
        let run = sandbox.mica(options.iter().chain(&words)).ok();
        assert_eq!(run.stdout(), expected, "{option}");
    }
    sandbox.mica(["volume", "create", "data"]).ok();
    let at = sandbox.mkdir("at").display().to_string();
    let script = format!(
        "cp -p {}/id {at}/id; setpriv --reuid={USER} --regid={USER} --clear-groups {at}/id -u",
        host.display()
    );
    let volume = format!("data:{at}");
    let held = sandbox.mica(["hold", "-v", &volume, "--", "sh", "-c", &script]);
    assert_eq!(held.ok().stdout(), "0\n");
}
