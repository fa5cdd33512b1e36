//! `mica gc`.

use std::process::ExitCode;

use crate::ops::space::gc;

use super::Context;
use super::output::Lines;
use super::prune::total;

/// Remove what interrupted work has left in the store
///
/// Never removes an image, tagged or not, and no volume but ephemeral ones whose time has come.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Print what would be removed and how much space that frees; remove nothing
    #[arg(long)]
    dry_run: bool,
}

/// Collects garbage.
pub(super) fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let store = context.store()?;
    let plan = gc::gc(&store, args.dry_run)?;
    let ended = gc::end_volumes(&store, args.dry_run);
    let mut lines = Lines::default();
    gc::lines(&plan).iter().for_each(|line| lines.print(line));
    for name in &ended.volumes {
        lines.print(&format!("Deleted: volume {name}"));
    }
    lines.print(&total(plan.bytes.saturating_add(ended.bytes), args.dry_run));
    lines.finish()?;
    Ok(ExitCode::SUCCESS)
}
