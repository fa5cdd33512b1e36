//! What moves on a terminal whose size changes meanwhile.

use std::io::Write as _;

use super::liar::{Liar, layer_digest};
use crate::common::image::ImageBuilder;
use crate::common::sandbox::Sandbox;
use crate::common::terminal::Terminal;

/// What stood in the lines, without what moves the cursor and colours.
fn pieces(seen: &str) -> Vec<String> {
    let mut shown = String::new();
    let mut rest = seen;
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        shown.push_str(before);
        shown.push('\r');
        let end = after.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(0);
        rest = after.get(end + 1..).unwrap_or_default();
    }
    shown.push_str(rest);
    let pieces = shown.split(['\r', '\n']).map(str::trim_end);
    let moving = pieces.filter(|piece| piece.contains("B/"));
    moving.map(str::to_owned).collect()
}

/// Waits for a few more pictures, each with this in it.
#[track_caller]
fn draws(terminal: &mut Terminal, part: &str) {
    for _ in 0..4 {
        terminal.shows(part);
    }
}

#[track_caller]
fn fits(terminal: &mut Terminal, part: &str, columns: u16) {
    terminal.resize(columns);
    // One that was on its way is of the size before.
    draws(terminal, part);
    let mut all = String::new();
    for _ in 0..3 {
        terminal.look();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while !terminal.seen.contains(part) {
            assert!(std::time::Instant::now() < end, "{:?}", terminal.seen);
            std::thread::sleep(std::time::Duration::from_millis(5));
            terminal.look();
        }
        all.push_str(&std::mem::take(&mut terminal.seen));
    }
    let pieces = pieces(&all);
    assert!(!pieces.is_empty(), "{all:?}");
    for piece in pieces {
        assert!(
            piece.chars().count() <= usize::from(columns),
            "{columns}: {piece:?}"
        );
    }
}

#[test]
fn regression_a_pull_survives_a_terminal_that_becomes_narrow() {
    let s = Sandbox::new();
    let image = ImageBuilder::new("app:1").layer(|l| l.file("big", vec![b'x'; 4_000_000]));
    let layer = layer_digest(&image, 0);
    let liar = Liar::start(&image, move |request, mut answer| {
        if request.path.contains(&layer) {
            answer.stall = Some(answer.body.len() / 2);
        }
        answer
    });
    let name = format!("127.0.0.1:{}/team/app:1", liar.port);
    let mut terminal = Terminal::with(&s, &["pull", &name], &[("TERM", "xterm")]);
    terminal.shows("Downloading [");
    for columns in [40, 120, 24, 80] {
        fits(&mut terminal, "B/", columns);
    }
}

#[test]
fn regression_a_load_survives_a_terminal_that_becomes_narrow() {
    let s = Sandbox::new();
    let image = ImageBuilder::new("app:1").layer(|l| l.file("big", vec![b'x'; 40_000_000]));
    image.docker_archive(&s.path("app.tar"));
    let archive = std::fs::read(s.path("app.tar")).unwrap();
    s.sh("mkfifo pipe").ok();
    let mut terminal = Terminal::with(&s, &["load", "-i", "pipe"], &[("TERM", "xterm")]);
    let mut pipe = std::fs::OpenOptions::new()
        .write(true)
        .open(s.path("pipe"))
        .unwrap();
    let (first, rest) = archive.split_at(archive.len() / 2);
    pipe.write_all(first).unwrap();
    terminal.shows("Loading layer [");
    fits(&mut terminal, "B/", 40);
    pipe.write_all(rest).unwrap();
    drop(pipe);
    assert_eq!(terminal.ends(), 0, "{}", terminal.seen);
    assert!(
        terminal.seen.contains("Loaded image: app:1"),
        "{}",
        terminal.seen
    );
}
