//! `mica build`: what a Dockerfile says is what the image has, step by step, as root and as an ordinary user.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::common::image::ImageBuilder;
use crate::common::sandbox::{Run, Sandbox};
use crate::running::{left, sandbox, shown};

mod bad;
mod basics;
mod caching;
mod copying;
mod differential;
mod hostile;
mod mounts;
mod programs;
mod rootless;

/// A context with these files.
pub(crate) fn context(s: &Sandbox, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let root = s.mkdir(name);
    for (path, content) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    root
}

/// Builds the directory `name` with more arguments.
pub(crate) fn build(s: &Sandbox, name: &str, more: &[&str]) -> Run {
    let root = s.path(name);
    let mut args: Vec<&OsStr> = vec![OsStr::new("build")];
    args.extend(more.iter().map(OsStr::new));
    args.push(root.as_os_str());
    s.mica(args)
}

/// Builds a Dockerfile without a context.
pub(crate) fn build_text(s: &Sandbox, text: &str, more: &[&str]) -> Run {
    let file = s.path("stdin.Dockerfile");
    fs::write(&file, text).unwrap();
    context(s, "nothing", &[]);
    let file = file.display().to_string();
    let mut args = vec!["-f", &file];
    args.extend(more);
    build(s, "nothing", &args)
}

/// Runs `mica` with this standard input.
fn piped(s: &Sandbox, args: &[&str], input: &[u8]) -> (Option<i32>, String, String) {
    let mut command = s.command();
    command.args(args).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may end before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// `mode owner/group size path` of what an image has below `prefix`, sorted.
pub(crate) fn listing(s: &Sandbox, image: &str, prefix: &str) -> Vec<String> {
    let tar = s.path("listing.tar");
    let exported = s.mica(["export", "-o", tar.to_str().unwrap(), image]);
    if exported.status.code() != Some(0) {
        let archive = s.mica(["export", image]).ok().stdout;
        fs::write(&tar, archive).unwrap();
    }
    let output = Command::new("tar")
        .args(["--numeric-owner", "-tvf"])
        .arg(&tar)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines: Vec<String> = text
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let path = words.get(5..)?.join(" ");
            let inside = path.starts_with(prefix);
            inside.then(|| format!("{} {} {} {path}", words[0], words[1], words[2]))
        })
        .collect();
    lines.sort();
    lines
}

/// The content of a file of an image.
pub(crate) fn content(s: &Sandbox, image: &str, path: &str) -> String {
    shown(s, &format!("run --rm {image} cat {path}"))
}

/// An image's configuration.
fn config(s: &Sandbox, image: &str) -> Value {
    let text = s.mica(["inspect", image]).ok().stdout();
    serde_json::from_str::<Value>(&text).unwrap()[0]["Config"].clone()
}

/// The image's ID, all digits.
fn id(s: &Sandbox, image: &str) -> String {
    s.mica(["inspect", "-f", "{{.Id}}", image])
        .ok()
        .stdout()
        .trim()
        .to_owned()
}

/// How many steps a build has taken from its cache.
pub(crate) fn cached(run: &Run) -> usize {
    run.stdout().matches(" ---> Using cache").count()
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
