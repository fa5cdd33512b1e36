//! What a tree must remember beyond its process: which number is what for a kernel that still knows it.
//!
//! Two files without a name, which the keeper of the mount keeps open too: a table of keys and values, and the counters of the
//! kernel's references ([`crate::sys::counters`]). The next server of the connection makes its tree of them. Nothing here is for the disk: the
//! kernel's memory and this end together.
//!
//! The table is a log, `KEY VALUE` or `KEY` (gone) a line, behind eight bytes that say where it begins. A write is whole for whoever reads it after this
//! process has been killed, but for the last line, which counts only with its end. When most of it is over, what stands is
//! written anew behind it, and only then the beginning moves there.
//!
//! | key | value |
//! |---|---|
//! | `own:INO` | a node of the tree's own: counter and place |
//! | `slot:NO` | a layer: counter and digest |
//! | `tree:NO` | a tree: its subject |
//! | `revived:NO` | the number that a directory has instead of its tree's: tree, layer, node |
//! | `staged:INO` | a file whose link count the kernel has lowered for a removal that is not committed |
//! | `kept` | repositories that stay though they are empty |

mod store_text;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, memfd_create};

use super::places::{Place, Subject};
use crate::sys::counters::{COUNT, Counter, Counters};

/// Where the first log begins.
const BEGIN: u64 = 8;
/// So much of the log may be over before it is written anew, besides as much as stands.
const SLACK: u64 = 1 << 20;

type Follower = Box<dyn Fn(Arc<File>) + Send + Sync>;

/// The memory of one tree.
pub struct Lasting {
    table: Mutex<Table>,
    counters: Arc<Counters>,
    pool: Mutex<Pool>,
    /// Whether an earlier process has begun it.
    inherited: bool,
    /// Is given the names that the tree is about to show.
    follower: OnceLock<Follower>,
}

#[derive(Debug)]
struct Table {
    file: File,
    begin: u64,
    end: u64,
    live: BTreeMap<String, String>,
    /// Bytes of the live lines.
    bytes: u64,
    failed: bool,
}

/// Counters that nobody uses.
#[derive(Debug, Default)]
struct Pool {
    free: Vec<u32>,
    next: u32,
}

/// How often the kernel refers to something.
#[derive(Debug)]
pub(super) enum References {
    /// Known to this process only.
    Own(AtomicU64),
    Lasting(Counter),
}

impl Default for References {
    fn default() -> Self {
        References::Own(AtomicU64::new(0))
    }
}

impl Deref for References {
    type Target = AtomicU64;

    fn deref(&self) -> &AtomicU64 {
        match self {
            References::Own(count) => count,
            References::Lasting(counter) => counter,
        }
    }
}

impl References {
    /// Its number in the table.
    fn number(&self) -> String {
        match self {
            References::Own(_) => "-".to_owned(),
            References::Lasting(counter) => counter.index().to_string(),
        }
    }
}

impl Lasting {
    /// A new memory.
    pub fn new() -> io::Result<Arc<Lasting>> {
        let file = File::from(memfd_create("mica-tree", MemfdFlags::CLOEXEC)?);
        file.write_all_at(&BEGIN.to_ne_bytes(), 0)?;
        Lasting::with(Table::read(file)?, Counters::new()?, false)
    }

    /// The memory of an earlier process.
    pub fn open(table: File, counters: File) -> io::Result<Arc<Lasting>> {
        Lasting::with(Table::read(table)?, Counters::open(counters)?, true)
    }

    fn with(table: Table, counters: Arc<Counters>, inherited: bool) -> io::Result<Arc<Lasting>> {
        let pool = Pool::of(&table);
        Ok(Arc::new(Lasting {
            table: Mutex::new(table),
            counters,
            pool: Mutex::new(pool),
            inherited,
            follower: OnceLock::new(),
        }))
    }

    /// Its two files, as [`Lasting::open`] wants them.
    pub fn files(&self) -> io::Result<[File; 2]> {
        let table = self.table.lock().file.try_clone()?;
        let counters = File::from(self.counters.as_fd().try_clone_to_owned()?);
        Ok([table, counters])
    }

