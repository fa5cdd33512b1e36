//! The life of ephemeral volumes under a daemon: every way of use, every way of ending it, and chance.
//!
//! `MICA_EPHEMERAL_SEED` repeats a random run's choices, `MICA_EPHEMERAL_SECONDS` makes it longer (`contrib/soak` for ten minutes),
//! `MICA_EPHEMERAL_CYCLES` sets the number of lives.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::sandbox::{Mount, Sandbox};

mod chance;
mod entering;

/// Ephemeral volumes of these tests wait so long for their first user, and linger so long after the last one.
pub(crate) const TIMES: &str = "volume_wait=8,volume_linger=0.5";
pub(crate) const WAIT: Duration = Duration::from_secs(8);
pub(crate) const LINGER: Duration = Duration::from_millis(500);
/// However slow the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A process group that ends with the test.
pub(crate) struct User(Child);

impl User {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    #[track_caller]
    pub(crate) fn start(command: &mut Command) -> User {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null());
        User(command.process_group(0).spawn().expect("a user"))
    }

    /// A shell that says that it is there, where its script says READY.
    #[track_caller]
    pub(crate) fn shell(sandbox: &Sandbox, script: &str) -> User {
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
pub(crate) fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn mount(sandbox: &Sandbox) -> Mount {
    sandbox.mount_with(&["-o", TIMES])
}

/// A new ephemeral volume with a file in it, written on the host so that nobody has used it yet.
pub(crate) fn ephemeral(sandbox: &Sandbox, name: &str) -> PathBuf {
    sandbox.mica(["volume", "create", "--ephemeral", name]).ok();
    let run = sandbox
        .mica(["volume", "inspect", "-f", "{{.Source}}", name])
        .ok();
    let data = PathBuf::from(run.stdout().trim());
    fs::write(data.join("file"), name).expect("a file");
    data
}

pub(crate) fn is_there(sandbox: &Sandbox, name: &str) -> bool {
    let list = fs::read_to_string(sandbox.store().join("volumes.json")).unwrap_or_default();
    list.contains(&format!("\"name\": \"{name}\""))
}

/// The daemon knows of a user, and the volume stays for longer than one without.
#[track_caller]
pub(crate) fn stays(sandbox: &Sandbox, mount: &Mount, name: &str) {
    until(&format!("a use of {name} is seen"), || {
        let list = fs::read_to_string(sandbox.store().join("volumes.json")).expect("the list");
        let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
        let mut volumes = list["volumes"].as_array().expect("volumes").iter();
        volumes.any(|volume| volume["name"] == name && volume["used"] == true)
    });
    remains(sandbox, mount, name);
}

/// It stays.
#[track_caller]
pub(crate) fn remains(sandbox: &Sandbox, mount: &Mount, name: &str) {
    let begin = Instant::now();
    while begin.elapsed() < LINGER * 4 {
        assert!(is_there(sandbox, name), "{name} has gone");
        thread::sleep(Duration::from_millis(50));
    }
    let file = mount.path("volumes").join(name).join("file");
    assert_eq!(fs::read_to_string(file).expect("the file"), name);
}

/// It goes, with its directory in the mount and its data.
#[track_caller]
pub(crate) fn goes(sandbox: &Sandbox, mount: &Mount, name: &str, data: &Path) {
    until(&format!("{name} evaporates"), || !is_there(sandbox, name));
    until("it is not shown", || {
        !mount.path("volumes").join(name).exists()
    });
    until("its data is deleted", || {
        !data.exists() && !data.parent().expect("its directory").exists()
    });
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
        let create = mica::ops::volume::Create::new(
            Some(name.parse().expect("a name")),
            mica::ops::volume::CreateKind::Ephemeral,
        );
        let volume = mica::ops::volume::create(&store, &create).expect("a volume");
        store.notify_mounts();
        let dir = mount.path("volumes").join(&name);
        fs::write(dir.join("f"), &name).unwrap_or_else(|error| panic!("{name}: {error}"));
        alive.insert(name, store.volume_root(&volume));
        if alive.len() >= 50 {
            let begin = Instant::now();
            while alive.len() >= 25 {
                assert!(begin.elapsed() < PATIENCE, "they live on: {alive:?}");
                thread::sleep(Duration::from_millis(20));
                let list = list();
                alive.retain(|name, _| list.contains(&format!("\"name\": \"{name}\"")));
            }
        }
    }
    until("the last have evaporated", || {
        !list().contains("\"name\": \"cycle-")
    });
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
