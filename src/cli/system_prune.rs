//! `mica system prune`.

use std::process::ExitCode;

use crate::ops::gc;
use crate::ops::prune::{self, Options};

use super::Context;
use super::filters::LongFilterArgs;
use super::output::Lines;
use super::prompt;
use super::prune::{ALL, DANGLING, outlook, section, total};

/// Remove unused images and what interrupted work has left
#[derive(clap::Args)]
pub struct Args {
    /// Remove all images that nothing uses, not only those without a tag
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    filters: LongFilterArgs,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Print what would be removed and how much space that frees; remove nothing
    #[arg(long, conflicts_with = "force")]
    dry_run: bool,
}

/// Prunes everything that can be.
pub fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let store = context.store()?;
    let options = Options {
        all: args.all,
        filters: args.filters.parse()?.of(&store),
        ..Options::default()
    };
    let mut lines = Lines::default();
    let mut shown = None;
    if !args.force && !args.dry_run {
        let plan = prune::rehearse(&store, &options)?;
        if !prompt::confirm(&warning(&args, outlook(&plan)))? {
            return Ok(ExitCode::SUCCESS);
        }
        shown = Some(plan.images());
    }
    // Leftovers first: a removal takes them with it, and then they would not be counted.
    let leftovers = gc::gc(&store, args.dry_run)?;
    let (pruned, verb) = match args.dry_run {
        true => (prune::rehearse(&store, &options)?, "reclaimable"),
        false => (prune::prune(&store, &options, shown.as_ref())?, "reclaimed"),
    };
    let notified = match args.dry_run {
        true => Ok(Vec::new()),
        false => store.notify_mounts(),
    };
    section(&mut lines, "Deleted Images:", &pruned.lines());
    section(&mut lines, "Deleted Leftovers:", &gc::lines(&leftovers));
    lines.print(&total(pruned.bytes.saturating_add(leftovers.bytes), verb));
    notified?;
    lines.finish()?;
    Ok(ExitCode::SUCCESS)
}

/// docker's warning, with what will go.
fn warning(args: &Args, outlook: Vec<String>) -> Vec<String> {
    let images = if args.all { ALL } else { DANGLING };
    let mut lines = vec![
        "WARNING! This will remove:".to_owned(),
        format!("  - {images}"),
        "  - what interrupted work has left".to_owned(),
        String::new(),
    ];
    if !args.filters.is_empty() {
        lines.push("  Items to be pruned will be filtered with:".to_owned());
        lines.extend(args.filters.texts().map(|text| format!("  - {text}")));
        lines.push(String::new());
    }
    lines.extend(outlook);
    lines.push(String::new());
    lines
}
