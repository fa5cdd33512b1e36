//! The figures of `make bench ONLY=containerd`: containers on mica's layers beside the same on containerd's own overlayfs
//! snapshotter, in the same run.
//!
//! Medians of interleaved runs. Targets are printed beside the figures and judge nothing: only an error makes this fail.

// What the tests share is more than this needs.
#![allow(dead_code)]
// Helpers of tests count as tests.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use mica_snapshotter::proto::{CreateRequest, Empty, KeyRequest, MountsResponse};

use client::Client;
use common::real;
use common::registry::{Kind, Registry, skopeo};
use common::sandbox::Sandbox;
use common::tier;
use kubelet::Kubelet;
use node::Containerd;
use table::{Table, verdict};
use timing::{interleaved, ms, ratio, timed};
use work::start;

#[path = "../../tests/common"]
mod common {
    pub mod image;
    pub mod mount;
    pub mod real;
    pub mod registry;
    pub mod sandbox;
    pub mod tarball;
    pub mod tier;
}
#[path = "../../tests/bench/table.rs"]
mod table;
#[path = "../../tests/bench/timing.rs"]
mod timing;

mod client;
mod kubelet;
mod node;
mod work;

const SNAPSHOTTERS: [&str; 2] = ["mica", "overlayfs"];

fn main() {
    // `cargo test --all-targets` runs this binary too; only `cargo bench` means it.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    tier::root();
    let quick = std::env::var("QUICK").is_ok_and(|value| !value.is_empty() && value != "0");
    let mut table = Table::new(&["ms", "mica", "overlayfs", "factor", "target", "reached"]);
    pull_to_running(&mut table, quick);
    on_a_node(&mut table, quick);
    table.print();
}

/// An image from the registry to the end of its first process, on nodes that have nothing of it in containerd.
fn pull_to_running(table: &mut Table, quick: bool) {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Kind::Plain);
    let name = registry.name("team/real:1");
    put(&sandbox, "real", &name);
    let mut once = |candidate: usize| {
        let node = Sandbox::new();
        let parts = (candidate < 2).then(|| {
            if candidate == 0 {
                node.mica(["pull", "-q", &name]).ok();
            }
            (node.mount(), start(&node))
        });
        let snapshotter = SNAPSHOTTERS[candidate / 2];
        let containerd = Containerd::start_on(&node, "localhost/pause:1", snapshotter);
        let kubelet = Kubelet::connect(&containerd);
        let line = format!("-n k8s.io run --rm --snapshotter {snapshotter} {name} one -- true");
        rustix::fs::sync();
        let begin = Instant::now();
        kubelet.pull(&name);
        timed(&mut containerd.command(&line));
        let time = begin.elapsed();
        eprintln!(
            "bench: pull to running, {snapshotter} ({candidate}): {} ms",
            ms(time)
        );
        drop((containerd, parts));
        time
    };
    let times = interleaved(if quick { 1 } else { 3 }, 3, &mut once);
    for (n, what, target) in [(0, "are in the store", 20.0), (1, "are not", 2.0)] {
        let factor = ratio(times[2], times[n]);
        table.row(vec![
            format!("pull to running, real image, layers {what}"),
            ms(times[n]),
            ms(times[2]),
            format!("{factor:.1} faster"),
            format!("{target} x faster"),
            verdict(factor >= target),
        ]);
    }
}

