//! `mica system prune`.

use std::process::ExitCode;

use crate::ops::container::prune::Filters as ContainerFilters;
use crate::ops::image::prune::Options;
use crate::ops::space::gc;
use crate::ops::space::prune::{Parts, Plan};
use crate::ops::volume::list::{Filters as VolumeFilters, Verb};
use crate::ops::volume::prune as volume_prune;
use crate::store::VolumeName;

use super::filters::LongFilterArgs;
use super::output::Lines;
use super::prune::{ALL, DANGLING, TITLE, section, total};
use super::{Context, container, prompt};

/// Remove stopped containers, unused images, the cache of builds and what interrupted work has left
#[derive(clap::Args)]
pub(super) struct Args {
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
pub(super) fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let store = context.store()?;
    if args.volumes && args.filters.texts().any(|text| text.starts_with("until")) {
        anyhow::bail!("the \"until\" filter is not supported with \"--volumes\"");
    }
    // A filter that nothing but an image can pass is no leave to remove what is none.
    let everything = !args.filters.is_about_images();
    let containers = args.filters.of_containers();
    let plan = Plan {
        store: &store,
        containers: match everything {
            true => Some(ContainerFilters::parse(
                &containers,
                jiff::Timestamp::now(),
            )?),
            false => None,
        },
        images: Options {
            all: args.all,
            filters: args.filters.parse()?.of(&store),
            empty_trash: true,
            ..Options::default()
        },
        builds: args.filters.is_empty(),
        volumes: match args.volumes && everything {
            true => Some(volume_prune::Options {
                filters: VolumeFilters::parse(&args.filters.labels(), Verb::Prune)?,
                ..volume_prune::Options::default()
            }),
            false => None,
        },
    };
    if args.dry_run {
        return report(&plan.rehearse()?, true);
    }
    let shown = match args.force {
        true => None,
        false => {
            let shown = plan.rehearse()?;
            let trash_is_empty = store.names()?.trash.is_empty();
            if !prompt::confirm(&warning(&args, trash_is_empty, &shown))? {
                return Ok(ExitCode::SUCCESS);
            }
            Some(shown)
        }
    };
    report(&plan.apply(shown.as_ref())?, false)
}

fn report(parts: &Parts, dry_run: bool) -> anyhow::Result<ExitCode> {
    let mut lines = Lines::default();
    let names = |names: &[VolumeName]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let containers = container::lines(&parts.containers);
    section(&mut lines, container::TITLE, &containers);
    let volumes = [names(&parts.volumes.volumes), names(&parts.ended.volumes)].concat();
    section(&mut lines, super::volume::TITLE, &volumes);
    let images = [parts.trash.lines(), parts.images.lines()].concat();
    section(&mut lines, TITLE, &images);
    let objects = parts.builds.objects.iter();
    let objects: Vec<String> = objects.map(|(digest, _)| digest.hex()).collect();
    section(&mut lines, "Deleted build cache objects:", &objects);
    section(
        &mut lines,
        "Deleted Leftovers:",
        &gc::lines(&parts.leftovers),
    );
    lines.print(&total(parts.bytes(), dry_run));
    lines.finish()?;
    Ok(ExitCode::SUCCESS)
}

/// docker's warning, with what will go.
fn warning(args: &Args, trash_is_empty: bool, shown: &Parts) -> Vec<String> {
    let images = if args.all { ALL } else { DANGLING };
    let everything = !args.filters.is_about_images();
    let mut lines = vec!["WARNING! This will remove:".to_owned()];
    if everything {
        lines.push("  - all stopped containers".to_owned());
    }
    if args.volumes && everything {
        lines.push(format!("  - {}", super::volume::ANONYMOUS));
    }
    lines.push(format!("  - {images}"));
    if args.filters.is_empty() {
        lines.push("  - unused build cache".to_owned());
    }
    lines.push("  - what interrupted work has left".to_owned());
    if !trash_is_empty {
        lines.push("  - what is in the trash".to_owned());
    }
    lines.push(String::new());
    if !args.filters.is_empty() {
        lines.push("  Items to be pruned will be filtered with:".to_owned());
        lines.extend(args.filters.texts().map(|text| format!("  - {text}")));
        lines.push(String::new());
    }
    lines.extend(container::outlook(&shown.containers));
    lines.extend(super::volume::outlook(&shown.volumes));
    let images = [shown.trash.outlook(), shown.images.outlook()].concat();
    lines.extend(images.iter().map(|line| format!("  {line}")));
    lines.push(format!("  {}", total(shown.bytes(), true)));
    lines.push(String::new());
    lines
}
