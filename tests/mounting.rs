//! `mica mount` and `mica umount` as a user meets them: readiness, ends of all kinds, mistakes.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::{Pid, Signal, kill_process};

use crate::common::image::ImageBuilder;
use crate::common::mount::{Mount, runs};
use crate::common::sandbox::Sandbox;
use crate::common::tier;
use crate::common::user::as_user;

const USER: u32 = 54_321;

#[track_caller]
fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A cached listing outlives the daemon; statfs is never answered from a cache.
fn is_dead(point: &Path) -> bool {
    rustix::fs::statfs(point).err() == Some(rustix::io::Errno::NOTCONN)
}

#[track_caller]
fn daemon(mount: &Mount) -> Pid {
    mount.daemon().expect("a lease with the daemon's pid")
}

/// One request on the control socket of the only daemon.
fn ask(sandbox: &Sandbox, request: &str) -> String {
    let leases = fs::read_dir(sandbox.store().join("leases")).unwrap();
    let socket = leases
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|e| e == "sock"))
        .expect("a control socket");
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    io::read_to_string(stream).unwrap()
}

/// A program of the test's own that sits in a directory.
struct Sitter(Child);

impl Sitter {
    fn inside(directory: &Path) -> Sitter {
        let mut command = Command::new("sleep");
        command.arg("120").current_dir(directory);
        Sitter(command.spawn().unwrap())
    }
}

impl Drop for Sitter {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).unwrap();
    }
}

#[track_caller]
fn refused(sandbox: &Sandbox, args: &[&str], words: &str) {
    let run = sandbox.mica(args).code(1);
    let text = run.stderr();
    assert!(
        text.starts_with("mica: ") && text.contains(words),
        "{}",
        run.describe()
    );
    assert_eq!(text.lines().count(), 1, "one line: {}", run.describe());
}

