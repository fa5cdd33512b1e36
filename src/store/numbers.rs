//! Numbers that things of the store keep: what inode numbers are made of.
//!
//! Backup tools and synchronisers take a file for changed when its inode number is another, so a layer and the tree of a tag
//! have the same number in every mount and after every restart. A number is given once, by whoever first needs one, and kept in
//! the file `numbers`; never computed from a name, so that two can never be the same.
//!
//! The file is text, a line each: `NUMBER KEY CHECKSUM`, the first one `mica-numbers 1 NEXT-LAYER NEXT-TREE -`. It is only added to,
//! under its own lock (flock), and synced before a number is used; a line that a power cut has torn does not count. When most of
//! it is about things that are gone, it is written anew. It can be lost without harm but new numbers.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt as _};

use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use super::Store;
use super::files;
use crate::oci::{ChainId, DiffId, Digest, ImageId, TagRef};
use crate::sys::atomic;
use crate::sys::lock::{self, LockMode};

/// Lines about things that are gone before the file is written anew.
const SLACK: usize = 4096;

/// What has a number.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Numbered {
    /// A layer's files.
    Layer(DiffId),
    /// The tree of a tag on an image.
    Tag(TagRef, ImageId),
    /// The tree of an image under its ID.
    ById(ImageId),
    /// The tree of an image without a tag.
    Dangling(ImageId),
    /// The tree of a layer.
    LayerTree(DiffId),
    /// The tree of a layer below its parents, by its id in an engine's store.
    Chained(Digest, DiffId),
    /// The tree of a layer and its parents together.
    Chain(ChainId),
}

impl Numbered {
    /// One word.
    fn key(&self) -> String {
        match self {
            Numbered::Layer(layer) => format!("layer:{}", layer.hex()),
            Numbered::Tag(tag, id) => format!("tag:{}:{tag}", id.0.hex()),
            Numbered::ById(id) => format!("id:{}", id.0.hex()),
            Numbered::Dangling(id) => format!("dangling:{}", id.0.hex()),
            Numbered::LayerTree(layer) => format!("diff:{}", layer.hex()),
            Numbered::Chained(id, layer) => format!("chained:{}:{}", id.hex(), layer.hex()),
            Numbered::Chain(id) => format!("chain:{}", id.hex()),
        }
    }
}

/// Layers and trees are counted apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Space {
    Layers,
    Trees,
}

impl Space {
    fn of(key: &str) -> Space {
        match key.starts_with("layer:") {
            true => Space::Layers,
            false => Space::Trees,
        }
    }
}

/// One of each space.
#[derive(Clone, Copy, Debug, Default)]
struct PerSpace<T> {
    layers: T,
    trees: T,
}

impl<T> PerSpace<T> {
    fn of(&mut self, space: Space) -> &mut T {
        match space {
            Space::Layers => &mut self.layers,
            Space::Trees => &mut self.trees,
        }
    }
}

/// Numbers given are below these, and at least 1.
#[derive(Clone, Copy, Debug)]
pub struct NumberLimits {
    /// Of layers.
    pub layers: u32,
    /// Of trees.
    pub trees: u32,
}

impl NumberLimits {
    fn of(&self, space: Space) -> u32 {
        match space {
            Space::Layers => self.layers,
            Space::Trees => self.trees,
        }
    }
}

/// The numbers as one process knows them.
#[derive(Debug)]
pub struct Numbers {
    store: Store,
    limits: NumberLimits,
    /// Whether missing ones may be given.
    give: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    known: HashMap<Box<str>, u32>,
    /// The file that `known` is from, how much of it, and in how many lines.
    file: Option<(u64, u64)>,
    read: u64,
    lines: usize,
    next: PerSpace<u32>,
    /// Said once.
    failed: bool,
}

