//! `mica volume rm`.

use std::process::ExitCode;

use crate::ops::usage::volumes::Look;
use crate::ops::volume::{self as volumes, Removal};

use super::super::output::{Lines, print_error};
use super::super::{Context, completion};
use super::inspect::find_name;

/// Remove volumes with their data
///
/// A volume in use stays. Of a bind only the name goes: what it shows is the host's. Goes on after an error.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Names
    #[arg(value_name = "VOLUME", required = true, add = completion::volumes())]
    volumes: Vec<String>,
    /// A volume that is not there is no failure
    #[arg(short, long)]
    force: bool,
}

/// Removes volumes.
pub(super) fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let store = context.store()?;
    super::sweep(&store);
    let mut lines = Lines::default();
    let mut failed = false;
    let removal = Removal {
        look: Look {
            maps: true,
            except: None,
        },
        ..Removal::default()
    };
    for text in &args.volumes {
        let removed = find_name(text)
            .and_then(|name| volumes::remove(&store, &name, &removal, &|| volumes::tell(&store)));
        match removed {
            Ok(_) => lines.print(text),
            Err(error) if args.force && error.is_not_found() => lines.print(text),
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
