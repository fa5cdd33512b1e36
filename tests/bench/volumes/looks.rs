//! Looking at a tree of small files again: what file managers, `git` and backups do all day, beside the host's own directory
//! and a FUSE file system on it.

use std::fs;
use std::process::Command;
use std::time::Duration;

use super::ground::{FUSE_OVERLAYFS_1, Ground, HOST, MICA};
use super::trees::Tree;
use crate::bench::table::{Table, verdict};
use crate::bench::timing::{interleaved, ms, ratio, script, timed};

/// Work, what it does in `$ROOT`, and how many times as long as on the host it may take.
const WORK: [(&str, &str, f64); 6] = [
    ("ls -lR", "ls -lR $ROOT/look", 2.0),
    ("find -ls", "find $ROOT/look -ls", 2.0),
    ("du -s", "du -s $ROOT/look", 2.0),
    ("git status", "git -C $ROOT/look status --short", 2.0),
    ("rsync -n", "rsync -aHAXn $ROOT/look/ $ROOT/nowhere/", 2.0),
    ("grep -r", "grep -r no-such-word $ROOT/look || true", 4.0),
];
const ADD: &str = "cd $ROOT/look && rm -rf .git && git init -q && git add -A && \
                   git -c user.name=x -c user.email=x@x commit -qm x";
const ADD_MOST: f64 = 2.5;

/// `mica hold -v` beside the host's directory: it is one, and starting counts.
const HELD_MOST: f64 = 1.1;

pub fn run(ground: &Ground, tree: &Tree, quick: bool) {
    let places = [HOST, MICA, FUSE_OVERLAYFS_1];
    for place in places {
        let root = &ground.places[place].root;
        fs::create_dir(root.join("look")).expect("mkdir");
        timed(script("tar -C $ROOT/look -xf $TAR", root).env("TAR", tree.tar()));
    }
    let at = |place: usize, text: &str| {
        let mut command = script(text, &ground.places[places[place]].root);
        settle(&mut command);
        command
    };
    eprintln!("bench: git add and commit, {}", ground.file_system);
    let rounds = if quick { 1 } else { 3 };
    let add = interleaved(rounds, 3, |place| {
        ground.renew(places[place]);
        timed(&mut at(place, ADD))
    });
    ground.renew(FUSE_OVERLAYFS_1);
    let rounds = if quick { 3 } else { 7 };
    let mut looks = Vec::new();
    for (name, text, _) in WORK {
        eprintln!("bench: {name}, {}", ground.file_system);
        for place in 0..3 {
            timed(&mut at(place, text));
        }
        let times = interleaved(rounds, 3, |place| timed(&mut at(place, text)));
        let asked = ground.requests(|| {
            timed(&mut at(1, text));
        });
        looks.push((times, asked));
    }
    // After the rest: meanwhile the mount keeps nothing of the volume.
    let held = WORK.map(|(name, text, _)| {
        eprintln!("bench: {name}, hold -v, {}", ground.file_system);
        interleaved(rounds, 2, |place| match place {
            0 => timed(&mut at(0, text)),
            _ => timed(settle(&mut ground.held(text))),
        })
    });
    let title = format!("ms, volume on {}, second look", ground.file_system);
    let head = [
        "host",
        "mica",
        "x host",
        "fuse-overlayfs 1",
        "hold -v",
        "x host",
        "target",
        "reached",
    ];
    let mut table = Table::new(&[&[title.as_str()], &head[..]].concat());
    for (((name, _, most), (times, _)), held) in WORK.iter().zip(&looks).zip(&held) {
        table.row(row(name, times, Some(held), *most));
    }
    table.row(row("git add, commit", &add, None, ADD_MOST));
    table.print();
    println!("{} entries; requests of a second look:", tree.entries());
    for ((name, ..), (_, asked)) in WORK.iter().zip(&looks) {
        let kinds = asked.iter().map(|(kind, count)| format!("{count} {kind}"));
        println!("{name}: {}", kinds.collect::<Vec<_>>().join(", "));
    }
    for place in places {
        ground.renew(place);
        fs::remove_dir_all(ground.places[place].root.join("look")).expect("rm -r");
    }
}

/// Without the settings of whoever measures.
fn settle(command: &mut Command) -> &mut Command {
    command
        .env("HOME", "/nonexistent")
        .env("GIT_CONFIG_NOSYSTEM", "1")
}

fn row(name: &str, times: &[Duration], held: Option<&Vec<Duration>>, most: f64) -> Vec<String> {
    let slower = ratio(times[1], times[0]);
    let direct = held.map(|held| (ms(held[1]), ratio(held[1], held[0])));
    let reached = slower <= most
        && direct
            .as_ref()
            .is_none_or(|(_, slower)| *slower <= HELD_MOST);
    let (held, beside) = match direct {
        Some((held, slower)) => (held, format!("{slower:.2}")),
        None => Default::default(),
    };
    vec![
        name.to_owned(),
        ms(times[0]),
        ms(times[1]),
        format!("{slower:.2}"),
        ms(times[2]),
        held,
        beside,
        format!("<= {most:.1}, <= {HELD_MOST:.1}"),
        verdict(reached),
    ]
}
