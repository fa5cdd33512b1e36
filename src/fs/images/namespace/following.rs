//! The view after a change of tags alone, made of the one before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Dir, Entry, Flat, View, marked};
use crate::store::{Names, differences};

impl View {
    /// As [`View::whole`], for what a change of one tag costs; `None` if a directory comes or goes by it.
    pub(super) fn following(
        before: &View,
        names: Arc<Names>,
        kept: &BTreeSet<Box<str>>,
    ) -> Option<View> {
        if before.kept != *kept {
            return None;
        }
        let mut touched: BTreeMap<Arc<str>, Dir> = BTreeMap::new();
        for (tag, _, record) in differences(&before.names.tags, &names.tags) {
            let repository = tag.repository.familiar();
            let dir = match touched.get_mut(repository.as_str()) {
                Some(dir) => dir,
                None => {
                    let (path, dir) = before.dirs.get_key_value(repository.as_str())?;
                    if !has_tags(dir) {
                        return None;
                    }
                    touched.entry(path.clone()).or_insert(Dir::clone(dir))
                }
            };
            let plain = tag.tag.as_str();
            let name: Arc<str> = match dir.entries.get(plain) {
                Some(Entry::Dir) => marked(plain).into(),
                _ => plain.into(),
            };
            match record {
                Some(record) => drop(dir.entries.insert(name, Entry::of(tag, record))),
                None => drop(dir.entries.remove(&name)),
            }
        }
        let dangling = Flat::dangling(&names, Some(before));
        let mut dirs = before.dirs.clone();
        for (path, mut dir) in touched {
            if !has_tags(&dir) {
                return None;
            }
            let old = before.dirs.get(&path)?;
            if old.entries != dir.entries {
                dir.mtime = old.mtime.next();
                dirs.insert(path, Arc::new(dir));
            }
        }
        if dangling.entries.is_empty() != before.dangling.entries.is_empty()
            && let (Some(root), Some(old)) = (dirs.get_mut(""), before.dirs.get(""))
        {
            Arc::make_mut(root).mtime = old.mtime.next();
        }
        Some(View {
            dirs,
            dangling,
            by_id: Flat::by_id(&names, Some(before)),
            layers: Flat::layers(&names, Some(before)),
            kept: kept.clone(),
            names,
        })
    }
}

fn has_tags(dir: &Dir) -> bool {
    dir.entries
        .values()
        .any(|entry| matches!(entry, Entry::Tag(_)))
}
