//! The chapter "Isolation": nobody takes everything.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::common::image::ImageBuilder;
use crate::common::sandbox::Sandbox;
use crate::common::tier;
use crate::common::user::as_user;
use crate::ephemeral::{User, until};

/// A user who opens all the files and takes all the locks of volumes that he can get is refused with EMFILE; images, verbs and the volumes of others go on.
#[test]
fn regression_fuse_nobody_takes_all_descriptors() {
    tier::root();
    let sandbox = Sandbox::new();
    sandbox.load(&ImageBuilder::new("app:1").layer(|l| l.file("f", "x").file("g", "y")));
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
    let script = "import os, sys, time, fcntl
held, error = [], 0
try:
    for i in range(400):
        held.append(os.open(f'{sys.argv[1]}/{i}', os.O_RDWR | os.O_CREAT, 0o600))
        fcntl.lockf(held[-1], fcntl.LOCK_EX)
except OSError as e:
    error = e.errno
open(sys.argv[2] + '.new', 'w').write(f'{len(held) > 20} {error}')
os.rename(sys.argv[2] + '.new', sys.argv[2])
time.sleep(1000)";
    let mut greedy = Command::new("/usr/bin/python3");
    greedy
        .arg("-c")
        .arg(script)
        .arg(point.join("volumes/greedy"))
        .arg(said.join("count"));
    let greedy = User::start(greedy.uid(54_401).gid(54_401));
    until("it has all it can get", || said.join("count").exists());
    let count = fs::read_to_string(said.join("count")).expect("the count");
    assert_eq!(
        count,
        format!("True {}", rustix::io::Errno::MFILE.raw_os_error())
    );
    for file in ["f", "g"] {
        fs::read(point.join("images/app/1").join(file)).expect("a file of the image");
    }
    sandbox.mica(["tag", "app:1", "app:2"]).ok();
    fs::read(point.join("images/app/2/f")).expect("a new tag");
    sandbox.mica(["users", "greedy"]).ok();
    sandbox.mica(["volume", "create", "third"]).ok();
    // Another mount of the same store, and one of another.
    let again = sandbox.mount();
    fs::read(again.image("app/1/f")).expect("through another mount");
    fs::read_dir(again.point.join("volumes/greedy")).expect("his own volume, by another mount");
    again.unmount();
    let elsewhere = Sandbox::new();
    elsewhere.load(&ImageBuilder::new("other:1").layer(|l| l.file("f", "x")));
    let mount = elsewhere.mount();
    fs::read(mount.image("other/1/f")).expect("another store");
    mount.unmount();
    let mut other = as_user(54_402, "sh");
    other.args([
        "-ec",
        "for i in 1 2 3; do echo $i >$i; cat $i; flock $i true; done; ls",
    ]);
    other.current_dir(point.join("volumes/modest"));
    assert_eq!(sandbox.run(other).ok().stdout(), "1\n2\n3\n1\n2\n3\n");
    drop(greedy);
    sandbox.mica(["umount".as_ref(), point.as_os_str()]).ok();
}
