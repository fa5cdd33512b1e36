//! Mounts that survive their daemon, beyond what is promised: other users, and what it costs.

use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::common::image::ImageBuilder;
use crate::common::keeper::{daemon, keeper, kill, surviving, wait_until};
use crate::common::mount::runs;
use crate::common::sandbox::Sandbox;
use crate::common::tier;
use crate::common::user::as_user;

mod load;
mod shortage;
mod volumes;

const USER: u32 = 54_321;

#[test]
fn fuse_an_ordinary_users_mount_survives() {
    let sandbox = Sandbox::as_user(USER);
    sandbox.load(&ImageBuilder::new("app:1").layer(|l| l.dir("d", 0o755).file("d/f", "content")));
    let mount = surviving(&sandbox);
    let root = mount.image("app/1/d");
    let shell = |script: &str| {
        let mut shell = as_user(USER, "sh");
        shell.args(["-c", script, "sh"]).arg(&root);
        shell
    };
    let mut sitter = shell("cd \"$1\" && exec <f && echo in && read x <\"$2\"; cat; ls");
    let pipe = sandbox.path("pipe");
    sandbox.run(as_fifo(&pipe)).ok();
    let sitter = sitter
        .arg(&pipe)
        .stdout(Stdio::piped())
        .spawn()
        .expect("a shell");
    let cwd = format!("/proc/{}/cwd", sitter.id());
    wait_until("he is inside", || {
        fs::read_link(&cwd).is_ok_and(|inside| inside == root)
    });
    for _ in 0..2 {
        kill(&mount);
        sandbox
            .run(shell("cat \"$1/f\"; ls \"$1/../../../../volumes/\""))
            .ok();
    }
    writeln!(fs::File::create(&pipe).expect("a pipe"), "go").expect("a pipe");
    let said = sitter.wait_with_output().expect("the sitter");
    assert_eq!(String::from_utf8_lossy(&said.stdout), "in\ncontentf\n");
    let both = [daemon(&mount), keeper(&mount.point)];
    sandbox.mica([Path::new("umount"), &mount.point]).ok();
    wait_until("both end", || !both.iter().any(|pid| runs(*pid)));
    mount.forget();
}

fn as_fifo(path: &Path) -> Command {
    let mut command = Command::new("mkfifo");
    command.args(["-m", "666"]).arg(path);
    command
}

/// Kilobytes that nobody else has, dirty ones and all.
fn private(pid: Pid) -> (u64, u64) {
    let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", pid.as_raw_nonzero()));
    let text = text.expect("smaps");
    let size = |word: &str| -> u64 {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(word));
        let size = lines.next().and_then(|line| line.split_whitespace().next());
        size.and_then(|size| size.parse().ok()).expect("kB")
    };
    let dirty = size("Private_Dirty:");
    (dirty, dirty + size("Private_Clean:"))
}

#[test]
fn fuse_a_keeper_is_small() {
    let sandbox = Sandbox::new();
    sandbox.load(&ImageBuilder::new("app:1").layer(|l| l.file("f", "content")));
    let mount = surviving(&sandbox);
    for _ in 0..3 {
        kill(&mount);
        assert_eq!(fs::read(mount.image("app/1/f")).expect("read"), b"content");
    }
    let (dirty, all) = private(keeper(&mount.point));
    println!("a keeper: {dirty} kB dirty, {all} kB of its own");
    // Clean are the parts of its program's file that it uses and no other process; a build for debugging has larger ones.
    let most = if cfg!(debug_assertions) { 2048 } else { 1024 };
    assert!(dirty < 400 && all < most, "{dirty} kB, {all} kB");
    mount.unmount();
}

/// A service manager follows the keeper, and a signal to that ends the mount.
#[test]
fn fuse_a_service_survives() {
    tier::root();
    let sandbox = Sandbox::new();
    sandbox.load(&ImageBuilder::new("app:1").layer(|l| l.file("f", "content")));
    let point = sandbox.mkdir("m");
    let refused = sandbox.mica(["mount", "--foreground", "-o", "survive=on", "m"]);
    assert!(refused.fails().stderr().contains("NOTIFY_SOCKET"));
    let socket = sandbox.path("notify");
    let manager = UnixDatagram::bind(&socket).expect("a socket");
    let patience = Some(Duration::from_secs(20));
    manager.set_read_timeout(patience).expect("a timeout");
    let mut first = sandbox
        .command()
        .args(["mount", "--foreground", "-o", "survive=on", "m"])
        .env("NOTIFY_SOCKET", &socket)
        .stderr(fs::File::create(sandbox.path("err")).expect("a file"))
        .stdin(Stdio::null())
        .spawn()
        .expect("mica");
    let mut heard = String::new();
    while !heard.contains("READY=1") {
        let mut message = [0u8; 64];
        let length = manager.recv(&mut message).expect("a word");
        heard.push_str(&String::from_utf8_lossy(&message[..length]));
    }
    let keeper = keeper(&point);
    let followed = format!("MAINPID={}\n", keeper.as_raw_nonzero());
    assert!(heard.contains(&followed), "{heard}");
    first.kill().and_then(|()| first.wait()).expect("its end");
    assert_eq!(
        fs::read(point.join("images/app/1/f")).expect("read"),
        b"content"
    );
    kill_process(keeper, Signal::TERM).expect("kill");
    wait_until("all of it ends", || {
        !runs(keeper) && !point.join("images").exists()
    });
    assert!(!sandbox.store().join("daemon.log").exists());
}

/// Taken away by himself, they are put back beside his mount.
#[test]
fn fuse_regression_an_ordinary_users_volumes_come_back() {
    let sandbox = Sandbox::as_user(USER);
    let mount = sandbox.mount();
    let volumes = mount.path("volumes");
    let mut link = as_user(USER, "readlink");
    link.arg(&volumes);
    let place = sandbox.run(link).ok().stdout().trim_end().to_owned();
    let mounted = || {
        let table = fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo");
        table
            .lines()
            .any(|line| line.split(' ').nth(4) == Some(place.as_str()))
    };
    assert!(mounted(), "{place}");
    let mut away = as_user(USER, "fusermount3");
    away.args(["-u", &place]);
    sandbox.run(away).ok();
    wait_until("they are back", mounted);
    mount.unmount();
}
