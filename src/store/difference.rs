//! What differs between two sorted tables, in one walk over both.
//!
//! All names of a store are looked through at each change: looking each up in the other table costs ten times as much.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::collections::btree_map::Iter;
use std::iter::Peekable;

/// A key, its value before, its value after; one of them at least.
pub(crate) type Difference<'a, K, V> = (&'a K, Option<&'a V>, Option<&'a V>);

/// Every key whose value is another one, or that only one table has, in order.
pub fn differences<'a, K: Ord, V: PartialEq>(
    old: &'a BTreeMap<K, V>,
    new: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = Difference<'a, K, V>> {
    let mut walk = Walk {
        old: old.iter().peekable(),
        new: new.iter().peekable(),
    };
    std::iter::from_fn(move || walk.step()).filter(|(_, before, after)| before != after)
}

struct Walk<'a, K, V> {
    old: Peekable<Iter<'a, K, V>>,
    new: Peekable<Iter<'a, K, V>>,
}

impl<'a, K: Ord, V> Walk<'a, K, V> {
    fn step(&mut self) -> Option<Difference<'a, K, V>> {
        let order = match (self.old.peek(), self.new.peek()) {
            (None, None) => return None,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((old, _)), Some((new, _))) => old.cmp(new),
        };
        let old = order.is_le().then(|| self.old.next()).flatten();
        let new = order.is_ge().then(|| self.new.next()).flatten();
        let (key, _) = old.or(new)?;
        Some((
            key,
            old.map(|(_, value)| value),
            new.map(|(_, value)| value),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_what_lookups_find() {
        let tables = [
            vec![],
            vec![(1, 'a')],
            vec![(1, 'b')],
            vec![(0, 'a'), (1, 'a'), (2, 'a')],
            vec![(2, 'a'), (3, 'x')],
            vec![(0, 'a'), (2, 'b'), (3, 'x'), (9, 'z')],
        ];
        for old in &tables {
            for new in &tables {
                let old: BTreeMap<i32, char> = old.iter().copied().collect();
                let new: BTreeMap<i32, char> = new.iter().copied().collect();
                let expected: Vec<_> = (0..10)
                    .map(|key| (key, old.get(&key), new.get(&key)))
                    .filter(|(_, before, after)| before != after)
                    .collect();
                let found: Vec<_> = differences(&old, &new)
                    .map(|(key, before, after)| (*key, before, after))
                    .collect();
                assert_eq!(found, expected);
            }
        }
    }
}
