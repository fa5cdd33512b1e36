//! `mica gc`.

use std::process::ExitCode;

use crate::ops::gc;

use super::Context;
use super::output::Lines;
use super::prune::total;

/// Remove what interrupted work has left in the store
///
/// Never removes an image, tagged or not, and no volume but ephemeral ones whose time has come.
#[derive(clap::Args)]
pub struct Args {
    /// Print what would be removed and how much space that frees; remove nothing
    #[arg(long)]
    dry_run: bool,
}

/// Collects garbage.
pub fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let store = context.store()?;
    if !args.dry_run {
        super::volume::sweep(&store);
    }
    let plan = gc::gc(&store, args.dry_run)?;
    let mut lines = Lines::default();
    gc::lines(&plan).iter().for_each(|line| lines.print(line));
    lines.print(&total(plan.bytes, args.dry_run));
    lines.finish()?;
    Ok(ExitCode::SUCCESS)
}
