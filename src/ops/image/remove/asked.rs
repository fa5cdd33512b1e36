//! What `rmi` was asked for: names, IDs and globs as they were typed, with filters, one after the other.

use crate::ops::image::ImageError;
use crate::ops::image::filter::{self, Bound, Filters};
use crate::ops::image::pattern::Pattern;
use crate::ops::image::remove::{How, Removed, Target};
use crate::ops::image::resolve;
use crate::store::{LiveLease, Names, Store};
use crate::text::glob::Glob;

/// A request.
#[derive(Debug)]
pub struct Request<'a> {
    /// Names, digest references, IDs, beginnings of IDs, globs. Empty: everything that passes the filters.
    pub images: &'a [String],
    /// Only what passes these goes, if any are given.
    pub filters: Option<&'a Filters>,
    /// How far each removal goes.
    pub how: How,
    /// Nothing goes: only what would.
    pub dry_run: bool,
}

/// What became of a request.
#[derive(Debug, Default)]
pub struct Done {
    /// Space that comes back.
    pub bytes: u64,
    /// What stays, and why.
    pub refused: Vec<ImageError>,
}

/// Removes what is asked for, and goes on after what cannot be. `say` gets each removal when it has happened.
pub fn remove_all(
    store: &Store,
    request: &Request<'_>,
    say: &mut dyn FnMut(&Removed),
) -> Result<Done, ImageError> {
    let how = request.how;
    // In a dry run, the names as the removals so far would have left them.
    let mut rehearsed = match request.dry_run {
        true => Some(Names::clone(&*store.names()?)),
        false => None,
    };
    let mut done = Done::default();
    // Filters look at the store as it was before anything went.
    let before = store.names()?;
    let bound = request
        .filters
        .map(|filters| filters.bind(&before))
        .transpose()?;
    let arguments = match request.images.is_empty() {
        true => vec![None],
        false => request.images.iter().map(Some).collect(),
    };
    for argument in arguments {
        let choices = match argument {
            Some(argument) => choices(store, rehearsed.as_ref(), argument),
            None => every(&before),
        };
        // Names that a glob or a filter has picked go together, in one step.
        let mut picked = Vec::new();
        for choice in choices {
            let choice = match choice.and_then(|choice| {
                let passes = match &bound {
                    Some(bound) => choice.passes(store, &before, bound)?,
                    None => true,
                };
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
                Some(names) => crate::ops::image::remove::rehearse(
                    store,
                    names,
                    how,
                    |n| choice.target(n),
                    permit(how.force),
                ),
                None => crate::ops::image::remove::remove(
                    store,
                    how,
                    |n| choice.target(n),
                    permit(how.force),
                ),
            });
            match removed {
                Ok(removed) => done.take(&removed, say),
                Err(error) => done.refused.push(error),
            }
        }
        if picked.is_empty() {
            continue;
        }
        let many = match &mut rehearsed {
            Some(names) => crate::ops::image::remove::rehearse_names(store, names, how, picked),
            None => crate::ops::image::remove::remove_names(store, how, picked),
        };
        match many {
            Ok(many) => {
                many.removed
                    .iter()
                    .for_each(|removed| done.take(removed, say));
                done.refused.extend(many.refused);
            }
            Err(error) => done.refused.push(error),
        }
    }
    Ok(done)
}

impl Done {
    fn take(&mut self, removed: &Removed, say: &mut dyn FnMut(&Removed)) {
        self.bytes = self.bytes.saturating_add(removed.bytes);
        say(removed);
    }
}

/// One thing to remove.
enum Choice {
    /// What the argument means when its turn comes.
    Argument(String),
    /// A name that a glob has matched.
    Name(Target),
}

impl Choice {
    fn target(self, names: &Names) -> Result<Target, ImageError> {
        match self {
            Choice::Argument(text) => named(names, &text),
            Choice::Name(target) => Ok(target),
        }
    }

    /// Whether the filters let it through.
    fn passes(&self, store: &Store, names: &Names, bound: &Bound<'_>) -> Result<bool, ImageError> {
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
fn named(names: &Names, text: &str) -> Result<Target, ImageError> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    let printed = matches!(digits.len(), 12 | 64);
    Ok(match Target::from(resolve::image(names, text)?) {
        Target::Image(id) if printed => Target::Whole(id),
        target => target,
    })
}

/// Every tag, and every image without one.
fn every(names: &Names) -> Vec<Result<Choice, ImageError>> {
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
) -> Vec<Result<Choice, ImageError>> {
    if !Glob::is_glob(argument) {
        return vec![Ok(Choice::Argument(argument.to_owned()))];
    }
    let matching = |names: &Names| -> Result<Vec<Choice>, ImageError> {
        let pattern = Pattern::parse(argument)?;
        let tags = names
            .tags
            .iter()
            .filter(|(tag, _)| pattern.matches_tag(tag));
        let found: Vec<_> = tags
            .map(|(tag, record)| Choice::Name(Target::TagOf(tag.clone(), record.id)))
            .collect();
        match found.is_empty() {
            true => Err(ImageError::NoSuch(argument.to_owned())),
            false => Ok(found),
        }
    };
    let found = match rehearsed {
        Some(names) => matching(names),
        None => store
            .names()
            .map_err(ImageError::from)
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
) -> impl FnOnce(&Names, &[LiveLease], &Target, &crate::ops::image::remove::Plan) -> Result<(), ImageError>
{
    move |names, leases, target, plan| match force {
        true => Ok(()),
        false => crate::ops::image::remove::unless_used(names, leases, target, plan),
    }
}
