//! Room to remove something from a full disk.
//!
//! Removing an image begins with writing an `index.json` without it, and a full disk refuses that. So a store
//! keeps a file of allocated space, `reserve`, that is given up at that moment, for changes that do not make
//! `index.json` longer, and taken back when there is room again. It holds no data; without it (a file system
//! that cannot allocate ahead) everything else works.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::layout::Layout;
use crate::sys::atomic;

/// The smallest reserve: more than a thousand tags.
const MIN: u64 = 1 << 20;

/// Sees to it that the reserve can hold an `index.json` of `length` bytes. A disk with no room for it is fine.
pub(super) fn keep(layout: &Layout, length: u64) {
    let path = layout.reserve();
    // Half as much again, in powers of two: so that it seldom changes.
    let wanted = (length + length / 2).next_power_of_two().max(MIN);
    if path.metadata().is_ok_and(|stat| stat.len() >= wanted) {
        return;
    }
    let made = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(super::files::FILE)
        .open(&path)
        .and_then(|file| Ok(fallocate(&file, FallocateFlags::empty(), 0, wanted)?));
    if made.is_err() {
        atomic::discard(&path);
    }
}

/// Gives the reserve up; whether there was one.
pub(super) fn give_up(layout: &Layout) -> bool {
    atomic::remove_if_there(&layout.reserve()).unwrap_or(false)
}

/// Whether `error` says that the disk, or what its user may have of it, is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::NOSPC | Errno::DQUOT)
    )
}
