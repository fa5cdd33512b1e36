//! `mica diff`.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use crate::layer::diff::PathChange;
use crate::ops::container as containers;
use crate::ops::container::diff::{self, DiffError};

use super::Context;
use super::output;

/// Show what changed: A added, C changed, D deleted
///
/// Of a container: what it has changed in its image. Of one image: what its last layer has changed in those below. Of two
/// images: what is different in the second. Contents, attributes and owners count; a directory's time does not.
#[derive(clap::Args)]
pub(super) struct Args {
    /// A container or an image
    #[arg(value_name = "CONTAINER|IMAGE", add = super::completion::images_and_containers())]
    first: String,
    /// Another image to compare the first with
    #[arg(value_name = "IMAGE", add = super::completion::images())]
    second: Option<String>,
}

/// Prints the changes.
pub(super) fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let store = context.store()?;
    if let Some(second) = &args.second {
        return print(diff::images(&store, &args.first, second));
    }
    match containers::look(&store, &args.first)? {
        Some(container) => super::commit::as_its_root(&container, |_| {
            print(diff::of_container(&store, &container))
        }),
        None => print(diff::of_image(&store, &args.first)),
    }
}

fn print(changes: Result<Vec<PathChange>, DiffError>) -> anyhow::Result<ExitCode> {
    let lines = diff::lines(&changes.map_err(unwrapped)?);
    let mut out = io::stdout().lock();
    if out.is_terminal() {
        drop(out);
        output::print_foreign(&String::from_utf8_lossy(&lines))?;
    } else {
        out.write_all(&lines)?;
        out.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What a use case says in docker's words is printed as such.
fn unwrapped(error: DiffError) -> anyhow::Error {
    match error {
        DiffError::Image(error) => error.into(),
        DiffError::Find(error) => error.into(),
        other => other.into(),
    }
}
