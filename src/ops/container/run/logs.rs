//! What a detached container has printed: docker's `json-file`, a JSON object per line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek as _, SeekFrom, Write};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// A partial line longer than this is written as one.
const MAX_PART: usize = 16 << 10;

/// Which output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output, or a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line, or the part of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// With its line end, if it had one. What is no UTF-8 is replaced, as docker does.
    pub log: String,
    /// Which output.
    pub stream: Stream,
    /// When.
    pub time: jiff::Timestamp,
}

/// Writes a log.
#[derive(Debug)]
pub struct LogWriter {
    file: File,
    partial: [Vec<u8>; 2],
    /// Lines that could not be written, and have not been told of.
    lost: u64,
    /// The last one may be there in part.
    torn: bool,
}

impl LogWriter {
    /// Goes on with the log at `path`.
    pub fn open(path: &Path) -> io::Result<LogWriter> {
        let mut options = File::options();
        let file = options.create(true).append(true).mode(0o600).open(path)?;
        Ok(LogWriter {
            file,
            partial: [Vec::new(), Vec::new()],
            lost: 0,
            torn: false,
        })
    }

    /// Takes bytes in; whole lines are written. Those that could not be are told of in the log, as soon as it takes something
    /// again; the error is the first one's of them.
    pub fn write(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let mut result = Ok(());
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let partial = self.partial(stream);
            partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") || partial.len() >= MAX_PART {
                let line = std::mem::take(partial);
                let first = self.lost == 0;
                if let Err(error) = self.entry(stream, &line)
                    && first
                {
                    result = Err(error);
                }
            }
        }
        result
    }

    /// Writes what is left without a line end.
    pub fn finish(&mut self, stream: Stream) -> io::Result<()> {
        let rest = std::mem::take(self.partial(stream));
        match rest.is_empty() {
            true => self.tell(),
            false => self.entry(stream, &rest),
        }
    }

    fn partial(&mut self, stream: Stream) -> &mut Vec<u8> {
        let [out, err] = &mut self.partial;
        match stream {
            Stream::Stdout => out,
            Stream::Stderr => err,
        }
    }

    fn entry(&mut self, stream: Stream, line: &[u8]) -> io::Result<()> {
        let written = self.tell().and_then(|()| self.put(stream, line));
        if written.is_err() {
            self.lost += 1;
        }
        written
    }

    /// Says how much is missing here.
    fn tell(&mut self) -> io::Result<()> {
        if self.lost == 0 {
            return Ok(());
        }
        let lines = match self.lost {
            1 => "1 line is",
            _ => &format!("{} lines are", self.lost),
        };
        let text = format!("mica: {lines} missing here: the log could not be written\n");
        self.put(Stream::Stderr, text.as_bytes())?;
        self.lost = 0;
        Ok(())
    }

    fn put(&mut self, stream: Stream, line: &[u8]) -> io::Result<()> {
        let entry = Entry {
            log: String::from_utf8_lossy(line).into_owned(),
            stream,
            time: jiff::Timestamp::now(),
        };
        let mut text = serde_json::to_vec(&entry)?;
        text.push(b'\n');
        if self.torn {
            // What is left of another ends here.
            text.insert(0, b'\n');
        }
        let written = self.file.write_all(&text);
        self.torn = written.is_err();
        written
    }
}

/// Reads a log, also while it is being written.
#[derive(Debug)]
pub struct LogReader {
    file: BufReader<File>,
    partial: Vec<u8>,
}

