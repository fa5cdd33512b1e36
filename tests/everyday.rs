//! What people type every day, line by line: each line works as it does with docker, whatever is closed to attackers.
//!
//! No line is here for what it refuses. A line that stops working takes something away from somebody who did nothing wrong.

use std::fs;
use std::process::Command;

use crate::common::sandbox::{Run, Sandbox};
use crate::common::user::as_user;
use crate::running::{image, sandbox};

mod binds;
mod caller;
mod inside;
mod rootless;
mod streams;
mod volumes;

/// A line of bash in the sandbox's directory; `mica` is the one under test.
fn bash(s: &Sandbox, line: &str) -> Run {
    let mut command = Command::new("bash");
    finish(&mut command, s, env!("CARGO_BIN_EXE_mica"), line);
    s.run(command)
}

/// The same as an ordinary user, who owns the sandbox.
fn bash_as(uid: u32, s: &Sandbox, line: &str) -> Run {
    let mut command = as_user(uid, "bash");
    let mica = s.path("mica").display().to_string();
    finish(&mut command, s, &mica, line);
    s.run(command)
}

fn finish(command: &mut Command, s: &Sandbox, mica: &str, line: &str) {
    command
        .arg("-euc")
        .arg(format!(
            "mica() {{ {mica} \"$@\"; }}; export -f mica\n{line}"
        ))
        .env("MICA", mica)
        .env("MICA_STORE", s.store())
        .env("HOME", s.dir())
        .current_dir(s.dir());
}

/// Runs lines and compares what each prints.
#[track_caller]
fn print(s: &Sandbox, lines: &[(&str, &str)]) {
    for (line, expected) in lines {
        let run = bash(s, line).ok();
        assert_eq!(run.stdout(), *expected, "{}", run.describe());
    }
}
