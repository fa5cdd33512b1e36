//! What the next process must know of the volumes that the kernel knows, with `survive=on`.
//!
//! Every descriptor that stands for something the kernel knows (an inode, an open file, a directory that is listed, a lock, a hold) has a
//! slot in memory that outlives the process, by its number; the descriptors themselves are kept by the process's
//! holder ([`crate::sys::descriptor_holder`]). A slot is filled before the kernel is told, and emptied before the descriptor is closed.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::api::InodeNo;
use crate::store::VolumeId;
use crate::sys::counters::Counters;

/// Descriptors from this number on are not kept.
const SLOTS: u32 = 1 << 20;
/// Numbers in a slot; the last of them are a name.
const WIDTH: u32 = 16;
const NAME: u32 = 8;
/// Bytes of a name that has room.
const NAME_ROOM: usize = 63;
/// Volumes that have a number.
const VOLUMES: u32 = 1 << 18;
const VOLUME_WIDTH: u32 = 4;
/// (volume, device) pairs that have numbers.
pub(super) const SPACES: u32 = 1 << 15;
const SPACE_WIDTH: u32 = 2;

/// The parts of the file, in numbers of 64 bits.
const HEAD: u32 = 64;
const VOLUMES_AT: u32 = HEAD;
const SPACES_AT: u32 = VOLUMES_AT + VOLUMES * VOLUME_WIDTH;
/// What the threads are about to do, and what those of earlier processes were.
const STEPS: u32 = 256;
const STEP_WIDTH: u32 = 4;
const STEPS_AT: u32 = SPACES_AT + SPACES * SPACE_WIDTH;
const SLOTS_AT: u32 = STEPS_AT + STEPS * STEP_WIDTH;
const ALL: u32 = SLOTS_AT + SLOTS * WIDTH;

/// In the head.
#[derive(Clone, Copy, Debug)]
pub(super) enum Count {
    /// The number of the next open file.
    NextFile = 0,
    /// Of the last invented inode number.
    Invented = 1,
    /// Of the next volume.
    NextVolume = 2,
    /// Which connection the slots belong to.
    Connection = 3,
    /// Behind the last (volume, device) pair that has a number.
    Spaces = 4,
}

/// What a descriptor is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Node = 1,
    File = 2,
    Directory = 3,
    Lock = 4,
    Hold = 5,
}

/// What a slot says. What each number means depends on the kind.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Facts {
    pub(super) flags: u8,
    pub(super) ino: u64,
    /// An open file's, or a lock's owner.
    pub(super) number: u64,
    /// How often the kernel refers to a node; of a lock the process.
    pub(super) count: u64,
    pub(super) user: u32,
    pub(super) volume: u32,
    /// An open file's backing id, or the open file that a lock was taken through.
    pub(super) of: u64,
    /// The request that opened a file, until it has been answered.
    pub(super) request: u64,
    /// Of a name.
    pub(super) parent: u64,
}

/// A slot as it was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) kind: Kind,
    pub(super) facts: Facts,
    pub(super) name: Option<Box<[u8]>>,
}

/// The record of one process.
#[derive(Debug)]
pub struct Record(Arc<Counters>);

impl Record {
    /// An empty one.
    pub fn new() -> io::Result<Arc<Record>> {
        Ok(Arc::new(Record(Counters::named("mica-volumes", ALL)?)))
    }

    /// That of another process.
    pub fn open(file: File) -> io::Result<Arc<Record>> {
        Ok(Arc::new(Record(Counters::open_of(file, ALL)?)))
    }

    /// Its file.
    pub fn file(&self) -> io::Result<File> {
        Ok(self.0.as_fd().try_clone_to_owned()?.into())
    }

    /// Whether a descriptor is to be kept.
    pub fn keeps(&self, descriptor: u32) -> bool {
        // What was never used is not looked at, which would take memory.
        self.slot(descriptor, 0)
            .is_some_and(|slot| slot.load(Ordering::Acquire) != 0)
    }

    fn slot(&self, descriptor: u32, word: u32) -> Option<&AtomicU64> {
        let at = (descriptor < SLOTS).then(|| SLOTS_AT + descriptor * WIDTH + word)?;
        self.0.at(at)
    }

