//! `mica completion`, and what the shells ask for as somebody types.
//!
//! A shell's script calls mica itself with the words so far, so that names of images are those of the store as it is now.

use std::ffi::OsStr;
use std::io;
use std::process::ExitCode;

use clap::{CommandFactory as _, ValueEnum};
use clap_complete::CompletionCandidate;
use clap_complete::engine::ArgValueCompleter;
use clap_complete::env::{CompleteEnv, Shells};

use crate::store::{OpenMode, Store};

use super::{Cli, output};

/// What asks mica for candidates, by naming the shell.
const VARIABLE: &str = "MICA_COMPLETE";

/// Print a shell's completion script
///
/// For bash: source <(mica completion bash). Names of images are completed from the store.
#[derive(clap::Args)]
pub struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Prints the script.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let name = match args.shell {
        Shell::Bash => "bash",
        Shell::Zsh => "zsh",
        Shell::Fish => "fish",
    };
    let shells = Shells::builtins();
    let shell = shells.completer(name);
    let shell = shell.ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
    let mut script = Vec::new();
    shell.write_registration(VARIABLE, "mica", "mica", "mica", &mut script)?;
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}

/// Answers a shell and ends the process, if one asks.
pub fn answer() {
    CompleteEnv::with_factory(Cli::command)
        .var(VARIABLE)
        .complete();
}

/// Completes the names of images.
pub fn images() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| candidates(typed).unwrap_or_default())
}

/// Completes the names of volumes.
pub fn volumes() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| volume_candidates(typed).unwrap_or_default())
}

/// Completes both.
pub fn volumes_and_images() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let mut all = volume_candidates(typed).unwrap_or_default();
        all.extend(candidates(typed).unwrap_or_default());
        all
    })
}

fn volume_candidates(typed: &OsStr) -> Option<Vec<CompletionCandidate>> {
    let typed = typed.to_str()?;
    let store = Store::open(&Store::default_path(), OpenMode::ReadOnly).ok()?;
    let names = store
        .volumes()
        .ok()?
        .into_iter()
        .map(|volume| volume.name.to_string());
    let fitting = names.filter(|name| name.starts_with(typed));
    Some(fitting.map(CompletionCandidate::new).collect())
}

/// The tags that begin as typed. Nothing that fails says so: nobody has asked mica to do anything.
fn candidates(typed: &OsStr) -> Option<Vec<CompletionCandidate>> {
    let typed = typed.to_str()?;
    let store = Store::open(&Store::default_path(), OpenMode::ReadOnly).ok()?;
    let names = store.names().ok()?;
    let tags = names.tags.keys().map(|tag| tag.familiar());
    let fitting = tags.filter(|tag| tag.starts_with(typed));
    Some(fitting.map(CompletionCandidate::new).collect())
}
