//! `mica users`.

use std::process::ExitCode;

use crate::ops::users as list;
use crate::text::rows::Format;

use super::{Context, completion, output};

/// Show who uses images and volumes
///
/// A line per process and way: cwd and root (its working or root directory is inside), open and mapped (files), mount (a part is
/// mounted in the namespace of that process), overlay (one stands on it), lease (it runs with `mica run` or `mica hold`), container (a stopped container that
/// needs the volume), hidden (it may use any volume, and we may not look into it).
#[derive(clap::Args)]
pub(super) struct Args {
    /// A path (with / or . at its beginning if it could be a name), a volume or an image; without one, everything in all mounts of the store
    #[arg(value_name = "PATH|VOLUME|IMAGE", add = completion::volumes_and_images())]
    target: Option<String>,
    /// Print each line by a Go template, "table TEMPLATE" with a header, or "json"; fields: PID Command How Of Path
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Print process ids only, each once
    #[arg(short, long)]
    quiet: bool,
}

/// Lists users.
pub(super) fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let format = args.format.as_deref().map(Format::parse).transpose()?;
    let format = format.unwrap_or(Format::Table);
    let store = context.store()?;
    super::volume::sweep(&store);
    let rows = list::of(&store, args.target.as_deref())?;
    if args.quiet {
        let mut pids: Vec<u32> = rows.iter().map(|row| row.user.pid).collect();
        pids.sort_unstable();
        pids.dedup();
        let lines = pids
            .iter()
            .filter(|pid| **pid != 0)
            .map(|pid| format!("{pid}\n"));
        output::print(&lines.collect::<String>())?;
    } else if let Some(text) = format.render(list::COLUMNS, &list::values(&rows))? {
        output::print_foreign(&text)?;
    } else {
        output::print_foreign(&list::table(&rows))?;
    }
    Ok(ExitCode::SUCCESS)
}
