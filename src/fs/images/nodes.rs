//! The nodes of the tree's own: directories of names, files of `info/`, symlinks.
//!
//! A node exists while the kernel refers to it (the fixed ones always). Its [`Place`] is what it is; a rename moves a node to
//! another place, so that the kernel's inode keeps its number. Numbers are not used again while any node has them.

mod listing;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::{Mutex, RwLock};

pub(super) use listing::Listing;

use super::lasting::{Lasting, References};
use super::namespace::is_below;
use super::places::{InfoFile, Place};
use crate::fs::api::{InodeNo, Timestamp};

/// What a dynamic file showed last, and since when.
#[derive(Clone, Debug)]
pub(super) struct Rendered {
    pub bytes: Arc<[u8]>,
    pub mtime: Timestamp,
}

/// One node.
#[derive(Debug)]
pub(super) struct Node {
    pub ino: InodeNo,
    place: RwLock<Place>,
    references: References,
    /// Positions of a directory that is being listed.
    pub listing: Mutex<Listing>,
    /// See [`Rendered`].
    pub rendered: Mutex<Option<Rendered>>,
}

impl Node {
    fn new(ino: u64, place: Place, references: References) -> Arc<Node> {
        Arc::new(Node {
            ino: InodeNo(ino),
            place: RwLock::new(place),
            references,
            listing: Mutex::default(),
            rendered: Mutex::default(),
        })
    }

    pub(super) fn place(&self) -> Place {
        self.place.read().clone()
    }
}

/// All nodes. Lock order: `Nodes` before anything inside a node.
#[derive(Debug)]
pub(super) struct Nodes {
    table: RwLock<Table>,
    lasting: Option<Arc<Lasting>>,
}

#[derive(Debug)]
struct Table {
    by_ino: HashMap<u64, Arc<Node>>,
    by_place: HashMap<Place, Arc<Node>>,
    next: u64,
}

/// Numbers below are the fixed nodes'.
const FIRST: u64 = 64;

impl Nodes {
    pub(super) fn new(lasting: Option<Arc<Lasting>>) -> Nodes {
        let fixed = [
            Place::Root,
            Place::Repo("".into()),
            Place::Dangling,
            Place::ById,
            Place::Layers,
            Place::Info,
            Place::InfoRepo("".into()),
            Place::InfoVolumes,
            Place::Volumes,
            Place::File(InfoFile::Df),
            Place::File(InfoFile::Events),
            Place::File(InfoFile::Version),
            Place::Whiteout,
            Place::Stores,
        ];
        let mut table = Table {
            by_ino: HashMap::new(),
            by_place: HashMap::new(),
            next: FIRST,
        };
        for (ino, place) in (InodeNo::ROOT.0..).zip(fixed) {
            let node = Node::new(ino, place.clone(), References::default());
            table.insert(node, place);
        }
        for (ino, references, place) in lasting.iter().flat_map(|lasting| lasting.own_nodes()) {
            table.insert(Node::new(ino, place.clone(), references), place);
            table.next = table.next.max(ino + 1);
        }
        Nodes {
            table: RwLock::new(table),
            lasting,
        }
    }

    pub(super) fn get(&self, ino: InodeNo) -> Option<Arc<Node>> {
        self.table.read().by_ino.get(&ino.0).cloned()
    }

    /// The node at `place`, if the kernel knows it.
    pub(super) fn find(&self, place: &Place) -> Option<Arc<Node>> {
        self.table.read().by_place.get(place).cloned()
    }

    /// The node at `place`, made if need be, with one reference more; and whether it was made.
    pub(super) fn refer(&self, place: Place) -> (Arc<Node>, bool) {
        {
            let table = self.table.read();
            // Under the table's lock, so that `forget` cannot drop it in between.
            if let Some(node) = table.by_place.get(&place) {
                node.references.fetch_add(1, Ordering::Relaxed);
                return (node.clone(), false);
            }
        }
        let mut table = self.table.write();
        if let Some(node) = table.by_place.get(&place) {
            node.references.fetch_add(1, Ordering::Relaxed);
            return (node.clone(), false);
        }
        let lasting = self.lasting.as_ref();
        let references = lasting.map_or_else(References::default, |lasting| lasting.count());
        let node = Node::new(table.free_number(), place.clone(), references);
        node.references.store(1, Ordering::Relaxed);
        if let Some(lasting) = lasting {
            lasting.put_own(node.ino.0, &node.references, &place);
        }
        table.insert(node.clone(), place);
        (node, true)
    }