#[test]
fn fuse_mount_returns_when_it_can_be_used_and_umount_when_all_is_gone() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let here = fs::metadata(&mount.point).unwrap();
    assert_ne!(here.dev(), fs::metadata(sandbox.dir()).unwrap().dev());
    assert!(mount.path("images").is_dir());
    let pid = daemon(&mount);
    assert!(runs(pid));
    let stats = ask(&sandbox, "stats\n");
    assert!(stats.contains("\npanics 0\n"), "{stats}");
    assert_eq!(ask(&sandbox, "sync\n"), "ok\n");
    assert!(ask(&sandbox, "nonsense\n").starts_with("error: "));
    let point = mount.point.clone();
    mount.unmount();
    assert!(!runs(pid));
    assert_eq!(fs::read_dir(point).unwrap().count(), 0);
    assert_eq!(
        fs::read_dir(sandbox.store().join("leases"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn fuse_mount_leaves_nothing_open_that_it_inherited() {
    tier::root();
    let sandbox = Sandbox::new();
    let point = sandbox.mkdir("m");
    let script = format!(
        "{{ '{}' mount '{}'; }} 7>&1 8>&1 | cat",
        env!("CARGO_BIN_EXE_mica"),
        point.display()
    );
    // cat ends when the last descriptor of the pipe is closed.
    let start = Instant::now();
    let mut command = Command::new("timeout");
    command
        .args(["20", "sh", "-c", &script])
        .env("MICA_STORE", sandbox.store());
    sandbox.run(command).ok();
    assert!(start.elapsed() < Duration::from_secs(20));
    sandbox.mica([Path::new("umount"), &point]).ok();
}

#[test]
fn fuse_two_mounts_of_one_store() {
    let sandbox = Sandbox::new();
    let one = sandbox.mount();
    let two = sandbox.mount();
    assert!(one.path("images").is_dir() && two.path("images").is_dir());
    let text = one.point.to_str().unwrap().to_owned();
    refused(
        &sandbox,
        &["mount", &text],
        "mica is mounted there already (process ",
    );
    one.unmount();
    assert!(two.path("images").is_dir());
    two.unmount();
}

#[test]
fn fuse_mistakes_with_mount_points() {
    let sandbox = Sandbox::new();
    tier::root();
    refused(&sandbox, &["mount", "missing"], "no such directory");
    fs::write(sandbox.path("file"), "").unwrap();
    refused(&sandbox, &["mount", "file"], "not a directory");
    sandbox.mkdir("full/x");
    refused(&sandbox, &["mount", "full"], "not empty");
    assert!(!sandbox.store().exists(), "a refused mount makes no store");
    sandbox.mkdir("m");
    sandbox.mica(["mount", "m"]).ok();
    sandbox.mica(["umount", "m"]).ok();
    refused(&sandbox, &["mount", "store"], "inside the store");
    refused(&sandbox, &["mount", "store/blobs"], "inside the store");
    refused(
        &sandbox,
        &["--store", "m/store", "mount", "m"],
        "would be hidden",
    );
    refused(&sandbox, &["umount", "m"], "not a mount point");
    refused(&sandbox, &["umount", "missing"], "no such directory");
    refused(&sandbox, &["umount", "/proc"], "not mica");
    assert_eq!(fs::read_dir(sandbox.path("m")).unwrap().count(), 0);
}

#[test]
fn fuse_mount_options() {
    let sandbox = Sandbox::new();
    tier::root();
    let point = sandbox.mkdir("m");
    refused(
        &sandbox,
        &["mount", "-o", "ro,bogus", "m"],
        "unknown mount option \"bogus\"",
    );
    refused(&sandbox, &["mount", "-o", "rm=some", "m"], "off, own, all");
    let mount = sandbox.mount_on(&point, &["-o", "ro,suid", "-o", "dev,fsname=some.name"]);
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let line = table
        .lines()
        .find(|l| l.contains(point.to_str().unwrap()))
        .unwrap();
    let fields: Vec<_> = line.split(' ').collect();
    assert!(
        fields.contains(&"fuse.mica") && fields.contains(&"some.name"),
        "{line}"
    );
    assert!(fields[5].starts_with("ro") && !line.contains("nosuid") && !line.contains("nodev"));
    assert!(line.contains("allow_other") && line.contains("default_permissions"));
    let made = fs::create_dir(mount.path("images/new")).unwrap_err();
    assert_eq!(made.raw_os_error(), Some(30));
    mount.unmount();
}

#[test]
fn fuse_a_start_that_fails_leaves_nothing() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    mount.unmount();
    fs::write(sandbox.store().join("index.json"), "{ nonsense").unwrap();
    let point = sandbox.mkdir("m");
    let run = sandbox.mica(["mount", "m"]).fails();
    assert!(run.stderr().contains("index.json"), "{}", run.describe());
    assert_eq!(
        fs::metadata(&point).unwrap().dev(),
        fs::metadata(sandbox.dir()).unwrap().dev()
    );
    wait_until("the lease is gone", || {
        fs::read_dir(sandbox.store().join("leases"))
            .unwrap()
            .count()
            == 0
    });
}

#[test]
fn fuse_busy_unmount_names_who_and_lazy_works() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let pid = daemon(&mount);
    let sitter = Sitter::inside(&mount.path("images"));
    let point = mount.point.to_str().unwrap().to_owned();
    let who = format!(
        "process {} (sleep): working directory {point}/images",
        sitter.0.id()
    );
    refused(&sandbox, &["umount", &point], &who);
    refused(&sandbox, &["umount", &point], "umount -l");
    assert!(mount.is_mounted() && mount.path("images").is_dir());
    sandbox.mica(["umount", "-l", &point]).ok();
    assert!(!mount.is_mounted());
    // Whoever is inside goes on.
    let inside = format!("/proc/{}/cwd/..", sitter.0.id());
    assert!(fs::read_dir(inside).unwrap().count() > 3);
    assert!(runs(pid));
    drop(sitter);
    wait_until("the daemon ends with its last user", || !runs(pid));
    mount.forget();
}

#[test]
fn fuse_signals_end_the_daemon_even_when_it_is_in_use() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let sandbox = Sandbox::new();
        let mount = sandbox.mount();
        let pid = daemon(&mount);
        kill_process(pid, signal).unwrap();
        wait_until("the daemon ends", || !runs(pid));
        assert!(!mount.is_mounted());
        mount.forget();
    }
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let pid = daemon(&mount);
    let sitter = Sitter::inside(&mount.path("images"));
    kill_process(pid, Signal::TERM).unwrap();
    wait_until("the daemon ends", || !runs(pid));
    assert!(!mount.is_mounted());
    let log = fs::read_to_string(sandbox.store().join("daemon.log")).unwrap();
    let who = format!("process {} (sleep): working directory", sitter.0.id());
    assert!(log.contains("SIGTERM") && log.contains(&who), "{log}");
    mount.forget();
}

#[test]
fn fuse_stop_on_the_control_socket_unmounts() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let pid = daemon(&mount);
    assert_eq!(ask(&sandbox, "stop\n"), "ok\n");
    wait_until("the daemon ends", || !runs(pid));
    assert!(!mount.is_mounted());
    mount.forget();
}