    /// `follow` is given the file of the names before the tree shows them.
    pub fn follow(&self, follow: impl Fn(Arc<File>) + Send + Sync + 'static) {
        if self.follower.set(Box::new(follow)).is_err() {
            log::warn!("a second follower of one mount's names");
        }
    }

    pub(super) fn names(&self, file: Arc<File>) {
        if let Some(follow) = self.follower.get() {
            follow(file);
        }
    }

    /// Whether the kernel may know what this process has not told it.
    pub(super) fn is_inherited(&self) -> bool {
        self.inherited
    }

    /// A counter, at 0. Without one to be had, a restart forgets the count.
    pub(super) fn count(&self) -> References {
        let mut pool = self.pool.lock();
        let index = match pool.free.pop() {
            Some(index) => Some(index),
            None if pool.next < COUNT => {
                pool.next += 1;
                Some(pool.next - 1)
            }
            None => None,
        };
        match index.and_then(|index| self.counters.get(index)) {
            Some(counter) => {
                counter.store(0, Ordering::Relaxed);
                References::Lasting(counter)
            }
            None => References::default(),
        }
    }

    /// Takes a counter back whose line is gone from the table.
    fn release(&self, references: &References) {
        if let References::Lasting(counter) = references {
            self.pool.lock().free.push(counter.index());
        }
    }

    /// The counter with this number in the table. One that was lost counts as used for ever.
    fn counter(&self, number: &str) -> References {
        let index = number.parse().ok();
        match index.and_then(|index: u32| self.counters.get(index)) {
            Some(counter) => References::Lasting(counter),
            None => References::Own(AtomicU64::new(u64::MAX / 2)),
        }
    }

    /// All lines of a kind: number and value.
    fn lines(&self, kind: &str) -> Vec<(u64, String)> {
        let table = self.table.lock();
        let of_kind = table.live.iter().filter_map(|(key, value)| {
            let number = key.strip_prefix(kind)?.strip_prefix(':')?;
            Some((number.parse().ok()?, value.clone()))
        });
        of_kind.collect()
    }

    fn put(&self, key: String, value: Option<String>) {
        self.table.lock().put(key, value);
    }

    pub(super) fn own_nodes(&self) -> Vec<(u64, References, Place)> {
        let lines = self.lines("own").into_iter().filter_map(|(ino, value)| {
            let (counter, place) = value.split_once(' ')?;
            Some((ino, self.counter(counter), text::read_place(place)?))
        });
        lines.collect()
    }

    pub(super) fn put_own(&self, ino: u64, references: &References, place: &Place) {
        if let Some(place) = text::place(place) {
            let value = format!("{} {place}", references.number());
            self.put(format!("own:{ino}"), Some(value));
        }
    }

    pub(super) fn drop_own(&self, ino: u64, references: &References) {
        self.put(format!("own:{ino}"), None);
        self.release(references);
    }

    pub(super) fn slots(&self) -> Vec<(u64, References, crate::oci::DiffId)> {
        let lines = self.lines("slot").into_iter().filter_map(|(no, value)| {
            let (counter, digest) = value.split_once(' ')?;
            let digest = crate::oci::Digest::from_hex(digest).ok()?;
            Some((no, self.counter(counter), crate::oci::DiffId(digest)))
        });
        lines.collect()
    }

    pub(super) fn put_slot(&self, no: u32, references: &References, layer: &crate::oci::DiffId) {
        let value = format!("{} {}", references.number(), layer.hex());
        self.put(format!("slot:{no}"), Some(value));
    }

    pub(super) fn drop_slot(&self, no: u32, references: &References) {
        self.put(format!("slot:{no}"), None);
        self.release(references);
    }

    pub(super) fn trees(&self) -> Vec<(u64, Subject)> {
        let lines = self.lines("tree").into_iter();
        let read = lines.filter_map(|(no, value)| Some((no, text::read_subject(&value)?)));
        read.collect()
    }

    pub(super) fn put_tree(&self, no: u32, subject: &Subject) {
        if let Some(subject) = text::subject(subject) {
            self.put(format!("tree:{no}"), Some(subject));
        }
    }

    pub(super) fn drop_tree(&self, no: u32) {
        self.put(format!("tree:{no}"), None);
    }

