//! What differs between two views: exactly what the kernel has to be told.

use std::sync::Arc;

use super::{Entry, Flat, TagEntry, View};
use crate::store::{Table, differences};

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
    let none = Table::new();
    for (path, before, after) in differences(&old.dirs, &new.dirs) {
        let Some(before) = before else { continue };
        let now = after.map_or(&none, |dir| &dir.entries);
        for (name, entry, now) in differences(&before.entries, now) {
            match (entry, now) {
                (None, _) => {}
                (Some(Entry::Tag(old)), Some(Entry::Tag(new)))
                    if (&old.tag, old.id) == (&new.tag, new.id) =>
                {
                    found.push(Change::Tagged(new.clone()));
                }
                (Some(_), _) => found.push(Change::Name((&**path).into(), (&**name).into())),
            }
        }
        if after.is_none_or(|after| after.mtime != before.mtime) {
            found.push(Change::Listing((&**path).into()));
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
    let gone = differences(&old.entries, &new.entries).filter(|(_, before, _)| before.is_some());
    let gone = gone.map(|(name, ..)| name.clone()).collect();
    (gone, old.mtime != new.mtime)
}
