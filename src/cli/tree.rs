//! `mica tree`.

use std::process::ExitCode;

use crate::ops::image::filter;
use crate::ops::image::list::{self as images, Options};
use crate::ops::image::tree::{self, Style};
use crate::store::Store;

use super::filters::FilterArgs;
use super::{Context, output};

/// Show the layers of all images as one tree
///
/// A layer that images share stands once, with what each puts on it below; an image stands at its topmost layer. Sizes are
/// those of a layer's files.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Only these: a repository, with or without tag; `*`, `?` and `[]` match within one component
    #[arg(value_name = "NAME[:TAG]", add = super::completion::images())]
    pattern: Option<String>,
    /// Show also images without a tag
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    filters: FilterArgs,
    /// Do not truncate IDs
    #[arg(long)]
    no_trunc: bool,
}

/// Prints the tree.
pub(super) fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let mut options = Options {
        pattern: args.pattern,
        filters: args.filters.parse()?,
        all: args.all,
        ..Options::default()
    };
    let Some(store) = context.existing_store()? else {
        return Ok(ExitCode::SUCCESS);
    };
    options.filters = options.filters.of(&store);
    print(&store, &options, args.no_trunc)
}

/// The same for who has looked for the store.
pub(super) fn print(store: &Store, options: &Options, no_trunc: bool) -> anyhow::Result<ExitCode> {
    let style = Style { no_trunc };
    let text = store.read(|names| {
        let labels = |id: &_| filter::labels_of(store, id);
        let rows = images::list(names, options, &labels)?;
        tree::of(store, names, &rows, style)
    })?;
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}
