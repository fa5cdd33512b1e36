//! `mica volume keep`.

use std::process::ExitCode;

use crate::ops::volume as volumes;

use super::super::output::{Lines, print_error};
use super::super::{Context, completion};
use super::inspect::find_name;

/// Make ephemeral volumes persistent
///
/// They stay when their last user has gone, until they are removed. A persistent volume is left as it is; a bind has no life of its
/// own and is refused. Goes on after an error.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Names
    #[arg(value_name = "VOLUME", required = true, add = completion::volumes())]
    volumes: Vec<String>,
}

/// Keeps volumes.
pub(super) fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let store = context.store()?;
    let mut lines = Lines::default();
    let mut failed = false;
    for text in &args.volumes {
        match find_name(text).and_then(|name| volumes::keep(&store, &name)) {
            Ok(()) => lines.print(text),
            Err(error) => {
                failed = true;
                print_error(&error.into());
            }
        }
    }
    lines.finish()?;
    Ok(match failed {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}
