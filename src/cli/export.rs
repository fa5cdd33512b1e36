//! `mica export`.

use std::process::ExitCode;

use super::Context;
use super::archive_output::OutputArgs;
use crate::ops::export::{self, ExportError};

/// Export an image's file system as a tar archive
///
/// The merged tree, exactly: owners, times, hard links, devices, extended attributes and holes are the image's. The same
/// image gives the same bytes. mica import makes an image of one layer of it.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    output: OutputArgs,
    /// A name, a digest reference, an ID or the beginning of one
    #[arg(value_name = "IMAGE", add = super::completion::images())]
    image: String,
}

/// Runs the verb.
pub fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    args.output.check()?;
    let plan = export::plan(&context.store()?, &args.image).map_err(unwrapped)?;
    args.output.write(|out| plan.write(out))?;
    Ok(ExitCode::SUCCESS)
}

/// What a use case says in docker's words is printed as such.
fn unwrapped(error: ExportError) -> anyhow::Error {
    match error {
        ExportError::Ops(error) => error.into(),
        other => other.into(),
    }
}
