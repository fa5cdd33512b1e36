//! `mica trash` and `mica restore`.

use std::process::ExitCode;
use std::time::Duration;

use crate::ops::image::{tag, trash};
use crate::text::rows::Format;
use crate::text::time;

use super::output::Lines;
use super::prune::{TITLE, report, total};
use super::{Context, output, prompt};

/// Show what was removed and can be brought back; switch the trash on or off
///
/// Off at first. While it is on, what `rmi` or `rm` in a mount removes stays in the store, under no name, until its time is over;
/// `mica restore` brings it back. Pruning is for space and does not use it.
#[derive(clap::Args)]
pub(super) struct TrashArgs {
    /// From now on keep what is removed for so long (30m, 12h, 7d), or "off"
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    keep: Option<Duration>,
    /// Remove for good what is in the trash
    #[arg(long, conflicts_with = "keep")]
    empty: bool,
    /// Do not ask
    #[arg(short, long, requires = "empty")]
    force: bool,
    /// With --empty: print what would be removed and how much space that frees; remove nothing, with -f neither
    #[arg(long, requires = "empty")]
    dry_run: bool,
    /// Do not truncate IDs
    #[arg(long)]
    no_trunc: bool,
    /// Print each name by a Go template, "table TEMPLATE" with a header, or "json"; fields: Repository Tag ID Removed Until
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Bring back what was removed, while it is in the trash
#[derive(clap::Args)]
pub(super) struct RestoreArgs {
    /// A tag, a repository (all its tags), an image ID or the beginning of one
    #[arg(value_name = "NAME", add = super::completion::trashed())]
    name: String,
    /// Under this name
    #[arg(value_name = "NEW_NAME")]
    target: Option<String>,
}

/// Reads a span of time; `off` is none.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    match text {
        "off" => Ok(Duration::ZERO),
        text => {
            time::span(text).ok_or_else(|| "not a duration such as 30m, 12h, 7d, or off".to_owned())
        }
    }
}

/// Shows the trash, sets it, empties it.
pub(super) fn trash(args: TrashArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let format = args.format.as_deref().map(Format::parse).transpose()?;
    let store = context.store()?;
    if let Some(time) = args.keep {
        let lock = store.lock()?;
        store.set_trash(&lock, time)?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.empty {
        if args.dry_run {
            let plan = trash::rehearse(&store)?;
            return report(TITLE, &plan.lines(), plan.bytes, true);
        }
        if !args.force {
            let plan = trash::rehearse(&store)?;
            let mut warning =
                vec!["WARNING! This will remove all that is in the trash.".to_owned()];
            warning.extend(plan.outlook().iter().map(|line| format!("  {line}")));
            warning.push(format!("  {}", total(plan.bytes, true)));
            if !prompt::confirm(&warning)? {
                return Ok(ExitCode::SUCCESS);
            }
        }
        let emptied = trash::empty(&store)?;
        return report(TITLE, &emptied.lines(), emptied.bytes, false);
    }
    let names = trash::without_expired(&store)?;
    let now = jiff::Timestamp::now();
    let formatted = match format {
        Some(format) => {
            let values = trash::values(&names, args.no_trunc, now);
            format.render(trash::COLUMNS, &values)?
        }
        None => None,
    };
    match formatted {
        Some(text) => output::print_foreign(&text)?,
        None => output::print(&trash::table(&names, args.no_trunc, now))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Restores.
pub(super) fn restore(args: RestoreArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let mut targets = tag::parse_targets(args.target.as_slice())?;
    let store = context.store()?;
    let restored = trash::restore(&store, &args.name, targets.pop().as_ref())?;
    let mut lines = Lines::default();
    for one in restored {
        lines.print(&match one.name {
            Some(name) => format!("Restored: {name}"),
            None => format!("Restored: {}", one.id),
        });
    }
    lines.finish()?;
    Ok(ExitCode::SUCCESS)
}
