//! Reading a tar as it streams by, entry by entry: for who unpacks one. The same headers, extensions and sparse maps as
//! [`super::scan`] takes, and the same checks.

use std::io::{self, Read};

use super::error::Problem;
use super::limits::Limits;
use super::scan::resolve;
use super::tar::header::{self, Fields, Flag};
use super::tar::pax::Pax;
use super::tar::sparse::{self, DataMap, OldMap, PaxFormat, Segment};
use super::tar::{BLOCK, BLOCK_U64, EntryKind, TarEntry};

/// Why an archive cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum TarReadError {
    /// It is none, or a bad one.
    #[error("cannot read the archive: {0}")]
    Archive(Problem),
    /// Its source fails.
    #[error("reading the archive: {0}")]
    Read(#[from] io::Error),
}

impl From<Problem> for TarReadError {
    fn from(problem: Problem) -> TarReadError {
        TarReadError::Archive(problem)
    }
}

/// Entries one after the other; the content of each may be read before the next is asked for.
#[derive(Debug)]
pub struct TarReader<R> {
    input: R,
    /// Of the entry's content, and of zeros behind it.
    left: u64,
    padding: u64,
    ended: bool,
}

/// Extension headers of the entry to come.
#[derive(Debug, Default)]
struct Extensions {
    bytes: u64,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: Option<Pax>,
}

impl<R: Read> TarReader<R> {
    /// A reader of an uncompressed archive.
    pub fn new(input: R) -> TarReader<R> {
        TarReader {
            input,
            left: 0,
            padding: 0,
            ended: false,
        }
    }

    /// The next entry; `None` at the end, when everything behind the end marker has been read too.
    pub fn next_entry(&mut self) -> Result<Option<TarEntry>, TarReadError> {
        if self.ended {
            return Ok(None);
        }
        self.skip(self.left.saturating_add(self.padding))?;
        (self.left, self.padding) = (0, 0);
        let mut extensions = Extensions::default();
        let pending = |extensions: &Extensions| {
            extensions.long_name.is_some()
                || extensions.long_link.is_some()
                || extensions.pax.is_some()
        };
        loop {
            let block = self.block()?;
            let block = block.filter(|block| block.iter().any(|byte| *byte != 0));
            let Some(block) = block else {
                if pending(&extensions) {
                    return Err(Problem::Extension("no entry follows it").into());
                }
                self.ended = true;
                // Whoever writes it need not hear that nobody reads.
                io::copy(&mut self.input, &mut io::sink())?;
                return Ok(None);
            };
            let fields = header::decode(&block)?;
            match fields.flag {
                Flag::LongName | Flag::LongLink | Flag::Pax => {
                    self.extension(&fields, &mut extensions)?;
                }
                Flag::GlobalPax => self.skip(padded(fields.size)?)?,
                Flag::OldSparse | Flag::OldFile | Flag::Entry(_) => {
                    return self.entry(fields, &block, extensions).map(Some);
                }
            }
        }
    }

    /// Content of the entry; 0 at its end.
    pub fn content(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(into.len());
        let most = most.min(into.len());
        let Some(room) = into.get_mut(..most).filter(|room| !room.is_empty()) else {
            return Ok(0);
        };
        loop {
            match self.input.read(room) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(got) => {
                    self.left -= got as u64;
                    return Ok(got);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn entry(
        &mut self,
        fields: Fields,
        block: &[u8; BLOCK],
        extensions: Extensions,
    ) -> Result<TarEntry, TarReadError> {
        let flag = fields.flag;
        let mut pax = extensions.pax.unwrap_or_default();
        let format = match flag {
            Flag::OldFile | Flag::Entry(EntryKind::Regular) => pax.sparse.take_format()?,
            _ => PaxFormat::Plain,
        };
        if format != PaxFormat::Plain
            && let Some(name) = pax.sparse.name.take()
        {
            pax.path = Some(name);
        }
        let real_size = pax.sparse.size;
        let real_size = || real_size.ok_or(Problem::Sparse("the size is missing"));
        let resolved = resolve::entry(fields, extensions.long_name, extensions.long_link, pax);
        let mut entry = resolved.map_err(|(_, problem)| problem)?;
        let padding = padded(entry.stored)? - entry.stored;
        let segments = match format {
            PaxFormat::Segments(segments) => {
                entry.size = real_size()?;
                Some(segments)
            }
            PaxFormat::MapInData => {
                entry.size = real_size()?;
                Some(self.map_in_data(&mut entry)?)
            }
            PaxFormat::Plain if flag == Flag::OldSparse => {
                let mut map = OldMap::from_header(block)?;
                entry.size = map.real_size;
                while map.more {
                    let block = self.block()?.ok_or(Problem::Truncated)?;
                    map.push(&block)?;
                }
                Some(map.segments)
            }
            PaxFormat::Plain => None,
        };
        if let Some(segments) = segments {
            entry.segments = Some(sparse::check(segments, entry.size, entry.stored)?);
        }
        (self.left, self.padding) = (entry.stored, padding);
        Ok(entry)
    }

    /// The map of a PAX 1.0 sparse file.
    fn map_in_data(&mut self, entry: &mut TarEntry) -> Result<Vec<Segment>, TarReadError> {
        let mut map = DataMap::default();
        loop {
            let block = self.block()?.ok_or(Problem::Truncated)?;
            let complete = map.push(&block)?;
            let rest = entry.stored.checked_sub(map.length);
            let rest = rest.ok_or(Problem::Sparse("longer than the content"))?;
            if complete {
                entry.stored = rest;
                return Ok(map.segments);
            }
        }
    }

    /// The data of an extension header.
    fn extension(
        &mut self,
        fields: &Fields,
        extensions: &mut Extensions,
    ) -> Result<(), TarReadError> {
        let limit = Limits::MAX_EXTENSION_BYTES;
        extensions.bytes = extensions.bytes.saturating_add(fields.size);
        if extensions.bytes > limit {
            let what = "bytes of extension headers for one entry";
            return Err(Problem::Limit { what, limit }.into());
        }
        let mut data = Vec::new();
        let got = (&mut self.input).take(fields.size).read_to_end(&mut data)?;
        if got as u64 != fields.size {
            return Err(Problem::Truncated.into());
        }
        self.skip(padded(fields.size)? - fields.size)?;
        match fields.flag {
            Flag::LongName => extensions.long_name = Some(long_text(data)),
            Flag::LongLink => extensions.long_link = Some(long_text(data)),
            _ => extensions.pax = Some(Pax::parse(&data)?),
        }
        Ok(())
    }

    /// The next block; `None` at the end of the input.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, TarReadError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while let Some(room) = block.get_mut(filled..).filter(|room| !room.is_empty()) {
            match self.input.read(room) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(Problem::Truncated.into()),
                Ok(got) => filled += got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(block))
    }

    fn skip(&mut self, bytes: u64) -> Result<(), TarReadError> {
        let skipped = io::copy(&mut (&mut self.input).take(bytes), &mut io::sink())?;
        match skipped == bytes {
            true => Ok(()),
            false => Err(Problem::Truncated.into()),
        }
    }
}

/// `size` with its padding.
fn padded(size: u64) -> Result<u64, Problem> {
    let padded = size.checked_next_multiple_of(BLOCK_U64);
    padded.ok_or(Problem::Field("size"))
}

/// A GNU long name: a text with NULs behind it.
fn long_text(mut data: Vec<u8>) -> Vec<u8> {
    while data.last() == Some(&0) {
        data.pop();
    }
    data
}
