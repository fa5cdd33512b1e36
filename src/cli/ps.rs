//! `mica ps`.

use std::process::ExitCode;

use super::Context;
use super::output::{self, Printable};
use crate::ops::container::{self as containers, Filters, ListOptions};
use crate::text::rows::Format;

/// List containers
#[derive(clap::Args)]
pub(super) struct Args {
    /// Show also those that do not run
    #[arg(short, long)]
    all: bool,
    /// Show the newest, whatever its state
    #[arg(short, long)]
    latest: bool,
    /// Show so many of the newest, whatever their state
    #[arg(short = 'n', long, value_name = "COUNT")]
    last: Option<usize>,
    /// Show IDs only
    #[arg(short, long)]
    quiet: bool,
    /// Do not truncate IDs and commands
    #[arg(long)]
    no_trunc: bool,
    /// Show what they have changed, in bytes on disk, and that with their image
    #[arg(short, long)]
    size: bool,
    /// Show only some: id=, name=, label=, status=, exited=, ancestor=, volume=, before=, since=
    #[arg(short, long, value_name = "FILTER", add = crate::cli::completion::filters(crate::cli::completion::OF_CONTAINERS))]
    filter: Vec<String>,
    /// Print each container by a Go template, "table TEMPLATE" with a header, or "json"; fields: ID Image Command CreatedAt
    /// RunningFor Status State Ports Names Labels Mounts LocalVolumes Networks Size
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Lists containers.
pub(super) fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let format = args.format.as_deref().map(Format::parse).transpose()?;
    let options = ListOptions {
        all: args.all,
        last: args.last.or(args.latest.then_some(1)),
        filters: Filters::parse(args.filter.iter().map(String::as_str))?,
        sizes: args.size
            || args
                .format
                .as_deref()
                .is_some_and(|text| text.contains(".Size")),
    };
    let rows = match context.existing_store()? {
        Some(store) => {
            // A store that cannot be written to can be listed.
            if store.read_only().is_none() {
                containers::sweep(&store);
            }
            containers::list(&store, &options)?
        }
        None => Vec::new(),
    };
    let now = jiff::Timestamp::now();
    if let Some(format) = format {
        let values = containers::values(&rows, args.no_trunc, now);
        if let Some(text) = format.render(containers::COLUMNS, &values)? {
            output::print_foreign(&text)?;
            return Ok(ExitCode::SUCCESS);
        }
    }
    let text = match args.quiet {
        true => rows
            .iter()
            .map(|row| row.id(args.no_trunc) + "\n")
            .collect(),
        false => containers::table(&rows, args.no_trunc, args.size, now, |text| {
            Printable(text).to_string()
        }),
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}
