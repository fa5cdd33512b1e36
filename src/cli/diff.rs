//! `mica diff`.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use crate::ops::diff;

use super::Context;
use super::output;

/// Show what changed: A added, C changed, D deleted
///
/// Of a container: what it has changed in its image. Of one image: what its last layer has changed in those below. Of two
/// images: what is different in the second. Contents, attributes and owners count; a directory's time does not.
#[derive(clap::Args)]
pub struct Args {
    /// A container or an image
    #[arg(value_name = "CONTAINER|IMAGE", add = super::completion::images())]
    first: String,
    /// Another image to compare the first with
    #[arg(value_name = "IMAGE", add = super::completion::images())]
    second: Option<String>,
}

/// Prints the changes.
pub fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let store = context.store()?;
    let changes = match &args.second {
        Some(second) => diff::images(&store, &args.first, second).map_err(unwrapped)?,
        None => diff::one(&store, &args.first).map_err(unwrapped)?,
    };
    let lines = diff::lines(&changes);
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
fn unwrapped(error: diff::DiffError) -> anyhow::Error {
    match error {
        diff::DiffError::Ops(error) => error.into(),
        other => other.into(),
    }
}
