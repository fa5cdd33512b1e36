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
