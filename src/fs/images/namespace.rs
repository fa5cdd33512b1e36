//! The names under `images/`, `by-id/` and `layers/`, worked out from the store's names. Pure.
//!
//! A [`View`] is immutable; a change makes a new one. Invariants:
//! - `dirs` has the key `""` (`images/` itself), every repository, and every prefix of a repository's components;
//! - a component that leads on to a repository is a directory, whatever tags there are: a tag of that name is listed with a
//!   colon in front (`foo/:bar`);
//! - a directory's mtime is later in a later view exactly if its entries differ.

mod alias;
mod changes;
mod flat;
mod following;
mod links;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

pub(super) use alias::Found;
pub(super) use changes::{Change, changes};
pub(super) use links::unique;

use crate::fs::api::Timestamp;
use crate::oci::{DiffId, ImageId, Repository, TagRef};
use crate::store::{Names, Table, TagRecord};

/// The entry of `images/` that holds images without a tag.
pub(super) use crate::mount_paths::DANGLING;

/// A tag as an entry of its repository.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct TagEntry {
    pub tag: TagRef,
    pub id: ImageId,
    pub tagged: SystemTime,
}

/// What a listed name in a repository directory is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Entry {
    /// A repository, or a prefix of one.
    Dir,
    /// A tag.
    Tag(Arc<TagEntry>),
}

/// One directory of `images/`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Dir {
    pub entries: Table<Arc<str>, Entry>,
    pub mtime: Timestamp,
}

/// A flat listing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Flat<V> {
    pub entries: Table<Box<str>, V>,
    pub mtime: Timestamp,
}

/// All names at one moment. Views share what is the same in them.
#[derive(Debug)]
pub(super) struct View {
    pub names: Arc<Names>,
    /// By path below `images/`.
    pub dirs: Table<Arc<str>, Arc<Dir>>,
    pub dangling: Arc<Flat<ImageId>>,
    pub by_id: Arc<Flat<ImageId>>,
    pub layers: Arc<Flat<DiffId>>,
    /// Repositories that stay though they are empty.
    kept: BTreeSet<Box<str>>,
}

impl View {
    /// The view of `names` with the empty repositories `kept`; takes the times of what has not changed from `before`.
    pub(super) fn new(names: Arc<Names>, kept: &BTreeSet<Box<str>>, before: Option<&View>) -> View {
        match before {
            Some(before) => View::following(before, names.clone(), kept)
                .unwrap_or_else(|| View::whole(names, kept, Some(before))),
            None => View::whole(names, kept, None),
        }
    }

    fn whole(names: Arc<Names>, kept: &BTreeSet<Box<str>>, before: Option<&View>) -> View {
        let mut dirs: BTreeMap<Arc<str>, Dir> = BTreeMap::new();
        let oldest = Timestamp::default();
        let mut directory = |path: &str, mtime: Timestamp| {
            for prefix in prefixes(path) {
                let (parent, name) = split(prefix);
                let dir = dirs.entry(prefix.into()).or_insert_with(|| Dir {
                    entries: Table::new(),
                    mtime: oldest,
                });
                dir.mtime = dir.mtime.max(mtime);
                if !prefix.is_empty()
                    && let Some(parent) = dirs.get_mut(parent)
                {
                    parent.entries.insert(name.into(), Entry::Dir);
                }
            }
        };
        directory("", oldest);
        for path in kept {
            directory(path, oldest);
        }
        for (tag, record) in &names.tags {
            directory(&tag.repository.familiar(), record.tagged.into());
        }
        for (tag, record) in &names.tags {
            let entry = Entry::of(tag, record);
            if let Some(dir) = dirs.get_mut(tag.repository.familiar().as_str()) {
                let name = tag.tag.as_str();
                let name = match dir.entries.contains_key(name) {
                    true => marked(name).into(),
                    false => name.into(),
                };
                dir.entries.insert(name, entry);
            }
        }
        if let Some(before) = before {
            settle_times(&mut dirs, &names, before);
        }
        let dirs = dirs.into_iter().map(|(path, dir)| (path, Arc::new(dir)));
        View {
            dirs: dirs.collect(),
            dangling: Flat::dangling(&names, before),
            by_id: Flat::by_id(&names, before),
            layers: Flat::layers(&names, before),
            kept: kept.clone(),
            names,
        }
    }

