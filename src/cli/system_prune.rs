//! `mica system prune`.

use std::process::ExitCode;

use crate::ops::prune::{self, Options};
use crate::ops::volumes::list::{Filters as VolumeFilters, Verb};
use crate::ops::volumes::prune as volume_prune;
use crate::ops::{gc, trash, volumes};

use super::Context;
use super::filters::LongFilterArgs;
use super::output::Lines;
use super::prompt;
use super::prune::{ALL, DANGLING, TITLE, outlook, section, total};

/// Remove unused images and what interrupted work has left
#[derive(clap::Args)]
pub struct Args {
    /// Remove all images that nothing uses, not only those without a tag
    #[arg(short, long)]
    all: bool,
    /// Remove also volumes that nothing uses and nobody has named, with their data
    #[arg(long)]
    volumes: bool,
    #[command(flatten)]
    filters: LongFilterArgs,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Print what would be removed and how much space that frees; remove nothing, with -f neither
    #[arg(long)]
    dry_run: bool,
}

/// Prunes everything that can be.
pub fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let store = context.store()?;
    let options = Options {
        all: args.all,
        filters: args.filters.parse()?.of(&store),
        empty_trash: true,
        ..Options::default()
    };
    if args.volumes && args.filters.texts().any(|text| text.starts_with("until")) {
        anyhow::bail!("the \"until\" filter is not supported with \"--volumes\"");
    }
    if !args.dry_run {
        super::volume::sweep(&store);
    }
    let volume_options = volume_prune::Options {
        filters: VolumeFilters::parse(&args.filters.labels(), Verb::Prune)?,
        ..volume_prune::Options::default()
    };
    let mut lines = Lines::default();
    let (mut shown, mut shown_volumes) = (None, None);
    if !args.force && !args.dry_run {
        let plan = prune::rehearse(&store, &options)?;
        let volumes = match args.volumes {
            true => volume_prune::rehearse(&store, &volume_options)?,
            false => volume_prune::Pruned::default(),
        };
        let mut outlook = outlook(&plan);
        outlook.extend(
            volumes
                .volumes
                .iter()
                .map(|name| format!("  volume {name}")),
        );
        let trash_is_empty = store.names()?.trash.is_empty();
        if !prompt::confirm(&warning(&args, trash_is_empty, outlook))? {
            return Ok(ExitCode::SUCCESS);
        }
        shown = Some(plan.images());
        shown_volumes = Some(volumes.volumes.into_iter().collect());
    }
    // Leftovers first: a removal takes them with it, and then they would not be counted.
    let leftovers = gc::gc(&store, args.dry_run)?;
    let trashed = trash::empty(&store, args.dry_run)?;
    let (pruned, notified) = match args.dry_run {
        true => (prune::rehearse(&store, &options)?, Ok(Vec::new())),
        false => {
            let pruned = prune::prune(&store, &options, shown.as_ref())?;
            (pruned, store.notify_mounts())
        }
    };
    let tell = || volumes::tell(&store);
    let volumes = match (args.volumes, args.dry_run) {
        (false, _) => volume_prune::Pruned::default(),
        (true, true) => volume_prune::rehearse(&store, &volume_options)?,
        (true, false) => {
            volume_prune::prune(&store, &volume_options, shown_volumes.as_ref(), &tell)?
        }
    };
    let names: Vec<String> = volumes.volumes.iter().map(ToString::to_string).collect();
    section(&mut lines, super::volume::TITLE, &names);
    section(&mut lines, TITLE, &pruned.lines());
    section(&mut lines, "Deleted Trash:", &trashed.lines());
    section(&mut lines, "Deleted Leftovers:", &gc::lines(&leftovers));
    let bytes = pruned.bytes.saturating_add(leftovers.bytes);
    let bytes = bytes.saturating_add(trashed.bytes);
    lines.print(&total(bytes.saturating_add(volumes.bytes), args.dry_run));
    notified?;
    lines.finish()?;
    Ok(ExitCode::SUCCESS)
}

/// docker's warning, with what will go.
fn warning(args: &Args, trash_is_empty: bool, outlook: Vec<String>) -> Vec<String> {
    let images = if args.all { ALL } else { DANGLING };
    let mut lines = vec![
        "WARNING! This will remove:".to_owned(),
        format!("  - {images}"),
        "  - what interrupted work has left".to_owned(),
    ];
    if args.volumes {
        lines.push(format!("  - {}", super::volume::ANONYMOUS));
    }
    if !trash_is_empty {
        lines.push("  - what is in the trash".to_owned());
    }
    lines.push(String::new());
    if !args.filters.is_empty() {
        lines.push("  Items to be pruned will be filtered with:".to_owned());
        lines.extend(args.filters.texts().map(|text| format!("  - {text}")));
        lines.push(String::new());
    }
    lines.extend(outlook);
    lines.push(String::new());
    lines
}
