//! Reads of much data that leave little behind in the page cache.
//!
//! Content reaches users through the page cache of the FUSE inode; keeping the blob's pages of a large file too would cost
//! every byte twice. But the blob's read-ahead must live. So reads are ordinary ones, and the kernel is told to drop a
//! region of the blob when the reader has gone on to others.
//!
//! Measured on 7,189 files of a 453 MB layer, cold, read one after the other in 128 KiB pieces: ordinary reads
//! 0.3 to 0.7 s (432 MB stay cached), this module 0.2 to 0.4 s (28 MB stay), `RWF_DONTCACHE` 1.7 to 2.3 s, because it
//! drops what was read ahead and pages that two files share; advice after each read 0.6 s and nothing is dropped at
//! all, because a part of a large folio cannot be.

use std::fs::File;
use std::io;
use std::num::NonZeroU64;

use parking_lot::Mutex;
use rustix::fs::Advice;
use rustix::io::Errno;

/// Regions are dropped whole: two of the largest folios, so that no folio lies in two regions.
const REGION: u64 = 4 << 20;
/// So many regions may stay: readers in several places, and some distance between reading and dropping.
const KEPT: usize = 4;

/// The regions of one file that were read last.
#[derive(Debug, Default)]
pub struct DropBehind {
    /// Region numbers plus one, the latest first; 0: none.
    recent: Mutex<[u64; KEPT]>,
}

impl DropBehind {
    /// As [`read_at`], with the regions behind dropped.
    pub fn read_at(&self, file: &File, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let done = read_at(file, offset, buf)?;
        if let Some(length) = u64::try_from(done).ok().filter(|length| *length > 0) {
            for region in offset / REGION..=(offset + (length - 1)) / REGION {
                self.visit(file, region);
            }
        }
        Ok(done)
    }

    /// Notes that `region` was read, and drops the one that was not for the longest time.
    fn visit(&self, file: &File, region: u64) {
        let mut recent = self.recent.lock();
        let mark = region + 1;
        let place = recent.iter().position(|known| *known == mark);
        let end = place.unwrap_or(KEPT - 1);
        let dropped = match place {
            Some(_) => 0,
            None => recent.last().copied().unwrap_or_default(),
        };
        recent.copy_within(..end, 1);
        if let Some(first) = recent.first_mut() {
            *first = mark;
        }
        drop(recent);
        if let Some(region) = dropped.checked_sub(1) {
            // Advice only: a file system that does not take it keeps the pages, nothing else.
            let _ = rustix::fs::fadvise(
                file,
                region * REGION,
                NonZeroU64::new(REGION),
                Advice::DontNeed,
            );
        }
    }
}

/// Fills `buf` from `offset` as far as the file reaches, and returns how far that was. Interrupted reads resume.
pub fn read_at(file: &File, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let at = u64::try_from(done)
            .ok()
            .and_then(|done| offset.checked_add(done))
            .ok_or(io::ErrorKind::InvalidInput)?;
        match rustix::io::pread(file, rest, at) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn reads_up_to_the_end() {
        let file = tempfile::tempfile().unwrap();
        let content: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
        file.write_all_at(&content, 0).unwrap();
        let reads = DropBehind::default();
        let mut buf = vec![0; 70_000];
        assert_eq!(reads.read_at(&file, 50_000, &mut buf).unwrap(), 50_000);
        assert_eq!(buf[..50_000], content[50_000..]);
        assert_eq!(reads.read_at(&file, 100_000, &mut buf).unwrap(), 0);
        assert_eq!(reads.read_at(&file, 3, &mut []).unwrap(), 0);
        assert!(reads.read_at(&file, u64::MAX, &mut buf).is_err());
    }

    #[test]
    fn remembers_the_last_regions() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(10 * REGION).unwrap();
        let reads = DropBehind::default();
        for region in [0, 1, 2, 1, 3, 0, 4, 4, 5] {
            reads.read_at(&file, region * REGION, &mut [0; 10]).unwrap();
        }
        assert_eq!(*reads.recent.lock(), [6, 5, 1, 4]);
        // Across a border.
        reads.read_at(&file, 8 * REGION - 1, &mut [0; 2]).unwrap();
        assert_eq!(*reads.recent.lock(), [9, 8, 6, 5]);
    }
}
