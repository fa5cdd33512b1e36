//! `mica export`.

use std::process::ExitCode;

use super::archive_output::OutputArgs;
use super::{Context, cp};
use crate::ops::container as containers;
use crate::ops::transfer::export::{self, ExportError};
use crate::runtime::OutOfReach;

/// Export the file system of a container or an image as a tar archive
///
/// The merged tree, exactly: owners, times, hard links, devices, extended attributes and holes. Of a container it is what the image
/// has and what the container has changed, without its volumes; the same image gives the same bytes. mica import makes an image of
/// one layer of it.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    output: OutputArgs,
    /// A container by name or ID, or else an image by name, digest reference or ID
    #[arg(value_name = "CONTAINER|IMAGE", add = super::completion::images_and_containers())]
    name: String,
}

/// Runs the verb.
pub(super) fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    args.output.check()?;
    let out_of_reach = OutOfReach::ensure()?;
    let store = context.store()?;
    // docker's export knows containers alone.
    if let Some(container) = containers::look(&store, &args.name)? {
        args.output
            .write(|out| cp::export_container(&store, &container, out_of_reach, out))?;
        return Ok(ExitCode::SUCCESS);
    }
    let plan = export::plan(&store, &args.name).map_err(unwrapped)?;
    args.output.write(|out| plan.write(out))?;
    Ok(ExitCode::SUCCESS)
}

/// What a use case says in docker's words is printed as such.
fn unwrapped(error: ExportError) -> anyhow::Error {
    match error {
        ExportError::Image(error) => error.into(),
        other => other.into(),
    }
}
