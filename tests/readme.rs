//! README.md, typed: `make run` in a clone, then its console blocks in order, as somebody would who has just built it.
//!
//! The clone has this program where `make release` puts it; `make run` then does all but build. What README says of `mica` and of the
//! store is done as it stands there.
//!
//! A line `$ ..` is typed up to its comment. It succeeds, unless README shows the message of its failure; what README shows of its
//! output without digits is in the output. Left out are lines that need a person at a terminal, or programs that are not here; the
//! list says why, and each entry has to be there.

use std::fs;
use std::path::{Path, PathBuf};
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

/// What README says comes before the first block: what `mica` stands for, and what is to be exported.
fn before(readme: &str) -> (String, String) {
    let (_, rest) = readme
        .split_once("After `make run`, with ")
        .expect("the sentence");
    let (line, _) = rest.split_once('\n').expect("its end");
    match line.split('`').collect::<Vec<_>>().as_slice() {
        ["", "mica", " for ", program, " and ", export, ":"] => {
            ((*program).to_owned(), (*export).to_owned())
        }
        other => panic!("{other:?}"),
    }
}

/// A clone, and a shell in it.
struct Clone<'s> {
    s: &'s Sandbox,
    dir: PathBuf,
    export: String,
}

impl Clone<'_> {
    fn new(s: &Sandbox) -> Clone<'_> {
        let (program, export) = before(include_str!("../README.md"));
        let dir = s.mkdir("clone");
        let from = Path::new(env!("CARGO_MANIFEST_DIR"));
        s.sh(&format!(
            "cp -r {from}/contrib {from}/Makefile {from}/README.md clone; mkdir -p clone/$(dirname {program})",
            from = from.display()
        ))
        .ok();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_mica"), dir.join(&program)).unwrap();
        s.mkdir("bin");
        std::os::unix::fs::symlink(dir.join(&program), s.path("bin/mica")).unwrap();
        Clone { s, dir, export }
    }

    fn run(&self, line: &str) -> Run {
        let mut command = Command::new("bash");
        let path = std::env::var("PATH").unwrap_or_default();
        command.arg("-c").arg(line).current_dir(&self.dir);
        command.env("PATH", format!("{}:{path}", self.s.path("bin").display()));
        command.env("HOME", self.s.dir()).env_remove("MICA_STORE");
        command.env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
        self.s.run(command)
    }

    /// At the prompt of somebody who has done what README says.
    fn typed(&self, line: &str) -> Run {
        self.run(&format!("{}\n{line}", self.export))
    }

    /// All but what it builds and installs.
    fn make_run(&self) {
        let run = self.run("make --no-print-directory -o toolchain -o deps-run -o release run");
        let said = run.ok().stdout();
        // What it says to try stands in README, too.
        assert!(said.contains(&format!(
            "export MICA_STORE={}/var/store",
            self.dir.display()
        )));
    }
}

/// Takes down what is left when the test ends, however that is.
impl Drop for Clone<'_> {
    fn drop(&mut self) {
        let left = self.typed(
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
    let registry = Registry::start(&s, Kind::Plain);
    let clone = Clone::new(&s);
    clone.make_run();
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
            clone.make_run();
        }
        for line in block {
            if LEFT_OUT.iter().any(|(part, _)| line.typed.contains(part)) {
                continue;
            }
            let there = |text: &str| text.replace("127.0.0.1:5000", &registry.host());
            // What the reader is to write first.
            if line.typed == "cat hello/Dockerfile" {
                fs::write(
                    clone.dir.join("hello/Dockerfile"),
                    line.shown.join("\n") + "\n",
                )
                .unwrap();
            }
            let mut text = there(&line.typed);
            if text.ends_with('&') {
                text.push_str(" echo $! > sleeper");
            }
            let run = clone.typed(&text);
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
