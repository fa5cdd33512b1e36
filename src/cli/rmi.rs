//! `mica rmi`.

use std::process::ExitCode;
use std::time::Duration;

use crate::ops::image::remove::{self, How, Removed, Request};

use super::Context;
use super::filters::LongFilterArgs;
use super::output::{Lines, print_error};
use super::prune::total;

/// Remove images
///
/// Removes a name; the image goes with its last name, and so do layers that no other image has. Goes on after an error. With
/// --filter only what passes it is removed, without an argument everything that does.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Names, digest references, IDs, beginnings of IDs, or globs over names ('app:*')
    #[arg(value_name = "IMAGE", required_unless_present = "filters", add = super::completion::images())]
    images: Vec<String>,
    #[command(flatten)]
    filters: LongFilterArgs,
    /// Remove also what is in use, and an ID with all its names; a missing image is no failure
    #[arg(short, long)]
    force: bool,
    /// Keep untagged images that the removed one was made from
    #[arg(long)]
    no_prune: bool,
    /// Keep what is removed for so long (30m, 12h, 7d, off), whatever `mica trash` has set; `mica restore` brings it back
    #[arg(long, value_name = "DURATION", value_parser = super::trash::duration)]
    trash: Option<Duration>,
    /// Print what would be removed and how much space that frees; remove nothing, with -f neither
    #[arg(long)]
    dry_run: bool,
}

/// Removes images.
pub(super) fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let store = context.store()?;
    let filters = args.filters.parse()?.of(&store);
    if let Some(time) = args.trash {
        store.use_trash(time);
    }
    let how = How {
        force: args.force,
        keep_parents: args.no_prune,
    };
    let request = Request {
        images: &args.images,
        filters: (!args.filters.is_empty()).then_some(&filters),
        how,
        dry_run: args.dry_run,
    };
    let mut lines = Lines::default();
    let done = remove::remove_all(&store, &request, &mut |removed: &Removed| {
        let said = removed.plan.lines();
        said.iter().for_each(|line| lines.print(line));
    })?;
    if args.dry_run {
        lines.print(&total(done.bytes, true));
    }
    let failed = done
        .refused
        .iter()
        .any(|error| !(args.force && error.is_not_found()));
    for error in done.refused {
        print_error(&error.into());
    }
    lines.finish()?;
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
