//! The members of one archive and where their bytes are.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::oci::Digest;

use crate::archive::error::{ArchiveError, Problem};
use crate::archive::walk::{Member, MemberKind, Seekable, Walker};
use crate::archive::{MAX_CONFIGS, MAX_DOCUMENT, MAX_MEMBERS, open_beneath, path, read_at_most};
use crate::text::shown;

/// Longest chain of links between members; docker writes one.
const MAX_LINKS: usize = 8;

/// Where the bytes of a member are.
#[derive(Debug, Clone)]
pub enum Content {
    /// Kept from a stream.
    Memory(Arc<[u8]>),
    /// A range of a file.
    Range {
        /// The archive, or the file of a directory.
        file: Arc<File>,
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u64,
    },
    /// Went by in a stream, and the caller saw it: the number counts the calls from 0.
    Streamed {
        /// Which call.
        call: usize,
        /// Bytes.
        length: u64,
    },
    /// Went by in a stream, neither a document nor a tar.
    Skipped {
        /// Bytes.
        length: u64,
    },
}

impl Content {
    /// Bytes as they are in the archive.
    pub fn length(&self) -> u64 {
        match self {
            Content::Memory(bytes) => bytes.len() as u64,
            Content::Range { length, .. }
            | Content::Streamed { length, .. }
            | Content::Skipped { length } => *length,
        }
    }

    /// Reads the bytes; `None` for those that have gone by.
    pub fn reader(&self) -> Option<Box<dyn Read + Send>> {
        match self {
            Content::Memory(bytes) => Some(Box::new(io::Cursor::new(Arc::clone(bytes)))),
            Content::Range {
                file,
                offset,
                length,
            } => Some(Box::new(RangeReader {
                file: Arc::clone(file),
                position: *offset,
                end: offset.saturating_add(*length),
            })),
            Content::Streamed { .. } | Content::Skipped { .. } => None,
        }
    }
}

/// A member found by name, links followed.
#[derive(Debug, Clone)]
pub struct Located {
    /// The member's own name, normalised.
    pub member: String,
    /// Its bytes.
    pub content: Content,
}

enum Entry {
    Content(Content),
    Link(String),
    /// A link that leaves the archive: an error only for those who follow it.
    Escape(String),
    Other,
}

/// The members of one archive.
pub struct Catalog {
    label: String,
    members: HashMap<String, Entry>,
    directory: Option<OwnedFd>,
    /// Bytes of configs read so far: they stay in memory until the images are in the store.
    configs: Cell<u64>,
}

impl Catalog {
    pub(super) fn empty(label: String) -> Self {
        Catalog {
            label,
            members: HashMap::new(),
            directory: None,
            configs: Cell::new(0),
        }
    }

    pub(super) fn of_directory(label: String, directory: OwnedFd) -> Self {
        Catalog {
            directory: Some(directory),
            ..Catalog::empty(label)
        }
    }

    /// Scans the headers of an uncompressed tar.
    pub(super) fn of_tar(
        label: String,
        file: Arc<File>,
        start: u64,
        end: u64,
    ) -> Result<Self, ArchiveError> {
        let source = Seekable {
            file: Arc::clone(&file),
            position: start,
            end,
        };
        let mut walker = Walker::new(&label, source);
        let mut catalog = Catalog::empty(label);
        while let Some(member) = walker.next()? {
            let offset = start.saturating_add(member.offset);
            let content = Content::Range {
                file: Arc::clone(&file),
                offset,
                length: member.size,
            };
            catalog.insert(member, content)?;
        }
        Ok(catalog)
    }

    /// Adds a member; the last of a name counts.
    pub(super) fn insert(&mut self, member: Member, content: Content) -> Result<(), ArchiveError> {
        let Some(raw) = member.name else {
            return Ok(());
        };
        let Some(name) = path::normalise(&raw) else {
            return Err(self.fail(Problem::Outside { name: shown(&raw) }));
        };
        let link =
            |target: Option<String>, raw: String| target.map_or(Entry::Escape(raw), Entry::Link);
        let entry = match member.kind {
            MemberKind::File => Entry::Content(content),
            MemberKind::Symlink(target) => link(path::link_target(&name, &target), target),
            MemberKind::Hardlink(target) => link(path::normalise(&target), target),
            MemberKind::Other => Entry::Other,
        };
        self.members.insert(name, entry);
        if self.members.len() > MAX_MEMBERS {
            return Err(self.fail(Problem::Members { limit: MAX_MEMBERS }));
        }
        Ok(())
    }

