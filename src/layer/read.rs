//! Reading a tar as it streams by, entry by entry: for who unpacks one. The same headers, extensions and sparse maps as
//! [`super::scan`] takes, and the same checks.

use std::io::{self, Read};

use super::error::Problem;
use super::limits::Limits;
use super::scan::extensions::Extensions;
use super::scan::{padded, resolve};
use super::tar::header::{self, Fields, Flag};
use super::tar::sparse::{self, DataMap, OldMap, PaxFormat, Segment};
use super::tar::{BLOCK, EntryKind, TarEntry};

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
        loop {
            let block = self.block()?;
            let block = block.filter(|block| block.iter().any(|byte| *byte != 0));
            let Some(block) = block else {
                if extensions.pending() {
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
        extensions.begin(fields, Limits::MAX_EXTENSION_BYTES)?;
        let input = &mut self.input;
        let got = input
            .take(fields.size)
            .read_to_end(&mut extensions.buffer)?;
        if got as u64 != fields.size {
            return Err(Problem::Truncated.into());
        }
        self.skip(padded(fields.size)? - fields.size)?;
        extensions.end(fields.flag)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A GNU long name and an entry of two bytes behind each other, as often as given.
    fn archive(names: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut add = |kind, data: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_path("short").unwrap();
            header.set_size(data.len().try_into().unwrap());
            header.set_mode(0o644);
            header.set_cksum();
            bytes.extend_from_slice(header.as_bytes());
            bytes.extend_from_slice(data);
            bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        };
        for name in names {
            add(tar::EntryType::GNULongName, name);
        }
        add(tar::EntryType::Regular, b"hi");
        bytes.resize(bytes.len() + 2 * BLOCK, 0);
        bytes
    }

    fn first(names: &[&[u8]]) -> Result<Vec<u8>, String> {
        let archive = archive(names);
        let entry = TarReader::new(archive.as_slice()).next_entry();
        let entry = entry.map_err(|error| error.to_string())?;
        Ok(entry.expect("an entry").path)
    }

    /// The reader refuses what the scanner of layers refuses: it says so, and took both.
    #[test]
    fn regression_extension_headers_are_checked_as_in_layers() {
        assert_eq!(first(&[b"long\0"]).unwrap(), b"long");
        assert!(first(&[b"one\0", b"two\0"]).is_err());
        assert!(first(&[b"one\0two\0"]).is_err());
    }
}
