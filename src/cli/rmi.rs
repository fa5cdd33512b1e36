//! `mica rmi`.

use std::process::ExitCode;

use crate::ops::format::human_size_4;
use crate::ops::glob::Glob;
use crate::ops::images::Pattern;
use crate::ops::remove::{self, Removed, Target};
use crate::ops::{OpsError, resolve};
use crate::store::{LiveLease, Names, Store};

use super::Context;
use super::output::{Lines, print_error};

/// Remove images
///
/// Removes a name; the image goes with its last name, and so do layers that no other image has. Goes on after an error.
#[derive(clap::Args)]
pub struct Args {
    /// Names, digest references, IDs, beginnings of IDs, or globs over names ('app:*')
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    /// Remove also what is in use, and an ID with all its names; a missing image is no failure
    #[arg(short, long)]
    force: bool,
    /// Print what would be removed and how much space that frees; remove nothing
    #[arg(long)]
    dry_run: bool,
}

/// Removes images.
pub fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let store = context.store()?;
    // With --dry-run, the names as the removals so far would have left them.
    let mut rehearsed = match args.dry_run {
        true => Some(Names::clone(&*store.names()?)),
        false => None,
    };
    let mut lines = Lines::default();
    let (mut errors, mut bytes) = (Vec::new(), 0u64);
    for argument in &args.images {
        for choice in choices(&store, rehearsed.as_ref(), argument) {
            let removed = choice.and_then(|choice| match &mut rehearsed {
                Some(names) => remove::rehearse(
                    &store,
                    names,
                    args.force,
                    |n| choice.target(n),
                    permit(args.force),
                ),
                None => {
                    remove::remove(&store, args.force, |n| choice.target(n), permit(args.force))
                }
            });
            match removed {
                Ok(Removed { plan, bytes: freed }) => {
                    bytes = bytes.saturating_add(freed);
                    plan.lines().iter().for_each(|line| lines.print(line));
                }
                Err(error) => errors.push(error),
            }
        }
    }
    let mut notified = Ok(Vec::new());
    if args.dry_run {
        lines.print(&format!("Total reclaimable space: {}", human_size_4(bytes)));
    } else {
        notified = store.notify_mounts();
    }
    let failed = errors
        .iter()
        .any(|error| !(args.force && error.is_not_found()));
    for error in errors {
        print_error(&error.into());
    }
    notified?;
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
            Choice::Argument(text) => Ok(resolve::image(names, &text)?.into()),
            Choice::Name(target) => Ok(target),
        }
    }
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
