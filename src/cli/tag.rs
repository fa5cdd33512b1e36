//! `mica tag`.

use std::process::ExitCode;

use crate::ops::events;
use crate::ops::image::tag;

use super::{Context, output};

/// Give an image more names
///
/// Overwriting a name is silent, as in docker; the image that had it stays, without that name.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The image: a name, a digest reference, an ID or the beginning of one
    #[arg(value_name = "SOURCE_IMAGE[:TAG]", add = super::completion::images())]
    source: String,
    /// The new names
    #[arg(value_name = "TARGET_IMAGE[:TAG]", required_unless_present = "log")]
    targets: Vec<String>,
    /// Name nothing; show which images the tag SOURCE_IMAGE[:TAG] has been on, newest first, as far as the store's events go back
    #[arg(long, conflicts_with = "targets")]
    log: bool,
    /// With --log: do not truncate IDs
    #[arg(long, requires = "log")]
    no_trunc: bool,
}

/// Tags an image.
pub(super) fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    if args.log {
        let mut tags = tag::parse_targets(&[&args.source])?;
        let Some(tag) = tags.pop() else {
            return Ok(ExitCode::FAILURE);
        };
        let spells = events::log_of(&context.store()?, &tag)?;
        output::print(&events::log_table(&spells, args.no_trunc))?;
        return Ok(ExitCode::SUCCESS);
    }
    let targets = tag::parse_targets(&args.targets)?;
    let store = context.store()?;
    tag::tag(&store, &args.source, &targets)?;
    Ok(ExitCode::SUCCESS)
}
