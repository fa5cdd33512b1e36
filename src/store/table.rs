//! A sorted table whose copies share what is the same in them.
//!
//! Names change one at a time and are copied at each change: for those who read the old ones, for what goes back when a commit fails,
//! for what a mount shows. Here a copy costs a pointer for each [`FULL`] entries, a change one chunk, and what differs between
//! two copies is found without looking at the chunks they share ([`super::differences`]). The crates with such maps have licences that ours does
//! not take, and trees that need not be that deep.
//!
//! Invariants: keys ascend, within a chunk and from chunk to chunk; no chunk is empty.

mod set;

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

pub use set::Set;

/// So many entries make two chunks of one.
const FULL: usize = 64;

/// What is copied when one of its entries changes.
pub(super) type Chunk<K, V> = Vec<(K, V)>;

/// A sorted map.
pub struct Table<K, V> {
    chunks: Vec<Arc<Chunk<K, V>>>,
    len: usize,
}

impl<K, V> Table<K, V> {
    /// An empty one.
    pub const fn new() -> Table<K, V> {
        Table {
            chunks: Vec::new(),
            len: 0,
        }
    }

    /// How many entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All entries, in order.
    pub fn iter(&self) -> Iter<'_, K, V> {
        Iter {
            chunks: self.chunks.iter(),
            chunk: [].iter(),
        }
    }

    /// All keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> + Clone {
        self.iter().map(|(key, _)| key)
    }

    /// All values, in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> + Clone {
        self.iter().map(|(_, value)| value)
    }

    pub(super) fn chunks(&self) -> &[Arc<Chunk<K, V>>] {
        &self.chunks
    }
}

impl<K: Ord, V> Table<K, V> {
    /// Where a key is, or would be put: chunk and place in it.
    fn search<Q: Ord + ?Sized>(&self, key: &Q) -> Result<(usize, usize), (usize, usize)>
    where
        K: Borrow<Q>,
    {
        let begins = |chunk: &Arc<Chunk<K, V>>| {
            chunk
                .first()
                .is_some_and(|(first, _)| first.borrow() <= key)
        };
        let at = self.chunks.partition_point(begins).saturating_sub(1);
        let Some(chunk) = self.chunks.get(at) else {
            return Err((at, 0));
        };
        match chunk.binary_search_by(|(known, _)| known.borrow().cmp(key)) {
            Ok(place) => Ok((at, place)),
            Err(place) => Err((at, place)),
        }
    }

    /// The key as it is in the table, and its value.
    pub fn get_key_value<Q: Ord + ?Sized>(&self, key: &Q) -> Option<(&K, &V)>
    where
        K: Borrow<Q>,
    {
        let (chunk, place) = self.search(key).ok()?;
        let (key, value) = self.chunks.get(chunk)?.get(place)?;
        Some((key, value))
    }

    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.get_key_value(key).map(|(_, value)| value)
    }

    /// The entries from a key on, which need not be there.
    pub fn range_from<Q: Ord + ?Sized>(&self, key: &Q) -> Iter<'_, K, V>
    where
        K: Borrow<Q>,
    {
        let (Ok((at, place)) | Err((at, place))) = self.search(key);
        let (chunk, chunks) = match self.chunks.get(at..).and_then(<[_]>::split_first) {
            Some((chunk, chunks)) => (chunk.get(place..).unwrap_or_default(), chunks),
            None => (&[][..], &[][..]),
        };
        Iter {
            chunk: chunk.iter(),
            chunks: chunks.iter(),
        }
    }

    /// Whether there is such a key.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.search(key).is_ok()
    }
}

impl<K: Ord + Clone, V: Clone> Table<K, V> {
    /// The value of a key, to be changed.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let (chunk, place) = self.search(key).ok()?;
        let chunk = Arc::make_mut(self.chunks.get_mut(chunk)?);
        chunk.get_mut(place).map(|(_, value)| value)
    }

    /// Puts a value; the answer is the one that the key had.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let (at, place) = match self.search(&key) {
            Ok((at, place)) => {
                let chunk = Arc::make_mut(self.chunks.get_mut(at)?);
                let (_, old) = chunk.get_mut(place)?;
                return Some(std::mem::replace(old, value));
            }
            Err(free) => free,
        };
        self.len += 1;
        let Some(chunk) = self.chunks.get_mut(at) else {
            self.chunks.push(Arc::new(vec![(key, value)]));
            return None;
        };
        let chunk = Arc::make_mut(chunk);
        chunk.insert(place, (key, value));
        if chunk.len() >= FULL {
            // What is put in order goes on in the new chunk, and leaves full ones behind.
            let behind = match place + 1 == chunk.len() {
                true => FULL - 1,
                false => FULL / 2,
            };
            let behind = chunk.split_off(behind);
            self.chunks.insert(at + 1, Arc::new(behind));
        }
        None
    }

    /// Takes an entry away; the answer is its value.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.take(key).map(|(_, value)| value)
    }

    /// Takes away what is not to `stay`.
    pub fn retain(&mut self, mut stay: impl FnMut(&K, &V) -> bool) {
        let goes = self.iter().filter(|(key, value)| !stay(key, value));
        let goes: Vec<K> = goes.map(|(key, _)| key.clone()).collect();
        for key in goes {
            self.remove(&key);
        }
    }

    /// Takes an entry away.
    pub fn take<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<(K, V)>
    where
        K: Borrow<Q>,
    {
        let (at, place) = self.search(key).ok()?;
        let chunk = Arc::make_mut(self.chunks.get_mut(at)?);
        let taken = chunk.remove(place);
        self.len -= 1;
        if chunk.is_empty() {
            self.chunks.remove(at);
        }
        Some(taken)
    }
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Table::new()
    }
}

