//! `mica rmi`.

use std::process::ExitCode;
use std::time::Duration;

use crate::ops::filter::{self, Bound};
use crate::ops::glob::Glob;
use crate::ops::images::Pattern;
use crate::ops::remove::{self, How, Removed, Target};
use crate::ops::{OpsError, resolve};
use crate::store::{LiveLease, Names, Store};

use super::Context;
use super::filters::LongFilterArgs;
use super::output::{Lines, print_error};
use super::prune::total;

/// Remove images
///
/// Removes a name; the image goes with its last name, and so do layers that no other image has. Goes on after an error. With
/// --filter only what passes it is removed, without an argument everything that does.
#[derive(clap::Args)]
pub struct Args {
    /// Names, digest references, IDs, beginnings of IDs, or globs over names ('app:*')
    #[arg(value_name = "IMAGE", required_unless_present = "filters", add = super::completion::images())]
    images: Vec<String>,
    #[command(flatten)]
    filters: LongFilterArgs,
    /// Remove also what is in use, and an ID with all its names; a missing image is no failure
    #[arg(short, long)]
    force: bool,
    /// Keep untagged images that the removed one was made from
    #[arg(long)]
    no_prune: bool,
    /// Keep what is removed for so long (30m, 12h, 7d, off), whatever `mica trash` has set; `mica restore` brings it back
    #[arg(long, value_name = "DURATION", value_parser = super::trash::duration)]
    trash: Option<Duration>,
    /// Print what would be removed and how much space that frees; remove nothing, with -f neither
    #[arg(long)]
    dry_run: bool,
}

/// Removes images.
pub fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let store = context.store()?;
    let filters = args.filters.parse()?.of(&store);
    if let Some(time) = args.trash {
        store.use_trash(time);
    }
    let how = How {
        force: args.force,
        keep_parents: args.no_prune,
    };
    // With --dry-run, the names as the removals so far would have left them.
    let mut rehearsed = match args.dry_run {
        true => Some(Names::clone(&*store.names()?)),
        false => None,
    };
    let mut lines = Lines::default();
    let (mut errors, mut bytes) = (Vec::new(), 0u64);
    // Filters look at the store as it was before anything went.
    let before = store.names()?;
    let bound = filters.bind(&before)?;
    let arguments = match args.images.is_empty() {
        true => vec![None],
        false => args.images.iter().map(Some).collect(),
    };
    for argument in arguments {
        let choices = match argument {
            Some(argument) => choices(&store, rehearsed.as_ref(), argument),
            None => every(&before),
        };
        // Names that a glob or a filter has picked go together, in one step.
        let mut picked = Vec::new();
        for choice in choices {
            let choice = match choice.and_then(|choice| {
                let passes = args.filters.is_empty() || choice.passes(&store, &before, &bound)?;
                Ok(passes.then_some(choice))
            }) {
                Ok(None) => continue,
                Ok(Some(Choice::Name(target))) => {
                    picked.push(target);
                    continue;
                }
                Ok(Some(choice)) => Ok(choice),
                Err(error) => Err(error),
            };
            let removed = choice.and_then(|choice| match &mut rehearsed {
                Some(names) => {
                    remove::rehearse(&store, names, how, |n| choice.target(n), permit(args.force))
                }
                None => remove::remove(&store, how, |n| choice.target(n), permit(args.force)),
            });
            match removed {
                Ok(Removed { plan, bytes: freed }) => {
                    bytes = bytes.saturating_add(freed);
                    plan.lines().iter().for_each(|line| lines.print(line));
                }
                Err(error) => errors.push(error),
            }
        }
        if picked.is_empty() {
            continue;
        }
        let many = match &mut rehearsed {
            Some(names) => remove::rehearse_names(&store, names, how, picked),
            None => remove::remove_names(&store, how, picked),
        };
        match many {
            Ok(many) => {
                for Removed { plan, bytes: freed } in many.removed {
                    bytes = bytes.saturating_add(freed);
                    plan.lines().iter().for_each(|line| lines.print(line));
                }
                errors.extend(many.refused);
            }
            Err(error) => errors.push(error),
        }
    }
    if args.dry_run {
        lines.print(&total(bytes, true));
    } else {
        store.notify_mounts();
    }
    let failed = errors
        .iter()
        .any(|error| !(args.force && error.is_not_found()));
    for error in errors {
        print_error(&error.into());
    }
    lines.finish()?;
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// One thing to remove.
enum Choice {
    /// What the argument means when its turn comes.
    Argument(String),
    /// A name that a glob has matched.
    Name(Target),
}

