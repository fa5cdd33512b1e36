//! `mica history`.

use std::process::ExitCode;

use clap::ArgAction;

use crate::ops::history::{self, Style};

use super::Context;
use super::output::{self, Printable};

/// Show how an image came about, newest step first
#[derive(clap::Args)]
pub struct Args {
    /// The image: a name, a digest reference, an ID or the beginning of one
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Print sizes and dates in human readable form; -H=false for bytes and times
    #[arg(short = 'H', long, value_name = "BOOL", action = ArgAction::Set, default_value_t = true,
          default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    human: bool,
    /// Do not truncate IDs and commands
    #[arg(long)]
    no_trunc: bool,
    /// Show image IDs only
    #[arg(short, long)]
    quiet: bool,
}

/// Prints a history.
pub fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let steps = history::of(&context.store()?, &args.image)?;
    let style = Style {
        no_trunc: args.no_trunc,
        human: args.human,
    };
    let text = match args.quiet {
        true => history::ids(&steps, args.no_trunc)
            .iter()
            .map(|id| format!("{id}\n"))
            .collect(),
        false => history::table(&steps, style, jiff::Timestamp::now(), |text| {
            Printable(text).to_string()
        }),
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}
