//! `mica builder prune`.

use std::process::ExitCode;

use crate::cli::Context;
use crate::cli::output::Lines;
use crate::cli::prompt;
use crate::cli::prune::{size, total};
use crate::ops::build::prune::{self, Options};
use crate::text::format;

/// Remove what builds have kept for later builds
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Remove all of it: also what images use, and the directories of RUN --mount=type=cache
    #[arg(short, long)]
    all: bool,
    /// Remove only what was not used since: until=TIME (a time, or an age such as 24h)
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Keep what was used last, up to so many bytes (such as 10GB)
    #[arg(long, value_name = "BYTES")]
    keep_storage: Option<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Print what would be removed and how much space that frees; remove nothing
    #[arg(long)]
    dry_run: bool,
}

/// Prunes the cache of builds.
pub(crate) fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let Some(store) = context.existing_store()? else {
        crate::cli::output::print(&format!("{}\n", total(0, args.dry_run)))?;
        return Ok(ExitCode::SUCCESS);
    };
    let mut options = Options {
        all: args.all,
        dry_run: args.dry_run,
        ..Options::default()
    };
    for filter in &args.filter {
        options.until = Some(until(filter)?);
    }
    if let Some(text) = &args.keep_storage {
        options.keep = Some(size(text).map_err(anyhow::Error::msg)?);
    }
    let what = match args.all {
        true => "WARNING! This will remove all build cache.",
        false => "WARNING! This will remove all dangling build cache.",
    };
    if !args.force && !args.dry_run && !prompt::confirm(&[what.to_owned()])? {
        return Ok(ExitCode::SUCCESS);
    }
    let pruned = prune::prune(&store, &options)?;
    let mut lines = Lines::default();
    if !pruned.objects.is_empty() {
        lines.print("Deleted build cache objects:");
        for (digest, bytes) in &pruned.objects {
            lines.print(&format!("{}\t{}", digest.hex(), format::human_size(*bytes)));
        }
        lines.print("");
    }
    lines.print(&total(pruned.bytes, args.dry_run));
    lines.finish()?;
    Ok(ExitCode::SUCCESS)
}

fn until(filter: &str) -> anyhow::Result<jiff::Timestamp> {
    match filter.split_once('=') {
        Some(("until" | "unused-for", value)) => {
            let point = crate::text::time::point(value, jiff::Timestamp::now());
            point.ok_or_else(|| anyhow::anyhow!("invalid filter 'until=[{value}]'"))
        }
        _ => anyhow::bail!("invalid filter '{filter}'"),
    }
}
