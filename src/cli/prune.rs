//! `mica image prune`.

use std::process::ExitCode;

use clap::ValueEnum;

use crate::ops::image::prune::{self, Keep, Newest, Options, Pruned};
use crate::text::format::{self, human_size_4};

use super::Context;
use super::filters::LongFilterArgs;
use super::output::Lines;
use super::prompt;

/// Remove unused images
///
/// Without options those that have no tag. What a process, a mount or a lease uses always stays. Asks before, and says what
/// would go.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Remove all images that nothing uses, not only those without a tag
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    filters: LongFilterArgs,
    /// Keep the N newest images of each repository; remove the tags of the others
    #[arg(long, value_name = "N")]
    keep: Option<usize>,
    /// What makes an image newer
    #[arg(
        long,
        value_name = "ORDER",
        value_enum,
        default_value = "date",
        requires = "keep"
    )]
    keep_by: Order,
    /// Remove those that were used least recently, with or without a tag, until all images together take no more than this on
    /// disk (500MB, 20GiB)
    #[arg(long, value_name = "SIZE", value_parser = size, conflicts_with = "keep")]
    max_size: Option<u64>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Print what would be removed and how much space that frees; remove nothing, with -f neither
    #[arg(long)]
    dry_run: bool,
}

/// `--keep-by`.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Order {
    /// The date it was made
    Date,
    /// The version in its tag
    Version,
}

/// Prunes images.
pub(super) fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let store = context.store()?;
    let options = Options {
        all: args.all,
        filters: args.filters.parse()?.of(&store),
        max_size: args.max_size,
        empty_trash: false,
        without: Default::default(),
        keep: args.keep.map(|images| Keep {
            images,
            by: match args.keep_by {
                Order::Date => Newest::Date,
                Order::Version => Newest::Version,
            },
        }),
    };
    if args.dry_run {
        let pruned = prune::rehearse(&store, &options)?;
        return report(TITLE, &pruned.lines(), pruned.bytes, true);
    }
    let shown = match args.force {
        true => None,
        false => {
            let plan = prune::rehearse(&store, &options)?;
            let mut warning = vec![format!("WARNING! This will remove {}.", what(&args))];
            warning.extend(outlook(&plan));
            if !prompt::confirm(&warning)? {
                return Ok(ExitCode::SUCCESS);
            }
            Some(plan.images())
        }
    };
    let pruned = prune::prune(&store, &options, shown.as_ref())?;
    report(TITLE, &pruned.lines(), pruned.bytes, false)
}

pub(super) fn size(text: &str) -> Result<u64, String> {
    format::size(text).ok_or_else(|| "not a size such as 500MB or 20GiB".to_owned())
}

/// docker's words for what is asked for.
fn what(args: &Args) -> String {
    match args.keep {
        Some(n) => format!(
            "all tags but those of the {n} newest images of each repository, where no process, mount or lease uses the image"
        ),
        None if args.max_size.is_some() => {
            "the least recently used images that no process, mount or lease uses, until the others fit".to_owned()
        }
        None if args.all => ALL.to_owned(),
        None => DANGLING.to_owned(),
    }
}

/// docker's words above the list.
pub(super) const TITLE: &str = "Deleted Images:";
/// What goes with `-a`.
pub(super) const ALL: &str = "all images that no process, mount or lease uses";
/// What goes without.
pub(super) const DANGLING: &str = "all dangling images";

/// What will go, before the question.
pub(super) fn outlook(plan: &Pruned) -> Vec<String> {
    let mut lines: Vec<String> = plan
        .outlook()
        .iter()
        .map(|line| format!("  {line}"))
        .collect();
    lines.push(format!("  {}", total(plan.bytes, true)));
    lines
}

/// docker's `Deleted Images:` section, if anything is in it.
pub(super) fn section(lines: &mut Lines, title: &str, entries: &[String]) {
    if !entries.is_empty() {
        lines.print(title);
        entries.iter().for_each(|line| lines.print(line));
        lines.print("");
    }
}

/// Prints what has gone, or with `dry_run` would go.
pub(super) fn report(
    title: &str,
    entries: &[String],
    bytes: u64,
    dry_run: bool,
) -> anyhow::Result<ExitCode> {
    let mut lines = Lines::default();
    section(&mut lines, title, entries);
    lines.print(&total(bytes, dry_run));
    lines.finish()?;
    Ok(ExitCode::SUCCESS)
}

/// docker's last line, and ours of what would come back.
pub(super) fn total(bytes: u64, dry_run: bool) -> String {
    let verb = if dry_run { "reclaimable" } else { "reclaimed" };
    format!("Total {verb} space: {}", human_size_4(bytes))
}