impl<K, V> Clone for Table<K, V> {
    fn clone(&self) -> Self {
        Table {
            chunks: self.chunks.clone(),
            len: self.len,
        }
    }
}

impl<K: Ord, V: PartialEq> PartialEq for Table<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && super::differences(self, other).next().is_none()
    }
}

impl<K: Ord, V: Eq> Eq for Table<K, V> {}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Ord + Clone, V: Clone> Extend<(K, V)> for Table<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        for (key, value) in entries {
            self.insert(key, value);
        }
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for Table<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut table = Table::new();
        table.extend(entries);
        table
    }
}

/// See [`Table::iter`].
pub struct Iter<'a, K, V> {
    chunks: std::slice::Iter<'a, Arc<Chunk<K, V>>>,
    chunk: std::slice::Iter<'a, (K, V)>,
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((key, value)) = self.chunk.next() {
                return Some((key, value));
            }
            self.chunk = self.chunks.next()?.iter();
        }
    }
}

impl<K, V> Clone for Iter<'_, K, V> {
    fn clone(&self) -> Self {
        Iter {
            chunks: self.chunks.clone(),
            chunk: self.chunk.clone(),
        }
    }
}

impl<'a, K, V> IntoIterator for &'a Table<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Iter<'a, K, V> {
        self.iter()
    }
}

#[cfg(test)]
impl<Q: Ord + ?Sized, K: Ord + Borrow<Q>, V> std::ops::Index<&Q> for Table<K, V> {
    type Output = V;

    fn index(&self, key: &Q) -> &V {
        self.get(key).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::differences;
    use super::*;

    /// Deterministic, and different enough.
    fn numbers(seed: u64) -> impl Iterator<Item = u64> {
        let mut state = seed;
        std::iter::repeat_with(move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state >> 33
        })
    }

    fn check(table: &Table<u64, u64>, model: &BTreeMap<u64, u64>) {
        assert_eq!(table.len(), model.len());
        assert!(table.iter().eq(model.iter()));
        assert!(table.chunks.iter().all(|chunk| !chunk.is_empty()));
        assert!(table.chunks.iter().all(|chunk| chunk.len() < FULL));
    }

    #[test]
    fn tables_are_what_maps_are() {
        let (mut table, mut model) = (Table::new(), BTreeMap::new());
        let mut random = numbers(7);
        for round in 0..20_000 {
            let (key, value) = (random.next().unwrap() % 700, random.next().unwrap());
            // Grows, then shrinks.
            match (random.next().unwrap() % 10 < 7) == (round < 10_000) {
                true => assert_eq!(table.insert(key, value), model.insert(key, value)),
                false => assert_eq!(table.remove(&key), model.remove(&key)),
            }
            assert_eq!(table.get(&key), model.get(&key));
            if round % 50 == 0 {
                assert!(table.range_from(&key).eq(model.range(key..)));
            }
            if let Some(value) = table.get_mut(&(key + 1)) {
                *value += 1;
                *model.get_mut(&(key + 1)).unwrap() += 1;
            }
            if round % 5000 == 0 {
                table.retain(|key, _| key % 7 > 0);
                model.retain(|key, _| key % 7 > 0);
            }
            if round % 100 == 0 {
                check(&table, &model);
            }
        }
        check(&table, &model);
    }

    #[test]
    fn what_is_put_in_order_fills_its_chunks() {
        let table: Table<u64, ()> = (0..10_000).map(|n| (n, ())).collect();
        assert!(table.chunks.len() <= 10_000 / (FULL - 1) + 1);
    }

    #[test]
    fn a_copy_does_not_change_and_differences_are_what_was_done() {
        let mut random = numbers(3);
        let mut table: Table<u64, u64> = (0..1000).map(|n| (n * 2, n)).collect();
        for _ in 0..300 {
            let copy = table.clone();
            let before: BTreeMap<u64, u64> = copy.iter().map(|(k, v)| (*k, *v)).collect();
            for _ in 0..random.next().unwrap() % 5 {
                let key = random.next().unwrap() % 2000;
                match random.next().unwrap() % 3 {
                    0 => drop(table.insert(key, 5)),
                    _ => drop(table.remove(&key)),
                }
            }
            assert!(copy.iter().eq(before.iter()));
            let after: BTreeMap<u64, u64> = table.iter().map(|(k, v)| (*k, *v)).collect();
            let expected: Vec<_> = (0..2000)
                .map(|key| (key, before.get(&key), after.get(&key)))
                .filter(|(_, before, after)| before != after)
                .collect();
            let found: Vec<_> = differences(&copy, &table)
                .map(|(key, before, after)| (*key, before, after))
                .collect();
            assert_eq!(found, expected);
            assert_eq!(copy == table, expected.is_empty());
        }
    }

    /// Else each change of one name would cost a look at all of them.
    #[test]
    fn regression_what_copies_share_is_not_looked_at() {
        use std::sync::atomic::{AtomicUsize, Ordering};

        static LOOKED: AtomicUsize = AtomicUsize::new(0);

        #[derive(Clone)]
        struct Counted(u32);
        impl PartialEq for Counted {
            fn eq(&self, other: &Self) -> bool {
                LOOKED.fetch_add(1, Ordering::Relaxed);
                self.0 == other.0
            }
        }

        let old: Table<u32, Counted> = (0..100_000).map(|n| (n, Counted(n))).collect();
        let mut new = old.clone();
        new.remove(&50_000);
        new.insert(70_000, Counted(1));
        let keys: Vec<u32> = differences(&old, &new).map(|(key, ..)| *key).collect();
        assert_eq!(keys, [50_000, 70_000]);
        assert!(LOOKED.load(Ordering::Relaxed) < 4 * FULL);
    }
}
