//! Loading and removing a whole image, beside podman and beside a plain hash of the file.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::table::{Table, verdict};
use super::timing::{median, ms, ratio, timed};
use crate::common::podman::Podman;
use crate::common::real;
use crate::common::sandbox::Sandbox;

const IMAGE: &str = "localhost/mica-test:real";

#[derive(Default)]
struct Times {
    mica_load: Vec<Duration>,
    mica_again: Vec<Duration>,
    mica_rmi: Vec<Duration>,
    mica_rmi_served: Vec<Duration>,
    podman_load: Vec<Duration>,
    podman_rmi: Vec<Duration>,
    unlink: Vec<Duration>,
    sha256sum: Vec<Duration>,
}

pub fn run(quick: bool) {
    let archive = real::docker_archive("real");
    let mut times = Times::default();
    for round in 0..if quick { 1 } else { 3 } {
        eprintln!("bench: load and rmi, round {}", round + 1);
        once(&archive, &mut times);
    }
    let size = fs::metadata(&archive).map_or(0, |metadata| metadata.len() / 1_000_000);
    let name = format!("ms, archive of {size} MB");
    let mut table = Table::new(&[&name, "mica", "beside", "", "factor", "target", "reached"]);
    let (load, podman_load) = (median(times.mica_load), median(times.podman_load));
    let factor = ratio(podman_load, load);
    table.row(vec![
        "load".into(),
        ms(load),
        "podman load".into(),
        ms(podman_load),
        format!("{factor:.1} faster"),
        "6 x faster".into(),
        verdict(factor >= 6.0),
    ]);
    let (again, sum) = (median(times.mica_again), median(times.sha256sum));
    let factor = ratio(again, sum);
    table.row(vec![
        "load again".into(),
        ms(again),
        "sha256sum FILE".into(),
        ms(sum),
        format!("{factor:.2}"),
        "< 1.00".into(),
        verdict(factor < 1.0),
    ]);
    let (rmi, podman_rmi) = (median(times.mica_rmi), median(times.podman_rmi));
    table.row(vec![
        "rmi".into(),
        ms(rmi),
        "podman rmi".into(),
        ms(podman_rmi),
        format!("{:.0} faster", ratio(podman_rmi, rmi)),
        "<= 60 ms".into(),
        verdict(rmi <= Duration::from_millis(60)),
    ]);
    let felt = median(times.mica_rmi_served);
    table.row(vec![
        "rmi, a daemon of the store runs".into(),
        ms(felt),
        "podman rmi".into(),
        ms(podman_rmi),
        format!("{:.0} faster", ratio(podman_rmi, felt)),
        "<= 20 ms".into(),
        verdict(felt <= Duration::from_millis(20)),
    ]);
    // The floor: what this file system takes to free that many bytes.
    let unlink = median(times.unlink);
    table.row(vec![
        "".into(),
        "".into(),
        "unlink of one such file".into(),
        ms(unlink),
        format!("{:.1}", ratio(rmi, unlink)),
    ]);
    table.print();
}

fn once(archive: &Path, times: &mut Times) {
    let sandbox = Sandbox::new();
    let podman = Podman::new(&sandbox, sandbox.path("podman"));
    let file = archive.to_str().expect("a UTF-8 path");
    // Warms the page cache for both, and is itself a figure.
    let mut sha256sum = Command::new("sha256sum");
    timed(sha256sum.arg(archive));
    times.sha256sum.push(timed(&mut sha256sum));
    let mica = |arguments: &[&str]| {
        rustix::fs::sync();
        timed(sandbox.command().args(arguments))
    };
    times.mica_load.push(mica(&["load", "-i", file]));
    times.mica_again.push(mica(&["load", "-i", file]));
    times.mica_rmi.push(mica(&["rmi", IMAGE]));
    mica(&["load", "-i", file]);
    let mount = sandbox.mount();
    times.mica_rmi_served.push(mica(&["rmi", IMAGE]));
    mount.unmount();
    let copy = sandbox.path("copy");
    fs::copy(archive, &copy).expect("a copy of the archive");
    rustix::fs::sync();
    let start = Instant::now();
    fs::remove_file(&copy).expect("removing the copy");
    times.unlink.push(start.elapsed());
    let podman = |arguments: &[&str]| {
        rustix::fs::sync();
        timed(&mut podman.command(arguments))
    };
    times
        .podman_load
        .push(podman(&["load", "--quiet", "-i", file]));
    times.podman_rmi.push(podman(&["rmi", IMAGE]));
}
