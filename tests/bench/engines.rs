//! podman on a store's image, beside the same image in podman's own storage.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::table::{Table, verdict};
use super::timing::{interleaved, ms, ratio, timed};
use crate::common::podman::Podman;
use crate::common::real;
use crate::common::sandbox::Sandbox;

const SMALL: &str = "localhost/mica-test:small";
const REAL: &str = "localhost/mica-test:real";
/// So often python is started within one container: what starting that takes hardly counts.
const STARTS: u32 = 20;

/// podman with a storage that is empty, and M beside it.
struct Connected {
    storage: PathBuf,
    runroot: PathBuf,
    conf: PathBuf,
}

impl Drop for Connected {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.runroot) {
            eprintln!("removing {}: {error}", self.runroot.display());
        }
    }
}

impl Connected {
    fn new(sandbox: &Sandbox, stores: &Path) -> Connected {
        let connected = Connected {
            storage: sandbox.mkdir("connected"),
            runroot: format!("/run/mica-bench-{}", std::process::id()).into(),
            conf: sandbox.path("connected.conf"),
        };
        fs::create_dir_all(&connected.runroot).expect("mkdir");
        let (root, run) = (&connected.storage, &connected.runroot);
        let text = format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = {root:?}\nrunroot = {run:?}\n\
             [storage.options]\nadditionalimagestores = [{stores:?}]\n"
        );
        fs::write(&connected.conf, text).expect("the configuration");
        connected
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut podman = Command::new("podman");
        podman.args(["--cgroup-manager", "cgroupfs", "--events-backend", "file"]);
        podman.args(args);
        podman
            .env("CONTAINERS_STORAGE_CONF", &self.conf)
            .env("HOME", &self.runroot);
        podman
    }

    fn run(&self, args: &[&str]) -> Command {
        let mut podman = self.command(&["--runtime", "runc", "run", "--rm", "--network", "none"]);
        podman.args(["--ulimit", "nofile=1024:1024"]);
        podman.args(["--ulimit", "nproc=1024:1024"]).args(args);
        podman
    }
}

pub fn run(quick: bool) {
    let rounds = if quick { 3 } else { 11 };
    let sandbox = Sandbox::new();
    for name in ["small", "real"] {
        sandbox.load_file(&real::docker_archive(name)).ok();
    }
    let mount = sandbox.mount();
    let ours = Connected::new(&sandbox, &mount.path("stores/containers"));
    let theirs = Podman::new(&sandbox, sandbox.path("podman"));
    theirs.load(&sandbox, &real::docker_archive("small"));
    let real_archive = real::docker_archive("real");
    let file = real_archive.to_str().expect("a UTF-8 path");
    timed(&mut theirs.command(&["load", "--quiet", "-i", file]));

    let mut table = Table::new(&["ms", "store", "podman's own", "factor", "target", "reached"]);
    let mut row = |what: &str, times: [Duration; 2], target: f64| {
        let factor = ratio(times[0], times[1]);
        table.row(vec![
            what.into(),
            ms(times[0]),
            ms(times[1]),
            format!("{factor:.2}"),
            format!("<= {target:.2}"),
            verdict(factor <= target),
        ]);
    };
    let pair = |what: &str, rounds: usize, once: &mut dyn FnMut(usize) -> Duration| {
        eprintln!("bench: {what}");
        // The first of each warms the caches and is not counted.
        for candidate in 0..2 {
            once(candidate);
        }
        let times = interleaved(rounds, 2, once);
        [times[0], times[1]]
    };
    let what = "podman run --rm IMAGE /bin/true";
    let times = pair(what, rounds, &mut |n| match n {
        0 => timed(&mut ours.run(&[SMALL, "/bin/true"])),
        _ => timed(&mut theirs.run(&[SMALL, "/bin/true"])),
    });
    row(what, times, 1.1);

    let script = format!(
        "i=0; while [ $i -lt {STARTS} ]; do python3 -c 'import json, re, argparse, http.client'; i=$((i+1)); done"
    );
    let inside = [REAL, "sh", "-c", &script];
    let what = "python3 start inside";
    let times = pair(what, rounds.div_ceil(4), &mut |n| {
        let all = match n {
            0 => timed(&mut ours.run(&inside)),
            _ => timed(&mut theirs.run(&inside)),
        };
        all / STARTS
    });
    row(what, times, 1.05);

    let what = "load, until podman images shows it";
    let times = pair(what, rounds.div_ceil(4), &mut |n| {
        match n {
            0 => timed(sandbox.command().args(["rmi", REAL])),
            _ => timed(&mut theirs.command(&["rmi", REAL])),
        };
        rustix::fs::sync();
        match n {
            0 => {
                let load = timed(sandbox.command().args(["load", "-i", file]));
                load + timed(&mut ours.command(&["images"]))
            }
            _ => {
                let load = timed(&mut theirs.command(&["load", "--quiet", "-i", file]));
                load + timed(&mut theirs.command(&["images"]))
            }
        }
    });
    row(what, times, 1.0 / 8.0);

    let tags: Vec<String> = (0..1000).map(|n| format!("localhost/many:{n}")).collect();
    let mut words = vec!["tag", SMALL];
    words.extend(tags.iter().map(String::as_str));
    timed(sandbox.command().args(&words));
    timed(&mut theirs.command(&words));
    let what = "podman images, 1,000 tags";
    let times = pair(what, rounds, &mut |n| match n {
        0 => timed(&mut ours.command(&["images"])),
        _ => timed(&mut theirs.command(&["images"])),
    });
    row(what, times, 1.5);

    // Each time after a change of the names, so that the document is made anew.
    let tags: Vec<String> = (0..10_000).map(|n| format!("localhost/more:{n}")).collect();
    let mut words = vec!["tag", SMALL];
    words.extend(tags.iter().map(String::as_str));
    timed(sandbox.command().args(&words));
    let document = mount.path("stores/containers/overlay-images/images.json");
    let what = "images.json, 10,000 tags, after a change";
    eprintln!("bench: {what}");
    let mut times: Vec<Duration> = (0..rounds)
        .map(|n| {
            timed(
                sandbox
                    .command()
                    .args(["tag", SMALL, &format!("localhost/last:{n}")]),
            );
            let start = std::time::Instant::now();
            let text = fs::read(&document).expect("images.json");
            assert!(text.len() > 10_000 * 20);
            start.elapsed()
        })
        .collect();
    times.sort();
    let median = times[times.len() / 2];
    table.row(vec![
        what.into(),
        ms(median),
        String::new(),
        String::new(),
        "<= 100 ms".into(),
        verdict(median <= Duration::from_millis(100)),
    ]);
    table.print();
    mount.unmount();
}