    /// The path of a tag below `images/`, as it is listed.
    pub(super) fn path_of(&self, tag: &TagRef) -> Option<String> {
        let repository = tag.repository.familiar();
        let name = self.listed_name(&repository, tag)?;
        Some(format!("{repository}/{name}"))
    }

    fn listed_name(&self, repository: &str, tag: &TagRef) -> Option<String> {
        let dir = self.dirs.get(repository)?;
        let plain = tag.tag.as_str().to_owned();
        let marked = marked(&plain);
        [plain, marked]
            .into_iter()
            .find(|name| matches!(dir.entries.get(name.as_str()), Some(Entry::Tag(_))))
    }

    /// The entry of a tag.
    pub(super) fn tag(&self, tag: &TagRef) -> Option<&Arc<TagEntry>> {
        let repository = tag.repository.familiar();
        let name = self.listed_name(&repository, tag)?;
        match self
            .dirs
            .get(repository.as_str())?
            .entries
            .get(name.as_str())?
        {
            Entry::Tag(entry) => Some(entry),
            Entry::Dir => None,
        }
    }

    /// Whether `id` has no tag.
    pub(super) fn is_dangling(&self, id: &ImageId) -> bool {
        self.names
            .images
            .get(id)
            .is_some_and(|image| image.tags.is_empty())
    }

    /// The repositories at `path` and below it.
    pub(super) fn repositories_below(&self, path: &str) -> BTreeSet<Repository> {
        let tags = self.names.tags.keys();
        let inside = tags.filter(|tag| is_below(&tag.repository.familiar(), path));
        inside.map(|tag| tag.repository.clone()).collect()
    }
}

impl Entry {
    fn of(tag: &TagRef, record: &TagRecord) -> Entry {
        Entry::Tag(Arc::new(TagEntry {
            tag: tag.clone(),
            id: record.id,
            tagged: record.tagged,
        }))
    }
}

/// How a tag is listed beside a directory of its name.
fn marked(tag: &str) -> String {
    format!(":{tag}")
}

/// Moves the times of the directories that differ from `before`, and keeps the others.
fn settle_times(dirs: &mut BTreeMap<Arc<str>, Dir>, names: &Names, before: &View) {
    let listed = names.dangling().next().is_some();
    let was_listed = !before.dangling.entries.is_empty();
    for (path, dir) in dirs {
        dir.mtime = match before.dirs.get(path) {
            Some(old) if old.entries == dir.entries => match path.is_empty() {
                true if listed != was_listed => old.mtime.next(),
                _ => old.mtime,
            },
            Some(old) => old.mtime.next(),
            None => Timestamp::now(),
        };
    }
}

/// Whether `path` is `top` or lies below it.
pub(super) fn is_below(path: &str, top: &str) -> bool {
    top.is_empty()
        || path
            .strip_prefix(top)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// `""`, `a`, `a/b`, `a/b/c` of `a/b/c`.
pub(super) fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    let slashes = path.match_indices('/').map(|(at, _)| at);
    let ends = slashes.chain((!path.is_empty()).then_some(path.len()));
    std::iter::once("").chain(ends.filter_map(|end| path.get(..end)))
}

/// Parent and last component of a path below `images/`.
pub(super) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// A name in a directory, both below `images/`.
pub(in crate::fs::images) fn join(dir: &str, name: &str) -> String {
    match dir {
        "" => name.to_owned(),
        dir => format!("{dir}/{name}"),
    }
}

/// The repository that a directory of `images/` stands for, if its path is one's familiar name.
pub(super) fn repository_at(path: &str) -> Option<Repository> {
    let repository = Repository::parse(path).ok()?;
    (repository.familiar() == path).then_some(repository)
}

/// Whether a directory may be made at `path`: it is a repository, or a registry's name (`localhost:5000`) that leads on to some.
///
/// `UPPER/app` is a repository of the registry `UPPER` to docker; nobody who makes a directory `UPPER` means that.
pub(super) fn may_be_directory(path: &str) -> bool {
    let is_registry = || path.contains(['.', ':']) && repository_at(&join(path, "x")).is_some();
    // There is a repository `docker.io` on Docker Hub, but its directory would hide the alias.
    !alias::is_hub(path) && (repository_at(path).is_some() || is_registry())
}
