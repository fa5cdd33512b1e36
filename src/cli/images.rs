//! `mica images`.

use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::ops::images::{self, Options, Style};
use crate::store::Names;

use super::{Context, output};

/// List images
#[derive(clap::Args)]
pub struct Args {
    /// Only these: a repository, with or without tag; `*`, `?` and `[]` match within one component
    #[arg(value_name = "NAME[:TAG]")]
    pattern: Option<String>,
    /// Show also images without a tag
    #[arg(short, long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Do not truncate IDs
    #[arg(long)]
    no_trunc: bool,
    /// Show image IDs only, each once
    #[arg(short, long)]
    quiet: bool,
    /// With -q: an ID per row, as docker prints them
    #[arg(long, requires = "quiet")]
    all_rows: bool,
}

/// Words that follow `docker image`; who lists images of that name has more likely missed the singular.
const VERBS: &[&str] = &[
    "build", "history", "import", "inspect", "list", "load", "ls", "prune", "pull", "push", "rm",
    "save", "tag",
];

/// Lists images.
pub fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let names = match context.existing_store()? {
        Some(store) => store.names()?,
        None => Default::default(),
    };
    list(&args, &names)?;
    Ok(ExitCode::SUCCESS)
}

fn list(args: &Args, names: &Names) -> anyhow::Result<()> {
    let rows = images::list(
        names,
        &Options {
            pattern: args.pattern.clone(),
            all: args.all,
            digests: args.digests,
        },
    )?;
    let style = Style {
        no_trunc: args.no_trunc,
        digests: args.digests,
    };
    if args.quiet {
        let ids = images::ids(&rows, style, args.all_rows);
        output::print(&ids.iter().map(|id| format!("{id}\n")).collect::<String>())?;
    } else {
        output::print(&images::table(&rows, style, jiff::Timestamp::now()))?;
    }
    if let Some(word) = args
        .pattern
        .as_deref()
        .filter(|w| rows.is_empty() && VERBS.contains(w))
    {
        let hint =
            format!("No images found matching {word:?}: did you mean \"mica image {word}\"?");
        // A hint that cannot be given is no failure.
        let _ = writeln!(io::stderr(), "{hint}");
    }
    Ok(())
}