    pub(super) fn count(&self, count: Count) -> Option<&AtomicU64> {
        self.0.at(count as u32)
    }

    pub(super) fn get(&self, count: Count) -> u64 {
        self.count(count)
            .map_or(0, |count| count.load(Ordering::Acquire))
    }

    /// What was recorded of an earlier connection does not count any more.
    pub fn begin_connection(&self) {
        if let Some(count) = self.count(Count::Connection) {
            count.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Has a descriptor kept until the mark is dropped.
    pub(super) fn mark(
        self: &Arc<Self>,
        descriptor: &impl AsFd,
        kind: Kind,
        facts: &Facts,
        name: Option<(u64, &[u8])>,
    ) -> Mark {
        let number = descriptor.as_fd().as_raw_fd().unsigned_abs();
        if number >= SLOTS {
            log::debug!("descriptor {number} would not outlive this process");
            return Mark(None);
        }
        let mark = Mark(Some((Arc::clone(self), number)));
        mark.set(1, facts.ino);
        mark.set(2, facts.number);
        mark.set(3, facts.count);
        mark.set(4, u64::from(facts.user) << 32 | u64::from(facts.volume));
        mark.set(5, facts.of);
        mark.set(6, facts.request);
        mark.name(name);
        let connection = self.get(Count::Connection) << 32;
        mark.set(0, connection | u64::from(facts.flags) << 8 | kind as u64);
        mark
    }

    /// What there is of a descriptor, by the number that it had.
    pub(super) fn find(&self, number: u32) -> Option<Found> {
        let word = |word| Some(self.slot(number, word)?.load(Ordering::Acquire));
        let head = word(0)?;
        if head >> 32 != self.get(Count::Connection) {
            return None;
        }
        let kind = match head & 0xff {
            1 => Kind::Node,
            2 => Kind::File,
            3 => Kind::Directory,
            4 => Kind::Lock,
            5 => Kind::Hold,
            _ => return None,
        };
        let [_, flags, ..] = head.to_le_bytes();
        let of = word(4)?;
        let facts = Facts {
            flags,
            ino: word(1)?,
            number: word(2)?,
            count: word(3)?,
            user: u32::try_from(of >> 32).ok()?,
            volume: u32::try_from(of & u64::from(u32::MAX)).ok()?,
            of: word(5)?,
            request: word(6)?,
            parent: word(7)?,
        };
        let words = (NAME..WIDTH).filter_map(word);
        let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        let name = bytes.split_first().and_then(|(length, rest)| {
            let length = usize::from(*length);
            (length > 0).then(|| rest.get(..length).map(Into::into))?
        });
        Some(Found { kind, facts, name })
    }

    fn volume_word(&self, number: u32, word: u32) -> Option<&AtomicU64> {
        let at = (number < VOLUMES).then(|| VOLUMES_AT + number * VOLUME_WIDTH + word)?;
        self.0.at(at)
    }

    pub(super) fn put_volume(&self, number: u32, id: &VolumeId, flags: u64) {
        let Ok(value) = u128::from_str_radix(id.as_str(), 16) else {
            return;
        };
        let half = |value: u128| u64::try_from(value & u128::from(u64::MAX)).unwrap_or_default();
        let (high, low) = (half(value >> 64), half(value));
        for (word, value) in [(1, high), (2, low), (0, flags | PRESENT)] {
            if let Some(at) = self.volume_word(number, word) {
                at.store(value, Ordering::Release);
            }
        }
    }

    /// Volumes by number, with their flags.
    pub(super) fn volumes(&self) -> Vec<(u32, VolumeId, u64)> {
        let next = u32::try_from(self.get(Count::NextVolume)).unwrap_or(u32::MAX);
        let read = |number: u32| {
            let word = |word| Some(self.volume_word(number, word)?.load(Ordering::Acquire));
            let flags = word(0)?;
            let id = format!("{:016x}{:016x}", word(1)?, word(2)?);
            (flags & PRESENT != 0).then_some(())?;
            Some((number, VolumeId::parse(&id)?, flags & !PRESENT))
        };
        (0..next.min(VOLUMES)).filter_map(read).collect()
    }

    pub(super) fn put_space(&self, space: u64, of: Option<(u32, u64)>) {
        let Some(at) = u32::try_from(space).ok().filter(|space| *space < SPACES) else {
            return;
        };
        if let Some(count) = self.count(Count::Spaces) {
            count.fetch_max(u64::from(at) + 1, Ordering::AcqRel);
        }
        let (volume, device) =
            of.map_or((0, 0), |(volume, device)| (u64::from(volume) + 1, device));
        for (word, value) in [(1, device), (0, volume)] {
            if let Some(word) = self.0.at(SPACES_AT + at * SPACE_WIDTH + word) {
                word.store(value, Ordering::Release);
            }
        }
    }

    /// Number, volume and device.
    pub(super) fn spaces(&self) -> Vec<(u64, u32, u64)> {
        let read = |number: u32| {
            let word = |word| {
                let at = SPACES_AT + number * SPACE_WIDTH + word;
                Some(self.0.at(at)?.load(Ordering::Acquire))
            };
            let volume = u32::try_from(word(0)?.checked_sub(1)?).ok()?;
            Some((u64::from(number), volume, word(1)?))
        };
        let end = u32::try_from(self.get(Count::Spaces)).unwrap_or(SPACES);
        (0..end.min(SPACES)).filter_map(read).collect()
    }
}

impl Record {
    /// Notes what a request is about to do.
    pub(super) fn put_step(&self, at: u32, request: u64, [a, b]: [u64; 2]) {
        let at = STEPS_AT + at % STEPS * STEP_WIDTH;
        for (word, value) in [(0, 0), (1, a), (2, b), (0, request)] {
            if let Some(word) = self.0.at(at + word) {
                word.store(value, Ordering::Release);
            }
        }
    }

    /// Requests, and what they were about to do.
    pub(super) fn steps(&self) -> Vec<(u64, [u64; 2])> {
        let read = |number: u32| {
            let at = STEPS_AT + number * STEP_WIDTH;
            let word = |word| Some(self.0.at(at + word)?.load(Ordering::Acquire));
            let request = word(0)?;
            (request != 0).then_some((request, [word(1)?, word(2)?]))
        };
        (0..STEPS).filter_map(read).collect()
    }
}

/// A volume of that number is known.
const PRESENT: u64 = 1 << 63;

/// That a descriptor is kept; to be dropped before that.
#[derive(Debug, Default)]
pub(super) struct Mark(Option<(Arc<Record>, u32)>);

impl Mark {
    fn set(&self, word: u32, value: u64) {
        if let Some((record, number)) = &self.0
            && let Some(slot) = record.slot(*number, word)
        {
            slot.store(value, Ordering::Release);
        }
    }

    /// How often the kernel refers to the node.
    pub(super) fn count(&self, count: u64) {
        self.set(3, count);
    }

    /// The request that is not answered yet.
    pub(super) fn request(&self, unique: u64) {
        self.set(6, unique);
    }

    /// The backing id of an open file, or how a volume is held.
    pub(super) fn backing(&self, id: u64) {
        self.set(5, id);
    }

    /// The name by which a node was found last, if it has room.
    pub(super) fn name(&self, name: Option<(u64, &[u8])>) {
        let room = name.filter(|(_, name)| name.len() <= NAME_ROOM);
        let (parent, name) = room.unwrap_or((0, &[]));
        let mut bytes = [0; 1 + NAME_ROOM];
        if let (Ok(length), Some(into)) = (u8::try_from(name.len()), bytes.get_mut(1..=name.len()))
        {
            into.copy_from_slice(name);
            self.set(NAME, 0);
            self.set(7, parent);
            if let Some(first) = bytes.first_mut() {
                *first = length;
            }
        }
        // The length, which is in the first, last.
        for (word, chunk) in (NAME..WIDTH).zip(bytes.chunks_exact(8)).rev() {
            let chunk = chunk.try_into().unwrap_or_default();
            self.set(word, u64::from_le_bytes(chunk));
        }
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.set(0, 0);
    }
}

/// An inode by its number, as far as it is one.
impl Facts {
    pub(super) fn inode(&self) -> InodeNo {
        InodeNo(self.ino)
    }
}