    /// Drops references; the node goes with the last, and is the answer then.
    pub(super) fn forget(&self, ino: InodeNo, count: u64) -> Option<Arc<Node>> {
        let mut table = self.table.write();
        let node = table.by_ino.get(&ino.0)?.clone();
        let before = node.references.fetch_sub(count, Ordering::Relaxed);
        if before > count {
            return None;
        }
        node.references.store(0, Ordering::Relaxed);
        if ino.0 < FIRST {
            return None;
        }
        table.by_ino.remove(&ino.0);
        let place = node.place();
        if table.by_place.get(&place).is_some_and(|n| n.ino == ino) {
            table.by_place.remove(&place);
        }
        if let Some(lasting) = &self.lasting {
            lasting.drop_own(ino.0, &node.references);
        }
        Some(node)
    }

    /// Moves the nodes of the directory `from` of `images/`, and of all below it, to `to`. Nodes of a directory that was at
    /// `to` before stay reachable by number only.
    pub(super) fn move_directory(&self, from: &str, to: &str) {
        let mut table = self.table.write();
        let nodes: Vec<Arc<Node>> = table.by_ino.values().cloned().collect();
        for node in nodes {
            let old = node.place();
            let Place::Repo(path) = &old else { continue };
            if path.is_empty() || !is_below(path, from) {
                continue;
            }
            let rest = path.strip_prefix(from).unwrap_or_default();
            let new = Place::Repo(format!("{to}{rest}").into());
            if let Some(lasting) = &self.lasting {
                lasting.put_own(node.ino.0, &node.references, &new);
            }
            *node.place.write() = new.clone();
            if table.by_place.get(&old).is_some_and(|n| n.ino == node.ino) {
                table.by_place.remove(&old);
            }
            table.by_place.insert(new, node);
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.table.read().by_ino.len()
    }
}

impl Table {
    fn insert(&mut self, node: Arc<Node>, place: Place) {
        self.by_ino.insert(node.ino.0, node.clone());
        self.by_place.insert(place, node);
    }

    fn free_number(&mut self) -> u64 {
        loop {
            let number = self.next;
            self.next = match number {
                n if n >= u64::from(u32::MAX) - 1 => FIRST,
                n => n + 1,
            };
            if !self.by_ino.contains_key(&number) {
                return number;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_lives_as_long_as_its_references() {
        let nodes = Nodes::new(None);
        let fixed = nodes.len();
        let (a, _) = nodes.refer(Place::Repo("a".into()));
        let (again, _) = nodes.refer(Place::Repo("a".into()));
        assert_eq!(a.ino, again.ino);
        nodes.forget(a.ino, 1);
        assert!(nodes.get(a.ino).is_some());
        nodes.forget(a.ino, 1);
        assert!(nodes.get(a.ino).is_none());
        assert!(nodes.find(&Place::Repo("a".into())).is_none());
        nodes.forget(InodeNo::ROOT, u64::MAX);
        assert!(nodes.get(InodeNo::ROOT).is_some());
        assert_eq!(nodes.len(), fixed);
    }

    #[test]
    fn a_rename_keeps_numbers() {
        let nodes = Nodes::new(None);
        let (top, _) = nodes.refer(Place::Repo("org".into()));
        let (below, _) = nodes.refer(Place::Repo("org/app".into()));
        let (other, _) = nodes.refer(Place::Repo("orgx".into()));
        nodes.move_directory("org", "new/name");
        assert_eq!(top.place(), Place::Repo("new/name".into()));
        assert_eq!(below.place(), Place::Repo("new/name/app".into()));
        assert_eq!(other.place(), Place::Repo("orgx".into()));
        assert!(nodes.find(&Place::Repo("org".into())).is_none());
        let found = nodes.find(&Place::Repo("new/name/app".into())).unwrap();
        assert_eq!(found.ino, below.ino);
    }
}
