//! `mica tag`.

use std::process::ExitCode;

use crate::ops::tag;

use super::Context;

/// Give an image more names
///
/// Overwriting a name is silent, as in docker; the image that had it stays, without that name.
#[derive(clap::Args)]
pub struct Args {
    /// The image: a name, a digest reference, an ID or the beginning of one
    #[arg(value_name = "SOURCE_IMAGE[:TAG]", add = super::completion::images())]
    source: String,
    /// The new names
    #[arg(value_name = "TARGET_IMAGE[:TAG]", required = true)]
    targets: Vec<String>,
}

/// Tags an image.
pub fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let targets = tag::parse_targets(&args.targets)?;
    let store = context.store()?;
    tag::tag(&store, &args.source, &targets)?;
    store.notify_mounts()?;
    Ok(ExitCode::SUCCESS)
}
