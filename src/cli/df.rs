//! `mica system df`.

use std::process::ExitCode;

use crate::ops::images::Options;
use crate::ops::{OpsError, df, images, users};

use super::{Context, output};

/// Show what the images take on disk, and how much of it nothing uses
///
/// Bytes are those on disk, shared layers counted once. RECLAIMABLE is what `image prune -a` would free.
#[derive(clap::Args)]
pub struct Args {
    /// Show each image: what it shares with others, and what removing it alone would free
    #[arg(short, long)]
    verbose: bool,
}

/// Shows disk use.
pub fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let store = context.store()?;
    let text = store.read(|names| {
        let leases = store.live_leases()?;
        let users = users::counts(&leases, names)?;
        let df = df::of(&store, names, &leases, &users)?;
        if !args.verbose {
            return Ok::<_, OpsError>(df::table(&df));
        }
        let options = Options {
            all: true,
            ..Options::default()
        };
        let rows = images::list(names, &options, &|_| Ok(Default::default()))?;
        Ok(df::verbose(&df, &rows, &users, jiff::Timestamp::now()))
    })?;
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}
