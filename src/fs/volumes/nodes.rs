//! The inodes of volumes that the kernel knows.
//!
//! A node is (volume, device, inode) and has one `O_PATH` descriptor, which keeps the host's inode number from being used again
//! while the kernel has it. Its number is made of the host's: the lower 48 bits, below a number for (volume, device); so it is
//! the same for each visit and hard links look like ones. What does not fit gets a number of its own, above all others. The number
//! of a (volume, device) is free again when the volume has ended and the kernel has forgotten all of it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use rustix::fs::{FileType, Statx};
use rustix::io::Errno;

use super::super::api::{FsError, InodeNo};
use super::attached::Attached;
use super::attr::{Attr, VolumeError};
use super::budget::Known;
use super::record::{self, Count, Facts, Kind, Mark, Record};
use crate::sys::beneath;
use crate::sys::mountinfo::DeviceId;

/// Bits of the host's inode number in ours.
const HOST_BITS: u32 = 48;
/// (volume, device) pairs that have numbers of their own; beyond, every node gets an invented number.
const MAX_SPACES: u64 = 1 << 15;
/// The first invented number.
const INVENTED: u64 = 1 << 63;

/// A directory and a name in it.
pub(super) type Found = (InodeNo, Box<[u8]>);

/// One inode of the host, as seen through one volume.
#[derive(Debug)]
pub(super) struct Node {
    mark: Mark,
    pub(super) ino: InodeNo,
    pub(super) volume: Arc<Attached>,
    descriptor: OwnedFd,
    pub(super) kind: FileType,
    pub(super) device: DeviceId,
    host_ino: u64,
    /// It is the volume itself.
    pub(super) top: bool,
    /// The name under which it was last found, to make the kernel forget it.
    last_name: Mutex<Option<Found>>,
    /// Open files that write.
    writers: AtomicUsize,
    /// An earlier process has had it, and the kernel has not asked for it since.
    doubtful: AtomicBool,
    /// Whose it is.
    _known: Option<Known>,
}

impl AsFd for Node {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Node {
    pub(super) fn directory(&self) -> Result<&Self, VolumeError> {
        match self.kind {
            FileType::Directory => Ok(self),
            _ => Err(Errno::NOTDIR.into()),
        }
    }

    pub(super) fn regular(&self) -> Result<&Self, VolumeError> {
        match self.kind {
            FileType::RegularFile => Ok(self),
            FileType::Directory => Err(Errno::ISDIR.into()),
            // The kernel opens these itself.
            _ => Err(Errno::OPNOTSUPP.into()),
        }
    }

    /// Refuses a change through a volume that is for reading.
    pub(super) fn writable(&self) -> Result<&Self, VolumeError> {
        if self.volume.read_only {
            return Err(Errno::ROFS.into());
        }
        Ok(self)
    }

    /// Whether a file is open that changes it.
    pub(super) fn is_written(&self) -> bool {
        self.writers.load(Ordering::Acquire) > 0
    }

    pub(super) fn write_begins(&self) {
        self.writers.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether it was the last one.
    pub(super) fn write_ends(&self) -> bool {
        self.writers.fetch_sub(1, Ordering::AcqRel) == 1
    }

    pub(super) fn last_name(&self) -> Option<(InodeNo, Box<[u8]>)> {
        self.last_name.lock().clone()
    }
}

/// Which node: volume, device, host's inode number, and whether it is the volume itself.
type Key = (u32, DeviceId, u64, bool);

#[derive(Debug, Default)]
struct Table {
    by_ino: HashMap<InodeNo, (Arc<Node>, u64)>,
    by_key: HashMap<Key, InodeNo>,
    spaces: HashMap<(u32, DeviceId), Space>,
    /// Numbers of spaces given back, below the highest ever given.
    free: BTreeSet<u64>,
    highest: u64,
    /// Volumes that have ended while the kernel knew something of them.
    ended: HashSet<u32>,
    invented: u64,
    /// For the next process.
    record: Option<Arc<Record>>,
}

/// The numbers of one (volume, device).
#[derive(Debug)]
struct Space {
    number: u64,
    /// How many nodes it has.
    nodes: u64,
}

/// All nodes of a mount.
#[derive(Debug, Default)]
pub(super) struct Nodes(Mutex<Table>);

/// In the record of a node: it is the volume itself.
const TOP: u8 = 1;

impl Nodes {
    /// Those that are recorded for the next process.
    pub(super) fn recorded(record: Option<Arc<Record>>) -> Nodes {
        let table = Table {
            invented: record
                .as_ref()
                .map_or(0, |record| record.get(Count::Invented)),
            record,
            ..Table::default()
        };
        Nodes(Mutex::new(table))
    }

