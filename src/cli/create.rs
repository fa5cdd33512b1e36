//! `mica create`.

use std::process::ExitCode;

use super::{Context, run as running};

/// Make a container and do not start it
///
/// With the options of run; prints its ID. `mica start` starts it.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(super) struct CreateArgs {
    #[command(flatten)]
    run: running::Args,
}

/// Makes a container.
pub(super) fn run(args: CreateArgs, context: &Context) -> anyhow::Result<ExitCode> {
    running::create(args.run, context)
}
