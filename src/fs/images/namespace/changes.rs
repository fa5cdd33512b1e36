//! What differs between two views: exactly what the kernel has to be told.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Entry, Flat, TagEntry, View};

/// One difference.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::fs::images) enum Change {
    /// A name in this directory of `images/` is gone or means something else.
    Name(Box<str>, Box<str>),
    /// The listing of this directory of `images/` is another one.
    Listing(Box<str>),
    /// The tag was put anew on the image it had: only its ctime moved.
    Tagged(Arc<TagEntry>),
    /// An image has left `.dangling`.
    DanglingName(Box<str>),
    /// The listing of `.dangling` is another one.
    DanglingListing,
    /// An image has left `by-id`.
    IdName(Box<str>),
    /// The listing of `by-id` is another one.
    IdListing,
    /// A layer has left `layers`.
    LayerName(Box<str>),
    /// The listing of `layers` is another one.
    LayerListing,
}

/// All differences; names before the listings they are in.
pub(in crate::fs::images) fn changes(old: &View, new: &View) -> Vec<Change> {
    let mut found = Vec::new();
    let none = BTreeMap::new();
    for (path, before) in &old.dirs {
        let after = new.dirs.get(path);
        let now = after.map_or(&none, |dir| &dir.entries);
        for (name, entry) in &before.entries {
            match (entry, now.get(name)) {
                (Entry::Dir, Some(Entry::Dir)) => {}
                (Entry::Tag(old), Some(Entry::Tag(new)))
                    if (&old.tag, old.id) == (&new.tag, new.id) =>
                {
                    if old.tagged != new.tagged {
                        found.push(Change::Tagged(new.clone()));
                    }
                }
                _ => found.push(Change::Name(path.clone(), name.clone())),
            }
        }
        if after.is_none_or(|after| after.mtime != before.mtime) {
            found.push(Change::Listing(path.clone()));
        }
    }
    let mut flat =
        |gone: Vec<Box<str>>, moved: bool, name: fn(Box<str>) -> Change, listing: Change| {
            found.extend(gone.into_iter().map(name));
            if moved {
                found.push(listing);
            }
        };
    let (gone, moved) = left(&old.dangling, &new.dangling);
    flat(gone, moved, Change::DanglingName, Change::DanglingListing);
    let (gone, moved) = left(&old.by_id, &new.by_id);
    flat(gone, moved, Change::IdName, Change::IdListing);
    let (gone, moved) = left(&old.layers, &new.layers);
    flat(gone, moved, Change::LayerName, Change::LayerListing);
    found
}

/// The names that are gone or mean another thing, and whether anything differs.
fn left<V: PartialEq>(old: &Flat<V>, new: &Flat<V>) -> (Vec<Box<str>>, bool) {
    let gone = old
        .entries
        .iter()
        .filter(|(name, value)| new.entries.get(*name) != Some(value));
    let gone = gone.map(|(name, _)| name.clone()).collect();
    (gone, old.mtime != new.mtime)
}