    /// The archive as the user named it.
    pub fn label(&self) -> &str {
        &self.label
    }

    pub(super) fn fail(&self, problem: Problem) -> ArchiveError {
        ArchiveError::new(&self.label, problem)
    }

    /// Finds a regular member by the name another document gives it.
    pub(super) fn locate(&self, name: &str) -> Result<Option<Located>, ArchiveError> {
        let outside = |name: &str| self.fail(Problem::Outside { name: shown(name) });
        let mut member = path::normalise(name).ok_or_else(|| outside(name))?;
        if let Some(directory) = &self.directory {
            return match open_beneath(directory, &member) {
                Ok(found) => Ok(found.map(|(file, length)| Located {
                    member,
                    content: Content::Range {
                        file: Arc::new(file),
                        offset: 0,
                        length,
                    },
                })),
                Err(rustix::io::Errno::XDEV) => {
                    Err(self.fail(Problem::LinkOutside { name: shown(name) }))
                }
                Err(rustix::io::Errno::LOOP) => {
                    Err(self.fail(Problem::Links { name: shown(name) }))
                }
                Err(e) => Err(self.fail(Problem::Read(e.into()))),
            };
        }
        for _ in 0..=MAX_LINKS {
            match self.members.get(&member) {
                Some(Entry::Content(content)) => {
                    return Ok(Some(Located {
                        member,
                        content: content.clone(),
                    }));
                }
                Some(Entry::Link(target)) => member.clone_from(target),
                Some(Entry::Escape(target)) => return Err(outside(target)),
                Some(Entry::Other) | None => return Ok(None),
            }
        }
        Err(self.fail(Problem::Links { name: shown(name) }))
    }

    /// Finds a blob by digest, in the places of OCI layouts and of skopeo's `dir:`.
    pub(super) fn blob(&self, digest: &Digest) -> Result<Option<Located>, ArchiveError> {
        let hex = digest.hex();
        match self.locate(&format!("blobs/sha256/{hex}"))? {
            Some(found) => Ok(Some(found)),
            None => self.locate(&hex),
        }
    }

    /// The whole of a JSON document.
    pub(super) fn bytes(&self, found: &Located) -> Result<Arc<[u8]>, ArchiveError> {
        let size = found.content.length();
        let name = || shown(&found.member);
        if size > MAX_DOCUMENT {
            return Err(self.fail(Problem::DocumentSize {
                name: name(),
                size,
                limit: MAX_DOCUMENT,
            }));
        }
        match &found.content {
            Content::Memory(bytes) => Ok(Arc::clone(bytes)),
            Content::Range {
                file,
                offset,
                length,
            } => {
                let mut bytes = vec![0u8; usize::try_from(*length).unwrap_or_default()];
                let got = read_at_most(file, &mut bytes, *offset)
                    .map_err(|e| self.fail(Problem::Read(e)))?;
                if got < bytes.len() {
                    return Err(self.fail(Problem::Truncated {
                        offset: offset + got as u64,
                        what: name(),
                    }));
                }
                Ok(bytes.into())
            }
            Content::Streamed { .. } | Content::Skipped { .. } => {
                Err(self.fail(Problem::Document {
                    document: name(),
                    reason: "not a JSON document".to_owned(),
                }))
            }
        }
    }

    /// Counts a config; an error when all together are more than any archive has.
    pub(super) fn count_config(&self, found: &Located) -> Result<(), ArchiveError> {
        let total = self.configs.get().saturating_add(found.content.length());
        self.configs.set(total);
        if total > MAX_CONFIGS {
            let (name, limit) = (shown(&found.member), MAX_CONFIGS);
            return Err(self.fail(Problem::Configs { name, limit }));
        }
        Ok(())
    }

    /// A document by name.
    pub(super) fn document(&self, name: &str) -> Result<Option<Arc<[u8]>>, ArchiveError> {
        self.locate(name)?
            .map(|found| self.bytes(&found))
            .transpose()
    }
}

/// Reads a range of a file without moving its offset.
struct RangeReader {
    file: Arc<File>,
    position: u64,
    end: u64,
}

impl Read for RangeReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.end.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let want = buf.len().min(room);
        if want == 0 {
            return Ok(0);
        }
        let got = read_at_most(
            &self.file,
            buf.get_mut(..want).unwrap_or_default(),
            self.position,
        )?;
        if got == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the archive became shorter while it was read",
            ));
        }
        self.position += got as u64;
        Ok(got)
    }
}