impl Choice {
    fn target(self, names: &Names) -> Result<Target, OpsError> {
        match self {
            Choice::Argument(text) => named(names, &text),
            Choice::Name(target) => Ok(target),
        }
    }

    /// Whether the filters let it through.
    fn passes(&self, store: &Store, names: &Names, bound: &Bound<'_>) -> Result<bool, OpsError> {
        let target = match self {
            Choice::Argument(text) => &named(names, text)?,
            Choice::Name(target) => target,
        };
        let (id, named) = match target {
            Target::Tag(tag) => (names.tags.get(tag).map(|r| r.id), bound.tag(tag)),
            Target::TagOf(tag, id) => (Some(*id), bound.tag(tag)),
            Target::Digest(id, ..) | Target::Untagged(id) => (Some(*id), bound.name(|_| false)),
            // All its names go.
            Target::Image(id) | Target::Whole(id) => {
                let mut tags = names
                    .images
                    .get(id)
                    .into_iter()
                    .flat_map(|image| &image.tags);
                (
                    Some(*id),
                    bound.name(|_| false) || tags.any(|tag| bound.tag(tag)),
                )
            }
        };
        match id.and_then(|id| names.images.get(&id)) {
            Some(image) if named => bound.image(image, &|id| filter::labels_of(store, id)),
            _ => Ok(false),
        }
    }
}

/// What an argument means. An ID as `images -q` prints it means the image, whatever names it has: each is printed once, so that
/// `rmi $(images -q)` removes what was listed. The beginning of one is docker's, and refused where it means several names.
fn named(names: &Names, text: &str) -> Result<Target, OpsError> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    let printed = matches!(digits.len(), 12 | 64);
    Ok(match Target::from(resolve::image(names, text)?) {
        Target::Image(id) if printed => Target::Whole(id),
        target => target,
    })
}

/// Every tag, and every image without one.
fn every(names: &Names) -> Vec<Result<Choice, OpsError>> {
    let tags = names
        .tags
        .iter()
        .map(|(tag, record)| Target::TagOf(tag.clone(), record.id));
    let untagged = names.dangling().map(|image| Target::Untagged(image.id));
    tags.chain(untagged)
        .map(|target| Ok(Choice::Name(target)))
        .collect()
}

/// What an argument stands for: itself, or every name that it matches.
fn choices(
    store: &Store,
    rehearsed: Option<&Names>,
    argument: &str,
) -> Vec<Result<Choice, OpsError>> {
    if !Glob::is_glob(argument) {
        return vec![Ok(Choice::Argument(argument.to_owned()))];
    }
    let matching = |names: &Names| -> Result<Vec<Choice>, OpsError> {
        let pattern = Pattern::parse(argument)?;
        let tags = names
            .tags
            .iter()
            .filter(|(tag, _)| pattern.matches_tag(tag));
        let found: Vec<_> = tags
            .map(|(tag, record)| Choice::Name(Target::TagOf(tag.clone(), record.id)))
            .collect();
        match found.is_empty() {
            true => Err(OpsError::NoSuchImage(argument.to_owned())),
            false => Ok(found),
        }
    };
    let found = match rehearsed {
        Some(names) => matching(names),
        None => store
            .names()
            .map_err(OpsError::from)
            .and_then(|names| matching(&names)),
    };
    match found {
        Ok(found) => found.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(error)],
    }
}

/// Refuses what is in use, unless forced.
fn permit(
    force: bool,
) -> impl FnOnce(&Names, &[LiveLease], &Target, &remove::Plan) -> Result<(), OpsError> {
    move |names, leases, target, plan| match force {
        true => Ok(()),
        false => remove::unless_used(names, leases, target, plan),
    }
}
