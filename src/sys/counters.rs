//! Counters in memory that outlives the process: a file without a name (memfd), mapped, that another process keeps open too.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use rustix::fs::{
    MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, ftruncate, memfd_create,
};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// How many there are. Memory is taken only for those that were used.
pub const COUNT: u32 = 1 << 20;

/// Its length cannot change: an access would be SIGBUS.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

/// All counters of one file.
#[derive(Debug)]
pub struct Counters {
    file: File,
    start: NonNull<AtomicU64>,
    count: u32,
}

// SAFETY: the map is owned by the value alone, is not bound to a thread, and is reached through atomic integers only.
#[allow(unsafe_code)]
unsafe impl Send for Counters {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Counters {}

impl Counters {
    /// A new file, every counter 0.
    pub fn new() -> io::Result<Arc<Counters>> {
        Counters::named("mica-counters", COUNT)
    }

    /// A new file of that name and so many.
    pub fn named(name: &str, count: u32) -> io::Result<Arc<Counters>> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create(name, flags)?;
        ftruncate(&file, bytes(count) as u64)?;
        fcntl_add_seals(&file, SEALS)?;
        Counters::open_of(File::from(file), count)
    }

    /// Those of a file that [`Counters::new`] has made.
    pub fn open(file: File) -> io::Result<Arc<Counters>> {
        Counters::open_of(file, COUNT)
    }

    /// Those of a file that [`Counters::named`] has made.
    #[allow(unsafe_code)]
    pub fn open_of(file: File, count: u32) -> io::Result<Arc<Counters>> {
        let length = file.metadata()?.len();
        if length != bytes(count) as u64 || !fcntl_get_seals(&file)?.contains(SEALS) {
            return Err(io::Error::other("not a file of counters"));
        }
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new map at an address of the kernel's choice touches no memory in use; the file is as long as the map and stays
        // so (sealed).
        let at = unsafe {
            mmap(
                std::ptr::null_mut(),
                bytes(count),
                access,
                MapFlags::SHARED,
                &file,
                0,
            )
        }?;
        let start = NonNull::new(at.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Arc::new(Counters { file, start, count }))
    }

    /// One of them; `None` beyond the last.
    pub fn get(self: &Arc<Self>, index: u32) -> Option<Counter> {
        (index < self.count).then(|| Counter {
            of: Arc::clone(self),
            index,
        })
    }

    /// The same, for a moment.
    #[allow(unsafe_code)]
    pub fn at(&self, index: u32) -> Option<&AtomicU64> {
        // SAFETY: within the map, which is page-aligned and lives as long as `self`.
        (index < self.count).then(|| unsafe { self.start.add(index as usize).as_ref() })
    }
}

fn bytes(count: u32) -> usize {
    count as usize * size_of::<AtomicU64>()
}

impl AsFd for Counters {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Counters {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: the map of `open`, whole; every reference into it borrows from a `Counter`, which holds the value.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), bytes(self.count)) };
        debug_assert!(unmapped.is_ok(), "{unmapped:?}");
    }
}

/// One counter.
#[derive(Debug)]
pub struct Counter {
    of: Arc<Counters>,
    index: u32,
}

impl Counter {
    /// Which one it is.
    pub fn index(&self) -> u32 {
        self.index
    }
}

impl Deref for Counter {
    type Target = AtomicU64;

    #[allow(unsafe_code)]
    fn deref(&self) -> &AtomicU64 {
        // SAFETY: `get` has checked that the index is within the map, which is page-aligned and lives as long as `of`.
        unsafe { self.of.start.add(self.index as usize).as_ref() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn counts_are_there_for_whoever_opens_the_file_next() {
        let counters = Counters::new().unwrap();
        let one = counters.get(COUNT - 1).unwrap();
        one.fetch_add(7, Ordering::Relaxed);
        assert!(counters.get(COUNT).is_none());
        let file = File::from(counters.as_fd().try_clone_to_owned().unwrap());
        drop((one, counters));
        let again = Counters::open(file).unwrap();
        assert_eq!(again.get(COUNT - 1).unwrap().load(Ordering::Relaxed), 7);
        assert_eq!(again.get(0).unwrap().load(Ordering::Relaxed), 0);
        assert!(Counters::open(tempfile::tempfile().unwrap()).is_err());
    }
}