impl Numbers {
    /// The numbers of `store`; `give`: those that are missing are given, else only what is there is known.
    pub fn new(store: Store, limits: NumberLimits, give: bool) -> Numbers {
        let give = give && store.read_only().is_none();
        Numbers {
            store,
            limits,
            give,
            state: Mutex::default(),
        }
    }

    /// The number of `what`. If it has none yet, `all` things that are in the store now get theirs, in one write. `None`: there
    /// is none to be had, the store cannot be written or has no number left.
    pub fn get(&self, what: &Numbered, all: impl FnOnce() -> Vec<Numbered>) -> Option<u32> {
        let key = what.key();
        let mut state = self.state.lock();
        if let Some(number) = state.known.get(key.as_str()) {
            return Some(*number);
        }
        let done = match self.give {
            true => self.give(&mut state, &key, all),
            false => self.look(&mut state),
        };
        if let Err(error) = done
            && !state.failed
        {
            state.failed = true;
            log::warn!("inode numbers will not be the same after a restart: {error}");
        }
        state.known.get(key.as_str()).copied()
    }

    /// Gives the number of `from` to `to`: a tag was renamed.
    pub fn rename(&self, from: &Numbered, to: &Numbered) {
        let mut state = self.state.lock();
        let Some(number) = state.known.get(from.key().as_str()).copied() else {
            return;
        };
        if !self.give {
            return;
        }
        let renamed = self.locked().and_then(|mut file| {
            state.catch_up(&mut file)?;
            state.append(&mut file, &[(from.key(), 0), (to.key(), number)])
        });
        if let Err(error) = renamed {
            log::warn!(
                "the inode numbers of what was renamed will change with the next mount: {error}"
            );
        }
    }

