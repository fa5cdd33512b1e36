//! `mica system df`.

use std::process::ExitCode;

use crate::ops::image::list::Options;
use crate::ops::space::SpaceError;
use crate::ops::usage::images as users;
use crate::ops::{container as containers, image::list as images, space::df};
use crate::text::rows::Format;

use super::{Context, output};

/// Show what images, containers and volumes take on disk, and how much of it nothing uses
///
/// Bytes are those on disk, shared layers counted once. RECLAIMABLE is what `image prune -a` would free.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Show each image: what it shares with others, and what removing it alone would free
    #[arg(short, long)]
    verbose: bool,
    /// Print each row by a Go template, "table TEMPLATE" with a header, or "json"; fields: Type TotalCount Active Size
    /// Reclaimable
    #[arg(long, value_name = "FORMAT", conflicts_with = "verbose")]
    format: Option<String>,
}

/// Shows disk use.
pub(super) fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let format = args.format.as_deref().map(Format::parse).transpose()?;
    let store = context.store()?;
    super::volume::sweep(&store);
    store.await_freed();
    let (names, users, df) = store.read(|names| {
        let leases = store.live_leases()?;
        let users = users::counts(&leases, names)?;
        let df = df::of(&store, names, &leases, &users)?;
        Ok::<_, SpaceError>((names.clone(), users, df))
    })?;
    let formatted = match format {
        Some(format) => format.render(df::COLUMNS, &df::values(&df))?,
        None => None,
    };
    let text = match formatted {
        Some(text) => text,
        None if !args.verbose => df::table(&df),
        None => {
            let options = Options {
                all: true,
                ..Options::default()
            };
            let rows = images::list(&names, &options, &|_| Ok(Default::default()))?;
            let all = containers::ListOptions {
                all: true,
                ..Default::default()
            };
            let all = containers::list(&store, &all)?;
            df::verbose(&df, &rows, &all, &users, jiff::Timestamp::now())
        }
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}
