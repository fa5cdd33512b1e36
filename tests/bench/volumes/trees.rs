//! Making and removing a tree of small files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::ground::{
    FUSE_OVERLAYFS_1, FUSE_OVERLAYFS_2, Ground, MICA, PASSTHROUGH_HP, PASSTHROUGH_HP_NOCACHE,
};
use crate::bench::table::{Table, verdict};
use crate::bench::timing::{median, ms, ratio, script, timed};
use crate::common::real;
use crate::common::sandbox::Sandbox;

/// A tar of a real tree.
pub struct Tree {
    tar: PathBuf,
    entries: u64,
    bytes: u64,
}

impl Tree {
    pub fn tar(&self) -> &Path {
        &self.tar
    }

    pub fn entries(&self) -> u64 {
        self.entries
    }
}

/// The real image's tree without its largest files, which would be a measure of copying bytes.
pub fn archive(sandbox: &Sandbox) -> Tree {
    eprintln!("bench: a tar of small files");
    sandbox.load_file(&real::docker_archive("real")).ok();
    let mount = sandbox.mount();
    let root = mount.image("localhost/mica-test/real");
    let tar = sandbox.path("tree.tar");
    let list =
        "find . -path ./srv -prune -o \\( -type d -o -type l -o -type f -size -257 \\) -print0";
    let mut command = Command::new("sh");
    command
        .args([
            "-euc",
            &format!("{list} | tar --no-recursion --null -T - -cf $TAR"),
        ])
        .current_dir(&root)
        .env("TAR", &tar);
    sandbox.run(command).ok();
    mount.unmount();
    let count = sandbox.sh("tar -tf tree.tar | wc -l").ok().stdout();
    Tree {
        entries: count.trim().parse().expect("a count"),
        bytes: fs::metadata(&tar).expect("the tar").len(),
        tar,
    }
}

const STEPS: [(&str, &str); 2] = [
    ("untar", "mkdir $ROOT/$TREE && tar -C $ROOT/$TREE -xf $TAR"),
    ("rm -r", "rm -r $ROOT/$TREE"),
];
/// At least so many times as fast as the faster fuse-overlayfs.
const TARGET: f64 = 1.3;

pub fn run(ground: &Ground, tree: &Tree, quick: bool) {
    for place in &ground.places {
        let content = place.root.join("content");
        if content.exists() {
            fs::remove_file(content).expect("removing what fio has left");
        }
    }
    let places = ground.places.len();
    let mut times = [vec![Vec::new(); places], vec![Vec::new(); places]];
    for round in 0..if quick { 2 } else { 3 } {
        eprintln!(
            "bench: untar and rm -r, {}, round {}",
            ground.file_system,
            round + 1
        );
        for place in (0..places).map(|place| (place + round) % places) {
            ground.renew(place);
            for (step, times) in times.iter_mut().enumerate() {
                rustix::fs::sync();
                times[place].push(timed(&mut script_of(step, place, ground, tree, round)));
            }
        }
    }
    let medians = times.map(|step| step.into_iter().map(median).collect::<Vec<_>>());
    print(ground, tree, &medians);
}

fn script_of(step: usize, place: usize, ground: &Ground, tree: &Tree, round: usize) -> Command {
    let mut command = script(STEPS[step].1, &ground.places[place].root);
    command.env("TAR", &tree.tar);
    command.env("TREE", format!("tree-{round}"));
    command
}

fn print(ground: &Ground, tree: &Tree, medians: &[Vec<Duration>; 2]) {
    let title = format!("ms, volume on {}", ground.file_system);
    let mut head = vec![title.as_str()];
    head.extend(ground.places.iter().map(|place| place.name));
    head.extend(["x fuse-overlayfs", "x passthrough_hp", "target", "reached"]);
    let mut table = Table::new(&head);
    let both: Vec<Duration> = medians[0]
        .iter()
        .zip(&medians[1])
        .map(|(untar, rm)| *untar + *rm)
        .collect();
    let rows = STEPS.iter().map(|(name, _)| *name).zip(medians);
    for (name, times) in rows.chain([("both", &both)]) {
        table.row(row(name, times));
    }
    table.print();
    println!(
        "{} entries, {} MB, files up to 128 KiB; what is dirty is written before each step",
        tree.entries,
        tree.bytes / 1_000_000
    );
    for (step, (name, _)) in STEPS.into_iter().enumerate() {
        let asked = ground.requests(|| {
            timed(&mut script_of(step, MICA, ground, tree, usize::MAX));
        });
        let kinds = asked
            .iter()
            .map(|(kind, count)| format!("{:.2} {kind}", *count as f64 / tree.entries as f64));
        println!(
            "requests for each entry, {name}: {}",
            kinds.collect::<Vec<_>>().join(", ")
        );
    }
}

fn row(name: &str, times: &[Duration]) -> Vec<String> {
    let mica = times[MICA];
    let overlay = times[FUSE_OVERLAYFS_1].min(times[FUSE_OVERLAYFS_2]);
    let mirror = times[PASSTHROUGH_HP].min(times[PASSTHROUGH_HP_NOCACHE]);
    let (faster, than_mirror) = (ratio(overlay, mica), ratio(mirror, mica));
    let mut cells = vec![name.to_owned()];
    cells.extend(times.iter().map(|&time| ms(time)));
    cells.push(format!("{faster:.2} faster"));
    cells.push(format!("{than_mirror:.2} faster"));
    cells.push(format!(">= {TARGET:.2}, >= 1.00"));
    cells.push(verdict(faster >= TARGET && than_mirror >= 1.0));
    cells
}
