//! `mica run` and what belongs to it, as root and as an ordinary user: everything a process in an image may rely on, and what
//! it must not reach.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::image::{ImageBuilder, LayerBuilder};
use crate::common::sandbox::{Run, Sandbox};
use crate::common::tier;

mod attaching;
mod basics;
mod copying;
mod ends;
mod hostile;
mod isolation;
mod listing;
mod objects;
mod options;
mod pausing;
mod programs;
mod rootless;
pub(crate) mod syscalls;
mod volumes;

pub(crate) use rootless::user;

/// What the programs in the images are: one static program under many names.
const TOOLS: [&str; 28] = [
    "sh", "cat", "echo", "id", "ls", "sleep", "true", "false", "pwd", "env", "touch", "stat",
    "mkdir", "rm", "mv", "hostname", "mount", "df", "kill", "chown", "chmod", "mknod", "readlink",
    "test", "wc", "grep", "stty", "tty",
];

fn busybox(layer: LayerBuilder) -> LayerBuilder {
    let program = fs::read("/bin/busybox").expect("busybox-static: contrib/install-packages");
    let mut layer = layer
        .dir("bin", 0o755)
        .file("bin/busybox", program)
        .mode(0o755)
        .dir("etc", 0o755)
        .file(
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1001::/home/bob:/bin/sh\n",
        )
        .file("etc/group", "root:x:0:\nbobs:x:1001:\nwheel:x:10:bob\n")
        .dir("tmp", 0o1777)
        .dir("root", 0o700);
    for tool in TOOLS {
        layer = layer.symlink(format!("bin/{tool}"), "busybox");
    }
    layer
}

/// `name` with a shell and the usual tools.
pub(crate) fn image(name: &str) -> ImageBuilder {
    ImageBuilder::new(name).layer(busybox)
}

/// A store of root's with the image `app:1`.
pub(crate) fn sandbox() -> Sandbox {
    tier::root();
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    sandbox
}

/// `mica` with words split at blanks; the rest of the arguments after ` -- ` is one word for `sh -c`.
pub(crate) fn mica(sandbox: &Sandbox, line: &str) -> Run {
    let (words, script) = match line.split_once(" -- ") {
        Some((words, script)) => (words, Some(script)),
        None => (line, None),
    };
    let mut args: Vec<&str> = words.split_whitespace().collect();
    if let Some(script) = script {
        args.extend(["sh", "-c", script]);
    }
    sandbox.mica(args)
}

/// The output of what must succeed.
#[track_caller]
pub(crate) fn shown(sandbox: &Sandbox, line: &str) -> String {
    mica(sandbox, line).ok().stdout()
}

/// The directories of containers that the store has.
pub(crate) fn left(sandbox: &Sandbox) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(sandbox.store().join("containers")) else {
        return Vec::new();
    };
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// The directories of volumes' data that the store has.
pub(crate) fn volumes(sandbox: &Sandbox) -> usize {
    match fs::read_dir(sandbox.store().join("volumes")) {
        Ok(entries) => entries.count(),
        Err(_) => 0,
    }
}

#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A `mica` of the test's own, killed at the end.
pub(crate) struct Started(Child);

impl Started {
    pub(crate) fn new(sandbox: &Sandbox, words: &[&str]) -> Started {
        let mut command: Command = sandbox.command();
        command
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        Started(command.spawn().unwrap())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
