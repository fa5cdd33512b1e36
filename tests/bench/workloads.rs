//! Work in a mounted image: warm, with cold dentries, with a cold disk.

use std::time::Duration;

use super::systems::{FUSE_OVERLAYFS_1, FUSE_OVERLAYFS_2, MICA, OVERLAYFS, Systems};
use super::table::{Table, verdict};
use super::timing::{drop_caches, interleaved, ms, ratio, script, timed};
use crate::common::sandbox::Sandbox;

struct Workload {
    name: &'static str,
    script: &'static str,
    /// At most so many times what kernel overlayfs takes.
    target: f64,
    /// What `drop_caches` gets before each run; 0 for a warm one.
    cold: u8,
    /// Mostly opening files: at least three times as fast as fuse-overlayfs.
    open_heavy: bool,
}

const FIND: &str = "find $ROOT -printf '%p %s %m %U %G %T@ %l\\n'";
const PYTHON: &str = "chroot $ROOT python3 -I -B -c 'import json, re, argparse, subprocess, logging, \
    urllib.request, email.message, http.client, sqlite3, asyncio'";

const WORKLOADS: &[Workload] = &[
    Workload {
        name: "grep -r, 3,789 files",
        script: "! grep -r no-such-text-anywhere $ROOT/usr/include $ROOT/usr/share/perl $ROOT/usr/share/nodejs",
        target: 1.0,
        cold: 0,
        open_heavy: true,
    },
    Workload {
        name: "python3, 10 imports",
        script: PYTHON,
        target: 1.0,
        cold: 0,
        open_heavy: false,
    },
    Workload {
        name: "find -printf",
        script: FIND,
        target: 1.0,
        cold: 0,
        open_heavy: false,
    },
    Workload {
        name: "tar of /usr",
        script: "tar -C $ROOT -cf - usr | cat >/dev/null",
        target: 1.0,
        cold: 0,
        open_heavy: false,
    },
    Workload {
        name: "10 x chroot /bin/true",
        script: "for i in 1 2 3 4 5 6 7 8 9 10; do chroot $ROOT /bin/true; done",
        target: 1.0,
        cold: 0,
        open_heavy: false,
    },
    Workload {
        name: "find, cold dentries",
        script: FIND,
        target: 1.0,
        cold: 2,
        open_heavy: false,
    },
    Workload {
        name: "python3, cold dentries",
        script: PYTHON,
        target: 1.3,
        cold: 2,
        open_heavy: false,
    },
    Workload {
        name: "tar of all, cold disk",
        script: "tar -C $ROOT -cf - . | cat >/dev/null",
        target: 1.0,
        cold: 3,
        open_heavy: false,
    },
];

pub fn run(quick: bool, warm: bool, cold: bool, listings: bool) {
    let sandbox = Sandbox::new();
    let systems = Systems::start(&sandbox);
    let mut table = Table::new(&[
        "ms",
        systems.list[OVERLAYFS].name,
        systems.list[FUSE_OVERLAYFS_1].name,
        systems.list[FUSE_OVERLAYFS_2].name,
        systems.list[MICA].name,
        "x overlayfs",
        "target",
        "reached",
        "x fuse-overlayfs",
        "requests",
    ]);
    let mut kinds = Vec::new();
    let chosen = WORKLOADS
        .iter()
        .filter(|w| if w.cold == 0 { warm } else { cold });
    let program = |w: &&Workload| has_program(w.script.split(' ').next().unwrap_or_default());
    let lists = LISTINGS.iter().filter(|_| listings).filter(program);
    for workload in chosen.chain(lists) {
        eprintln!("bench: {}", workload.name);
        let rounds = match (quick, workload.cold) {
            (true, 3) => 1,
            (true, _) => 3,
            (false, 0) => 15,
            (false, 2) => 9,
            (false, _) => 3,
        };
        let (row, requests) = measure(&systems, workload, rounds);
        table.row(row);
        if !requests.is_empty() {
            kinds.push(format!("{}: {requests}", workload.name));
        }
    }
    table.print();
    println!("requests: what the kernel asked the daemon in one run more");
    for line in kinds {
        println!("  {line}");
    }
}

/// A row for a program that this machine does not have is left out.
fn has_program(name: &str) -> bool {
    let found = std::process::Command::new("sh")
        .args(["-c", &format!("command -v {name} >/dev/null")])
        .status();
    let found = found.is_ok_and(|status| status.success());
    if !found {
        eprintln!("bench: no {name} here");
    }
    found
}

/// What people and backup programs list with: it asks for extended attributes, which FUSE does not cache.
const LISTINGS: &[Workload] = &[
    listing("ls -lR usr, warm", "ls -lR $ROOT/usr", 1.0, 0),
    listing(
        "ls -lR usr, in colour, warm",
        "ls -lR --color=always $ROOT/usr",
        1.0,
        0,
    ),
    listing("find -perm, warm", "find $ROOT -perm /6000", 1.0, 0),
    listing("du -s, warm", "du -s $ROOT", 1.0, 0),
    listing(
        "rsync -aHAXn share, warm",
        "rsync -aHAXn $ROOT/usr/share/ /nonexistent/",
        1.5,
        0,
    ),
    listing(
        "getfattr -R share, warm",
        "getfattr -R -d -m - $ROOT/usr/share",
        1.5,
        0,
    ),
    listing("ls -lR usr, cold dentries", "ls -lR $ROOT/usr", 1.0, 2),
];

const fn listing(name: &'static str, script: &'static str, target: f64, cold: u8) -> Workload {
    Workload {
        name,
        script,
        target,
        cold,
        open_heavy: false,
    }
}

/// A row of the table, and the requests of one run by kind.
fn measure(systems: &Systems, workload: &Workload, rounds: usize) -> (Vec<String>, String) {
    let once =
        |candidate: usize| timed(&mut script(workload.script, &systems.list[candidate].root));
    if workload.cold == 0 {
        for candidate in 0..systems.list.len() {
            once(candidate);
        }
    }
    let medians = interleaved(rounds, systems.list.len(), |candidate| {
        if workload.cold != 0 {
            drop_caches(workload.cold);
        }
        once(candidate)
    });
    if workload.cold != 0 {
        drop_caches(workload.cold);
    }
    let before = systems.mica.requests();
    once(MICA);
    let mut requests = systems.mica.requests();
    for (kind, count) in &mut requests {
        *count -= before.get(kind).copied().unwrap_or(0);
    }
    let total = requests.remove("total").unwrap_or(0);
    let kinds = requests.iter().filter(|(_, count)| **count != 0);
    let kinds: Vec<_> = kinds
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    (cells(workload, &medians, total), kinds.join(", "))
}

fn cells(workload: &Workload, medians: &[Duration], requests: u64) -> Vec<String> {
    let mica = medians[MICA];
    let overlay = ratio(mica, medians[OVERLAYFS]);
    let best_peer = medians[FUSE_OVERLAYFS_1].min(medians[FUSE_OVERLAYFS_2]);
    let speed_up = ratio(best_peer, mica);
    let wanted = if workload.open_heavy { 3.0 } else { 1.0 };
    let mut cells = vec![workload.name.to_owned()];
    cells.extend(medians.iter().map(|&time| ms(time)));
    cells.push(format!("{overlay:.2}"));
    let peer_target = if workload.open_heavy {
        ", 3 x faster"
    } else {
        ""
    };
    cells.push(format!("<= {:.2}{peer_target}", workload.target));
    cells.push(verdict(overlay <= workload.target && speed_up >= wanted));
    cells.push(format!("{speed_up:.1} faster"));
    cells.push(requests.to_string());
    cells
}
