//! What has happened in the store: `events.log`, one JSON object per line, newest last.
//!
//! Every change of names is noted by [`Store::change`] itself, whoever makes it; verbs note what else they did (a pull, a save).
//! The log is for people and programs that look on; nothing depends on it, so it is not synced, and a failure to write it is no
//! failure of the change. When it is [`MAX_BYTES`] long it becomes `events.log.1` and a new one begins: of the past, between one and
//! two of these lengths are known.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Store;
use super::difference::differences;
use super::error::StoreError;
use super::names::Names;
use crate::oci::ImageId;
use crate::sys::lock::{self, LockMode};

/// The file's name; the one before it has `.1` behind.
pub const EVENTS: &str = "events.log";
/// How long the log becomes before the next one begins.
const MAX_BYTES: u64 = 4 << 20;
/// Attributes that are facts: no label of an image can say them.
pub(super) const FACTS: [&str; 6] = ["exitCode", "image", "name", "pid", "previous", "uid"];
/// An image's labels go into its events if they are not longer than this together.
const MAX_LABELS: usize = 2048;

/// One event, in docker's terms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub time: jiff::Timestamp,
    /// What it is about: `image`, `volume`, `container`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What happened: `tag`, `untag`, `delete`.
    pub action: String,
    /// To which: an image's ID, a volume's name.
    pub id: String,
    /// More: `name`, labels.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
}

/// Who asked for a change, if that is not the program which makes it: a process, through a mount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cause(Option<(u32, u32)>);

impl Cause {
    /// Process `pid` (0: of a foreign pid namespace) of user `uid`.
    pub fn process(pid: u32, uid: u32) -> Cause {
        Cause(Some((pid, uid)))
    }
}

impl Event {
    /// Something that happens now.
    pub fn now(kind: &str, action: &str, id: &str) -> Event {
        Event {
            time: jiff::Timestamp::now(),
            kind: kind.to_owned(),
            action: action.to_owned(),
            id: id.to_owned(),
            attributes: BTreeMap::new(),
        }
    }

    /// The same with one more attribute.
    pub fn with(mut self, key: &str, value: impl ToString) -> Event {
        self.attributes.insert(key.to_owned(), value.to_string());
        self
    }
}

impl Store {
    /// Notes events, with who caused them. What cannot be written is lost, with a warning.
    pub fn note(&self, events: &[Event]) {
        if events.is_empty() || self.read_only().is_some() {
            return;
        }
        let Cause(Some((pid, uid))) = self.1 else {
            return note_in(self.path(), events);
        };
        let events = events.iter().cloned();
        let events = events.map(|event| event.with("pid", pid).with("uid", uid));
        note_in(self.path(), &events.collect::<Vec<_>>());
    }

    /// Notes something done to an image, under a name if it had one.
    pub fn note_image(&self, action: &str, id: &ImageId, name: &str) {
        let event = Event::now("image", action, &id.to_string()).with("name", name);
        self.note(&[self.labelled(event, id)]);
    }

    fn events_path(&self) -> PathBuf {
        self.path().join(EVENTS)
    }

    fn old_events_path(&self) -> PathBuf {
        self.path().join(format!("{EVENTS}.1"))
    }

    /// What a change of the names was, event by event.
    pub(super) fn changes(&self, old: &Names, new: &Names) -> Vec<Event> {
        let mut events = Vec::new();
        let mut image = |action: &str, id: &ImageId| {
            events.push(Event::now("image", action, &id.to_string()));
            events.len() - 1
        };
        let mut named = Vec::new();
        let tags: Vec<_> = differences(&old.tags, &new.tags).collect();
        for (tag, before, after) in &tags {
            if let (Some(record), None) = (before, after) {
                named.push((image("untag", &record.id), tag.familiar(), None));
            }
        }
        for (tag, before, after) in &tags {
            let Some(record) = after else { continue };
            if before.is_none_or(|before| before.id != record.id) {
                let previous = before.map(|before| before.id.to_string());
                named.push((image("tag", &record.id), tag.familiar(), previous));
            } else if before.is_some_and(|before| before.pinned != record.pinned) {
                let action = if record.pinned { "pin" } else { "unpin" };
                named.push((image(action, &record.id), tag.familiar(), None));
            }
        }
        let mut gone = |id: &ImageId| {
            if !new.images.contains_key(id) && !new.trash.images.contains_key(id) {
                image("delete", id);
            }
        };
        let images = differences(&old.images, &new.images);
        images.for_each(|(id, ..)| gone(id));
        old.trash.images.keys().for_each(&mut gone);
        for (at, name, previous) in named {
            if let Some(event) = events.get_mut(at) {
                event.attributes.insert("name".to_owned(), name);
                if let Some(previous) = previous {
                    event.attributes.insert("previous".to_owned(), previous);
                }
            }
        }
        // Each config is read once, however many names its image loses.
        let mut held = BTreeMap::new();
        let labelled = |event: Event| match event.id.parse::<ImageId>() {
            Ok(id) => {
                held.entry(id).or_insert_with(|| self.config(&id).ok());
                self.labelled(event, &id)
            }
            Err(_) => event,
        };
        events.into_iter().map(labelled).collect()
    }