#[test]
fn fuse_dead_mounts_are_replaced_and_can_be_unmounted() {
    let sandbox = Sandbox::new();
    let mut mount = sandbox.mount();
    let point = mount.point.clone();
    for _ in 0..3 {
        let pid = daemon(&mount);
        kill_process(pid, Signal::KILL).unwrap();
        wait_until("the mount is dead", || is_dead(&point));
        mount.forget();
        mount = sandbox.mount_on(&point, &[]);
        assert!(mount.path("images").is_dir());
        let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let text = point.to_str().unwrap();
        // The mount, its volumes and its stores; of the dead ones nothing.
        assert_eq!(table.lines().filter(|l| l.contains(text)).count(), 3);
    }
    let server = daemon(&mount);
    kill_process(server, Signal::KILL).unwrap();
    wait_until("the mount is dead", || is_dead(&point));
    sandbox.mica([Path::new("umount"), &point]).ok();
    assert!(!mount.is_mounted());
    mount.forget();
}

#[test]
fn fuse_after_an_outside_umount_a_foreign_mount_stays_untouched() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let pid = daemon(&mount);
    let point = mount.point.clone();
    rustix::mount::unmount(point.join("volumes"), UnmountFlags::empty()).unwrap();
    rustix::mount::unmount(point.join("stores"), UnmountFlags::empty()).unwrap();
    rustix::mount::unmount(&point, UnmountFlags::empty()).unwrap();
    rustix::mount::mount("other", &point, "tmpfs", MountFlags::empty(), None).unwrap();
    fs::write(point.join("foreign"), "x").unwrap();
    wait_until("the daemon ends", || !runs(pid));
    assert_eq!(fs::read(point.join("foreign")).unwrap(), b"x");
    assert_eq!(
        fs::read_dir(sandbox.store().join("leases"))
            .unwrap()
            .count(),
        0
    );
    let text = point.to_str().unwrap().to_owned();
    refused(
        &sandbox,
        &["umount", &text],
        "a tmpfs file system, not mica",
    );
    refused(&sandbox, &["mount", &text], "not empty");
    assert!(point.join("foreign").exists());

    // The same with the foreign mount on top of ours, and a signal.
    rustix::mount::unmount(&point, UnmountFlags::empty()).unwrap();
    mount.forget();
    let mount = sandbox.mount_on(&point, &[]);
    let pid = daemon(&mount);
    rustix::mount::mount("other", &point, "tmpfs", MountFlags::empty(), None).unwrap();
    fs::write(point.join("foreign"), "x").unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    wait_until("the daemon ends", || !runs(pid));
    assert_eq!(fs::read(point.join("foreign")).unwrap(), b"x");
    rustix::mount::unmount(&point, UnmountFlags::empty()).unwrap();
    let log = fs::read_to_string(sandbox.store().join("daemon.log")).unwrap();
    assert!(
        log.contains("a tmpfs file system is mounted over it"),
        "{log}"
    );
}

#[test]
fn fuse_foreground_tells_systemd_and_ends_with_success() {
    tier::root();
    let sandbox = Sandbox::new();
    let point = sandbox.mkdir("m");
    let socket = sandbox.path("notify");
    let systemd = UnixDatagram::bind(&socket).unwrap();
    systemd
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let log = File::create(sandbox.path("err")).unwrap();
    let mut child = sandbox
        .command()
        .args(["mount", "--foreground", "m"])
        .env("NOTIFY_SOCKET", &socket)
        .stderr(log)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let mut message = [0u8; 64];
    let n = systemd.recv(&mut message).unwrap();
    assert!(message[..n].starts_with(b"READY=1"));
    assert!(point.join("images").is_dir());
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(!point.join("images").exists());
    assert!(!sandbox.store().join("daemon.log").exists());
}

#[test]
fn fuse_a_store_that_cannot_be_written_to_is_served() {
    let sandbox = Sandbox::new();
    sandbox.mount().unmount();
    let store = sandbox.store();
    rustix::mount::mount_bind(&store, &store).unwrap();
    let flags = MountFlags::BIND | MountFlags::RDONLY;
    rustix::mount::mount_remount(&store, flags, "").unwrap();
    let point = sandbox.mkdir("m");
    sandbox.mica(["mount", "m"]).ok();
    assert!(point.join("images").is_dir());
    sandbox.mica(["umount", "m"]).ok();
    rustix::mount::unmount(&store, UnmountFlags::DETACH).unwrap();
}

