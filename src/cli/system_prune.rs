//! `mica system prune`.

use std::process::ExitCode;

use crate::ops::build;
use crate::ops::containers;
use crate::ops::containers::prune::{Filters as ContainerFilters, Pruned as ContainerPruned};
use crate::ops::prune::{self, Options};
use crate::ops::volumes::list::{Filters as VolumeFilters, Verb};
use crate::ops::volumes::prune as volume_prune;
use crate::ops::{gc, trash, volumes};
use crate::store::{GcPlan, Store, VolumeName};

use super::filters::LongFilterArgs;
use super::output::Lines;
use super::prune::{ALL, DANGLING, TITLE, section, total};
use super::{Context, container, prompt};

/// Remove stopped containers, unused images, the cache of builds and what interrupted work has left
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

/// What goes, in this order.
struct Parts {
    containers: ContainerPruned,
    leftovers: GcPlan,
    ended: gc::Ended,
    trash: trash::Emptied,
    images: prune::Pruned,
    volumes: volume_prune::Pruned,
    builds: build::prune::Pruned,
}

impl Parts {
    fn bytes(&self) -> u64 {
        let parts = [
            self.containers.bytes,
            self.leftovers.bytes,
            self.ended.bytes,
            self.trash.bytes,
            self.images.bytes,
            self.volumes.bytes,
            self.builds.bytes,
        ];
        parts.into_iter().fold(0, u64::saturating_add)
    }
}

/// What is asked for, part by part.
struct Plan<'a> {
    store: &'a Store,
    /// Unless what was asked for is a matter of images only.
    containers: Option<ContainerFilters>,
    images: Options,
    /// If volumes go too.
    volumes: Option<volume_prune::Options>,
    /// The cache of builds goes too.
    builds: bool,
}

impl Plan<'_> {
    /// What would go. Changes nothing.
    fn rehearse(&self) -> anyhow::Result<Parts> {
        let containers = match &self.containers {
            Some(filters) => containers::prune::rehearse(self.store, filters)?,
            None => ContainerPruned::default(),
        };
        let images = Options {
            without: containers.ids(),
            ..self.images.clone()
        };
        let volumes = match &self.volumes {
            None => volume_prune::Pruned::default(),
            Some(options) => {
                let options = volume_prune::Options {
                    without: containers.ids(),
                    ..options.clone()
                };
                volume_prune::rehearse(self.store, &options)?
            }
        };
        let images = prune::rehearse(self.store, &images)?;
        let builds = self.builds(build::prune::Options {
            dry_run: true,
            without_images: images.images(),
            without_containers: containers.ids(),
            ..build::prune::Options::default()
        })?;
        Ok(Parts {
            containers,
            leftovers: gc::gc(self.store, true)?,
            ended: gc::end_volumes(self.store, true),
            trash: trash::rehearse(self.store)?,
            images,
            volumes,
            builds,
        })
    }

    /// What builds keep and nothing else has.
    fn builds(&self, options: build::prune::Options) -> anyhow::Result<build::prune::Pruned> {
        match self.builds {
            true => Ok(build::prune::prune(self.store, &options)?),
            false => Ok(build::prune::Pruned::default()),
        }
    }

    /// Removes; with `shown` no more than that.
    fn apply(&self, shown: Option<&Parts>) -> anyhow::Result<Parts> {
        let store = self.store;
        let ids = shown.map(|shown| shown.containers.ids());
        // Containers first: they keep images and volumes.
        let containers = match &self.containers {
            Some(filters) => containers::prune::prune(store, filters, ids.as_ref())?,
            None => ContainerPruned::default(),
        };
        // Leftovers before images: a removal takes them with it, and then they would not be counted.
        let leftovers = gc::gc(store, false)?;
        let ended = gc::end_volumes(store, false);
        let trash = trash::empty(store)?;
        let ids = shown.map(|shown| shown.images.images());
        let images = prune::prune(store, &self.images, ids.as_ref())?;
        store.notify_mounts();
        let volumes = match &self.volumes {
            None => volume_prune::Pruned::default(),
            Some(options) => {
                let names = shown.map(|shown| shown.volumes.volumes.iter().cloned().collect());
                let tell = || volumes::tell(store);
                volume_prune::prune(store, options, names.as_ref(), &tell)?
            }
        };
        // By now the images that go are gone.
        let builds = self.builds(build::prune::Options::default())?;
        Ok(Parts {
            builds,
            containers,
            leftovers,
            ended,
            trash,
            images,
            volumes,
        })
    }
}

/// Prunes everything that can be.
pub fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
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