    /// The numbers of spaces that an earlier process has given.
    pub(super) fn restore_spaces(&self, spaces: Vec<(u64, u32, u64)>) {
        let mut table = self.0.lock();
        let table = &mut *table;
        for (number, volume, device) in spaces {
            let device = unpack(device);
            table.put_space(number, Some((volume, device)));
            table
                .spaces
                .insert((volume, device), Space { number, nodes: 0 });
            table.highest = table.highest.max(number);
        }
        let used: BTreeSet<u64> = table.spaces.values().map(|space| space.number).collect();
        table.free = (1..table.highest)
            .filter(|number| !used.contains(number))
            .collect();
    }

    /// A node that an earlier process has had for the kernel.
    pub(super) fn restore(
        &self,
        volume: &Arc<Attached>,
        descriptor: OwnedFd,
        found: &record::Found,
        known: Option<Known>,
    ) -> Result<(), VolumeError> {
        let stat = beneath::stat(&descriptor)?;
        let facts = found.facts;
        let device = beneath::device(&stat);
        let top = facts.flags & TOP != 0;
        let mut table = self.0.lock();
        let table = &mut *table;
        let name = found.name.as_deref().map(|name| (facts.parent, name));
        let node = Arc::new(Node {
            mark: table.mark(&descriptor, &facts, name),
            ino: facts.inode(),
            volume: Arc::clone(volume),
            descriptor,
            kind: beneath::kind(&stat),
            device,
            host_ino: stat.stx_ino,
            top,
            last_name: Mutex::new(name.map(|(parent, name)| (InodeNo(parent), name.into()))),
            writers: AtomicUsize::new(0),
            doubtful: AtomicBool::new(true),
            _known: known,
        });
        if let Some(space) = table.spaces.get_mut(&(volume.number, device)) {
            space.nodes = space.nodes.saturating_add(1);
        }
        let key = (volume.number, device, stat.stx_ino, top);
        table.by_key.insert(key, node.ino);
        table.by_ino.insert(node.ino, (node, facts.count));
        Ok(())
    }

    /// Those of an earlier process that the kernel has not asked for since.
    pub(super) fn doubtful(&self) -> Vec<InodeNo> {
        let table = self.0.lock();
        let nodes = table.by_ino.values().map(|(node, _)| node);
        let doubtful = nodes.filter(|node| node.doubtful.load(Ordering::Relaxed));
        doubtful.map(|node| node.ino).collect()
    }

    /// The kernel does not know them, unless it has asked for one meanwhile.
    pub(super) fn drop_doubtful(&self, inodes: &[InodeNo]) {
        for ino in inodes {
            let table = self.0.lock();
            let node = table.by_ino.get(ino).map(|(node, _)| node);
            let doubtful = node.is_some_and(|node| node.doubtful.load(Ordering::Relaxed));
            drop(table);
            if doubtful {
                self.forget(*ino, u64::MAX);
            }
        }
    }

    pub(super) fn get(&self, ino: InodeNo) -> Result<Arc<Node>, VolumeError> {
        let table = self.0.lock();
        match table.by_ino.get(&ino) {
            Some((node, _)) => Ok(Arc::clone(node)),
            None => Err(FsError::Stale(ino.0).into()),
        }
    }

