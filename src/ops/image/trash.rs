//! `trash` and `restore`: what was removed while the trash was on, and bringing it back.

use std::collections::BTreeSet;
use std::time::SystemTime;

use crate::oci::{Digest, ImageId, Reference, TagRef};
use crate::store::{Names, Store, StoreError, Trashed};

use crate::ops::image::ImageError;
use crate::text::format;
use crate::text::template::Value;

/// What an argument of `restore` means.
fn matching<'a>(names: &'a Names, text: &str) -> Vec<&'a Trashed> {
    let entries = || names.trash.entries.iter();
    // The newest of a name.
    let newest = |found: Vec<&'a Trashed>| found.into_iter().max_by_key(|entry| entry.removed);
    if let Ok(reference) = Reference::parse(text) {
        let tag = reference.tag_or_latest().map(|tag| TagRef {
            repository: reference.repository.clone(),
            tag,
        });
        let exact = entries()
            .filter(|e| tag.is_some() && e.name == tag)
            .collect();
        if let Some(found) = newest(exact) {
            return vec![found];
        }
        // A whole repository.
        if reference.tag.is_none() && reference.digest.is_none() {
            let of = |e: &&Trashed| {
                e.name
                    .as_ref()
                    .is_some_and(|tag| tag.repository == reference.repository)
            };
            let names: BTreeSet<_> = entries().filter(of).map(|e| &e.name).collect();
            let each =
                |name: &Option<TagRef>| newest(entries().filter(|e| e.name == *name).collect());
            let found: Vec<_> = names.into_iter().filter_map(each).collect();
            if !found.is_empty() {
                return found;
            }
        }
    }
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    let is_hex = digits.len() >= 4 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let of = |e: &&Trashed| is_hex && e.id.hex().starts_with(digits);
    entries().filter(of).collect()
}

/// A name that is back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The name; `None`: an image that had none.
    pub name: Option<TagRef>,
    /// The image.
    pub id: ImageId,
}

/// Brings back what `text` means: a tag, all of a repository, or an image by its ID; under another name with `target`. All or
/// nothing. The mounts are for the caller to notify.
pub fn restore(
    store: &Store,
    text: &str,
    target: Option<&TagRef>,
) -> Result<Vec<Restored>, ImageError> {
    let lock = store.lock()?;
    let now = SystemTime::now();
    store.change(&lock, |names| {
        let found: Vec<Trashed> = matching(names, text).into_iter().cloned().collect();
        let ids: BTreeSet<ImageId> = found.iter().map(|entry| entry.id).collect();
        match ids.len() {
            0 => return Err(ImageError::NotInTrash(text.to_owned())),
            2.. if target.is_some() => return Err(ImageError::Ambiguous(text.to_owned())),
            _ => {}
        }
        let mut restored = Vec::new();
        for entry in &found {
            let taken = entry.name.as_ref().filter(|n| names.tags.contains_key(n));
            match (taken, target) {
                (Some(name), None) => return Err(ImageError::NameTaken(name.clone())),
                (_, Some(target)) => {
                    // Under the new name only.
                    let unnamed = Trashed {
                        name: None,
                        ..entry.clone()
                    };
                    names.restore(&unnamed, now)?;
                    names.trash.entries.retain(|other| other != entry);
                    names.tag(target, entry.id, now)?;
                    restored.push(Restored {
                        name: Some(target.clone()),
                        id: entry.id,
                    });
                    break;
                }
                (None, None) => {
                    names.restore(entry, now)?;
                    restored.push(Restored {
                        name: entry.name.clone(),
                        id: entry.id,
                    });
                }
            }
        }
        Ok(restored)
    })
}

/// What emptying the trash frees, or has freed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Emptied {
    /// The names that cannot be brought back any more.
    pub entries: Vec<Trashed>,
    /// The images that go.
    pub images: Vec<ImageId>,
    /// Disk space.
    pub bytes: u64,
}

