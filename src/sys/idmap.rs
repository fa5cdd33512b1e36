//! Which user and group ids a user namespace has, and who they are outside.

use serde::{Deserialize, Serialize};

/// A run of ids: `inside..inside + count` are `outside..outside + count` of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// First id in the namespace.
    pub inside: u32,
    /// First id of the host.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// The ids of one user namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    /// User ids.
    pub uids: Vec<IdRange>,
    /// Group ids.
    pub gids: Vec<IdRange>,
}

impl IdMap {
    /// Whether only the caller's own ids are there: nothing can belong to anybody else.
    pub fn is_single(&self) -> bool {
        let count = |ranges: &[IdRange]| ranges.iter().map(|r| u64::from(r.count)).sum::<u64>();
        count(&self.uids) <= 1 || count(&self.gids) <= 1
    }
}

/// The id that files show which have no other: `/proc/sys/kernel/overflowuid`, and as many as there are of groups.
pub const NOBODY: u32 = 65_534;

/// Owners of files as the user namespace with these ids has them, to be told of the host.
///
/// Every id has a place in it, and two of them never the same one, other than [`NOBODY`]; nobody becomes root, and only root
/// becomes the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shift(IdMap);

impl Shift {
    /// # Errors
    /// In words: which ids these ranges would mix up.
    pub fn new(map: IdMap) -> Result<Shift, String> {
        for (what, ranges) in [("user", &map.uids), ("group", &map.gids)] {
            let mut inside: Vec<&IdRange> = ranges.iter().collect();
            inside.sort_by_key(|range| range.inside);
            let mut outside: Vec<&IdRange> = ranges.iter().collect();
            outside.sort_by_key(|range| range.outside);
            let apart = |sorted: &[&IdRange], first: fn(&IdRange) -> u32| {
                sorted.windows(2).all(|pair| match pair {
                    [a, b] => first(a)
                        .checked_add(a.count)
                        .is_some_and(|end| end <= first(b)),
                    _ => true,
                })
            };
            if !apart(&inside, |r| r.inside) || !apart(&outside, |r| r.outside) {
                return Err(format!(
                    "subordinate {what} ids overlap, or have your own among them"
                ));
            }
            let ends = |r: &IdRange| r.outside.checked_add(r.count).is_none();
            if ranges.iter().any(|r| r.outside == 0 || ends(r)) {
                return Err(format!("root is among the subordinate {what} ids"));
            }
            if to_inside(ranges, NOBODY).is_some() {
                return Err(format!("{what} {NOBODY} is for files that have no owner"));
            }
        }
        Ok(Shift(map))
    }

    /// The user of the host.
    pub fn uid(&self, inside: u32) -> u32 {
        to_outside(&self.0.uids, inside).unwrap_or(NOBODY)
    }

    /// The group of the host.
    pub fn gid(&self, inside: u32) -> u32 {
        to_outside(&self.0.gids, inside).unwrap_or(NOBODY)
    }

    /// As [`Shift::uid`], if there is one.
    pub fn known_uid(&self, inside: u32) -> Option<u32> {
        to_outside(&self.0.uids, inside)
    }
}

/// Whether this process is itself in a user namespace with these ids: then it sees owners as those inside.
pub fn is_inside(map: &IdMap) -> bool {
    let same = |file: &str, ranges: &[IdRange]| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let mut inside: Vec<(u32, u32)> = ranges.iter().map(|r| (r.inside, r.count)).collect();
        let fields = |line: &str| {
            let mut fields = line.split_ascii_whitespace().map(str::parse);
            match (fields.next(), fields.next(), fields.next()) {
                (Some(Ok(inside)), Some(Ok(_)), Some(Ok(count))) => {
                    let _: u32 = inside;
                    Some((inside, count))
                }
                _ => None,
            }
        };
        let mut own: Vec<(u32, u32)> = text.lines().filter_map(fields).collect();
        own.sort_unstable();
        inside.sort_unstable();
        own == inside
    };
    same("/proc/self/uid_map", &map.uids) && same("/proc/self/gid_map", &map.gids)
}

/// The id inside that `outside` is; `None` if the namespace has none for it.
pub fn to_inside(ranges: &[IdRange], outside: u32) -> Option<u32> {
    ranges.iter().find_map(|range| {
        let offset = outside.checked_sub(range.outside)?;
        (offset < range.count).then(|| range.inside.checked_add(offset))?
    })
}

/// The id of the host that `inside` is; `None` if the namespace does not have it.
pub fn to_outside(ranges: &[IdRange], inside: u32) -> Option<u32> {
    ranges.iter().find_map(|range| {
        let offset = inside.checked_sub(range.inside)?;
        (offset < range.count).then(|| range.outside.checked_add(offset))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(own: u32, subordinate: &[(u32, u32)]) -> IdMap {
        let mut ranges = vec![IdRange {
            inside: 0,
            outside: own,
            count: 1,
        }];
        let mut inside = 1;
        for (outside, count) in subordinate.iter().copied() {
            ranges.push(IdRange {
                inside,
                outside,
                count,
            });
            inside += count;
        }
        IdMap {
            uids: ranges.clone(),
            gids: ranges,
        }
    }

    #[test]
    fn a_shift_has_a_place_for_every_id() {
        let shift = Shift::new(map(1000, &[(100_000, 1000), (300_000, 64_536)])).unwrap();
        let edges = [
            (0, 1000),
            (1, 100_000),
            (1000, 100_999),
            (1001, 300_000),
            (65_536, 364_535),
            (65_537, NOBODY),
            (100_000, NOBODY),
            (u32::MAX, NOBODY),
        ];
        for (inside, outside) in edges {
            assert_eq!(shift.uid(inside), outside);
            assert_eq!(shift.gid(inside), outside);
        }
        let mut seen: Vec<u32> = (0..=65_536).map(|id| shift.uid(id)).collect();
        assert!(!seen.contains(&0) && !seen.contains(&NOBODY));
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 65_537);
    }

    #[test]
    fn ranges_that_mix_ids_up_are_no_shift() {
        for wrong in [
            map(0, &[(100_000, 10)]),
            map(NOBODY, &[(100_000, 10)]),
            map(1000, &[(0, 10)]),
            map(1000, &[(990, 20)]),
            map(1000, &[(60_000, 10_000)]),
            map(1000, &[(100_000, 10), (100_009, 10)]),
            map(1000, &[(u32::MAX, 1)]),
            map(1000, &[(u32::MAX - 5, 10)]),
        ] {
            assert!(Shift::new(wrong.clone()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn ids_are_translated_both_ways() {
        let ranges = [
            IdRange {
                inside: 0,
                outside: 1000,
                count: 1,
            },
            IdRange {
                inside: 1,
                outside: 100_000,
                count: 65_536,
            },
        ];
        for (inside, outside) in [(0, 1000), (1, 100_000), (65_536, 165_535)] {
            assert_eq!(to_outside(&ranges, inside), Some(outside));
            assert_eq!(to_inside(&ranges, outside), Some(inside));
        }
        assert_eq!(to_outside(&ranges, 65_537), None);
        assert_eq!(to_inside(&ranges, 0), None);
    }
}