    /// Takes one reference for the kernel on the node that `descriptor` (with `stat`) is, known before or not. Also another name
    /// by which the kernel knows it. `know` says to whom a new one counts.
    pub(super) fn enter(
        &self,
        volume: &Arc<Attached>,
        descriptor: OwnedFd,
        stat: &Statx,
        top: bool,
        found_as: (InodeNo, &[u8]),
        know: impl FnOnce() -> Option<Known>,
    ) -> (Arc<Node>, Attr, Option<Found>) {
        let device = beneath::device(stat);
        let key = (volume.number, device, stat.stx_ino, top);
        let mut table = self.0.lock();
        let table = &mut *table;
        let known = table.by_key.get(&key).copied();
        if let Some(ino) = known
            && let Some((node, references)) = table.by_ino.get_mut(&ino)
        {
            *references = references.saturating_add(1);
            node.mark.count(*references);
            node.doubtful.store(false, Ordering::Relaxed);
            let before = remember(node, found_as);
            return (Arc::clone(node), Attr::new(ino, stat), before);
        }
        let ino = table.number(volume.number, device, stat.stx_ino, top);
        let known = know();
        let facts = Facts {
            flags: if top { TOP } else { 0 },
            ino: ino.0,
            count: 1,
            user: known.as_ref().map_or(0, Known::user),
            volume: volume.number,
            ..Facts::default()
        };
        let node = Arc::new(Node {
            mark: table.mark(&descriptor, &facts, Some((found_as.0.0, found_as.1))),
            ino,
            volume: Arc::clone(volume),
            descriptor,
            kind: beneath::kind(stat),
            device,
            host_ino: stat.stx_ino,
            top,
            last_name: Mutex::new(Some((found_as.0, found_as.1.into()))),
            writers: AtomicUsize::new(0),
            doubtful: AtomicBool::new(false),
            _known: known,
        });
        if let Some(space) = table.spaces.get_mut(&(volume.number, device)) {
            space.nodes = space.nodes.saturating_add(1);
        }
        table.by_key.insert(key, ino);
        table.by_ino.insert(ino, (Arc::clone(&node), 1));
        let attr = Attr {
            fresh: true,
            ..Attr::new(ino, stat)
        };
        (node, attr, None)
    }

    /// Drops references of the kernel.
    pub(super) fn forget(&self, ino: InodeNo, count: u64) {
        let mut table = self.0.lock();
        let Some((node, references)) = table.by_ino.get_mut(&ino) else {
            return;
        };
        *references = references.saturating_sub(count);
        node.mark.count(*references);
        if *references > 0 {
            return;
        }
        let gone = table.by_ino.remove(&ino);
        if let Some((node, _)) = &gone {
            let key = (node.volume.number, node.device, node.host_ino, node.top);
            table.by_key.remove(&key);
            table.left(node.volume.number, node.device);
        }
        drop(table);
        // Closing the last descriptor of a removed file frees its space, which takes time.
        drop(gone);
    }

    /// A volume is no more: its numbers are free when the kernel has forgotten all of it.
    pub(super) fn ended(&self, volume: u32) {
        let mut table = self.0.lock();
        table.ended.insert(volume);
        table.give_back(volume);
    }

    /// A number that is no node's.
    pub(super) fn nothing(&self) -> InodeNo {
        self.0.lock().invent()
    }

