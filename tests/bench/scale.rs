//! What must not grow: with tags, with entries, with layers.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::million;
use super::table::{Table, verdict};
use super::timing::{drop_caches, interleaved, median, ms, ratio, script, timed};
use crate::common::image::ImageBuilder;
use crate::common::mount::Mount;
use crate::common::sandbox::Sandbox;

pub fn run(quick: bool) {
    let mut table = Table::new(&["", "figure", "target", "reached"]);
    thousand_tags(&mut table, quick);
    ten_thousand_names(&mut table, quick);
    removals(&mut table, quick);
    million_entries(&mut table, quick);
    many_layers(&mut table, quick);
    table.print();
}

fn thousand_tags(table: &mut Table, quick: bool) {
    eprintln!("bench: mount with 1,000 tags");
    let sandbox = Sandbox::new();
    sandbox.load(&ImageBuilder::new("bench/tags:0").layer(|l| l.file("file", "content")));
    let names: Vec<_> = (1..1000).map(|n| format!("bench/tags:{n}")).collect();
    let mut arguments = vec!["tag", "bench/tags:0"];
    arguments.extend(names.iter().map(String::as_str));
    sandbox.mica(arguments).ok();
    let mut times = Vec::new();
    for _ in 0..if quick { 3 } else { 9 } {
        let point = sandbox.mkdir("tags");
        let start = Instant::now();
        let mount = sandbox.mount_on(&point, &[]);
        times.push(start.elapsed());
        let listed = fs::read_dir(mount.image("bench/tags"))
            .expect("the repository")
            .count();
        assert_eq!(listed, 1000, "tags in the mount");
        mount.unmount();
    }
    let time = median(times);
    table.row(vec![
        "mount to ready, 1,000 tags".into(),
        format!("{} ms", ms(time)),
        "< 50 ms".into(),
        verdict(time < Duration::from_millis(50)),
    ]);
}

/// Listing and counting what is there, by its names alone.
fn ten_thousand_names(table: &mut Table, quick: bool) {
    eprintln!("bench: 10,000 tags");
    let sandbox = Sandbox::new();
    sandbox.load(&ImageBuilder::new("bench/tags:0").layer(|l| l.file("file", "content")));
    let names: Vec<_> = (1..10_000).map(|n| format!("bench/tags:{n}")).collect();
    let mut arguments = vec!["tag", "bench/tags:0"];
    arguments.extend(names.iter().map(String::as_str));
    sandbox.mica(arguments).ok();
    for (verb, limit) in [("images", 100), ("system df", 300)] {
        let arguments: Vec<_> = verb.split(' ').collect();
        let mut times = Vec::new();
        for _ in 0..if quick { 3 } else { 9 } {
            times.push(timed(sandbox.command().args(&arguments)));
        }
        let time = median(times);
        table.row(vec![
            format!("{verb}, 10,000 tags"),
            format!("{} ms", ms(time)),
            format!("< {limit} ms"),
            verdict(time < Duration::from_millis(limit)),
        ]);
        let memory = peak(&sandbox, &arguments);
        table.row(vec![
            format!("memory of {verb}, 10,000 tags"),
            format!("{} MiB", memory >> 20),
            "< 64 MiB".into(),
            verdict(memory < 64 << 20),
        ]);
    }
}

/// Each tag goes durably, one after another as `rm` asks for it; and all of them in one step.
fn removals(table: &mut Table, quick: bool) {
    let counts = if quick { [100, 1000] } else { [1000, 10_000] };
    let tagged = |count: usize| {
        let sandbox = Sandbox::new();
        sandbox.load(&ImageBuilder::new("bench/tags:0").layer(|l| l.file("file", "content")));
        let names: Vec<_> = (1..count).map(|n| format!("bench/tags:{n}")).collect();
        let mut arguments = vec!["tag", "bench/tags:0"];
        arguments.extend(names.iter().map(String::as_str));
        sandbox.mica(arguments).ok();
        sandbox
    };
    let times = counts.map(|count| {
        eprintln!("bench: rm -rf of a repository of {count} tags");
        let sandbox = tagged(count);
        let mount = sandbox.mount();
        let time = timed(&mut script("rm -rf $ROOT", &mount.image("bench/tags")));
        assert!(!mount.image("bench/tags").exists(), "all tags are gone");
        mount.unmount();
        time
    });
    let each = |index: usize| times[index].as_secs_f64() / counts[index] as f64;
    for (index, count) in counts.iter().enumerate() {
        table.row(vec![
            format!("rm -rf of {count} tags, each"),
            format!("{:.1} ms", each(index) * 1e3),
        ]);
    }
    let factor = each(1) / each(0);
    table.row(vec![
        format!("the same, {} tags beside {}", counts[1], counts[0]),
        format!("{factor:.2} ({:.1} s)", times[1].as_secs_f64()),
        "<= 2.00, < 100 s".into(),
        verdict(factor <= 2.0 && times[1] < Duration::from_secs(100)),
    ]);
    let sandbox = tagged(counts[1]);
    let time = timed(sandbox.command().args(["rmi", "bench/tags:*"]));
    table.row(vec![
        format!("rmi 'repo:*', {} tags", counts[1]),
        format!("{} ms", ms(time)),
        "< 2000 ms".into(),
        verdict(time < Duration::from_secs(2)),
    ]);
}

