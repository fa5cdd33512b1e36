//! `mica history`.

use std::process::ExitCode;

use clap::ArgAction;

use crate::ops::image::history::{self, Style};
use crate::text::rows::Format;

use super::Context;
use super::output::{self, Printable};

/// Show how an image came about, newest step first
#[derive(clap::Args)]
pub(super) struct Args {
    /// The image: a name, a digest reference, an ID or the beginning of one
    #[arg(value_name = "IMAGE", add = super::completion::images())]
    image: String,
    /// Print sizes and dates in human readable form; -H=false for bytes and times
    #[arg(short = 'H', long, value_name = "BOOL", action = ArgAction::Set, default_value_t = true,
          default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    human: bool,
    /// Do not truncate IDs and commands
    #[arg(long)]
    no_trunc: bool,
    /// Print each step by a Go template, "table TEMPLATE" with a header, or "json"; fields: ID CreatedSince CreatedAt
    /// CreatedBy Size Comment
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show image IDs only
    #[arg(short, long)]
    quiet: bool,
}

/// Prints a history.
pub(super) fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let format = args.format.as_deref().map(Format::parse).transpose()?;
    let steps = history::of(&context.store()?, &args.image)?;
    let style = Style {
        no_trunc: args.no_trunc,
        human: args.human,
    };
    let now = jiff::Timestamp::now();
    if let Some(format) = format {
        let values = history::values(&steps, style, now);
        if let Some(text) = format.render(history::COLUMNS, &values)? {
            output::print_foreign(&text)?;
            return Ok(ExitCode::SUCCESS);
        }
    }
    let text = match args.quiet {
        true => history::ids(&steps, args.no_trunc)
            .iter()
            .map(|id| format!("{id}\n"))
            .collect(),
        false => history::table(&steps, style, now, |text| Printable(text).to_string()),
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}
