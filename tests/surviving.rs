//! Mounts that survive their daemon, beyond what is promised: other users, and what it costs.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Pid;

use crate::common::image::ImageBuilder;
use crate::common::keeper::{daemon, keeper, kill, surviving, wait_until};
use crate::common::mount::runs;
use crate::common::sandbox::Sandbox;
use crate::common::user::as_user;

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

/// Kilobytes that nobody else has: without the parts of the program's file, which in a debug build are large.
fn private(pid: Pid) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/smaps", pid.as_raw_nonzero()));
    let (mut of_program, mut sum) = (false, 0);
    for line in text.expect("smaps").lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("Private_Dirty:" | "Private_Clean:") if !of_program => {
                let size: u64 = words.next().and_then(|n| n.parse().ok()).expect("kB");
                sum += size;
            }
            Some(word) if !word.ends_with(':') => of_program = line.ends_with("/mica"),
            _ => {}
        }
    }
    sum
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
    let size = private(keeper(&mount.point));
    assert!(size < 500, "{size} kB");
    mount.unmount();
}
