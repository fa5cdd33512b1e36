//! The layer that an upper directory of an overlayfs is: what has changed, as a tar.
//!
//! The kernel's vocabulary becomes that of layers. A character device 0:0, or an empty file with the attribute
//! `overlay.whiteout`, is `.wh.NAME`; a directory with `overlay.opaque` of `y` gets a `.wh..wh..opq`; no attribute of
//! overlayfs reaches the tar. What would need the lower layers to mean anything (`overlay.redirect`, `overlay.metacopy`)
//! and names that a layer cannot hold (`.wh.*`) are refused.
//!
//! As docker does, sockets are left out. Beyond docker, what is no change is left out too: a directory that differs from
//! the image's in its time only and has nothing changed below, a mount point that was made for the container and is
//! empty, an opaque mark where the image has nothing to hide.
//!
//! The same directory gives the same bytes: entries are sorted, a directory before what it holds; of hard links the first
//! is the file; owners are numbers; nothing of the writer's time or place is in it. A file that changes while it is read
//! is an error. Nothing outside the directory is ever opened: every step goes from a directory's descriptor to a name in it,
//! without following links.

mod attributes;
mod error;
mod item;
mod walk;

pub use attributes::{OverlayAttributes, Owners};
pub use error::FromDirError;
pub use item::{Item, ItemKind, Source};
pub use walk::Walker;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::os::fd::AsFd;

use rustix::fs::SeekFrom;

use super::tar::EntryKind;
use super::tar::encode::Entry;
use super::tar::sparse::Segment;

/// Read at once from a file.
const BUFFER: usize = 256 << 10;
/// A file is stored with its holes if they are at least this many bytes: below, a map costs as much as it saves.
const WORTH_A_MAP: u64 = 64 << 10;
/// Holes are looked for up to so many segments; a file with more is stored plainly.
const MAX_SEGMENTS: usize = 100_000;

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Entries; 0: nothing has changed.
    pub entries: u64,
    /// Sockets that were left out.
    pub sockets: u64,
}

/// Writes the layer of `source` to `out`, end marker included. Without a change it is the end marker alone.
pub fn write(source: &Source<'_>, out: &mut dyn Write) -> Result<Written, FromDirError> {
    let mut written = Written::default();
    let mut links: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
    let mut buffer = vec![0; BUFFER];
    let mut walker = Walker::new(source)?;
    while let Some(item) = walker.next()? {
        if let ItemKind::Socket = item.kind {
            written.sockets += 1;
            continue;
        }
        written.entries += 1;
        entry(source, &item, &mut links, &mut buffer, out)?;
    }
    out.write_all(&[0; 1024]).map_err(FromDirError::Output)?;
    Ok(written)
}

/// Writes one entry.
fn entry(
    source: &Source<'_>,
    item: &Item,
    links: &mut HashMap<(u64, u64), Vec<u8>>,
    buffer: &mut [u8],
    out: &mut dyn Write,
) -> Result<(), FromDirError> {
    let mut entry = Entry::new(EntryKind::Regular, &item.path);
    let kind = match item.kind {
        ItemKind::Socket => return Ok(()),
        ItemKind::Whiteout | ItemKind::Opaque => {
            entry.path = marker(&item.path, matches!(item.kind, ItemKind::Opaque));
            return emit(&entry, out);
        }
        ItemKind::Node(kind) => kind,
    };
    entry.kind = kind;
    entry.mode = item.mode;
    (entry.uid, entry.gid) = (item.uid, item.gid);
    entry.mtime = match source.latest {
        Some(latest) if item.mtime.0 >= latest => (latest, 0),
        _ => item.mtime,
    };
    entry.device = item.device;
    entry.link = item.target.clone();
    // A reader that sets a link's owner takes its file's capabilities away: links repeat them.
    entry.xattrs.clone_from(&item.xattrs);
    if kind == EntryKind::Directory {
        if entry.path.is_empty() {
            entry.path.push(b'.');
        }
        entry.path.push(b'/');
    } else if item.nlink > 1 {
        match links.get(&item.inode) {
            Some(first) => {
                entry.kind = EntryKind::HardLink;
                entry.link = first.clone();
                entry.device = (0, 0);
                return emit(&entry, out);
            }
            None => _ = links.insert(item.inode, item.path.clone()),
        }
    }
    match &item.file {
        Some(file) if kind == EntryKind::Regular => content(item, file, entry, buffer, out),
        _ => emit(&entry, out),
    }
}

