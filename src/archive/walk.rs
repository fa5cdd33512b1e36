//! Walks the members of an archive's tar, from a file by offset or from a stream.
//!
//! Only headers are parsed here (`tar-core`); contents are left where they are or read through [`Walker::content`].

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use tar_core::EntryType;
use tar_core::parse::{Limits, ParseEvent, Parser};

use crate::archive::error::{ArchiveError, Problem};
use crate::archive::read_at_most;
use crate::text::shown;

/// Headers of one member: PAX and GNU long names included. Real ones are below 2 KiB.
const MAX_HEADER: usize = 2 << 20;

/// A source of tar bytes.
pub(super) trait Source {
    /// Reads up to `buf.len()` bytes; 0 at the end.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize>;
    /// Passes over `count` bytes; says how many there were.
    fn skip(&mut self, count: u64) -> io::Result<u64>;
}

/// A range of a file, read by offset.
pub(super) struct Seekable {
    pub(super) file: Arc<File>,
    pub(super) position: u64,
    pub(super) end: u64,
}

impl Source for Seekable {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.end.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let want = buf.len().min(room);
        let got = read_at_most(
            &self.file,
            buf.get_mut(..want).unwrap_or_default(),
            self.position,
        )?;
        self.position += got as u64;
        Ok(got)
    }

    fn skip(&mut self, count: u64) -> io::Result<u64> {
        let there = count.min(self.end.saturating_sub(self.position));
        self.position += there;
        Ok(there)
    }
}

/// A stream, read once.
pub(super) struct Forward(pub(super) Box<dyn Read + Send>);

impl Source for Forward {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        crate::archive::fill(&mut *self.0, buf)
    }

    fn skip(&mut self, count: u64) -> io::Result<u64> {
        io::copy(&mut (&mut self.0).take(count), &mut io::sink())
    }
}

/// What a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MemberKind {
    /// A regular file.
    File,
    /// A symlink or hard link, with its target as written.
    Symlink(String),
    /// A hard link: the target counts from the root.
    Hardlink(String),
    /// Directories, devices, sparse files: nothing that an image archive refers to.
    Other,
}

/// One member's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// The name as written; not UTF-8 means that no JSON can name it.
    pub(super) name: Option<String>,
    pub(super) kind: MemberKind,
    pub(super) size: u64,
    /// Where the content begins, from the start of the tar.
    pub(super) offset: u64,
}

/// Reads a tar member by member.
pub(super) struct Walker<S> {
    label: String,
    source: S,
    parser: Parser,
    header: Vec<u8>,
    position: u64,
    current: String,
    content_left: u64,
    padding_left: u64,
    /// A failure of the source while content was read; it outranks what the reader of the content made of it.
    broken: Option<ArchiveError>,
}

impl<S: Source> Walker<S> {
    pub(super) fn new(label: &str, source: S) -> Self {
        Walker {
            label: label.to_owned(),
            source,
            parser: Parser::new(Limits::default()),
            header: Vec::new(),
            position: 0,
            current: "the first header".to_owned(),
            content_left: 0,
            padding_left: 0,
            broken: None,
        }
    }

