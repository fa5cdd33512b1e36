//! Reading and writing one file, by fio.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::ground::{Ground, HOST, Host, MICA, PASSTHROUGH_HP, Place};
use crate::bench::table::{Table, verdict};
use crate::bench::timing::{drop_caches, interleaved};

/// Of the file, in MiB.
const SIZE: u32 = 256;
/// At least so many times what the host's file system does.
const TARGET: f64 = 0.9;
/// What [`interleaved`] is told in place of a time: how long so many bytes take.
const UNIT: f64 = (1u64 << 40) as f64;

struct Pattern {
    name: &'static str,
    fio: &'static [&'static str],
    state: State,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum State {
    /// The whole file is in memory, nothing has to be written.
    Warm,
    /// Nothing is in memory.
    Cold,
    /// Past the page cache, which libfuse's mirror cannot.
    Direct,
}

const TIMED: &str = "--time_based=1";

const PATTERNS: &[Pattern] = &[
    Pattern {
        name: "write, 1 MiB blocks",
        fio: &["--rw=write", "--bs=1M", TIMED],
        state: State::Warm,
    },
    Pattern {
        name: "read, 1 MiB blocks",
        fio: &["--rw=read", "--bs=1M", TIMED],
        state: State::Warm,
    },
    Pattern {
        name: "write at random, 4 KiB",
        fio: &["--rw=randwrite", "--bs=4k", TIMED],
        state: State::Warm,
    },
    Pattern {
        name: "read at random, 4 KiB",
        fio: &["--rw=randread", "--bs=4k", TIMED],
        state: State::Warm,
    },
    Pattern {
        name: "read, 1 MiB blocks, cold",
        fio: &["--rw=read", "--bs=1M"],
        state: State::Cold,
    },
    Pattern {
        name: "write, 1 MiB blocks, O_DIRECT",
        fio: &["--rw=write", "--bs=1M", "--direct=1", TIMED],
        state: State::Direct,
    },
    Pattern {
        name: "write at random, 4 KiB, O_DIRECT",
        fio: &["--rw=randwrite", "--bs=4k", "--direct=1", TIMED],
        state: State::Direct,
    },
    Pattern {
        name: "read at random, 4 KiB, O_DIRECT",
        fio: &["--rw=randread", "--bs=4k", "--direct=1", TIMED],
        state: State::Direct,
    },
];

pub fn run(ground: &Ground, quick: bool) {
    let places: Vec<&Place> = [HOST, MICA, PASSTHROUGH_HP]
        .iter()
        .map(|&index| &ground.places[index])
        .collect();
    let title = format!("MiB/s, volume on {}", ground.file_system);
    let mut head = vec![title.as_str()];
    head.extend(places.iter().map(|place| place.name));
    head.extend(["x host", "target", "reached", "requests"]);
    let mut table = Table::new(&head);
    for place in &places {
        // The file, whole, and written to the disk.
        fio(&place.root, &["--rw=write", "--bs=1M", "--end_fsync=1"]);
    }
    for pattern in PATTERNS
        .iter()
        .filter(|pattern| ground.host == Host::Disk || pattern.state == State::Warm)
    {
        eprintln!("bench: {}, {}", pattern.name, ground.file_system);
        table.row(row(ground, &places, pattern, quick));
    }
    table.print();
    println!(
        "one fio with one job, psync, a file of {SIZE} MiB; in the page cache unless it says cold (caches dropped) or O_DIRECT; \
         what is dirty is written before each run"
    );
}

fn row(ground: &Ground, places: &[&Place], pattern: &Pattern, quick: bool) -> Vec<String> {
    let once = |candidate: usize| {
        match pattern.state {
            State::Warm => rustix::fs::sync(),
            State::Cold | State::Direct => drop_caches(3),
        }
        fio(&places[candidate].root, pattern.fio)
    };
    if pattern.state == State::Warm {
        for place in places {
            fio(&place.root, &["--rw=read", "--bs=1M"]);
        }
    }
    let able = match pattern.state {
        State::Direct => 2,
        State::Warm | State::Cold => places.len(),
    };
    let rounds = if quick { 3 } else { 5 };
    let medians = interleaved(rounds, able, once);
    let rates: Vec<f64> = medians
        .iter()
        .map(|time| UNIT / time.as_secs_f64() / f64::from(1 << 20))
        .collect();
    let asked = ground.requests(|| {
        once(1);
    });
    let total = asked.iter().find(|(kind, _)| kind == "total");
    let factor = rates[1] / rates[0];
    let mut cells = vec![pattern.name.to_owned()];
    cells.extend(rates.iter().map(|rate| format!("{rate:.0}")));
    cells.resize(places.len() + 1, "-".into());
    cells.push(format!("{factor:.2}"));
    cells.push(format!(">= {TARGET:.2}"));
    cells.push(verdict(factor >= TARGET));
    cells.push(total.map_or(0, |(_, count)| *count).to_string());
    cells
}

/// How long a fixed number of bytes takes at the rate of this run.
fn fio(root: &Path, pattern: &[&str]) -> Duration {
    let mut command = Command::new("fio");
    command
        .args(["--name=bench", "--ioengine=psync", "--fallocate=none"])
        .args(["--invalidate=0", "--runtime=1", "--output-format=json"])
        .arg(format!("--size={SIZE}M"))
        .arg(format!("--filename={}", root.join("content").display()))
        .args(pattern);
    let output = command.output().expect("fio");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("fio's report");
    let job = &report["jobs"][0];
    let rate = ["read", "write"]
        .iter()
        .filter_map(|direction| job[direction]["bw_bytes"].as_f64())
        .fold(0.0, f64::max);
    assert!(rate > 0.0, "{command:?} has done nothing");
    Duration::from_secs_f64(UNIT / rate)
}
