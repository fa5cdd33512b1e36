//! `mica check`.

use std::process::ExitCode;

use crate::ops::check;

use super::Context;
use super::output::Lines;

/// Verify every blob and index of the store
///
/// Prints a line for each finding. Fails if an image is harmed; wasted space alone is no failure.
#[derive(clap::Args)]
pub struct Args {
    /// Rebuild damaged indexes and remove what nothing uses
    #[arg(long)]
    repair: bool,
}

/// Checks the store.
pub fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let store = context.store()?;
    let report = check::check(&store, args.repair)?;
    let mut lines = Lines::default();
    report
        .findings
        .iter()
        .for_each(|finding| lines.print(&finding.to_string()));
    if args.repair && !report.findings.is_empty() {
        store.notify_mounts()?;
    }
    match report.damages() {
        0 => lines.finish()?,
        1 => anyhow::bail!("the store is damaged: 1 finding"),
        n => anyhow::bail!("the store is damaged: {n} findings"),
    }
    Ok(ExitCode::SUCCESS)
}