    /// The next member, after passing over what is left of the current one; `None` after the end marker.
    pub(super) fn next(&mut self) -> Result<Option<Member>, ArchiveError> {
        self.finish_member()?;
        self.header.clear();
        loop {
            let event = match self.parser.parse(&self.header) {
                Ok(event) => event,
                Err(error) => return Err(self.bad_header(error.to_string())),
            };
            let (consumed, member) = match event {
                ParseEvent::NeedData { min_bytes } => {
                    self.read_header(min_bytes)?;
                    continue;
                }
                ParseEvent::GlobalExtensions { consumed, .. } => {
                    if consumed != self.header.len() {
                        return Err(self.bad_header("inconsistent global header".to_owned()));
                    }
                    self.header.clear();
                    continue;
                }
                ParseEvent::End { .. } => return Ok(None),
                ParseEvent::SparseEntry {
                    consumed, entry, ..
                } => (
                    consumed,
                    Member {
                        name: text(&entry.path),
                        kind: MemberKind::Other,
                        size: entry.size,
                        offset: self.position,
                    },
                ),
                ParseEvent::Entry { consumed, entry } => {
                    let target = entry
                        .link_target
                        .as_deref()
                        .and_then(text)
                        .unwrap_or_default();
                    let directory = entry.path.ends_with(b"/");
                    let kind = match entry.entry_type {
                        EntryType::Regular | EntryType::Continuous if !directory => {
                            MemberKind::File
                        }
                        EntryType::Symlink => MemberKind::Symlink(target),
                        EntryType::Link => MemberKind::Hardlink(target),
                        _ => MemberKind::Other,
                    };
                    let name = text(&entry.path);
                    (
                        consumed,
                        Member {
                            name,
                            kind,
                            size: entry.size,
                            offset: self.position,
                        },
                    )
                }
            };
            if consumed != self.header.len() {
                return Err(self.bad_header("inconsistent header".to_owned()));
            }
            let padded = member.size.checked_next_multiple_of(512);
            let Some(padded) = padded.filter(|p| p.checked_add(self.position).is_some()) else {
                return Err(self.bad_header(format!("member of {} bytes", member.size)));
            };
            self.current = shown(
                member
                    .name
                    .as_deref()
                    .unwrap_or("a member whose name is not UTF-8"),
            );
            self.content_left = member.size;
            self.padding_left = padded - member.size;
            return Ok(Some(member));
        }
    }

    /// What is left of the current member's content.
    pub(super) fn content(&mut self) -> MemberContent<'_, S> {
        MemberContent { walker: self }
    }

    /// The failure of the source that a reader of the content was told of, if any.
    pub(super) fn take_broken(&mut self) -> Result<(), ArchiveError> {
        self.broken.take().map_or(Ok(()), Err)
    }

    /// The source, to be drained after the last member.
    pub(super) fn into_source(self) -> S {
        self.source
    }

    fn finish_member(&mut self) -> Result<(), ArchiveError> {
        self.take_broken()?;
        let left = self.content_left + self.padding_left;
        if left > 0 {
            let got = self.source.skip(left).map_err(|e| self.unreadable(e))?;
            self.position += got;
            if got < left {
                return Err(self.truncated());
            }
            (self.content_left, self.padding_left) = (0, 0);
        }
        Ok(())
    }

    fn read_header(&mut self, want: usize) -> Result<(), ArchiveError> {
        let have = self.header.len();
        if want > MAX_HEADER || want <= have {
            return Err(self.bad_header(format!("header of {want} bytes")));
        }
        self.header.resize(want, 0);
        let got = match self.header.get_mut(have..) {
            Some(room) => self.source.read(room),
            None => Ok(0),
        };
        let got = got.map_err(|e| self.unreadable(e))?;
        self.position += got as u64;
        if got < want - have {
            self.current = match (have, got) {
                (0, 0) => "a tar without end marker".to_owned(),
                _ => "a tar header".to_owned(),
            };
            return Err(self.truncated());
        }
        Ok(())
    }

    fn truncated(&self) -> ArchiveError {
        let what = self.current.clone();
        ArchiveError::new(
            &self.label,
            Problem::Truncated {
                offset: self.position,
                what,
            },
        )
    }

    fn unreadable(&self, error: io::Error) -> ArchiveError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.truncated(),
            _ => ArchiveError::new(&self.label, Problem::Read(error)),
        }
    }

    fn bad_header(&self, reason: String) -> ArchiveError {
        let offset = self.position.saturating_sub(self.header.len() as u64);
        ArchiveError::new(&self.label, Problem::Tar { offset, reason })
    }
}

fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

/// Reads one member's content.
pub(super) struct MemberContent<'a, S> {
    walker: &'a mut Walker<S>,
}

impl<S: Source> Read for MemberContent<'_, S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let walker = &mut *self.walker;
        let left = usize::try_from(walker.content_left).unwrap_or(usize::MAX);
        let want = buf.len().min(left);
        if want == 0 || walker.broken.is_some() {
            return Ok(0);
        }
        let result = walker.source.read(buf.get_mut(..want).unwrap_or_default());
        let failure = match result {
            Ok(0) => walker.truncated(),
            Ok(n) => {
                walker.position += n as u64;
                walker.content_left -= n as u64;
                return Ok(n);
            }
            Err(e) => walker.unreadable(e),
        };
        walker.broken = Some(failure);
        Err(io::Error::from(io::ErrorKind::UnexpectedEof))
    }
}
