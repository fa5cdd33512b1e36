//! Starting a process in an image, beside podman; python inside, beside a chroot on kernel overlayfs.

use std::process::Command;
use std::time::Duration;

use super::table::{Table, verdict};
use super::timing::{median, ms, ratio, timed};
use crate::common::podman::{self, Podman};
use crate::common::real;
use crate::common::sandbox::Sandbox;

const SMALL: &str = "localhost/mica-test:small";
const REAL: &str = "localhost/mica-test:real";
/// So often python is started within one container: what starting that takes hardly counts.
const STARTS: u32 = 20;

pub fn run(quick: bool) {
    let rounds = if quick { 5 } else { 21 };
    let mut table = Table::new(&["ms", "mica", "beside", "", "factor", "target", "reached"]);
    start(rounds, &mut table);
    python(rounds.div_ceil(4), &mut table);
    table.print();
}

fn start(rounds: u32, table: &mut Table) {
    eprintln!("bench: run --rm IMAGE /bin/true");
    let sandbox = Sandbox::new();
    let archive = real::docker_archive("small");
    sandbox.load_file(&archive).ok();
    let podman = Podman::new(&sandbox, sandbox.path("podman"));
    podman.load(&sandbox, &archive);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    // The first of each warms the caches and is not counted.
    for _ in 0..=rounds {
        let mut mica = sandbox.command();
        ours.push(timed(mica.args(["run", "--rm", SMALL, "/bin/true"])));
        let limits = [
            "--ulimit",
            "nofile=1024:1024",
            "--ulimit",
            "nproc=4096:4096",
        ];
        let mut podman = podman.command(&["--runtime", "runc", "run", "--rm", "--network", "none"]);
        theirs.push(timed(podman.args(limits).args([SMALL, "/bin/true"])));
    }
    let rest = |times: Vec<Duration>| median(times.into_iter().skip(1).collect());
    let (ours, theirs) = (rest(ours), rest(theirs));
    let factor = ratio(theirs, ours);
    table.row(vec![
        "run --rm IMAGE /bin/true".into(),
        ms(ours),
        "podman run --rm --network none".into(),
        ms(theirs),
        format!("{factor:.1} faster"),
        "5 x faster, <= 17 ms".into(),
        verdict(factor >= 5.0 && ours <= Duration::from_millis(17)),
    ]);
}

fn python(rounds: u32, table: &mut Table) {
    eprintln!("bench: python3 inside");
    let sandbox = Sandbox::new();
    let overlay = podman::real_image(&sandbox, "real");
    sandbox.load_file(&real::docker_archive("real")).ok();
    let script = format!(
        "i=0; while [ $i -lt {STARTS} ]; do python3 -c 'import json, re, argparse, http.client'; i=$((i+1)); done"
    );
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..=rounds {
        let mut mica = sandbox.command();
        ours.push(timed(mica.args(["run", "--rm", REAL, "sh", "-c", &script])) / STARTS);
        let mut chroot = Command::new("chroot");
        theirs.push(timed(chroot.arg(&overlay).args(["sh", "-c", &script])) / STARTS);
    }
    let rest = |times: Vec<Duration>| median(times.into_iter().skip(1).collect());
    let (ours, theirs) = (rest(ours), rest(theirs));
    let factor = ratio(ours, theirs);
    table.row(vec![
        "python3 start inside".into(),
        ms(ours),
        "chroot on kernel overlayfs".into(),
        ms(theirs),
        format!("{factor:.2}"),
        "<= 1.05".into(),
        verdict(factor <= 1.05),
    ]);
}