#[test]
fn fuse_an_ordinary_user_mounts_and_unmounts() {
    let sandbox = Sandbox::as_user(USER);
    let mount = sandbox.mount();
    let point = mount.point.to_str().unwrap().to_owned();
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let line = table.lines().find(|l| l.contains(&point)).unwrap();
    assert!(
        line.contains(" fuse.mica mica ") && line.contains("user_id=54321"),
        "{line}"
    );
    assert!(line.contains("nosuid") && line.contains("nodev") && !line.contains("allow_other"));
    // Nobody else gets in, not even root.
    assert!(fs::read_dir(mount.path("images")).is_err());
    let list = |dir: &str| {
        let mut command = as_user(USER, "ls");
        command.arg(dir);
        sandbox.run(command)
    };
    assert!(list(&point).ok().stdout().contains("images"));
    refused(
        &sandbox,
        &["mount", &point],
        "mica is mounted there already",
    );

    // Dead, and mounted again.
    kill_process(daemon(&mount), Signal::KILL).unwrap();
    wait_until("the mount is dead", || {
        list(&point).status.code() != Some(0)
    });
    mount.forget();
    sandbox.mica(["mount", &point]).ok();
    assert!(list(&point).ok().stdout().contains("images"));
    let mut sitter = as_user(USER, "sh");
    let script = format!("cd '{point}' && exec sleep 60");
    sitter.args(["-c", &script]);
    let mut sitter = sitter.spawn().unwrap();
    let cwd = format!("/proc/{}/cwd", sitter.id());
    wait_until("somebody is inside", || {
        fs::read_link(&cwd).is_ok_and(|p| p == Path::new(&point))
    });
    refused(
        &sandbox,
        &["umount", &point],
        &format!("process {} (sleep)", sitter.id()),
    );
    sitter.kill().and_then(|()| sitter.wait()).unwrap();
    sandbox.mica(["umount", &point]).ok();
    refused(&sandbox, &["umount", &point], "not a mount point");

    refused(&sandbox, &["mount", "-o", "suid", &point], "needs root");
    refused(&sandbox, &["mount", "-o", "dev", &point], "needs root");
    let root_only = sandbox.path("closed");
    fs::create_dir(&root_only).unwrap();
    refused(&sandbox, &["mount", "closed"], "no write access");

    // Somebody else's mount stays; root may take it.
    sandbox.mica(["mount", &point]).ok();
    let other = Sandbox::as_user(USER + 1);
    refused(&other, &["umount", &point], "mounted by user 54321");
    Sandbox::new().mica(["umount", &point]).ok();
    refused(&sandbox, &["umount", &point], "not a mount point");
}

/// Removing through two mounts at once: each tells the other while the kernel holds the directory, and neither waits for long.
#[test]
fn fuse_two_mounts_removing_at_once_do_not_wait_for_each_other() {
    let sandbox = Sandbox::new();
    sandbox.load(&ImageBuilder::new("app:0").layer(|l| l.file("f", "content")));
    let mut tag = vec!["tag".to_owned(), "app:0".to_owned()];
    tag.extend((1..40).map(|i| format!("app:{i}")));
    sandbox.mica(tag).ok();
    let mounts = [sandbox.mount(), sandbox.mount()];
    let start = Instant::now();
    std::thread::scope(|scope| {
        for (half, mount) in mounts.iter().enumerate() {
            scope.spawn(move || {
                for i in 0..20 {
                    fs::remove_dir(mount.image(format!("app/{}", half * 20 + i))).unwrap();
                }
            });
        }
    });
    let took = start.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");
    for mount in &mounts {
        // Empty, or gone where the other mount has removed the last tag.
        wait_until("both mounts show that all is gone", || {
            fs::read_dir(mount.image("app")).map_or(true, |entries| entries.count() == 0)
        });
    }
}

#[test]
fn fuse_who_only_glances_does_not_keep_a_mount() {
    let s = Sandbox::new();
    for _ in 0..10 {
        let mount = s.mount();
        let path = mount.path("volumes");
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // A system call on the mount holds it, and nobody is to be found who does: as with a reader of /proc/PID/cwd.
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    // It fails once the mount is gone.
                    let _ = rustix::fs::statfs(&path);
                    std::thread::sleep(Duration::from_micros(200));
                }
            });
            let done = catch_unwind(AssertUnwindSafe(|| mount.unmount()));
            stop.store(true, Ordering::Relaxed);
            done.unwrap();
        });
    }
}

/// An unmount that takes long finds that the daemon has put back what it had taken away inside: it does that again, and does not
/// wait for the mount around it to become free by itself.
#[test]
fn regression_fuse_umount_sees_what_is_back_inside() {
    let sandbox = Sandbox::new();
    sandbox.load(&ImageBuilder::new("app:1").layer(|l| l.file("f", "x")));
    let mount = sandbox.mount();
    let mica = sandbox.command();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "trace", "-e", "trace=umount2"]);
    strace.args(["-e", "inject=umount2:delay_exit=1500000:when=1"]);
    strace
        .arg(mica.get_program())
        .arg("umount")
        .arg(mount.path(""));
    let set = mica
        .get_envs()
        .filter_map(|(name, value)| Some((name, value?)));
    strace.envs(set).current_dir(sandbox.dir());
    sandbox.run(strace).ok();
    assert!(!mount.is_mounted());
    let calls = fs::read_to_string(sandbox.path("trace")).expect("a trace");
    let count = calls.matches("umount2(").count();
    assert!((3..12).contains(&count), "{count}:\n{calls}");
    mount.forget();
}
