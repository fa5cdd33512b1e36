//! What differs between two sorted tables, in one walk over both that goes past what they share.

use std::cmp::Ordering;
use std::sync::Arc;

use super::table::{Chunk, Table};

/// A key, its value before, its value after; one of them at least.
pub(crate) type Difference<'a, K, V> = (&'a K, Option<&'a V>, Option<&'a V>);

/// Every key whose value is another one, or that only one table has, in order.
pub fn differences<'a, K: Ord, V: PartialEq>(
    old: &'a Table<K, V>,
    new: &'a Table<K, V>,
) -> impl Iterator<Item = Difference<'a, K, V>> {
    let mut walk = Walk {
        old: Cursor::of(old),
        new: Cursor::of(new),
    };
    std::iter::from_fn(move || walk.step()).filter(|(_, before, after)| before != after)
}

struct Walk<'a, K, V> {
    old: Cursor<'a, K, V>,
    new: Cursor<'a, K, V>,
}

/// A place in a table; between two chunks until one is entered.
struct Cursor<'a, K, V> {
    rest: &'a [(K, V)],
    chunks: &'a [Arc<Chunk<K, V>>],
}

impl<'a, K: Ord, V> Walk<'a, K, V> {
    fn step(&mut self) -> Option<Difference<'a, K, V>> {
        self.skip_shared();
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

    fn skip_shared(&mut self) {
        if !self.old.rest.is_empty() || !self.new.rest.is_empty() {
            return;
        }
        while let (Some((old, old_rest)), Some((new, new_rest))) =
            (self.old.chunks.split_first(), self.new.chunks.split_first())
            && Arc::ptr_eq(old, new)
        {
            (self.old.chunks, self.new.chunks) = (old_rest, new_rest);
        }
    }
}

impl<'a, K, V> Cursor<'a, K, V> {
    fn of(table: &'a Table<K, V>) -> Cursor<'a, K, V> {
        Cursor {
            rest: &[],
            chunks: table.chunks(),
        }
    }

    fn peek(&self) -> Option<&'a (K, V)> {
        let first = || self.chunks.first().and_then(|chunk| chunk.first());
        self.rest.first().or_else(first)
    }

    fn next(&mut self) -> Option<&'a (K, V)> {
        if self.rest.is_empty() {
            let (chunk, chunks) = self.chunks.split_first()?;
            (self.rest, self.chunks) = (chunk, chunks);
        }
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
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
                let old: Table<i32, char> = old.iter().copied().collect();
                let new: Table<i32, char> = new.iter().copied().collect();
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