/// `dir/.wh.name`, `dir/.wh..wh..opq`.
fn marker(path: &[u8], opaque: bool) -> Vec<u8> {
    use crate::tree::whiteout;
    if opaque {
        let separator: &[u8] = if path.is_empty() { b"" } else { b"/" };
        return [path, separator, whiteout::OPAQUE].concat();
    }
    let name = path.iter().rposition(|byte| *byte == b'/');
    let (dir, name) = path.split_at(name.map_or(0, |slash| slash + 1));
    [dir, whiteout::PREFIX, name].concat()
}

fn emit(entry: &Entry, out: &mut dyn Write) -> Result<(), FromDirError> {
    out.write_all(&entry.encode()).map_err(FromDirError::Output)
}

/// Writes a regular file, which must stay as it is until its last byte is written.
fn content(
    item: &Item,
    file: &File,
    mut entry: Entry,
    buffer: &mut [u8],
    out: &mut dyn Write,
) -> Result<(), FromDirError> {
    let segments = segments(file, item.size).map_err(|source| item.io("read", source))?;
    entry.size = item.size;
    entry.segments = segments.clone();
    emit(&entry, out)?;
    let whole = [Segment {
        offset: 0,
        length: item.size,
    }];
    let mut stored = 0u64;
    for segment in segments.as_deref().unwrap_or(&whole) {
        copy(item, file, *segment, buffer, out)?;
        stored += segment.length;
    }
    let padding = usize::try_from(stored.wrapping_neg() % 512).unwrap_or(0);
    let padding = [0; 512].get(..padding).unwrap_or_default().to_vec();
    out.write_all(&padding).map_err(FromDirError::Output)?;
    if item.is_unchanged(file)? {
        Ok(())
    } else {
        Err(item.changed())
    }
}

fn copy(
    item: &Item,
    mut file: &File,
    segment: Segment,
    buffer: &mut [u8],
    out: &mut dyn Write,
) -> Result<(), FromDirError> {
    if segment.length == 0 {
        return Ok(());
    }
    rustix::fs::seek(file, SeekFrom::Start(segment.offset))
        .map_err(|error| item.io("read", error.into()))?;
    let mut left = segment.length;
    while left > 0 {
        let most = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let part = buffer.get_mut(..most).unwrap_or_default();
        let got = match file.read(part) {
            // It became shorter.
            Ok(0) => return Err(item.changed()),
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(item.io("read", error)),
        };
        out.write_all(part.get(..got).unwrap_or_default())
            .map_err(FromDirError::Output)?;
        left -= got as u64;
    }
    Ok(())
}

/// The attributes of an open file or directory that belong into a layer, sorted by name.
pub fn attributes_of(file: &impl AsFd) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let place = attributes::Place::open(file);
    let names = place.list()?;
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let value = |name: &[u8]| place.get(name);
    Ok(attributes::sort(&names, OverlayAttributes::User, Owners::Same, value)?.0)
}

/// The runs of data of a file with holes, offset and length; `None`: none, or none worth mentioning.
pub fn data_of(file: &File, size: u64) -> io::Result<Option<Vec<(u64, u64)>>> {
    let segments = segments(file, size)?;
    let pair = |segment: Segment| (segment.offset, segment.length);
    Ok(segments.map(|segments| segments.into_iter().map(pair).collect()))
}

/// The runs of data of a file with holes; `None`: none, or none worth mentioning.
fn segments(file: &File, size: u64) -> io::Result<Option<Vec<Segment>>> {
    if size < WORTH_A_MAP {
        return Ok(None);
    }
    let mut segments = Vec::new();
    let (mut at, mut data) = (0u64, 0u64);
    while at < size {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) if start < size => start,
            // Only a hole is left.
            Ok(_) | Err(rustix::io::Errno::NXIO) => break,
            // A file system without this question has no holes to tell.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(start))?.min(size);
        // A hole at the beginning of what was data: it changes under us, which the end of the reading finds out.
        if end <= start || segments.len() >= MAX_SEGMENTS {
            return Ok(None);
        }
        segments.push(Segment {
            offset: start,
            length: end - start,
        });
        data += end - start;
        at = end;
    }
    Ok((size - data >= WORTH_A_MAP).then_some(segments))
}

#[cfg(test)]
mod tests;
