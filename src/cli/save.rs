//! `mica save`.

use std::process::ExitCode;

use super::Context;
use super::archive_output::OutputArgs;
use crate::ops::transfer::save;

/// Save images to a tar archive
///
/// Writes what docker save writes: an OCI layout with docker's manifest.json beside it, shared layers once. It is read by
/// mica load, docker load, podman load and skopeo. A NAME without a tag saves every tag of the repository.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    output: OutputArgs,
    /// Names, digest references, IDs or beginnings of IDs
    #[arg(value_name = "IMAGE", required = true, add = super::completion::images())]
    images: Vec<String>,
}

/// Runs the verb.
pub(super) fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    args.output.check()?;
    let store = context.store()?;
    let plan = save::plan(&store, &args.images).map_err(unwrapped)?;
    args.output.write(|out| plan.write(out))?;
    plan.note(&store);
    Ok(ExitCode::SUCCESS)
}

/// What a use case says in docker's words is printed as such.
fn unwrapped(error: save::SaveError) -> anyhow::Error {
    match error {
        save::SaveError::Image(error) => error.into(),
        other => other.into(),
    }
}
