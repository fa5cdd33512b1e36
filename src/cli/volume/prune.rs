//! `mica volume prune`.

use std::process::ExitCode;

use crate::ops::image::filter;
use crate::ops::volume as volumes;
use crate::ops::volume::list::{Filters, Verb};
use crate::ops::volume::prune::{self, Options, Pruned};

use super::super::prune::{report, total};
use super::super::{Context, prompt};

/// Remove unused volumes with their data
///
/// Without options only those that nobody has named. What a process, a mount, a lease or a container uses always stays, and
/// ephemeral volumes go by themselves. Asks before, and says what would go.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Remove all volumes that nothing uses, also those with a name
    #[arg(short, long)]
    all: bool,
    /// Only volumes for which this holds: all=BOOL, label=KEY[=VALUE], label!=KEY[=VALUE]; may be repeated
    #[arg(long = "filter", value_name = "FILTER", value_parser = filter::split, add = crate::cli::completion::filters(crate::cli::completion::OF_PRUNED_VOLUMES))]
    filters: Vec<(String, String)>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Print what would be removed and how much space that frees; remove nothing, with -f neither
    #[arg(long)]
    dry_run: bool,
}

/// docker's words above the list.
pub(crate) const TITLE: &str = "Deleted Volumes:";
/// What goes with `-a`; docker's words.
const ALL: &str = "all local volumes not used by at least one container";
/// What goes without; docker's words.
pub(crate) const ANONYMOUS: &str = "anonymous local volumes not used by at least one container";

/// Prunes volumes.
pub(super) fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let store = context.store()?;
    let options = Options {
        all: args.all,
        filters: Filters::parse(&args.filters, Verb::Prune)?,
        ..Options::default()
    };
    if args.dry_run {
        return told(&prune::rehearse(&store, &options)?, true);
    }
    let shown = match args.force {
        true => None,
        false => {
            let plan = prune::rehearse(&store, &options)?;
            let what = if args.all { ALL } else { ANONYMOUS };
            let mut warning = vec![format!("WARNING! This will remove {what}.")];
            warning.extend(outlook(&plan));
            warning.push(format!("  {}", total(plan.bytes, true)));
            if !prompt::confirm(&warning)? {
                return Ok(ExitCode::SUCCESS);
            }
            Some(plan.volumes.into_iter().collect())
        }
    };
    super::sweep(&store);
    let tell = || volumes::tell(&store);
    let pruned = prune::prune(&store, &options, shown.as_ref(), &tell)?;
    told(&pruned, false)
}

/// The lines of a question.
pub(crate) fn outlook(pruned: &Pruned) -> impl Iterator<Item = String> {
    let volumes = pruned.volumes.iter();
    volumes.map(|name| format!("  would delete: volume {name}"))
}

fn told(pruned: &Pruned, dry_run: bool) -> anyhow::Result<ExitCode> {
    let names: Vec<String> = pruned.volumes.iter().map(ToString::to_string).collect();
    report(TITLE, &names, pruned.bytes, dry_run)
}