    /// Number, and the tree, layer and node that have it.
    pub(super) fn revived(&self) -> Vec<(u64, u32, u16, u32)> {
        let lines = self.lines("revived").into_iter().filter_map(|(no, value)| {
            let mut words = value.split(' ');
            let tree = words.next()?.parse().ok()?;
            let layer = words.next()?.parse().ok()?;
            Some((no, tree, layer, words.next()?.parse().ok()?))
        });
        lines.collect()
    }

    pub(super) fn put_revived(&self, no: u32, tree: u32, layer: u16, node: u32) {
        let value = format!("{tree} {layer} {node}");
        self.put(format!("revived:{no}"), Some(value));
    }

    pub(super) fn drop_revived(&self, no: u32) {
        self.put(format!("revived:{no}"), None);
    }

    pub(super) fn staged(&self) -> Vec<u64> {
        let lines = self.lines("staged").into_iter();
        lines.map(|(ino, _)| ino).collect()
    }

    pub(super) fn put_staged(&self, ino: u64) {
        self.put(format!("staged:{ino}"), Some(String::new()));
    }

    pub(super) fn drop_staged(&self, ino: u64) {
        self.put(format!("staged:{ino}"), None);
    }

    pub(super) fn kept(&self) -> Vec<Box<str>> {
        let table = self.table.lock();
        let kept = table.live.get("kept").map_or("", String::as_str);
        kept.split(' ')
            .filter(|path| !path.is_empty())
            .map(Into::into)
            .collect()
    }

    pub(super) fn put_kept<'a>(&self, paths: impl Iterator<Item = &'a str>) {
        let value = paths.collect::<Vec<&str>>().join(" ");
        let mut table = self.table.lock();
        if table.live.get("kept").map_or("", String::as_str) != value {
            table.put("kept".to_owned(), Some(value));
        }
    }
}

impl Pool {
    /// What nobody in the table has.
    fn of(table: &Table) -> Pool {
        let counted = |key: &str| key.starts_with("own:") || key.starts_with("slot:");
        let lines = table.live.iter().filter(|(key, _)| counted(key));
        let used = lines.filter_map(|(_, value)| value.split(' ').next()?.parse().ok());
        let used: BTreeSet<u32> = used.filter(|index| *index < COUNT).collect();
        let next = used.last().map_or(0, |last| last + 1);
        let free = (0..next).rev().filter(|index| !used.contains(index));
        Pool {
            free: free.collect(),
            next,
        }
    }
}

impl Table {
    fn read(file: File) -> io::Result<Table> {
        let mut head = [0; 8];
        file.read_exact_at(&mut head, 0)?;
        let begin = u64::from_ne_bytes(head).max(BEGIN);
        let length = file.metadata()?.len().saturating_sub(begin);
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, begin)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n');
        bytes.truncate(whole.map_or(0, |at| at + 1));
        let mut table = Table {
            file,
            begin,
            end: begin + bytes.len() as u64,
            live: BTreeMap::new(),
            bytes: 0,
            failed: false,
        };
        for line in bytes.split(|byte| *byte == b'\n') {
            let Ok(line) = std::str::from_utf8(line) else {
                continue;
            };
            match line.split_once(' ') {
                Some((key, value)) => table.note(key.to_owned(), Some(value.to_owned())),
                None if line.is_empty() => {}
                None => table.note(line.to_owned(), None),
            }
        }
        Ok(table)
    }

    fn note(&mut self, key: String, value: Option<String>) {
        let size = |key: &str, value: &str| (key.len() + value.len() + 2) as u64;
        let added = value.as_ref().map_or(0, |value| size(&key, value));
        let old = match value {
            Some(value) => self.live.insert(key.clone(), value),
            None => self.live.remove(&key),
        };
        let gone = old.map_or(0, |value| size(&key, &value));
        self.bytes = (self.bytes + added).saturating_sub(gone);
    }

    fn put(&mut self, key: String, value: Option<String>) {
        let line = match &value {
            Some(value) => format!("{key} {value}\n"),
            None if self.live.contains_key(&key) => format!("{key}\n"),
            None => return,
        };
        self.note(key, value);
        let written = self.append(&line).and_then(|()| self.shorten());
        if let Err(error) = written
            && !self.failed
        {
            self.failed = true;
            log::warn!("what would have to be known after a restart is not: {error}");
        }
    }

    fn append(&mut self, text: &str) -> io::Result<()> {
        self.file.write_all_at(text.as_bytes(), self.end)?;
        self.end += text.len() as u64;
        Ok(())
    }

    fn shorten(&mut self) -> io::Result<()> {
        if self.end - self.begin < 2 * self.bytes + SLACK {
            return Ok(());
        }
        let lines = self.live.iter();
        let text: String = lines
            .map(|(key, value)| format!("{key} {value}\n"))
            .collect();
        let (old, new) = (self.begin, self.end);
        self.append(&text)?;
        self.file.write_all_at(&new.to_ne_bytes(), 0)?;
        self.begin = new;
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(self.file.as_fd(), hole, old, new - old)?;
        Ok(())
    }
}