/// The most memory that a verb has had resident, in bytes.
fn peak(sandbox: &Sandbox, arguments: &[&str]) -> u64 {
    let script = "import resource, subprocess, sys\n\
                  subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)\n\
                  print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)";
    let mut command = std::process::Command::new("python3");
    command.args(["-c", script, env!("CARGO_BIN_EXE_mica")]);
    command.args(arguments).env("MICA_STORE", sandbox.store());
    let kib = sandbox.run(command).ok().stdout();
    kib.trim().parse::<u64>().expect("a number") << 10
}

fn million_entries(table: &mut Table, quick: bool) {
    let archive = million::archive();
    eprintln!("bench: 1,000,000 entries");
    let sandbox = Sandbox::new();
    let file = archive.to_str().expect("a UTF-8 path");
    let load = timed(sandbox.command().args(["load", "-i", file]));
    table.row(vec![
        "load, 1,000,000 entries".into(),
        format!("{} ms", ms(load)),
    ]);
    let mut times = Vec::new();
    let mut long = Vec::new();
    let mut memory = 0;
    for round in 0..if quick { 1 } else { 5 } {
        let mount = sandbox.mount();
        let root = mount.image(Path::new("bench/million/1"));
        times.push(timed(&mut script("ls $ROOT $ROOT/d500", &root)));
        long.push(timed(&mut script("ls -l $ROOT/d600", &root)));
        memory = memory.max(resident(&mount));
        if round == 0 && !quick {
            let find = timed(&mut script("find $ROOT", &root));
            table.row(vec![
                "find, 1,000,000 entries, first".into(),
                format!("{} ms", ms(find)),
            ]);
            let after = resident(&mount);
            table.row(vec![
                "daemon's memory after that".into(),
                format!("{} MiB", after >> 20),
            ]);
        }
        mount.unmount();
    }
    let time = median(times);
    table.row(vec![
        "first ls of two directories in 1,000,000 entries".into(),
        format!("{} ms", ms(time)),
        "< 100 ms".into(),
        verdict(time < Duration::from_millis(100)),
    ]);
    table.row(vec![
        "first ls -l of a directory of 999 files".into(),
        format!("{} ms", ms(median(long))),
    ]);
    table.row(vec![
        "daemon's memory with it idle".into(),
        format!("{} MiB", memory >> 20),
        "< 64 MiB".into(),
        verdict(memory < 64 << 20),
    ]);
    let time = timed(sandbox.command().args(["rmi", million::TAG]));
    table.row(vec![
        "rmi, 1,000,000 entries".into(),
        format!("{} ms", ms(time)),
        "< 50 ms".into(),
        verdict(time < Duration::from_millis(50)),
    ]);
}

fn many_layers(table: &mut Table, quick: bool) {
    eprintln!("bench: 60 layers and 3");
    const FILES: usize = 5000;
    let sandbox = Sandbox::new();
    for layers in [3, 60] {
        let mut image = ImageBuilder::new(&format!("bench/layers:{layers}")).layer(|mut l| {
            l = l.dir("d", 0o755);
            for file in 0..FILES {
                l = l.file(format!("d/file-{file}"), "");
            }
            l
        });
        for layer in 1..layers {
            image = image.layer(|l| l.dir("d", 0o755).file(format!("d/layer-{layer}"), ""));
        }
        sandbox.load(&image);
    }
    let mount = sandbox.mount();
    let roots = ["3", "60"].map(|tag| mount.image("bench/layers").join(tag));
    let medians = interleaved(if quick { 3 } else { 9 }, roots.len(), |candidate| {
        drop_caches(2);
        let dir = roots[candidate].join("d");
        let names: Vec<_> = (0..FILES)
            .map(|file| dir.join(format!("file-{file}")))
            .collect();
        fs::metadata(&dir).expect("the directory");
        let start = Instant::now();
        for name in &names {
            fs::symlink_metadata(name).expect("a lookup");
        }
        start.elapsed() / u32::try_from(FILES).expect("a count")
    });
    let (few, many) = (medians[0], medians[1]);
    table.row(vec![
        "lookup, 3 layers".into(),
        format!("{:.1} us", few.as_secs_f64() * 1e6),
    ]);
    table.row(vec![
        "lookup, 60 layers".into(),
        format!("{:.1} us", many.as_secs_f64() * 1e6),
        "as with 3 (< 1.10)".into(),
        verdict(ratio(many, few) < 1.1),
    ]);
}

/// The daemon's resident bytes, mapped index files included.
fn resident(mount: &Mount) -> u64 {
    let pid = mount.daemon().expect("the daemon's lease").as_raw_nonzero();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the daemon's status");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("VmRSS");
    let kib: u64 = line
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a number");
    kib << 10
}
