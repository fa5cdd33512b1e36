//! The vectors that hold a layer while it is folded.
//!
//! Node numbers and dirent numbers given out by the arena stay valid; asking for any other is a bug of this module's
//! users, and indexing panics then.

// Every number here was given out by the arena, which checked it against the width of the record it goes into; one that is not
// its own is a bug of this module, and stops it.
#![allow(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use zerocopy::little_endian::{U16, U32};

use crate::layer::error::Problem;
use crate::layer::format::{self, ExtentRecord, NodeRecord};

/// No node, no dirent, no set.
pub(crate) const NONE: u32 = u32::MAX;
/// The root directory's node.
pub(crate) const ROOT: u32 = 0;

/// Of a dirent in the arena only: a character device 0:0 has been here last. Others may be hard links to it.
pub(crate) const DIRENT_DEVICE: u8 = 128;

/// Linux `XATTR_SIZE_MAX`.
const XATTR_VALUE_MAX: usize = 64 << 10;
/// Linux `XATTR_LIST_MAX`: all names of one node, each with its NUL.
const XATTR_LIST_MAX: usize = 64 << 10;

/// A name in a directory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dirent {
    pub parent: u32,
    /// Offset in the strings.
    pub name: u32,
    /// Node, or number in `links`, as the flags say.
    pub target: u32,
    pub name_length: u8,
    pub flags: u8,
}

/// A hard link to a lower layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    /// Path of the link, then of the target: offset and length in the strings.
    pub path: (u32, u32),
    pub target: (u32, u32),
}

/// Nodes are [`NodeRecord`]s with these differences: a directory's `extents` is its own dirent, its `place` and
/// `count` are unused; `nlink` is 0; a symlink's `place` is an offset in these strings.
#[derive(Debug)]
pub(crate) struct Arena {
    pub nodes: Vec<NodeRecord>,
    pub dirents: Vec<Dirent>,
    pub strings: Vec<u8>,
    /// Encoded sets, see [`format`].
    pub xattrs: Vec<u8>,
    pub extents: Vec<ExtentRecord>,
    pub links: Vec<Link>,
    /// Content checksums in the order of the tar.
    pub sums: Vec<u64>,
    names: HashTable<u32>,
    sets: HashTable<(u32, u32)>,
    hasher: RandomState,
}

impl Arena {
    pub(crate) fn new() -> Arena {
        let mut root = empty_node(format::KIND_DIRECTORY);
        root.flags = format::NODE_IMPLICIT;
        root.mode = 0o755.into();
        root.extents = NONE.into();
        Arena {
            nodes: vec![root],
            dirents: Vec::new(),
            strings: Vec::new(),
            xattrs: Vec::new(),
            extents: Vec::new(),
            links: Vec::new(),
            sums: Vec::new(),
            names: HashTable::new(),
            sets: HashTable::new(),
            // Seeded at random: names are hostile, and the order of the table is never seen.
            hasher: RandomState::new(),
        }
    }

    pub(crate) fn node(&self, node: u32) -> &NodeRecord {
        &self.nodes[node as usize]
    }

    pub(crate) fn node_mut(&mut self, node: u32) -> &mut NodeRecord {
        &mut self.nodes[node as usize]
    }

    pub(crate) fn dirent(&self, at: u32) -> &Dirent {
        &self.dirents[at as usize]
    }

    pub(crate) fn dirent_mut(&mut self, at: u32) -> &mut Dirent {
        &mut self.dirents[at as usize]
    }

    pub(crate) fn link(&self, number: u32) -> &Link {
        &self.links[number as usize]
    }

    pub(crate) fn text(&self, offset: u32, length: u32) -> &[u8] {
        &self.strings[offset as usize..][..length as usize]
    }

    pub(crate) fn name_of(&self, dirent: &Dirent) -> &[u8] {
        self.text(dirent.name, u32::from(dirent.name_length))
    }

    pub(crate) fn push_node(&mut self, record: NodeRecord) -> Result<u32, Problem> {
        let number = next_number(self.nodes.len(), "nodes")?;
        self.nodes.push(record);
        Ok(number)
    }

    pub(crate) fn push_string(&mut self, bytes: &[u8]) -> Result<u32, Problem> {
        let offset = next_number(self.strings.len(), "bytes of names")?;
        next_number(self.strings.len() + bytes.len(), "bytes of names")?;
        self.strings.extend_from_slice(bytes);
        Ok(offset)
    }

    pub(crate) fn push_link(&mut self, link: Link) -> Result<u32, Problem> {
        let number = next_number(self.links.len(), "links")?;
        self.links.push(link);
        Ok(number)
    }

    /// The dirent `name` of the directory `parent`.
    pub(crate) fn find(&self, parent: u32, name: &[u8]) -> Option<u32> {
        let hash = self.hasher.hash_one((parent, name));
        let same = |at: &u32| {
            let dirent = self.dirent(*at);
            dirent.parent == parent && self.name_of(dirent) == name
        };
        self.names.find(hash, same).copied()
    }