    fn look(&self, state: &mut State) -> io::Result<()> {
        match File::open(self.store.path().join(files::NUMBERS)) {
            Ok(mut file) => state.catch_up(&mut file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn give(
        &self,
        state: &mut State,
        key: &str,
        all: impl FnOnce() -> Vec<Numbered>,
    ) -> io::Result<()> {
        let mut file = self.locked()?;
        state.catch_up(&mut file)?;
        if state.known.contains_key(key) {
            return Ok(());
        }
        let mut keys: Vec<String> = all().iter().map(Numbered::key).collect();
        keys.push(key.to_owned());
        let space = Space::of(key);
        let limit = self.limits.of(space);
        let known = state.known.keys().filter(|key| Space::of(key) == space);
        let known = known.count();
        let fits = u32::try_from(known + keys.len()).is_ok_and(|count| count < limit);
        if state.lines > 2 * state.known.len() + SLACK
            || known > 2 * keys.len() + SLACK
            || known > keys.len() && !fits
        {
            let there: HashSet<&str> = keys.iter().map(String::as_str).collect();
            let stays = |key: &str| Space::of(key) != space || there.contains(key);
            state.known.retain(|key, _| stays(key));
            file = self.rewrite(state)?;
        }
        let mut used: PerSpace<HashSet<u32>> = PerSpace::default();
        for (key, number) in &state.known {
            used.of(Space::of(key)).insert(*number);
        }
        let (mut given, mut seen) = (Vec::new(), HashSet::new());
        for key in keys {
            if state.known.contains_key(key.as_str()) || !seen.insert(key.clone()) {
                continue;
            }
            let space = Space::of(&key);
            let (limit, used) = (self.limits.of(space), used.of(space));
            let from = (*state.next.of(space)).clamp(1, limit);
            let free = |number: &u32| !used.contains(number);
            let found = (from..limit).find(free).or_else(|| (1..from).find(free));
            let Some(number) = found else { continue };
            used.insert(number);
            *state.next.of(space) = number + 1;
            given.push((key, number));
        }
        state.append(&mut file, &given)
    }

    /// The file, locked for adding to it; made if need be.
    fn locked(&self) -> io::Result<File> {
        let path = self.store.path().join(files::NUMBERS);
        loop {
            let file = File::options()
                .read(true)
                .append(true)
                .create(true)
                .mode(files::FILE)
                .open(&path)?;
            lock::lock(&file, LockMode::Exclusive)?;
            // It may have been written anew while we waited.
            if lock::is_named(&file, &path)? {
                return Ok(file);
            }
        }
    }

    /// Writes the file anew, with what is known; it is locked.
    fn rewrite(&self, state: &mut State) -> io::Result<File> {
        let dir = self.store.path();
        let mut text = format!(
            "mica-numbers 1 {} {} -\n",
            state.next.layers, state.next.trees
        );
        for (key, number) in &state.known {
            text.push_str(&line(key, *number));
        }
        let temp = dir.join(files::NUMBERS_NEW);
        atomic::remove_if_there(&temp)?;
        drop(atomic::write_new(&temp, text.as_bytes())?);
        let file = File::options().read(true).append(true).open(&temp)?;
        lock::lock(&file, LockMode::Exclusive)?;
        fs::rename(&temp, dir.join(files::NUMBERS))?;
        atomic::sync_dir(dir)?;
        let stat = file.metadata()?;
        state.file = Some((stat.dev(), stat.ino()));
        state.read = stat.len();
        state.lines = state.known.len();
        Ok(file)
    }
}

impl State {
    /// Reads what others have added.
    fn catch_up(&mut self, file: &mut File) -> io::Result<()> {
        let stat = file.metadata()?;
        let identity = Some((stat.dev(), stat.ino()));
        if self.file != identity || stat.len() < self.read {
            (self.file, self.read, self.lines) = (identity, 0, 0);
        }
        file.seek(SeekFrom::Start(self.read))?;
        let mut bytes = Vec::new();
        file.take(stat.len() - self.read).read_to_end(&mut bytes)?;
        for text in bytes.split_inclusive(|byte| *byte == b'\n') {
            if text.last() == Some(&b'\n') {
                self.take(text.trim_ascii_end());
            }
        }
        self.read = stat.len();
        Ok(())
    }

    /// One line; the later of two about one thing counts.
    fn take(&mut self, text: &[u8]) {
        let Ok(text) = std::str::from_utf8(text) else {
            return;
        };
        if let Some(rest) = text.strip_prefix("mica-numbers 1 ") {
            let mut words = rest.split(' ').map(str::parse);
            for next in [&mut self.next.layers, &mut self.next.trees] {
                if let Some(Ok(number)) = words.next() {
                    *next = (*next).max(number);
                }
            }
            return;
        }
        self.lines += 1;
        let mut words = text.split(' ');
        let (Some(number), Some(key)) = (words.next(), words.next()) else {
            return;
        };
        let Ok(number) = number.parse::<u32>() else {
            return;
        };
        if line(key, number).trim_ascii_end() != text {
            return;
        }
        let next = self.next.of(Space::of(key));
        *next = (*next).max(number.saturating_add(1));
        self.set(key, number);
    }

    /// 0: none any more.
    fn set(&mut self, key: &str, number: u32) {
        match number {
            0 => drop(self.known.remove(key)),
            number => drop(self.known.insert(key.into(), number)),
        }
    }

    /// Adds lines, durably, and only then takes them for given.
    fn append(&mut self, file: &mut File, given: &[(String, u32)]) -> io::Result<()> {
        if given.is_empty() {
            return Ok(());
        }
        // Behind a line that was torn.
        let mut text = String::from(if self.read == 0 { "" } else { "\n" });
        for (key, number) in given {
            text.push_str(&line(key, *number));
        }
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        self.read = file.metadata()?.len();
        self.lines += given.len();
        for (key, number) in given {
            self.set(key, *number);
        }
        Ok(())
    }
}

fn line(key: &str, number: u32) -> String {
    let text = format!("{number} {key}");
    format!("{text} {:016x}\n", xxh3_64(text.as_bytes()))
}

#[cfg(test)]
mod tests;
