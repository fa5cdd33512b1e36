//! A sorted set whose copies share what is the same in them.

use std::fmt;

use super::{Iter, Table};
use crate::store::differences;

/// A sorted set, see [`Table`].
#[derive(Clone, PartialEq, Eq)]
pub struct Set<T: Ord>(Table<T, ()>);

impl<T: Ord + Clone> Set<T> {
    /// An empty one.
    pub const fn new() -> Set<T> {
        Set(Table::new())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All, in order.
    pub fn iter(&self) -> SetIter<'_, T> {
        SetIter(self.0.iter())
    }

    /// The least.
    pub fn first(&self) -> Option<&T> {
        self.iter().next()
    }

    /// Whether it is among them.
    pub fn contains(&self, one: &T) -> bool {
        self.0.contains_key(one)
    }

    /// Adds one; whether it was not there.
    pub fn insert(&mut self, one: T) -> bool {
        self.0.insert(one, ()).is_none()
    }

    /// Takes one away; whether it was there.
    pub fn remove(&mut self, one: &T) -> bool {
        self.0.remove(one).is_some()
    }

    /// Takes one away.
    pub fn take(&mut self, one: &T) -> Option<T> {
        self.0.take(one).map(|(one, ())| one)
    }

    /// Takes all away.
    pub fn clear(&mut self) {
        self.0 = Table::new();
    }

    /// What only one of both has, in order.
    pub fn differing<'a>(&'a self, other: &'a Set<T>) -> impl Iterator<Item = &'a T> {
        differences(&self.0, &other.0).map(|(one, ..)| one)
    }
}

impl<T: Ord + Clone> Default for Set<T> {
    fn default() -> Self {
        Set::new()
    }
}

impl<T: Ord + Clone + fmt::Debug> fmt::Debug for Set<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl<T: Ord + Clone> FromIterator<T> for Set<T> {
    fn from_iter<I: IntoIterator<Item = T>>(all: I) -> Self {
        Set(all.into_iter().map(|one| (one, ())).collect())
    }
}

/// See [`Set::iter`].
#[derive(Clone)]
pub struct SetIter<'a, T>(Iter<'a, T, ()>);

impl<'a, T> Iterator for SetIter<'a, T> {
    type Item = &'a T;

    fn next(&mut self) -> Option<&'a T> {
        self.0.next().map(|(one, ())| one)
    }
}

impl<'a, T: Ord + Clone> IntoIterator for &'a Set<T> {
    type Item = &'a T;
    type IntoIter = SetIter<'a, T>;

    fn into_iter(self) -> SetIter<'a, T> {
        self.iter()
    }
}
