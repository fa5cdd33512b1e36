//! `mica volume ls`.

use std::process::ExitCode;

use crate::ops::image::filter;
use crate::ops::usage::volumes::{self as users, Look};
use crate::ops::volume::list::{self, Filters, Verb};
use crate::text::rows::Format;

use super::super::{Context, output};

/// List volumes
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only volumes for which this holds: dangling=BOOL, driver=DRIVER, kind=KIND, label=KEY[=VALUE], name=PART; may be repeated
    #[arg(short = 'f', long = "filter", value_name = "FILTER", value_parser = filter::split, add = crate::cli::completion::filters(crate::cli::completion::OF_VOLUMES))]
    filters: Vec<(String, String)>,
    /// Print each volume by a Go template, "table TEMPLATE" with a header, or "json"; fields: Name Driver Kind Labels Mountpoint Scope
    /// Size Users
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Print names only
    #[arg(short, long)]
    quiet: bool,
    /// Show also the kind, the size on disk and how many use each volume
    #[arg(short)]
    long: bool,
}

/// Lists volumes.
pub(super) fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let format = args.format.as_deref().map(Format::parse).transpose()?;
    let format = format.unwrap_or(Format::Table);
    let filters = Filters::parse(&args.filters, Verb::Ls)?;
    let Some(store) = context.existing_store()? else {
        let text = match (&format, args.quiet) {
            (Format::Table, true) => String::new(),
            (Format::Table, false) => list::table(&[], args.long),
            _ => format.render(list::COLUMNS, &[])?.unwrap_or_default(),
        };
        output::print(&text)?;
        return Ok(ExitCode::SUCCESS);
    };
    super::sweep(&store);
    // What costs a look at all processes, or at all files, is found only if it is shown.
    let shown = |field: &str| {
        let template = args.format.as_deref().unwrap_or_default();
        args.long || template == "json" || template.contains(field)
    };
    let leases = store.live_leases()?;
    let look = Look {
        maps: true,
        except: None,
    };
    let wants_users = filters.needs_users() || shown(".Users") || shown(".Links");
    let users = match wants_users {
        true => Some(users::find(&store, &leases, look)?),
        false => None,
    };
    let rows = list::list(&store, &filters, users.as_ref(), shown(".Size"))?;
    let values = match format {
        Format::Table => Vec::new(),
        _ => list::values(&store, &leases, &rows),
    };
    if args.quiet {
        let names = rows.iter().map(|row| format!("{}\n", row.volume.name));
        output::print(&names.collect::<String>())?;
    } else if let Some(text) = format.render(list::COLUMNS, &values)? {
        output::print_foreign(&text)?;
    } else {
        output::print(&list::table(&rows, args.long))?;
    }
    Ok(ExitCode::SUCCESS)
}
