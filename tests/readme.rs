//! README.md, typed: its console blocks in order, in one directory, as somebody would who has just built it.
//!
//! A line `$ ..` is typed up to its comment. It succeeds, unless README shows the message of its failure; what README shows of its
//! output without digits is in the output. Left out are lines that need a person at a terminal, or programs that are not here; the
//! list says why, and each entry has to be there.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::registry::{Kind, Registry};
use crate::common::sandbox::{Run, Sandbox};
use crate::common::tier;

/// Lines that are not typed, by a part of them.
const LEFT_OUT: [(&str, &str); 9] = [
    ("mica run -it --rm --name one", "a person at a terminal"),
    ("mica run -it --rm --name two", "a person at a terminal"),
    (
        "mica bundle sample:3.0 b && runc",
        "tests of their own have runc",
    ),
    ("umount b/rootfs", "the line before"),
    ("-- postgres", "postgres"),
    ("make SYSROOT", "a compiler for another system"),
    ("podman run", "podman is another's test"),
    ("./backup.sh", "a program of the reader's"),
    (
        "mica volume keep scratch",
        "the volume may have gone with the test's process",
    ),
];

/// One thing to type, and what is shown below it.
struct Line {
    typed: String,
    shown: Vec<String>,
}

/// The lines of each console block.
fn blocks(text: &str) -> Vec<Vec<Line>> {
    let mut blocks = Vec::new();
    for block in text.split("```console\n").skip(1) {
        let block = block.split("```").next().unwrap_or_default();
        let mut lines: Vec<Line> = Vec::new();
        for line in block.lines() {
            match line.strip_prefix("$ ") {
                Some(typed) => lines.push(Line {
                    typed: typed
                        .split(" #")
                        .next()
                        .unwrap_or_default()
                        .trim()
                        .to_owned(),
                    shown: Vec::new(),
                }),
                None => lines
                    .last_mut()
                    .expect("a prompt")
                    .shown
                    .push(line.to_owned()),
            }
        }
        blocks.push(lines);
    }
    blocks
}

fn typed(s: &Sandbox, line: &str) -> Run {
    let mut command = Command::new("bash");
    let path = std::env::var("PATH").unwrap_or_default();
    command.arg("-c").arg(line).current_dir(s.dir());
    command.env("PATH", format!("{}:{path}", s.path("bin").display()));
    command.env("MICA_STORE", s.store()).env("HOME", s.dir());
    command.env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
    s.run(command)
}

/// What `make run` does with the store and the mount point of this sandbox.
fn make_run(s: &Sandbox) {
    typed(
        s,
        "mica load -i sample.tar && mkdir -p mnt && mica mount mnt",
    )
    .ok();
}

/// Takes down what is left when the test ends, however that is.
struct Leave<'s>(&'s Sandbox);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let left = typed(
            self.0,
            "[ ! -e sleeper ] || kill $(cat sleeper); mica umount -l mnt; mica rm -f $(mica ps -aq)",
        );
        drop(left);
    }
}

#[test]
fn root_readme_is_typed_in_order() {
    tier::root();
    let readme = include_str!("../README.md");
    let s = Sandbox::new();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/sample-image");
    let mut command = Command::new(script);
    command.arg(s.path("sample.tar"));
    s.run(command).ok();
    s.mkdir("bin");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_mica"), s.path("bin/mica")).unwrap();
    let registry = Registry::start(&s, Kind::Plain);
    make_run(&s);
    let _leave = Leave(&s);
    for (part, why) in LEFT_OUT {
        assert!(
            readme.contains(part),
            "{part} ({why}) is left out of nothing"
        );
    }
    let blocks = blocks(readme);
    assert!(blocks.len() >= 7, "{}", blocks.len());
    for (number, block) in blocks.iter().enumerate() {
        if number == 1 {
            // "`make run` brings the sample back".
            make_run(&s);
        }
        for line in block {
            if LEFT_OUT.iter().any(|(part, _)| line.typed.contains(part)) {
                continue;
            }
            let there = |text: &str| text.replace("127.0.0.1:5000", &registry.host());
            // What the reader is to write first.
            if line.typed == "cat hello/Dockerfile" {
                fs::write(s.path("hello/Dockerfile"), line.shown.join("\n") + "\n").unwrap();
            }
            let mut text = there(&line.typed);
            if text.ends_with('&') {
                text.push_str(" echo $! > sleeper");
            }
            let run = typed(&s, &text);
            let fails = line
                .shown
                .iter()
                .any(|shown| shown.starts_with("rm: ") || shown.starts_with("rmdir: "));
            assert_eq!(!run.status.success(), fails, "{}", run.describe());
            let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            let said = words(&(run.stdout() + &run.stderr()));
            for shown in &line.shown {
                let shown = there(shown);
                let fixed = !shown.is_empty() && !shown.contains(|c: char| c.is_ascii_digit());
                assert!(
                    !fixed || said.contains(&words(&shown)),
                    "{shown:?} is not said:\n{}",
                    run.describe()
                );
            }
        }
    }
}
