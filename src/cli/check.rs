//! `mica check`.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use crate::ops::space::check;

use super::Context;
use super::output::{self, Lines};

/// Verify every blob and index of the store
///
/// Prints a line for each finding. Fails if an image is harmed; wasted space alone is no failure.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Rebuild damaged indexes and remove what nothing uses
    #[arg(long)]
    repair: bool,
}

/// Checks the store.
pub(super) fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let store = context.store()?;
    let report = check::check(&store, args.repair)?;
    let mut lines = Lines::default();
    report
        .findings
        .iter()
        .for_each(|finding| lines.print(&finding.to_string()));
    match report.damages() {
        0 => {
            lines.finish()?;
            // Scripts read findings only.
            if report.findings.is_empty() && io::stdout().is_terminal() {
                let names = store.names()?;
                let layers = names.images.values().flat_map(|image| &image.layers);
                let layers = layers.collect::<BTreeSet<_>>().len();
                output::print(&format!(
                    "verified: {} and {}, their contents, indexes and documents; nothing is wrong\n",
                    counted(names.images.len(), "image"),
                    counted(layers, "layer")
                ))?;
            }
        }
        1 => anyhow::bail!("the store is damaged: 1 finding"),
        n => anyhow::bail!("the store is damaged: {n} findings"),
    }
    Ok(ExitCode::SUCCESS)
}

/// `1 image`, `2 images`.
pub(super) fn counted(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    }
}
