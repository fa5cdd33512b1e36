//! `mica images`.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal, Write as _};
use std::process::ExitCode;

use clap::ValueEnum;

use crate::ops::image::ImageError;
use crate::ops::image::filter;
use crate::ops::image::list::{self as images, Options, Row, Sort, Style, Users};
use crate::ops::usage::images as users;
use crate::store::{Names, Store};
use crate::text::format::human_size;
use crate::text::rows::Format;

use super::filters::FilterArgs;
use super::{Context, output};

/// List images
///
/// SIZE is the bytes of an image's files, as docker counts them; what it takes on disk, with its index and whole blocks, is in
/// system df -v.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Only these: a repository, with or without tag; `*`, `?` and `[]` match within one component
    #[arg(value_name = "NAME[:TAG]", add = super::completion::images())]
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
    #[command(flatten)]
    filters: FilterArgs,
    /// Print each image by a Go template, "table TEMPLATE" with a header, or "json"; fields: ID Repository Tag Digest
    /// CreatedSince CreatedAt Size
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Order of the rows
    #[arg(long, value_name = "KEY", value_enum)]
    sort: Option<SortKey>,
    /// Show also how many processes and mounts use each image
    #[arg(short)]
    long: bool,
    /// Show their layers as one tree, as `mica tree` does
    #[arg(long, conflicts_with_all = ["quiet", "format", "digests", "sort", "long"])]
    tree: bool,
}

/// `--sort`.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum SortKey {
    /// Newest first
    Created,
    Id,
    Repository,
    /// Smallest first
    Size,
    /// In version order
    Tag,
}

impl From<SortKey> for Sort {
    fn from(key: SortKey) -> Sort {
        match key {
            SortKey::Created => Sort::Created,
            SortKey::Id => Sort::Id,
            SortKey::Repository => Sort::Repository,
            SortKey::Size => Sort::Size,
            SortKey::Tag => Sort::Tag,
        }
    }
}

/// Words that follow `docker image`; who lists images of that name has more likely missed the singular.
const VERBS: &[&str] = &[
    "build", "history", "import", "inspect", "list", "load", "ls", "prune", "pull", "push", "rm",
    "save", "tag",
];

/// Lists images.
pub(super) fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let format = args.format.as_deref().map(Format::parse).transpose()?;
    let format = format.unwrap_or(Format::Table);
    let mut options = Options {
        pattern: args.pattern.clone(),
        filters: args.filters.parse()?,
        all: args.all,
        digests: args.digests || !matches!(format, Format::Table),
        sort: args.sort.map(Sort::from),
    };
    let Some(store) = context.existing_store()? else {
        let none = |_: &_| Ok(Default::default());
        let rows = images::list(&Names::default(), &options, &none)?;
        return print(&args, &format, &rows, &Users::new());
    };
    options.filters = options.filters.of(&store);
    if args.tree {
        return super::tree::print(&store, &options, args.no_trunc);
    }
    let (names, rows) = store.read(|names| {
        let labels = |id: &_| filter::labels_of(&store, id);
        Ok::<_, ImageError>((names.clone(), images::list(names, &options, &labels)?))
    })?;
    let users = match args.long {
        true => users::counts(&store.live_leases()?, &names)?,
        false => Users::new(),
    };
    let code = print(&args, &format, &rows, &users)?;
    if !args.quiet && matches!(format, Format::Table) && io::stdout().is_terminal() {
        footer(&store, &names, &rows)?;
    }
    Ok(code)
}

fn print(args: &Args, format: &Format, rows: &[Row], users: &Users) -> anyhow::Result<ExitCode> {
    let now = jiff::Timestamp::now();
    let style = Style {
        no_trunc: args.no_trunc,
        digests: args.digests,
    };
    let values = match format {
        Format::Table => Vec::new(),
        _ => images::values(rows, style, now),
    };
    if let Some(text) = format.render(images::COLUMNS, &values)? {
        output::print_foreign(&text)?;
    } else if args.quiet {
        let ids = images::ids(rows, style, args.all_rows);
        output::print(&ids.iter().map(|id| format!("{id}\n")).collect::<String>())?;
    } else {
        let users = args.long.then_some(users);
        output::print(&images::table(rows, style, users, now))?;
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
    Ok(ExitCode::SUCCESS)
}

/// For people at a terminal: what the images listed take together. The sizes in the table count shared layers again and
/// again.
fn footer(store: &Store, names: &Names, rows: &[Row]) -> anyhow::Result<()> {
    let ids: BTreeSet<_> = rows.iter().map(|row| row.id).collect();
    let sizes = store.blob_sizes()?;
    let size = |digest: &_| sizes.get(digest).copied().unwrap_or(0);
    let images = || ids.iter().filter_map(|id| names.images.get(id));
    let shared: BTreeSet<_> = images().flat_map(|image| image.blobs()).collect();
    let shared: u64 = shared.iter().map(size).sum();
    let apart: u64 = images()
        .flat_map(|image| image.blobs().collect::<BTreeSet<_>>())
        .map(|digest| size(&digest))
        .sum();
    output::print(&format!(
        "{} names, {} images, {} on disk ({} if not shared)\n",
        rows.len(),
        ids.len(),
        human_size(shared),
        human_size(apart)
    ))?;
    Ok(())
}