    /// Adds a dirent that is not there yet.
    pub(crate) fn insert(&mut self, dirent: Dirent) -> Result<u32, Problem> {
        let number = next_number(self.dirents.len(), "names")?;
        self.dirents.push(dirent);
        let (dirents, strings, hasher) = (&self.dirents, &self.strings, &self.hasher);
        let hash = |at: &u32| {
            let dirent = &dirents[*at as usize];
            let name = &strings[dirent.name as usize..][..usize::from(dirent.name_length)];
            hasher.hash_one((dirent.parent, name))
        };
        self.names.insert_unique(hash(&number), number, hash);
        Ok(number)
    }

    /// The parent of a directory; the root is its own.
    pub(crate) fn parent(&self, dir: u32) -> u32 {
        match self.node(dir).extents.get() {
            NONE => ROOT,
            at => self.dirent(at).parent,
        }
    }

    /// The path of a directory, without leading `/`; empty for the root.
    pub(crate) fn path_of(&self, mut dir: u32) -> Vec<u8> {
        let mut names = Vec::new();
        loop {
            let at = self.node(dir).extents.get();
            if at == NONE {
                break;
            }
            let dirent = self.dirent(at);
            names.push(self.name_of(dirent));
            dir = dirent.parent;
        }
        names.reverse();
        names.join(&b'/')
    }

    /// Keeps an encoded set once; returns its offset plus one.
    pub(crate) fn intern_xattrs(&mut self, set: &[u8]) -> Result<u32, Problem> {
        let hash = self.hasher.hash_one(set);
        let (xattrs, hasher) = (&self.xattrs, &self.hasher);
        let bytes = |(offset, length): &(u32, u32)| &xattrs[*offset as usize..][..*length as usize];
        if let Some((offset, _)) = self.sets.find(hash, |known| bytes(known) == set) {
            return Ok(offset + 1);
        }
        let offset = next_number(self.xattrs.len(), "bytes of attributes")?;
        next_number(self.xattrs.len() + set.len(), "bytes of attributes")?;
        let length = next_number(set.len(), "bytes of attributes")?;
        self.sets.insert_unique(hash, (offset, length), |known| {
            hasher.hash_one(bytes(known))
        });
        self.xattrs.extend_from_slice(set);
        Ok(offset + 1)
    }

    /// Decodes the set that `place` (offset plus one, 0: none) refers to.
    pub(crate) fn read_xattrs(&self, place: u32, set: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
        let Some(offset) = place.checked_sub(1) else {
            return;
        };
        let mut rest = &self.xattrs[offset as usize..];
        let mut take = |length: usize| {
            let (taken, left) = rest.split_at(length);
            rest = left;
            taken.to_vec()
        };
        let number = |bytes: Vec<u8>| {
            bytes
                .iter()
                .rev()
                .fold(0usize, |sum, byte| sum << 8 | usize::from(*byte))
        };
        for _ in 0..number(take(4)) {
            let name_length = number(take(2));
            let value_length = number(take(4));
            let name = take(name_length);
            set.insert(name, take(value_length));
        }
    }

    /// Frees what only finding needs.
    pub(crate) fn freeze(&mut self) {
        self.names = HashTable::new();
        self.sets = HashTable::new();
    }
}

pub(crate) fn empty_node(kind: u8) -> NodeRecord {
    NodeRecord {
        kind,
        flags: 0,
        mode: 0.into(),
        uid: 0.into(),
        gid: 0.into(),
        nlink: 0.into(),
        mtime_sec: 0.into(),
        mtime_nsec: 0.into(),
        xattrs: 0.into(),
        size: 0.into(),
        place: 0.into(),
        count: 0.into(),
        sums: 0.into(),
        extents: 0.into(),
    }
}

/// Encodes a set as the index has it, after checking it against what Linux can hold.
pub(crate) fn encode_xattrs(set: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<Vec<u8>, Problem> {
    let mut out = Vec::new();
    let count = next_number(set.len(), "attributes")?;
    out.extend_from_slice(U32::new(count).as_ref());
    let mut names = 0;
    for (name, value) in set {
        let refuse = |why| Problem::Xattr {
            name: name.as_slice().into(),
            why,
        };
        if name.is_empty() || name.len() > crate::tree::NAME_MAX || name.contains(&0) {
            return Err(refuse("its name is empty, too long or contains NUL"));
        }
        if value.len() > XATTR_VALUE_MAX {
            return Err(refuse("its value is longer than 65536 bytes"));
        }
        names += name.len() + 1;
        if names > XATTR_LIST_MAX {
            return Err(refuse("too many attributes"));
        }
        let name_length = u16::try_from(name.len()).map_err(|_| refuse("name"))?;
        let value_length = u32::try_from(value.len()).map_err(|_| refuse("value"))?;
        out.extend_from_slice(U16::new(name_length).as_ref());
        out.extend_from_slice(U32::new(value_length).as_ref());
        out.extend_from_slice(name);
        out.extend_from_slice(value);
    }
    Ok(out)
}

/// A count as a number below [`NONE`].
fn next_number(count: usize, what: &'static str) -> Result<u32, Problem> {
    match u32::try_from(count) {
        Ok(number) if number < NONE => Ok(number),
        _ => Err(Problem::Limit {
            what,
            limit: u64::from(NONE),
        }),
    }
}