/// One containerd with both snapshotters and the small image in each.
fn on_a_node(table: &mut Table, quick: bool) {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Kind::Plain);
    let name = registry.name("team/small:1");
    put(&sandbox, "small", &name);
    sandbox.mica(["pull", "-q", &name]).ok();
    let mount = sandbox.mount();
    let snapshotter = start(&sandbox);
    let containerd = Containerd::start(&sandbox);
    for snapshotter in SNAPSHOTTERS {
        containerd.shown(&format!(
            "images pull --plain-http --snapshotter {snapshotter} {name}"
        ));
    }

    eprintln!("bench: ctr run");
    let mut started = |n: usize| {
        let line = format!(
            "run --rm --snapshotter {} {name} one -- true",
            SNAPSHOTTERS[n]
        );
        timed(&mut containerd.command(&line))
    };
    // The first of each warms the caches and is not counted.
    for n in 0..2 {
        started(n);
    }
    let times = interleaved(if quick { 5 } else { 21 }, 2, &mut started);
    let factor = ratio(times[0], times[1]);
    table.row(vec![
        "ctr run --rm IMAGE true".into(),
        ms(times[0]),
        ms(times[1]),
        format!("{factor:.2}"),
        "<= 1.10".into(),
        verdict(factor <= 1.1),
    ]);

    // Through containerd, which keeps its own record of what either does.
    let client = Client::connect(&containerd.socket());
    let tops = SNAPSHOTTERS.map(|snapshotter| top(&containerd, snapshotter));
    let many = if quick { 1000 } else { 10_000 };
    for (snapshotter, top) in SNAPSHOTTERS.iter().zip(&tops) {
        eprintln!("bench: {many} snapshots of {snapshotter}");
        let keys: Vec<_> = (0..many).map(|n| format!("key-{n}")).collect();
        for some in keys.chunks(100) {
            let requests = some.iter().map(|key| create(snapshotter, key, top));
            let answers = client.together::<_, MountsResponse>("Prepare", requests.collect());
            answers
                .into_iter()
                .for_each(|answer| drop(answer.expect("prepared")));
        }
    }
    let mut made = 0;
    let mut removals = vec![Vec::new(); 2];
    let times = interleaved(if quick { 51 } else { 301 }, 2, |n| {
        made += 1;
        let (snapshotter, key) = (SNAPSHOTTERS[n], format!("one-{made}"));
        let of = || KeyRequest {
            snapshotter: snapshotter.into(),
            key: key.clone(),
        };
        let begin = Instant::now();
        let _: MountsResponse = client
            .call("Prepare", create(snapshotter, &key, &tops[n]))
            .expect("prepared");
        let _: MountsResponse = client.call("Mounts", of()).expect("mounts");
        let time = begin.elapsed();
        let begin = Instant::now();
        let _: Empty = client.call("Remove", of()).expect("removed");
        removals[n].push(begin.elapsed());
        time
    });
    table.row(vec![
        format!("Prepare and Mounts with {many} snapshots"),
        ms(times[0]),
        ms(times[1]),
        format!(
            "{:+.2} ms",
            (times[0].as_secs_f64() - times[1].as_secs_f64()) * 1e3
        ),
        "<= +1.00 ms".into(),
        verdict(times[0] <= times[1] + Duration::from_millis(1)),
    ]);
    let times: Vec<_> = removals.into_iter().map(timing::median).collect();
    table.row(vec![
        format!("Remove with {many} snapshots"),
        ms(times[0]),
        ms(times[1]),
        format!("{:.2}", ratio(times[0], times[1])),
    ]);
    drop((containerd, snapshotter));
    mount.unmount();
}

fn put(sandbox: &Sandbox, image: &str, name: &str) {
    let archive = format!("oci-archive:{}", real::oci_archive(image).display());
    let target = format!("docker://{name}");
    skopeo(
        sandbox,
        &["copy", "-q", "--dest-tls-verify=false", &archive, &target],
    );
}

fn create(snapshotter: &str, key: &str, parent: &str) -> CreateRequest {
    CreateRequest {
        snapshotter: snapshotter.into(),
        // Or containerd collects it meanwhile.
        ..client::create(
            key,
            parent,
            client::labels(&[("containerd.io/gc.root", "bench")]),
        )
    }
}

/// The committed snapshot that no other stands on.
fn top(containerd: &Containerd, snapshotter: &str) -> String {
    let listed = containerd.shown(&format!("snapshots --snapshotter {snapshotter} ls"));
    let rows: Vec<Vec<&str>> = listed
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect())
        .collect();
    let is_parent = |name: &str| rows.iter().any(|row| row.len() == 3 && row[1] == name);
    let tops = rows.iter().map(|row| row[0]).find(|name| !is_parent(name));
    tops.expect("a snapshot").to_owned()
}
