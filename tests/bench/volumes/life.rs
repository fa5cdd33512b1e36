//! Making volumes, listing them, and how late they evaporate.

use std::fs::{self, File};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::bench::table::{Table, verdict};
use crate::bench::timing::{median, ms, timed};
use crate::common::mount::Mount;
use crate::common::sandbox::Sandbox;

/// How long an ephemeral volume lingers after its last user, unless told otherwise.
const LINGER: Duration = Duration::from_secs(2);
const VOLUMES: usize = 1_000;

pub fn run(quick: bool) {
    let mut table = Table::new(&["", "figure", "target", "reached"]);
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let rounds = if quick { 5 } else { 21 };
    ephemeral(&sandbox, &mount, rounds, &mut table);
    making(&sandbox, &mount, "", rounds, &mut table);
    for number in 0..VOLUMES {
        fs::create_dir(mount.path(format!("volumes/many-{number}"))).expect("a volume");
    }
    making(&sandbox, &mount, ", with 1,000", rounds, &mut table);
    listing(&sandbox, &mount, rounds, &mut table);
    table.print();
}

/// The row of a figure without a target.
fn plain(what: String, times: Vec<Duration>) -> Vec<String> {
    vec![what, format!("{} ms", ms(median(times)))]
}

fn ephemeral(sandbox: &Sandbox, mount: &Mount, rounds: usize, table: &mut Table) {
    eprintln!("bench: ephemeral volumes");
    let (mut made, mut used, mut closed) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..rounds {
        let name = format!("scratch-{number}");
        let arguments = ["volume", "create", "--ephemeral", &name];
        made.push(timed(sandbox.command().args(arguments)));
        let root = mount.path("volumes").join(name);
        let start = Instant::now();
        let file = File::create(root.join("file")).expect("the first use");
        used.push(start.elapsed());
        drop(file);
        closed.push((root, Instant::now()));
    }
    table.row(plain("volume create --ephemeral".into(), made));
    table.row(plain("its first use, creating a file".into(), used));
    let late = lateness(closed);
    for (what, time) in [
        (
            "late to evaporate, 2 s after the last use",
            median(late.clone()),
        ),
        ("latest", late.iter().copied().max().unwrap_or_default()),
    ] {
        table.row(vec![
            what.into(),
            format!("{} ms", ms(time)),
            "< 500 ms".into(),
            verdict(time < Duration::from_millis(500)),
        ]);
    }
}

/// How much longer than they should these are there.
fn lateness(mut left: Vec<(std::path::PathBuf, Instant)>) -> Vec<Duration> {
    let mut late = Vec::new();
    let start = Instant::now();
    while !left.is_empty() {
        left.retain(|(root, closed)| {
            if root.exists() {
                return true;
            }
            let after = closed.elapsed();
            assert!(after >= LINGER, "{} went after {after:?}", root.display());
            late.push(after - LINGER);
            false
        });
        let waited = start.elapsed();
        assert!(waited < Duration::from_secs(60), "ephemeral volumes stay");
        thread::sleep(Duration::from_millis(2));
    }
    late
}

fn making(sandbox: &Sandbox, mount: &Mount, with: &str, rounds: usize, table: &mut Table) {
    eprintln!("bench: making volumes{with}");
    let (mut verb, mut mkdir, mut rmdir) = (Vec::new(), Vec::new(), Vec::new());
    let timed_call = |call: &dyn Fn(&Path)| {
        let start = Instant::now();
        call(&mount.path("volumes/made"));
        start.elapsed()
    };
    for _ in 0..rounds {
        verb.push(timed(sandbox.command().args(["volume", "create", "verb"])));
        sandbox.mica(["volume", "rm", "verb"]).ok();
        mkdir.push(timed_call(&|path| fs::create_dir(path).expect("mkdir")));
        rmdir.push(timed_call(&|path| fs::remove_dir(path).expect("rmdir")));
    }
    table.row(plain(format!("volume create{with}"), verb));
    table.row(plain(format!("mkdir of a volume{with}"), mkdir));
    table.row(plain(format!("rmdir of a volume{with}"), rmdir));
}

fn listing(sandbox: &Sandbox, mount: &Mount, rounds: usize, table: &mut Table) {
    eprintln!("bench: listing volumes");
    for arguments in [&["volume", "ls"][..], &["volume", "ls", "-l"]] {
        let times = (0..rounds).map(|_| timed(sandbox.command().args(arguments)));
        let what = format!("{}, 1,000 volumes", arguments.join(" "));
        table.row(plain(what, times.collect()));
    }
    let times = (0..rounds).map(|_| {
        let start = Instant::now();
        let count = fs::read_dir(mount.path("volumes"))
            .expect("listing")
            .count();
        assert_eq!(count, VOLUMES, "volumes in the mount");
        start.elapsed()
    });
    table.row(plain(
        "readdir of M/volumes, 1,000 volumes".into(),
        times.collect(),
    ));
}
