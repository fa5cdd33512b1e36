//! What one user can have of the daemon, by names and by waiting.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::common::image::ImageBuilder;
use crate::common::sandbox::Sandbox;
use crate::common::tier;
use crate::common::user::as_user;
use crate::ephemeral::{User, until};

const NAMES: &str = "import os, sys, time
held, error = [], 0
try:
    for i in range(1000):
        os.mkdir(f'{sys.argv[1]}/{i}')
        held.append(os.open(f'{sys.argv[1]}/{i}', os.O_PATH))
except OSError as e:
    error = e.errno
open(sys.argv[2] + '.new', 'w').write(f'{len(held) > 20} {error}')
os.rename(sys.argv[2] + '.new', sys.argv[2])
time.sleep(1000)";

/// A descriptor by which nothing can be read costs the daemon one as well: who has as many as he can get shuts nobody else out.
#[test]
fn regression_fuse_nobody_has_everything_remembered() {
    tier::root();
    let sandbox = Sandbox::new();
    sandbox.load(&ImageBuilder::new("app:1").layer(|l| l.file("f", "x")));
    let point = sandbox.mkdir("m");
    let mut mount = Command::new("prlimit");
    mount
        .args(["--nofile=400:400", env!("CARGO_BIN_EXE_mica"), "mount"])
        .arg(&point);
    mount.env("MICA_STORE", sandbox.store());
    sandbox.run(mount).ok();
    for name in ["greedy", "modest"] {
        let top = point.join("volumes").join(name);
        fs::create_dir(&top).expect("mkdir");
        fs::set_permissions(top, fs::Permissions::from_mode(0o777)).expect("chmod");
    }
    let said = sandbox.mkdir("said");
    fs::set_permissions(&said, fs::Permissions::from_mode(0o777)).expect("chmod");
    let mut greedy = Command::new("/usr/bin/python3");
    greedy.arg("-c").arg(NAMES);
    greedy
        .arg(point.join("volumes/greedy"))
        .arg(said.join("count"));
    let greedy = User::start(greedy.uid(54_403).gid(54_403));
    until("it has all it can get", || said.join("count").exists());
    let count = fs::read_to_string(said.join("count")).expect("the count");
    let most = rustix::io::Errno::MFILE.raw_os_error();
    assert_eq!(count, format!("True {most}"));
    let mut other = as_user(54_404, "sh");
    other.args([
        "-ec",
        "for i in $(seq 50); do mkdir $i; echo $i >$i/f; cat $i/f; done; ls | wc -l",
    ]);
    other.current_dir(point.join("volumes/modest"));
    let lines = sandbox.run(other).ok().stdout();
    assert_eq!(lines.lines().last(), Some("50"));
    fs::read(point.join("images/app/1/f")).expect("a file of the image");
    fs::create_dir(point.join("volumes/modest/root")).expect("root's own");
    drop(greedy);
    // What nobody holds any more is forgotten when the kernel is asked to.
    fs::write("/proc/sys/vm/drop_caches", "2").expect("drop_caches");
    let mut again = as_user(54_403, "sh");
    again
        .args(["-ec", "mkdir again; rmdir again"])
        .current_dir(point.join("volumes/greedy"));
    sandbox.run(again).ok();
    sandbox.mica(["umount".as_ref(), point.as_os_str()]).ok();
}

const WAIT: &str = "import errno, fcntl, os, sys, threading, time
threading.stack_size(64 << 10)
path = sys.argv[1] + '/f'
held = os.open(path, os.O_RDWR | os.O_CREAT)
fcntl.flock(held, fcntl.LOCK_EX)
files = [os.open(path, os.O_RDWR) for _ in range(1010)]
refused = []
def wait(file):
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as e:
        refused.append(e.errno)
for file in files:
    threading.Thread(target=wait, args=(file,), daemon=True).start()
while len(refused) < 10:
    time.sleep(0.05)
time.sleep(0.5)
open(sys.argv[2] + '.new', 'w').write(f'{len(refused)} {set(refused) == {errno.ENOLCK}}')
os.rename(sys.argv[2] + '.new', sys.argv[2])
time.sleep(1000)";

/// Of those who wait for locks each costs a look now and then: one user has a thousand at most, and nobody else waits for them.
#[test]
fn regression_fuse_those_who_wait_for_locks_are_counted() {
    let sandbox = Sandbox::new();
    let point = sandbox.mkdir("m");
    let mut mount = Command::new("prlimit");
    mount
        .args(["--nofile=16384:16384", env!("CARGO_BIN_EXE_mica"), "mount"])
        .arg(&point);
    mount.env("MICA_STORE", sandbox.store());
    let mount = sandbox.mount_by(&point, mount);
    for name in ["greedy", "modest"] {
        let top = mount.point.join("volumes").join(name);
        fs::create_dir(&top).expect("mkdir");
        fs::set_permissions(top, fs::Permissions::from_mode(0o777)).expect("chmod");
    }
    let said = sandbox.mkdir("said");
    fs::set_permissions(&said, fs::Permissions::from_mode(0o777)).expect("chmod");
    let mut greedy = Command::new("prlimit");
    greedy.args(["--nofile=4096:4096", "/usr/bin/python3", "-c", WAIT]);
    greedy
        .arg(mount.point.join("volumes/greedy"))
        .arg(said.join("count"));
    let greedy = User::start(greedy.uid(54_405).gid(54_405));
    until("more than a thousand wait", || said.join("count").exists());
    let count = fs::read_to_string(said.join("count")).expect("the count");
    assert_eq!(count, "10 True");
    let mut other = as_user(54_406, "sh");
    other.args([
        "-ec",
        "for i in 1 2 3; do flock f true; flock -n f echo $i; done",
    ]);
    other.current_dir(mount.point.join("volumes/modest"));
    assert_eq!(sandbox.run(other).ok().stdout(), "1\n2\n3\n");
    drop(greedy);
    let mut again = as_user(54_405, "flock");
    again.arg(mount.point.join("volumes/greedy/f")).arg("true");
    sandbox.run(again).ok();
    mount.unmount();
}
