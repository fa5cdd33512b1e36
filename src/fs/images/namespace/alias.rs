//! Names that resolve without being listed: every docker reference is a path.
//!
//! | looked up | leads to |
//! |---|---|
//! | `images/nginx:1.21`, `images/org/app:2` | a symlink to the tag directory |
//! | `images/nginx@sha256:..` | a symlink into `by-id/`, when that image has or had this name |
//! | `images/docker.io`, `images/library` | a symlink to `images/`, so that canonical names work step by step |
//! | `nginx/:1.21` | a symlink to `1.21`, unless that is how the tag is listed |
//!
//! Whatever starts with a dot is in no grammar: the question ends here, file managers ask it all day.

use std::sync::Arc;

use super::{DANGLING, Entry, TagEntry, View, join};
use crate::oci::{Digest, ImageId, Reference, Repository, TagRef};

/// What a name in a directory of `images/` leads to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::fs::images) enum Found {
    /// A repository directory: its path below `images/`.
    Dir(String),
    /// `.dangling`.
    Dangling,
    /// A tag directory.
    Tag(Arc<TagEntry>),
    /// A symlink with this target; the tag it stands for, if it does for one.
    Link(String, Option<TagRef>),
    /// A symlink into `by-id/` with this target, and the image.
    Image(String, ImageId),
}

/// The Hub's domain, as it may be spelled.
const HUB: [&str; 2] = ["docker.io", "index.docker.io"];
const OFFICIAL: &str = "library";

impl View {
    /// What `name` in the directory `dir` of `images/` is.
    pub(crate) fn resolve(&self, dir: &str, name: &str) -> Option<Found> {
        match self.dirs.get(dir)?.entries.get(name) {
            Some(Entry::Dir) => return Some(Found::Dir(join(dir, name))),
            Some(Entry::Tag(entry)) => return Some(Found::Tag(entry.clone())),
            None => {}
        }
        if name.starts_with('.') {
            return (dir.is_empty() && name == DANGLING).then_some(Found::Dangling);
        }
        if let Some(tag) = name.strip_prefix(':') {
            return match self.dirs.get(dir)?.entries.get(tag)? {
                Entry::Tag(entry) => Some(Found::Link(tag.to_owned(), Some(entry.tag.clone()))),
                Entry::Dir => None,
            };
        }
        let text = join(dir, name);
        let up = "../".repeat(text.matches('/').count());
        if let Some(rest) = strip_hub(&text) {
            let here = || up.strip_suffix('/').unwrap_or(".").to_owned();
            return match rest {
                "" => Some(Found::Link(here(), None)),
                rest if self.dirs.contains_key(rest) => {
                    Some(Found::Link(format!("{up}{rest}"), None))
                }
                _ => self.reference(&text, &up),
            };
        }
        self.reference(&text, &up)
    }

    fn reference(&self, text: &str, up: &str) -> Option<Found> {
        let Reference {
            repository,
            tag,
            digest,
        } = Reference::parse(text).ok()?;
        match (tag, digest) {
            (_, Some(digest)) => {
                let id = self.by_digest(&repository, &digest)?;
                Some(Found::Image(format!("{up}../by-id/{}", id.hex()), id))
            }
            (Some(tag), None) => {
                let tag = TagRef { repository, tag };
                let path = self.path_of(&tag)?;
                Some(Found::Link(format!("{up}{path}"), Some(tag)))
            }
            (None, None) => {
                let path = repository.familiar();
                (path != text && self.dirs.contains_key(path.as_str()))
                    .then(|| Found::Link(format!("{up}{path}"), None))
            }
        }
    }

    /// The image that `repository@digest` names: by its ID while it has a tag there, or by the digest of a manifest that was
    /// served for the repository.
    pub(crate) fn by_digest(&self, repository: &Repository, digest: &Digest) -> Option<ImageId> {
        let tagged_here = |id: &ImageId| {
            self.names
                .images
                .get(id)
                .is_some_and(|image| image.tags.iter().any(|tag| tag.repository == *repository))
        };
        let id = ImageId(*digest);
        if tagged_here(&id) {
            return Some(id);
        }
        let mut images = self.names.images.values();
        let image = images.find(|image| {
            image.origins.iter().any(|origin| {
                origin.digest == *digest && origin.repository.as_ref() == Some(repository)
            })
        })?;
        Some(image.id)
    }
}

/// Whether a path is what the Hub's repositories need not have in front.
pub(super) fn is_hub(path: &str) -> bool {
    HUB.contains(&path)
}

/// What is left of a canonical name of the Hub without `docker.io/` and `library/`; `None` if neither is in front.
fn strip_hub(text: &str) -> Option<&str> {
    let (first, rest) = text.split_once('/').unwrap_or((text, ""));
    let (rest, hub) = match HUB.contains(&first) {
        true => (rest, true),
        false => (text, false),
    };
    let (first, official) = rest.split_once('/').unwrap_or((rest, ""));
    match first == OFFICIAL && !official.contains('/') {
        true => Some(official),
        false => hub.then_some(rest),
    }
}
