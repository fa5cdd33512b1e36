//! Reads that do not fill the page cache.
//!
//! File content reaches users through the page cache of the FUSE inode; keeping the blob's pages too would cost
//! every byte twice.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::Advice;
use rustix::io::{Errno, ReadWriteFlags};

/// Linux 6.14: pages read by this call leave the cache when it is done. Not named by rustix yet.
const RWF_DONTCACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// Whether the kernel and file system of a file know `RWF_DONTCACHE`; found out at the first read.
#[derive(Debug, Default)]
pub struct Uncached {
    unsupported: AtomicBool,
}

impl Uncached {
    /// Fills `buf` from `offset` as far as the file reaches, and returns how far that was. Interrupted reads resume.
    pub fn read_at(&self, file: &File, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = u64::try_from(done)
                .ok()
                .and_then(|done| offset.checked_add(done))
                .ok_or(io::ErrorKind::InvalidInput)?;
            match self.read_once(file, at, rest) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(done)
    }

    fn read_once(&self, file: &File, offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        if !self.unsupported.load(Ordering::Relaxed) {
            let mut bufs = [io::IoSliceMut::new(buf)];
            match rustix::io::preadv2(file, &mut bufs, offset, RWF_DONTCACHE) {
                Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {
                    self.unsupported.store(true, Ordering::Relaxed);
                }
                answer => return answer,
            }
        }
        let read = rustix::io::pread(file, &mut *buf, offset)?;
        if let Some(length) = u64::try_from(read).ok().and_then(std::num::NonZeroU64::new) {
            // Advice only: a file system that does not take it keeps the pages, nothing else.
            let _ = rustix::fs::fadvise(file, offset, Some(length), Advice::DontNeed);
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn reads_up_to_the_end_with_and_without_the_flag() {
        let mut file = tempfile::tempfile().unwrap();
        let content: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
        file.write_all(&content).unwrap();
        for unsupported in [false, true] {
            let uncached = Uncached {
                unsupported: AtomicBool::new(unsupported),
            };
            let mut buf = vec![0; 70_000];
            assert_eq!(uncached.read_at(&file, 50_000, &mut buf).unwrap(), 50_000);
            assert_eq!(buf[..50_000], content[50_000..]);
            assert_eq!(uncached.read_at(&file, 100_000, &mut buf).unwrap(), 0);
            assert_eq!(uncached.read_at(&file, 3, &mut []).unwrap(), 0);
        }
    }
}
