//! A read-only map of a file that we wrote ourselves.
//!
//! The danger of a map is SIGBUS: a page that cannot be read (the file was truncated, the disk fails) kills the
//! process instead of failing a call. What bounds it:
//! - The store creates an index under a temporary name, completes it, renames it, and never changes it again; removal
//!   is an unlink, which leaves maps intact. Truncation is therefore somebody else with write access to the store,
//!   who could kill us anyway.
//! - Bytes are first touched through [`Map::read_exact_at`], an ordinary read that reports a short file and EIO, and
//!   that leaves the pages in the page cache. The map only sees pages that were read before. What remains is a page
//!   that was evicted and then fails to come back.
//!
//! Somebody who changes the file in place while it is mapped breaks the promise that `&[u8]` does not change. The
//! worst that follows is a wrong answer: no code here or above derives memory safety from what the bytes say.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::unix::fs::FileExt;

/// A private read-only map of a whole file, and the file.
#[derive(Debug)]
pub struct Map {
    map: memmap2::Mmap,
    file: File,
}

impl Map {
    /// Maps all of `file`, which must not be empty. The length is fixed here: growth is not seen.
    #[allow(unsafe_code)]
    pub fn new(file: File) -> io::Result<Map> {
        let length = file.metadata()?.len();
        let length = usize::try_from(length).map_err(|_| io::ErrorKind::FileTooLarge)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // SAFETY: the module header says who may change the file under us, and that nothing depends on its bytes for
        // memory safety. The map is read-only and owned; slices of it borrow `self`.
        let map = unsafe {
            memmap2::MmapOptions::new()
                .len(length)
                .map_copy_read_only(&file)?
        };
        Ok(Map { map, file })
    }

    /// Reads `buf` from `offset` with an ordinary read: truncation and I/O errors are errors, not signals.
    pub fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }
}

impl Deref for Map {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.map
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn maps_and_reads_the_same_bytes() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"hello map").unwrap();
        let map = Map::new(file).unwrap();
        assert_eq!(&*map, b"hello map");
        let mut buf = [0; 3];
        map.read_exact_at(&mut buf, 6).unwrap();
        assert_eq!(&buf, b"map");
    }

    #[test]
    fn a_truncated_file_is_an_error_not_a_signal() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 10_000]).unwrap();
        let other = file.try_clone().unwrap();
        let map = Map::new(file).unwrap();
        other.set_len(0).unwrap();
        let mut buf = [0; 16];
        let error = map.read_exact_at(&mut buf, 8192).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn an_empty_file_cannot_be_mapped() {
        assert!(Map::new(tempfile::tempfile().unwrap()).is_err());
    }
}
