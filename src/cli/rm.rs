//! `mica rm`.

use std::process::ExitCode;

use super::Context;
use super::output::{Lines, print_error};
use crate::ops::container::{self as containers, RemoveOptions};

/// Remove containers
///
/// What they have changed goes with them; volumes with a name stay. Goes on after an error.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Remove also one that runs; one that is not there is no failure
    #[arg(short, long)]
    force: bool,
    /// Remove its volumes without a name too
    #[arg(short, long)]
    volumes: bool,
    /// Names or IDs
    #[arg(value_name = "CONTAINER", required = true, add = super::completion::containers())]
    containers: Vec<String>,
}

/// Removes containers.
pub(super) fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let store = context.store()?;
    containers::sweep(&store);
    let options = RemoveOptions {
        force: args.force,
        volumes: args.volumes,
    };
    let mut code = ExitCode::SUCCESS;
    let mut lines = Lines::default();
    for text in &args.containers {
        let there = containers::look(&store, text);
        match containers::remove(&store, text, options) {
            Ok(()) => lines.print(text),
            Err(error) => {
                print_error(&error.into());
                // As docker's: it is not there any more, whoever has removed it.
                if !(args.force && matches!(there, Ok(None))) {
                    code = ExitCode::FAILURE;
                }
            }
        }
    }
    lines.finish()?;
    Ok(code)
}

/// Does something to each container and prints its name; goes on after an error.
pub(super) fn each<E: Into<anyhow::Error>>(
    names: &[String],
    mut work: impl FnMut(&str) -> Result<(), E>,
) -> anyhow::Result<ExitCode> {
    let mut lines = Lines::default();
    let mut code = ExitCode::SUCCESS;
    for name in names {
        match work(name) {
            Ok(()) => lines.print(name),
            Err(error) => {
                print_error(&error.into());
                code = ExitCode::FAILURE;
            }
        }
    }
    lines.finish()?;
    Ok(code)
}