impl Emptied {
    /// What will go, before it is asked for.
    pub fn outlook(&self) -> Vec<String> {
        let line = |id: &ImageId| format!("would delete: {}", id.short());
        self.images.iter().map(line).collect()
    }

    /// A line for each image.
    pub fn lines(&self) -> Vec<String> {
        let line = |id| format!("deleted: {id}");
        self.images.iter().map(line).collect()
    }
}

/// What [`empty`] would do. Changes nothing and needs no lock.
pub fn rehearse(store: &Store) -> Result<Emptied, ImageError> {
    plan(store, &*store.names()?)
}

/// Empties the trash.
pub fn empty(store: &Store) -> Result<Emptied, ImageError> {
    let lock = store.lock_unswept()?;
    let emptied = plan(store, &*store.names()?)?;
    if !emptied.entries.is_empty() {
        store.change(&lock, |names| {
            names.trash = Default::default();
            Ok::<_, ImageError>(())
        })?;
        if let Err(error) = store.collect(&lock) {
            // It is empty, durably. What is left behind is garbage for the next `gc`.
            log::warn!("the trash is empty, but its space is not free yet: {error}; run `mica gc`");
        }
    }
    Ok(emptied)
}

fn plan(store: &Store, names: &Names) -> Result<Emptied, ImageError> {
    let kept: BTreeSet<Digest> = names
        .images
        .values()
        .flat_map(|image| image.blobs())
        .chain(
            store
                .live_leases()?
                .into_iter()
                .flat_map(|lease| lease.held),
        )
        .collect();
    let gone: BTreeSet<Digest> = names.trash.blobs().filter(|d| !kept.contains(d)).collect();
    let sizes = store.blob_sizes()?;
    Ok(Emptied {
        entries: names.trash.entries.clone(),
        images: names.trash.images.keys().copied().collect(),
        bytes: gone.iter().filter_map(|digest| sizes.get(digest)).sum(),
    })
}

/// What a collection of garbage has to look at: the names without what is over in the trash.
pub fn without_expired(store: &Store) -> Result<Names, StoreError> {
    let mut names = Names::clone(&*store.names()?);
    names.trash.expire(SystemTime::now());
    Ok(names)
}

/// The columns that a template knows, with the names a table gives them.
pub const COLUMNS: &[(&str, &str)] = &[
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("ID", "IMAGE ID"),
    ("Removed", "REMOVED"),
    ("Until", "KEPT FOR"),
];

fn rows(names: &Names, no_trunc: bool, now: jiff::Timestamp) -> Vec<Vec<String>> {
    let mut entries: Vec<&Trashed> = names.trash.entries.iter().collect();
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.removed));
    let none = || "<none>".to_owned();
    let row = |entry: &&Trashed| {
        let removed = jiff::Timestamp::try_from(entry.removed).ok();
        let left = entry.until.duration_since(now.into()).unwrap_or_default();
        let left = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
        let name = entry.name.as_ref();
        vec![
            name.map_or_else(none, |tag| tag.repository.familiar()),
            name.map_or_else(none, |tag| tag.tag.to_string()),
            match no_trunc {
                true => entry.id.to_string(),
                false => entry.id.short(),
            },
            format::ago(removed, now),
            format::human_duration(left),
        ]
    };
    entries.iter().map(row).collect()
}

/// What is in the trash, last removed first.
pub fn table(names: &Names, no_trunc: bool, now: jiff::Timestamp) -> String {
    let header: Vec<&str> = COLUMNS.iter().map(|(_, title)| *title).collect();
    format::table(Some(&header), &rows(names, no_trunc, now))
}

/// The same for a template.
pub fn values(names: &Names, no_trunc: bool, now: jiff::Timestamp) -> Vec<Value> {
    let value = |cells: Vec<String>| {
        let fields = COLUMNS.iter().map(|(key, _)| *key).zip(cells);
        Value::record(&fields.collect::<Vec<_>>())
    };
    rows(names, no_trunc, now).into_iter().map(value).collect()
}