impl LogReader {
    /// Opens the log at `path`; `None` if there is none.
    pub fn open(path: &Path) -> io::Result<Option<LogReader>> {
        match File::open(path) {
            Ok(file) => Ok(Some(LogReader {
                file: BufReader::new(file),
                partial: Vec::new(),
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Goes on with the last `count` entries, as far as there are so many. Reads the log from its end.
    pub fn seek_to_last(&mut self, count: u64) -> io::Result<()> {
        let start = start_of_last(self.file.get_ref(), count)?;
        self.partial.clear();
        self.file.seek(SeekFrom::Start(start))?;
        Ok(())
    }

    /// The next entry that is there as a whole. A line that is none (a full disk cut it short) is left out.
    pub fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        loop {
            self.file.read_until(b'\n', &mut self.partial)?;
            if !self.partial.ends_with(b"\n") {
                return Ok(None);
            }
            let line = std::mem::take(&mut self.partial);
            if let Ok(entry) = serde_json::from_slice(&line) {
                return Ok(Some(entry));
            }
        }
    }
}

/// Where the last `count` whole lines of a file begin.
fn start_of_last(file: &File, count: u64) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    let mut buffer = vec![0u8; MAX_PART];
    // The end of the last line is that of the line before the one after it.
    let mut ends = 0u64;
    while end > 0 {
        let length = buffer.len().min(usize::try_from(end).unwrap_or(usize::MAX));
        let start = end.saturating_sub(u64::try_from(length).unwrap_or(0));
        let piece = buffer.get_mut(..length).unwrap_or_default();
        file.read_exact_at(piece, start)?;
        for (at, byte) in piece.iter().enumerate().rev() {
            if *byte == b'\n' {
                if ends == count {
                    let at = u64::try_from(at).unwrap_or(0);
                    return Ok(start.saturating_add(at).saturating_add(1));
                }
                ends += 1;
            }
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        assert!(LogReader::open(&path).unwrap().is_none());
        let mut writer = LogWriter::open(&path).unwrap();
        writer.write(Stream::Stdout, b"one\ntw").unwrap();
        writer.write(Stream::Stderr, b"bad \xff\n").unwrap();
        let mut reader = LogReader::open(&path).unwrap().unwrap();
        let mut next = || reader.next_entry().unwrap().map(|e| (e.log, e.stream));
        assert_eq!(next(), Some(("one\n".to_owned(), Stream::Stdout)));
        assert_eq!(next(), Some(("bad \u{fffd}\n".to_owned(), Stream::Stderr)));
        assert_eq!(next(), None);
        writer.finish(Stream::Stdout).unwrap();
        assert_eq!(next(), Some(("tw".to_owned(), Stream::Stdout)));
    }

    #[test]
    fn regression_what_a_full_disk_has_cost_is_in_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut writer = LogWriter::open(&path).unwrap();
        writer.write(Stream::Stdout, b"one\n").unwrap();
        let full = File::options().append(true).open("/dev/full").unwrap();
        let good = std::mem::replace(&mut writer.file, full);
        writer.write(Stream::Stdout, b"two\nthree\n").unwrap_err();
        // Said once, until it works again.
        writer.write(Stream::Stderr, b"four\n").unwrap();
        // The disk took a part of a line.
        (&good).write_all(b"{\"log\":\"tw").unwrap();
        writer.file = good;
        writer.write(Stream::Stdout, b"five\n").unwrap();
        let all = || {
            let mut reader = LogReader::open(&path).unwrap().unwrap();
            let entries = std::iter::from_fn(|| reader.next_entry().unwrap());
            entries.map(|entry| entry.log).collect::<Vec<_>>()
        };
        let told = "mica: 3 lines are missing here: the log could not be written\n";
        assert_eq!(all(), ["one\n", told, "five\n"]);
        // At the latest when it ends.
        let good = std::mem::replace(
            &mut writer.file,
            File::options().append(true).open("/dev/full").unwrap(),
        );
        writer.write(Stream::Stdout, b"six\n").unwrap_err();
        writer.file = good;
        writer.finish(Stream::Stdout).unwrap();
        writer.finish(Stream::Stderr).unwrap();
        let last = "mica: 1 line is missing here: the log could not be written\n";
        assert_eq!(all(), ["one\n", told, "five\n", last]);
    }

    #[test]
    fn the_last_entries_are_found_from_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut writer = LogWriter::open(&path).unwrap();
        // Longer than what is read at once, all together and some of them alone.
        for n in 0..300usize {
            let line = format!("{n} {}\n", "x".repeat(n * n % 9000));
            writer.write(Stream::Stdout, line.as_bytes()).unwrap();
        }
        for count in [0, 1, 2, 7, 150, 299, 300, 301, u64::MAX] {
            let mut reader = LogReader::open(&path).unwrap().unwrap();
            reader.seek_to_last(count).unwrap();
            let mut found = Vec::new();
            while let Some(entry) = reader.next_entry().unwrap() {
                let number = entry.log.split(' ').next().unwrap().parse::<u64>();
                found.push(number.unwrap());
            }
            let first = 300u64.saturating_sub(count);
            assert_eq!(found, (first..300).collect::<Vec<_>>(), "{count}");
        }
    }
}
