//! The life of ephemeral volumes under a daemon: every way of use, every way of ending it, and chance.
//!
//! `MICA_EPHEMERAL_SEED` repeats a random run's choices, `MICA_EPHEMERAL_SECONDS` makes it longer (`contrib/soak` for ten minutes),
//! `MICA_EPHEMERAL_CYCLES` sets the number of lives.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::image::ImageBuilder;
use crate::common::podman::Podman;
use crate::common::sandbox::{Mount, Sandbox};

mod chance;

/// Ephemeral volumes of these tests wait so long for their first user, and linger so long after the last one.
const TIMES: &str = "volume_wait=1.5,volume_linger=0.5";
const WAIT: Duration = Duration::from_millis(1500);
const LINGER: Duration = Duration::from_millis(500);
/// However slow the machine is.
const PATIENCE: Duration = Duration::from_secs(30);

/// A process group that ends with the test.
struct User(Child);

impl User {
    #[track_caller]
    fn start(command: &mut Command) -> User {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null());
        User(command.process_group(0).spawn().expect("a user"))
    }

    /// A shell that says that it is there, where its script says READY.
    #[track_caller]
    fn shell(sandbox: &Sandbox, script: &str) -> User {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let ready = sandbox.path(format!("ready-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let script = script.replace("READY", &format!("touch {}", ready.display()));
        let mut shell = Command::new("bash");
        let user = User::start(shell.arg("-ec").arg(script).current_dir(sandbox.dir()));
        until("the user is ready", || ready.exists());
        user
    }
}

impl Drop for User {
    /// The whole group, with no chance to clean up.
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.0.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

#[track_caller]
fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn mount(sandbox: &Sandbox) -> Mount {
    sandbox.mount_with(&["-o", TIMES])
}

/// A new ephemeral volume with a file in it, written on the host so that nobody has used it yet.
fn ephemeral(sandbox: &Sandbox, name: &str) -> PathBuf {
    sandbox.mica(["volume", "create", "--ephemeral", name]).ok();
    let run = sandbox
        .mica(["volume", "inspect", "-f", "{{.Source}}", name])
        .ok();
    let data = PathBuf::from(run.stdout().trim());
    fs::write(data.join("file"), name).expect("a file");
    data
}

fn is_there(sandbox: &Sandbox, name: &str) -> bool {
    let list = fs::read_to_string(sandbox.store().join("volumes.json")).unwrap_or_default();
    list.contains(&format!("\"{name}\""))
}

/// It stays for longer than an unused one would.
#[track_caller]
fn stays(sandbox: &Sandbox, mount: &Mount, name: &str) {
    let begin = Instant::now();
    while begin.elapsed() < WAIT + LINGER {
        assert!(is_there(sandbox, name), "{name} has gone");
        thread::sleep(Duration::from_millis(50));
    }
    let file = mount.path("volumes").join(name).join("file");
    assert_eq!(fs::read_to_string(file).expect("the file"), name);
}

/// It goes, with its directory in the mount and its data.
#[track_caller]
fn goes(sandbox: &Sandbox, mount: &Mount, name: &str, data: &Path) {
    until(&format!("{name} evaporates"), || !is_there(sandbox, name));
    until("it is not shown", || {
        !mount.path("volumes").join(name).exists()
    });
    until("its data is deleted", || {
        !data.exists() && !data.parent().expect("its directory").exists()
    });
}

/// Looking is no use: it goes when nobody uses it within its time.
#[test]
fn fuse_ephemeral_unused_goes_although_looked_at() {
    let sandbox = Sandbox::new();
    let wait = Duration::from_secs(5);
    let mount = sandbox.mount_with(&["-o", "volume_wait=5,volume_linger=0.1"]);
    let begin = Instant::now();
    let data = ephemeral(&sandbox, "unused");
    let volume = mount.path("volumes/unused");
    let directory = File::open(&volume).expect("opendir");
    while begin.elapsed() < wait - Duration::from_secs(2) {
        assert_eq!(fs::read_dir(&volume).expect("ls").count(), 1);
        fs::metadata(volume.join("file")).expect("stat");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(is_there(&sandbox, "unused"));
    goes(&sandbox, &mount, "unused", &data);
    assert!(begin.elapsed() >= wait);
    drop(directory);
    let log = fs::read_to_string(sandbox.store().join("daemon.log")).expect("the log");
    assert!(
        log.contains("volume unused: nobody has used it, it has evaporated"),
        "{log}"
    );
}

/// A file that was open for less than any look takes has been a use.
#[test]
fn fuse_ephemeral_short_use_counts() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount_with(&["-o", "volume_wait=1000,volume_linger=0.5"]);
    let data = ephemeral(&sandbox, "brief");
    thread::sleep(Duration::from_millis(1200));
    assert!(is_there(&sandbox, "brief"));
    fs::write(mount.path("volumes/brief/new"), "x").expect("a write");
    goes(&sandbox, &mount, "brief", &data);
}

/// Each way of use keeps a volume, and its end with SIGKILL releases it.
#[test]
fn fuse_ephemeral_every_use_keeps() {
    let sandbox = Sandbox::new();
    let mount = mount(&sandbox);
    let store = sandbox.store();
    let mica = env!("CARGO_BIN_EXE_mica");
    let map = "import mmap,os,sys,time\n\
               f=open(sys.argv[1],'r+b'); m=mmap.mmap(f.fileno(),0); f.close(); open(sys.argv[2],'w').close(); time.sleep(1000)";
    fs::write(sandbox.path("map.py"), map).expect("a script");
    fs::create_dir(sandbox.path("at")).expect("a directory");
    let volume = |name: &str| mount.path("volumes").join(name).display().to_string();
    let ways: [(&str, String); 10] = [
        (
            "open",
            format!("exec 3<{}/file; READY; sleep 1000", volume("open")),
        ),
        (
            "writing",
            format!("exec 3>>{}/other; READY; sleep 1000", volume("writing")),
        ),
        (
            "cwd",
            format!("cd {}; READY; exec sleep 1000", volume("cwd")),
        ),
        (
            "below",
            format!(
                "mkdir {0}/d; cd {0}/d; READY; exec sleep 1000",
                volume("below")
            ),
        ),
        (
            "mapped",
            format!(
                "READY; exec python3 map.py {}/file mapped-ready",
                volume("mapped")
            ),
        ),
        (
            "chroot",
            format!(
                "cp /bin/busybox {0}/busybox; READY; exec chroot {0} /busybox sleep 1000",
                volume("chroot")
            ),
        ),
        // Nothing but a mount in a namespace that only this process is in.
        (
            "bound",
            format!(
                "exec unshare -m sh -c 'mount --bind {} at; READY; exec sleep 1000'",
                volume("bound")
            ),
        ),
        (
            "part",
            format!(
                "mkdir {0}/d; exec unshare -m sh -c 'mount --bind {0}/d at; READY; exec sleep 1000'",
                volume("part")
            ),
        ),
        (
            "lease",
            format!(
                "exec {mica} --store {} hold lease -- sh -c 'READY; exec sleep 1000'",
                store.display()
            ),
        ),
        ("host", "cd DATA; READY; exec sleep 1000".to_owned()),
    ];
    for (name, script) in &ways {
        let data = ephemeral(&sandbox, name);
        let script = script.replace("DATA", data.to_str().expect("UTF-8"));
        let user = User::shell(&sandbox, &script);
        if *name == "mapped" {
            until("it is mapped", || sandbox.path("mapped-ready").exists());
        }
        stays(&sandbox, &mount, name);
        drop(user);
        goes(&sandbox, &mount, name, &data);
    }
    assert_eq!(
        fs::read_dir(store.join("volumes"))
            .expect("volumes")
            .count(),
        0
    );
}

/// A chain of users keeps a volume though its first ones are long gone.
#[test]
fn fuse_ephemeral_chain_of_users() {
    let sandbox = Sandbox::new();
    let mount = mount(&sandbox);
    let data = ephemeral(&sandbox, "chain");
    let volume = mount.path("volumes/chain");
    let volume = volume.display();
    let one = User::shell(
        &sandbox,
        &format!("echo from-one >{volume}/message; cd {volume}; READY; exec sleep 1000"),
    );
    let two = User::shell(
        &sandbox,
        &format!("exec 3<{volume}/message; READY; exec sleep 1000"),
    );
    drop(one);
    stays(&sandbox, &mount, "chain");
    let three = User::shell(&sandbox, &format!("cd {volume}; READY; exec sleep 1000"));
    drop(two);
    stays(&sandbox, &mount, "chain");
    assert_eq!(
        fs::read_to_string(mount.path("volumes/chain/message")).expect("the message"),
        "from-one\n"
    );
    drop(three);
    goes(&sandbox, &mount, "chain", &data);
}

/// A daemon that was killed, and the next one, end nothing that is used, and what they have not seen go.
#[test]
fn fuse_ephemeral_survives_a_restart() {
    let sandbox = Sandbox::new();
    let first = mount(&sandbox);
    let (held, gone) = (ephemeral(&sandbox, "held"), ephemeral(&sandbox, "gone"));
    let mica = env!("CARGO_BIN_EXE_mica");
    let hold = |name: &str| {
        let store = sandbox.store();
        let script = format!(
            "exec {mica} --store {} hold {name} -- sh -c 'READY; exec sleep 1000'",
            store.display()
        );
        User::shell(&sandbox, &script)
    };
    let (keeper, leaver) = (hold("held"), hold("gone"));
    let daemon = first.daemon().expect("a daemon");
    rustix::process::kill_process(daemon, rustix::process::Signal::KILL).expect("kill");
    drop(leaver);
    thread::sleep(WAIT + LINGER);
    let point = first.point.clone();
    first.forget();
    let again = sandbox.mount_on(&point, &["-o", TIMES]);
    // Nobody knows when its user left: the time begins now.
    assert!(is_there(&sandbox, "gone"));
    goes(&sandbox, &again, "gone", &gone);
    stays(&sandbox, &again, "held");
    drop(keeper);
    goes(&sandbox, &again, "held", &held);
}

/// The sticky bit of a volume's root says that it is ephemeral, and chmod changes that.
#[test]
fn fuse_ephemeral_by_the_sticky_bit() {
    let sandbox = Sandbox::new();
    let mount = mount(&sandbox);
    let data = ephemeral(&sandbox, "kept");
    let run = sandbox.sh(&format!(
        "cd {}/volumes && stat -c %a kept && chmod -t kept && stat -c %a kept",
        mount.point.display()
    ));
    assert_eq!(run.ok().stdout(), "1755\n755\n");
    stays(&sandbox, &mount, "kept");
    let run = sandbox
        .mica(["volume", "ls", "-q", "-f", "kind=persistent"])
        .ok();
    assert_eq!(run.stdout(), "kept\n");
    sandbox
        .sh(&format!("chmod +t {}/volumes/kept", mount.point.display()))
        .ok();
    goes(&sandbox, &mount, "kept", &data);
}

/// Two mounts of one store: what is used through one is not ended by the other's daemon.
#[test]
fn fuse_ephemeral_two_daemons() {
    let sandbox = Sandbox::new();
    let (one, two) = (mount(&sandbox), mount(&sandbox));
    let data = ephemeral(&sandbox, "shared");
    let user = User::shell(
        &sandbox,
        &format!(
            "exec 3<{}/volumes/shared/file; READY; sleep 1000",
            one.point.display()
        ),
    );
    stays(&sandbox, &two, "shared");
    drop(user);
    goes(&sandbox, &one, "shared", &data);
    until("the other mount knows", || {
        !two.path("volumes/shared").exists()
    });
}

/// The documented ways to mount a volume into a process: what is written there is in the volume at once, and each is a use.
#[test]
fn root_volumes_in_processes() {
    let sandbox = Sandbox::new();
    // podman takes its time.
    let mount = sandbox.mount_with(&["-o", "volume_wait=60,volume_linger=0.5"]);
    sandbox.mkdir("at");
    let volumes = mount.path("volumes");
    let volumes = volumes.display();
    let podman = Podman::new(&sandbox, sandbox.mkdir("storage"));
    let busybox = fs::read("/bin/busybox").or_else(|_| fs::read("/usr/bin/busybox"));
    let image = ImageBuilder::new("sys:1").layer(|l| {
        l.dir("bin", 0o755)
            .file("bin/busybox", busybox.expect("busybox-static is installed"))
            .mode(0o755)
            .symlink("bin/sh", "busybox")
            .dir("proc", 0o755)
            .dir("sys", 0o755)
            .dir("dev", 0o755)
            .dir("data", 0o755)
            .dir("etc", 0o755)
    });
    let archive = sandbox.path("sys.tar");
    image.docker_archive(&archive);
    sandbox
        .run(podman.command(&["load", "-q", "-i", archive.to_str().expect("UTF-8")]))
        .ok();
    let container = podman.command(&[
        "--runtime",
        "runc",
        "run",
        "--rm",
        "--network",
        "none",
        "--ulimit",
        "nofile=1024:1024",
        "--ulimit",
        "nproc=1024:1024",
        "--name",
        "mica-forms",
        "-v",
        &format!("{volumes}/podman:/data"),
        "localhost/sys:1",
        "/bin/busybox",
        "sh",
        "-c",
        "echo mine >/data/out; exec /bin/busybox sleep 1000",
    ]);
    let line = |command: &Command| {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words
            .map(|word| format!("'{}'", word.to_string_lossy().replace('\'', "'\\''")))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let environment: String = container
        .get_envs()
        .filter_map(|(key, value)| Some(format!("{}={} ", key.to_str()?, value?.to_str()?)))
        .collect();
    let wait = |name: &str| format!("while ! [ -s {volumes}/{name}/out ]; do sleep 0.05; done");
    let forms = [
        (
            "bind",
            format!("mount --bind {volumes}/bind at; echo mine >at/out; READY; sleep 1000"),
            true,
        ),
        (
            "unshare",
            format!(
                "exec unshare -m sh -c 'mount --bind {volumes}/unshare at; echo mine >at/out; READY; exec sleep 1000'"
            ),
            false,
        ),
        (
            "bwrap",
            format!(
                "bwrap --ro-bind / / --dev /dev --bind {volumes}/bwrap /mnt sh -c 'echo mine >/mnt/out; exec sleep 1000' & {}; READY; wait",
                wait("bwrap")
            ),
            false,
        ),
        (
            "podman",
            format!(
                "env {environment} {} & {}; READY; wait",
                line(&container),
                wait("podman")
            ),
            false,
        ),
    ];
    for (name, script, unmount) in forms {
        let data = ephemeral(&sandbox, name);
        let user = User::shell(&sandbox, &script);
        assert_eq!(
            fs::read_to_string(mount.path("volumes").join(name).join("out")).expect("out"),
            "mine\n"
        );
        stays(&sandbox, &mount, name);
        let busy = sandbox.mica(["volume", "rm", name]).code(1);
        assert!(
            busy.stderr().contains("volume is in use - ["),
            "{}",
            busy.describe()
        );
        if name == "podman" {
            sandbox.run(podman.command(&["kill", "mica-forms"])).ok();
        }
        drop(user);
        if unmount {
            // The mount is of this test's own namespace: it is a use without any process of its own.
            stays(&sandbox, &mount, name);
            sandbox.sh("umount at").ok();
        }
        goes(&sandbox, &mount, name, &data);
    }
}

/// Rootless: the same by an ordinary user, who may not look into everybody's processes.
#[test]
fn fuse_ephemeral_of_an_ordinary_user() {
    let sandbox = Sandbox::as_user(1000);
    let mount = mount(&sandbox);
    sandbox
        .mica(["volume", "create", "--ephemeral", "mine"])
        .ok();
    let run = sandbox
        .mica(["volume", "inspect", "-f", "{{.Source}}", "mine"])
        .ok();
    let data = PathBuf::from(run.stdout().trim());
    let script = format!(
        "cd {}/volumes/mine && touch {}/in && exec sleep 1000",
        mount.point.display(),
        sandbox.mkdir("own").display()
    );
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).uid(1000).gid(1000);
    let user = User::start(&mut command);
    until("the user is there", || sandbox.path("own/in").exists());
    let begin = Instant::now();
    while begin.elapsed() < WAIT + LINGER {
        assert!(is_there(&sandbox, "mine"), "it has gone");
        thread::sleep(Duration::from_millis(50));
    }
    drop(user);
    until("it evaporates", || {
        !is_there(&sandbox, "mine") && !data.exists()
    });
}

/// As many lives as asked for, several at a time; nothing is left of any.
#[test]
fn fuse_ephemeral_lives_leave_nothing() {
    let cycles = number("MICA_EPHEMERAL_CYCLES", 1000);
    let sandbox = Sandbox::new();
    let mount = sandbox.mount_with(&["-o", "volume_wait=60,volume_linger=0.05"]);
    let store = mica::store::Store::open(&sandbox.store(), mica::store::OpenMode::Existing)
        .expect("the store");
    let mut alive: BTreeMap<String, PathBuf> = BTreeMap::new();
    let list = || fs::read_to_string(sandbox.store().join("volumes.json")).expect("volumes.json");
    for cycle in 0..cycles {
        let name = format!("cycle-{cycle}");
        let create = mica::ops::volumes::Create::new(
            Some(name.parse().expect("a name")),
            mica::ops::volumes::CreateKind::Ephemeral,
        );
        let volume = mica::ops::volumes::create(&store, &create).expect("a volume");
        store.notify_mounts().expect("a notice");
        let dir = mount.path("volumes").join(&name);
        fs::write(dir.join("f"), &name).unwrap_or_else(|error| panic!("{name}: {error}"));
        alive.insert(name, store.volume_root(&volume));
        if alive.len() >= 50 {
            let begin = Instant::now();
            while alive.len() >= 25 {
                assert!(begin.elapsed() < PATIENCE, "they live on: {alive:?}");
                thread::sleep(Duration::from_millis(20));
                let list = list();
                alive.retain(|name, _| list.contains(&format!("\"{name}\"")));
            }
        }
    }
    until("the last have evaporated", || !list().contains("cycle-"));
    until("their data is deleted", || {
        fs::read_dir(sandbox.store().join("volumes"))
            .expect("volumes")
            .count()
            == 0
    });
    assert_eq!(fs::read_dir(mount.path("volumes")).expect("ls").count(), 0);
    sandbox.mica(["gc"]).ok();
    let leases = fs::read_dir(sandbox.store().join("leases")).expect("leases");
    // The daemon's own, and its socket.
    assert_eq!(leases.count(), 2);
    let check = sandbox.mica(["check"]).ok();
    assert!(!check.stdout().contains("volumes"), "{}", check.describe());
    let requests = mount.requests();
    assert!(requests["total"] > 0);
    mount.unmount();
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect(variable))
}
