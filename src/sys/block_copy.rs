//! A copy of a file in memory, made block by block as it is asked for.
//!
//! The alternative is a map of the file, and its danger is that the file stays somebody else's: a page that cannot be read (the
//! file was cut short, the disk fails) kills the process by SIGBUS, and bytes that were checked once may be others the next time.
//! Here a block is read with an ordinary read, shown to a check, and only then seen by anybody; what was seen stays as it was. The
//! room is address space alone until a block is there, and all of it is given back at the end.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// The bytes of a file from some offset on.
#[derive(Debug)]
pub struct BlockCopy {
    file: File,
    offset: u64,
    /// An anonymous map of `length` bytes; dangling if that is 0.
    start: NonNull<u8>,
    length: usize,
    block: usize,
    /// One bit per block: it is there and was checked.
    there: Box<[AtomicU64]>,
    /// Held while a block is filled.
    filling: Mutex<()>,
}

// SAFETY: the map is owned by the value alone and not bound to a thread.
#[allow(unsafe_code)]
unsafe impl Send for BlockCopy {}
// SAFETY: bytes of a block are written by one thread, under `filling`, while its bit is not set, and are read only after the bit
// was seen set (Release, Acquire). So no byte is written while anybody may read it.
#[allow(unsafe_code)]
unsafe impl Sync for BlockCopy {}

impl BlockCopy {
    /// Room for `length` bytes of `file` from `offset`, in blocks of `block` bytes (not 0). Reads nothing.
    #[allow(unsafe_code)]
    pub fn new(file: File, offset: u64, length: usize, block: usize) -> io::Result<BlockCopy> {
        let blocks = length.div_ceil(block);
        let start = match length {
            0 => NonNull::dangling(),
            // SAFETY: a new private anonymous map at an address of the kernel's choice touches no memory that is in use.
            length => unsafe {
                let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
                let access = ProtFlags::READ | ProtFlags::WRITE;
                let at = mmap_anonymous(std::ptr::null_mut(), length, access, flags)?;
                NonNull::new(at.cast()).ok_or(io::ErrorKind::OutOfMemory)?
            },
        };
        Ok(BlockCopy {
            file,
            offset,
            start,
            length,
            block,
            there: (0..blocks.div_ceil(64))
                .map(|_| AtomicU64::new(0))
                .collect(),
            filling: Mutex::new(()),
        })
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The bytes of `range`, which must lie within. Each block of it that is not there yet is read, and kept if `check` accepts
    /// its number and bytes; `unread` makes the error of one that cannot be read whole.
    #[allow(unsafe_code)]
    pub fn get<E>(
        &self,
        range: Range<usize>,
        check: impl Fn(usize, &[u8]) -> Result<(), E>,
        unread: impl Fn(io::Error) -> E,
    ) -> Result<&[u8], E> {
        if range.start > range.end || range.end > self.length {
            return Err(unread(io::ErrorKind::InvalidInput.into()));
        }
        if range.is_empty() {
            return Ok(&[]);
        }
        for block in range.start / self.block..=(range.end - 1) / self.block {
            self.fill(block, &check, &unread)?;
        }
        // SAFETY: the range lies within the map, as was checked, and all its blocks are there: nobody writes to them any more
        // while `self`, which the slice borrows, lives.
        Ok(
            unsafe {
                std::slice::from_raw_parts(self.start.as_ptr().add(range.start), range.len())
            },
        )
    }

    #[allow(unsafe_code)]
    fn fill<E>(
        &self,
        block: usize,
        check: impl Fn(usize, &[u8]) -> Result<(), E>,
        unread: impl Fn(io::Error) -> E,
    ) -> Result<(), E> {
        let bit = 1u64 << (block % 64);
        let Some(word) = self.there.get(block / 64) else {
            return Err(unread(io::ErrorKind::InvalidInput.into()));
        };
        if word.load(Ordering::Acquire) & bit != 0 {
            return Ok(());
        }
        let _filling = self.filling.lock();
        if word.load(Ordering::Acquire) & bit != 0 {
            return Ok(());
        }
        let at = block * self.block;
        let length = self.block.min(self.length - at);
        // SAFETY: the block lies within the map. Its bit is not set and we hold `filling`: no other reference to these bytes
        // exists, and none is made before this one is gone.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().add(at), length) };
        let offset = self.offset + u64::try_from(at).unwrap_or(u64::MAX);
        self.file.read_exact_at(bytes, offset).map_err(unread)?;
        check(block, bytes)?;
        word.fetch_or(bit, Ordering::Release);
        Ok(())
    }
}

impl Drop for BlockCopy {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        if self.length > 0 {
            // SAFETY: the map is ours, whole, and every slice of it has borrowed `self`.
            let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
            debug_assert!(unmapped.is_ok());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn any(_: usize, _: &[u8]) -> Result<(), io::Error> {
        Ok(())
    }

    #[test]
    fn every_range_is_the_files() {
        let bytes: Vec<u8> = (0..10_000u32).map(|i| (i % 251) as u8).collect();
        let copy = BlockCopy::new(file(&bytes), 100, 9_900, 4096).unwrap();
        for (from, to) in [(0, 1), (4095, 4097), (9_899, 9_900), (0, 9_900), (5, 5)] {
            let got = copy.get(from..to, any, |error| error).unwrap();
            assert_eq!(got, &bytes[100 + from..100 + to]);
        }
        assert!(copy.get(0..9_901, any, |error| error).is_err());
        let none = BlockCopy::new(file(b""), 0, 0, 64).unwrap();
        assert!(none.is_empty() && none.get(0..0, any, |error| error).unwrap().is_empty());
    }

    #[test]
    fn what_was_seen_stays_and_what_is_gone_is_an_error() {
        let other = file(&[7; 10_000]);
        let copy = BlockCopy::new(other.try_clone().unwrap(), 0, 10_000, 4096).unwrap();
        let seen = copy.get(0..16, any, |error| error).unwrap();
        other.set_len(0).unwrap();
        assert_eq!(seen, [7; 16]);
        assert_eq!(copy.get(4000..4096, any, |error| error).unwrap(), [7; 96]);
        let error = copy.get(4000..4097, any, |error| error).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_block_that_is_refused_is_asked_about_again() {
        let copy = BlockCopy::new(file(b"right"), 0, 5, 64).unwrap();
        let refuse = |block: usize, bytes: &[u8]| {
            assert_eq!((block, bytes), (0, &b"right"[..]));
            Err(io::Error::from(io::ErrorKind::InvalidData))
        };
        for _ in 0..2 {
            let error = copy.get(0..1, refuse, |error| error).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
        assert_eq!(copy.get(0..5, any, |error| error).unwrap(), b"right");
    }

    #[test]
    fn many_threads_see_the_same() {
        let bytes: Vec<u8> = (0..1_000_000u32).map(|i| (i % 241) as u8).collect();
        let copy = BlockCopy::new(file(&bytes), 0, bytes.len(), 4096).unwrap();
        std::thread::scope(|scope| {
            for n in 0..4 {
                let (copy, bytes) = (&copy, &bytes);
                scope.spawn(move || {
                    for at in (n * 13..990_000).step_by(7919) {
                        let got = copy.get(at..at + 9_000, any, |error| error).unwrap();
                        assert!(got == &bytes[at..at + 9_000]);
                    }
                });
            }
        });
    }
}
