//! `mica hold`.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use super::volume::find_name;
use super::{Context, completion};

/// Run a command that keeps volumes in use
///
/// None of the volumes is removed, renamed or evaporates before the command and all its children have ended. The command takes the
/// place of mica: process id, signals and exit status are its own. 127: it was not found, 126: it could not be run.
#[derive(clap::Args)]
pub struct Args {
    /// Names
    #[arg(value_name = "VOLUME", required = true, add = completion::volumes())]
    volumes: Vec<String>,
    /// The command, after --
    #[arg(value_name = "COMMAND", last = true, required = true)]
    command: Vec<OsString>,
}

/// Takes a lease and becomes the command.
pub fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let store = context.store()?;
    super::volume::sweep(&store);
    let names: Vec<_> = args
        .volumes
        .iter()
        .map(|text| find_name(text))
        .collect::<Result<_, _>>()?;
    let lease = store
        .lease_volumes(&names)
        .map_err(crate::ops::OpsError::from)?;
    let mut words = args.command.into_iter();
    let program = words.next().unwrap_or_default();
    lease.keep_over_exec()?;
    let error = Command::new(&program).args(words).exec();
    // The lease ends with this process; its file goes with the next change of the store.
    super::print_error(&anyhow::anyhow!("{}: {error}", program.to_string_lossy()));
    Ok(match error.kind() {
        io::ErrorKind::NotFound => ExitCode::from(127),
        _ => ExitCode::from(126),
    })
}
