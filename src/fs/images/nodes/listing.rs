//! Stable positions in a directory whose names come and go while it is being listed.
//!
//! A name gets a position when it is first listed and keeps it; a removed name leaves a gap. So a process that removes what
//! it lists (`rm -r` of a repository with more tags than fit a READDIR) misses nothing, and a position that nobody gave out
//! leads to what comes after it.

use std::collections::{BTreeMap, HashMap};

/// The positions of one directory.
#[derive(Debug, Default)]
pub(in crate::fs::images) struct Listing {
    by_position: BTreeMap<u64, Box<str>>,
    positions: HashMap<Box<str>, u64>,
    last: u64,
}

impl Listing {
    /// Takes in the present names.
    pub(crate) fn update<'a>(&mut self, names: impl Iterator<Item = &'a str> + Clone) {
        let present: std::collections::HashSet<&str> = names.clone().collect();
        self.positions.retain(|name, position| {
            let stays = present.contains(&**name);
            if !stays {
                self.by_position.remove(position);
            }
            stays
        });
        for name in names {
            if !self.positions.contains_key(name) {
                self.last += 1;
                self.positions.insert(name.into(), self.last);
                self.by_position.insert(self.last, name.into());
            }
        }
    }

    /// Whether it holds no name: nobody has listed the directory yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_position.is_empty()
    }

    /// Names after `position`, each with its own; at most `limit`.
    pub(crate) fn after(&self, position: u64, limit: usize) -> Vec<(u64, Box<str>)> {
        let Some(from) = position.checked_add(1) else {
            return Vec::new();
        };
        let range = self.by_position.range(from..).take(limit);
        range
            .map(|(position, name)| (*position, name.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[(u64, Box<str>)]) -> Vec<&str> {
        list.iter().map(|(_, name)| &**name).collect()
    }

    #[test]
    fn removing_what_was_listed_hides_nothing() {
        let mut listing = Listing::default();
        listing.update(["a", "b", "c", "d"].into_iter());
        let first = listing.after(0, 2);
        assert_eq!(names(&first), ["a", "b"]);
        listing.update(["c", "d", "aa"].into_iter());
        assert_eq!(names(&listing.after(first[1].0, 9)), ["c", "d", "aa"]);
        listing.update(["a", "d"].into_iter());
        assert_eq!(names(&listing.after(0, 9)), ["d", "a"]);
    }

    #[test]
    fn invented_positions_are_harmless() {
        let mut listing = Listing::default();
        listing.update(["a", "b"].into_iter());
        assert!(listing.after(u64::MAX, 9).is_empty());
        assert!(listing.after(1 << 40, 9).is_empty());
        assert_eq!(listing.after(1, 9).len(), 1);
    }
}