    /// With the image's labels, as docker's events have them. An image that cannot be read has none to show.
    fn labelled(&self, mut event: Event, id: &ImageId) -> Event {
        if let Ok(config) = self.config(id) {
            let labels = &config.run.labels;
            let length: usize = labels.iter().map(|(k, v)| k.len() + v.len()).sum();
            if length <= MAX_LABELS {
                let said = labels
                    .iter()
                    .filter(|(key, _)| !FACTS.contains(&key.as_str()));
                for (key, value) in said {
                    let taken = event.attributes.entry(key.clone());
                    taken.or_insert_with(|| value.clone());
                }
            }
        }
        event
    }

    /// The log, to be read from its beginning and on.
    pub fn events(&self) -> EventReader {
        EventReader {
            store: self.clone(),
            file: None,
            begun: false,
        }
    }

    /// The last events, at least those that make up `bytes` of the log if there are so many.
    pub fn last_events(&self, bytes: u64) -> Result<Vec<Event>, StoreError> {
        let path = self.events_path();
        let error = |error| StoreError::io("read", &path)(error);
        let mut text = Vec::new();
        for path in [self.old_events_path(), self.events_path()] {
            match File::open(&path) {
                Ok(mut file) => {
                    let length = file.metadata().map_err(error)?.len();
                    file.seek(SeekFrom::Start(length.saturating_sub(bytes)))
                        .map_err(error)?;
                    file.take(MAX_BYTES * 2)
                        .read_to_end(&mut text)
                        .map_err(error)?;
                }
                Err(missing) if missing.kind() == io::ErrorKind::NotFound => {}
                Err(other) => return Err(error(other)),
            }
        }
        let keep = usize::try_from(bytes).unwrap_or(usize::MAX);
        let from = text.len().saturating_sub(keep);
        let text = text.get(from..).unwrap_or_default();
        Ok(text.split(|b| *b == b'\n').filter_map(parse).collect())
    }
}

/// Notes events in the store at `root`.
pub(super) fn note_in(root: &Path, events: &[Event]) {
    if let Err(error) = append(root, events) {
        let level = match super::reserve::is_full(&error) {
            true => log::Level::Info,
            false => log::Level::Warn,
        };
        log::log!(level, "cannot note what was done in {EVENTS}: {error}");
    }
}

fn append(root: &Path, events: &[Event]) -> io::Result<()> {
    let mut text = Vec::new();
    for event in events {
        serde_json::to_writer(&mut text, event)?;
        text.push(b'\n');
    }
    let path = root.join(EVENTS);
    loop {
        let mut file = File::options()
            .read(true)
            .append(true)
            .create(true)
            .mode(super::files::FILE)
            .open(&path)?;
        lock::lock(&file, LockMode::Exclusive)?;
        let stat = file.metadata()?;
        // Another may have begun a new one meanwhile.
        if !lock::is_named(&file, &path)? {
            continue;
        }
        if stat.len() >= MAX_BYTES {
            fs::rename(&path, root.join(format!("{EVENTS}.1")))?;
            continue;
        }
        // A line that a crash has torn must not take the next one with it.
        let mut last = [b'\n'];
        if stat.len() > 0 {
            file.read_exact_at(&mut last, stat.len() - 1)?;
        }
        if last != *b"\n" {
            text.insert(0, b'\n');
        }
        return file.write_all(&text);
    }
}

/// Reads the log as it grows.
#[derive(Debug)]
pub struct EventReader {
    store: Store,
    file: Option<BufReader<File>>,
    begun: bool,
}

impl EventReader {
    /// The events that were noted since the last call; from the first call, all that are known.
    pub fn read(&mut self) -> Result<Vec<Event>, StoreError> {
        let path = self.store.events_path();
        let failed = |error| StoreError::io("read", &path)(error);
        let mut events = Vec::new();
        if !std::mem::replace(&mut self.begun, true) {
            self.file = open(&self.store.old_events_path()).map_err(failed)?;
        }
        loop {
            if let Some(file) = &mut self.file {
                read_lines(file, &mut events).map_err(failed)?;
            }
            // The log may have been set aside; then what has come since is in a new one.
            let next = open(&path).map_err(failed)?;
            let same = match (&self.file, &next) {
                (_, None) => true,
                (None, Some(_)) => false,
                (Some(file), Some(next)) => {
                    inode(file).map_err(failed)? == inode(next).map_err(failed)?
                }
            };
            if same {
                return Ok(events);
            }
            if let Some(file) = &mut self.file {
                // What was written between the reading and the setting aside.
                read_lines(file, &mut events).map_err(failed)?;
            }
            self.file = next;
        }
    }
}

fn open(path: &Path) -> io::Result<Option<BufReader<File>>> {
    match File::open(path) {
        Ok(file) => Ok(Some(BufReader::new(file))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn inode(file: &BufReader<File>) -> io::Result<u64> {
    Ok(file.get_ref().metadata()?.ino())
}

/// Whole lines only: one that is being written is left for the next time.
fn read_lines(file: &mut BufReader<File>, events: &mut Vec<Event>) -> io::Result<()> {
    loop {
        let mut line = Vec::new();
        let length = file.read_until(b'\n', &mut line)?;
        if length == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') {
            let back = i64::try_from(length).unwrap_or(0);
            file.seek_relative(-back)?;
            return Ok(());
        }
        events.extend(parse(&line));
    }
}

/// What is no event is skipped.
fn parse(line: &[u8]) -> Option<Event> {
    serde_json::from_slice(line).ok()
}

#[cfg(test)]
mod tests;