impl std::fmt::Debug for Lasting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lasting")
            .field("table", &self.table)
            .field("inherited", &self.inherited)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else each restart would take new ones, and the file grow with their number.
    #[test]
    fn regression_counters_that_nobody_has_are_used_again() {
        let mut lasting = Lasting::new().unwrap();
        let mut highest = 0;
        for _ in 0..50 {
            let made: Vec<References> = (0..10).map(|_| lasting.count()).collect();
            for (ino, references) in (100..).zip(&made) {
                lasting.put_own(ino, references, &Place::Repo("app".into()));
                highest = highest.max(references.number().parse::<u32>().unwrap());
            }
            // The last one stays, as something that is in use for long.
            for (ino, references) in (100..).zip(&made).take(9) {
                lasting.drop_own(ino, references);
            }
            lasting = again(&lasting);
            assert_eq!(lasting.own_nodes().len(), 1);
        }
        assert!(highest < 30, "{highest}");
    }

    fn again(lasting: &Lasting) -> Arc<Lasting> {
        let [table, counters] = lasting.files().unwrap();
        Lasting::open(table, counters).unwrap()
    }

    #[test]
    fn the_next_process_knows_what_this_one_knew() {
        let first = Lasting::new().unwrap();
        let count = first.count();
        count.fetch_add(5, Ordering::Relaxed);
        first.put_own(70, &count, &Place::Repo("org/app".into()));
        let other = first.count();
        first.put_own(71, &other, &Place::Link(b"a b\n".as_slice().into()));
        first.drop_own(71, &other);
        first.put_kept(["a", "b/c"].into_iter());
        first.put_revived(9, 3, 2, 77);
        first.put_staged(5);
        first.drop_staged(5);

        let next = again(&first);
        assert!(next.is_inherited());
        let own = next.own_nodes();
        assert_eq!(own.len(), 1);
        assert_eq!((own[0].0, own[0].1.load(Ordering::Relaxed)), (70, 5));
        assert_eq!(own[0].2, Place::Repo("org/app".into()));
        assert_eq!(next.kept(), ["a".into(), "b/c".into()]);
        assert_eq!(next.revived(), [(9, 3, 2, 77)]);
        assert!(next.staged().is_empty());
        // A counter that is used is nobody else's.
        assert_ne!(next.count().number(), own[0].1.number());
    }

    #[test]
    fn a_line_without_its_end_does_not_count() {
        let first = Lasting::new().unwrap();
        first.put_staged(1);
        let [table, _] = first.files().unwrap();
        table
            .write_all_at(b"staged:2 ", first.table.lock().end)
            .unwrap();
        let next = again(&first);
        assert_eq!(next.staged(), [1]);
        next.put_staged(3);
        assert_eq!(again(&next).staged(), [1, 3]);
    }

    #[test]
    fn what_is_over_is_given_back() {
        let first = Lasting::new().unwrap();
        first.put_staged(1);
        for _ in 0..3 * SLACK / 10 {
            first.put_staged(2);
            first.drop_staged(2);
        }
        let [table, _] = first.files().unwrap();
        let stat = rustix::fs::fstat(&table).unwrap();
        assert!(u64::try_from(stat.st_blocks).unwrap() * 512 < 3 * SLACK);
        assert_eq!(again(&first).staged(), [1]);
    }
}