    /// The number a listing shows for an inode of the host.
    pub(super) fn shown(&self, volume: u32, device: DeviceId, host_ino: u64) -> InodeNo {
        let mut table = self.0.lock();
        match table.by_key.get(&(volume, device, host_ino, false)) {
            Some(ino) => *ino,
            None => table.number(volume, device, host_ino, false),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().by_ino.len()
    }

    /// Those of a volume.
    pub(super) fn of(&self, volume: u32) -> Vec<Arc<Node>> {
        let table = self.0.lock();
        let nodes = table.by_ino.values().map(|(node, _)| node);
        let inside = nodes.filter(|node| node.volume.number == volume);
        inside.cloned().collect()
    }

    /// All of them that are not directories.
    pub(super) fn leaves(&self) -> Vec<Arc<Node>> {
        let table = self.0.lock();
        let nodes = table.by_ino.values().map(|(node, _)| node);
        nodes
            .filter(|node| node.kind != FileType::Directory)
            .cloned()
            .collect()
    }
}

impl Table {
    fn number(&mut self, volume: u32, device: DeviceId, host_ino: u64, top: bool) -> InodeNo {
        let space = match self.spaces.get(&(volume, device)) {
            Some(space) => Some(space.number),
            None => self.unused_space().inspect(|&number| {
                let space = Space { number, nodes: 0 };
                self.spaces.insert((volume, device), space);
                self.put_space(number, Some((volume, device)));
            }),
        };
        // The top of a volume may be a directory that is also below: another node.
        match space {
            Some(space) if !top && host_ino < 1 << HOST_BITS => {
                InodeNo((space << HOST_BITS) | host_ino)
            }
            _ => self.invent(),
        }
    }

    fn unused_space(&mut self) -> Option<u64> {
        if let Some(number) = self.free.pop_first() {
            return Some(number);
        }
        let next = self.highest + 1;
        (next < MAX_SPACES).then(|| {
            self.highest = next;
            next
        })
    }

    /// A node of a space is gone.
    fn left(&mut self, volume: u32, device: DeviceId) {
        if let Some(space) = self.spaces.get_mut(&(volume, device)) {
            space.nodes = space.nodes.saturating_sub(1);
            if space.nodes == 0 && self.ended.contains(&volume) {
                self.give_back(volume);
            }
        }
    }

    /// Frees what an ended volume no longer needs.
    fn give_back(&mut self, volume: u32) {
        let (free, record) = (&mut self.free, &self.record);
        let mut used = false;
        self.spaces.retain(|(of, _), space| {
            let keep = *of != volume || space.nodes > 0;
            if !keep {
                free.insert(space.number);
                if let Some(record) = record {
                    record.put_space(space.number, None);
                }
            }
            used |= *of == volume && keep;
            keep
        });
        if !used {
            self.ended.remove(&volume);
        }
    }

    fn put_space(&self, number: u64, of: Option<(u32, DeviceId)>) {
        if let Some(record) = &self.record {
            record.put_space(number, of.map(|(volume, device)| (volume, pack(device))));
        }
    }

    fn mark(&self, descriptor: &OwnedFd, facts: &Facts, name: Option<(u64, &[u8])>) -> Mark {
        match &self.record {
            Some(record) => record.mark(descriptor, Kind::Node, facts, name),
            None => Mark::default(),
        }
    }

    fn invent(&mut self) -> InodeNo {
        self.invented = self.invented.saturating_add(1);
        if let Some(count) = self
            .record
            .as_ref()
            .and_then(|record| record.count(Count::Invented))
        {
            count.store(self.invented, Ordering::Release);
        }
        InodeNo(INVENTED | self.invented)
    }
}

fn pack(device: DeviceId) -> u64 {
    u64::from(device.major) << 32 | u64::from(device.minor)
}

fn unpack(device: u64) -> DeviceId {
    let half = |value: u64| u32::try_from(value & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    DeviceId {
        major: half(device >> 32),
        minor: half(device),
    }
}

fn remember(node: &Node, (parent, name): (InodeNo, &[u8])) -> Option<Found> {
    let mut last = node.last_name.lock();
    if last
        .as_ref()
        .is_none_or(|(p, n)| *p != parent || **n != *name)
    {
        node.mark.name(Some((parent.0, name)));
        return last.replace((parent, name.into()));
    }
    None
}

#[cfg(test)]
mod tests;
