//! How much one import may write: bytes that become many must not take the disk from everybody else.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Import;
use crate::layer::Limits;
use crate::store::error::StoreError;

/// How often the room on the disk is looked at. As much may come between two looks, in each layer that is being written.
const LOOK: u64 = 4 << 20;
/// A part of the disk that stays free.
const PART: u64 = 100;

/// What an import has written so far.
#[derive(Debug, Default)]
pub(super) struct Room {
    written: AtomicU64,
    /// Of those, how many at the last look.
    looked: AtomicU64,
}

impl Import {
    /// So many more bytes are to be written. Refused where they are too many together, or where too little of the disk would
    /// stay free.
    pub fn take(&self, bytes: u64, limits: &Limits) -> Result<(), StoreError> {
        let before = self.room.written.fetch_add(bytes, Ordering::Relaxed);
        let all = before.saturating_add(bytes);
        if all > limits.max_total_bytes {
            return Err(StoreError::TooMuch {
                limit: limits.max_total_bytes,
            });
        }
        let looked = self.room.looked.load(Ordering::Relaxed);
        if before == 0 || all.saturating_sub(looked) >= LOOK {
            self.room.looked.store(all, Ordering::Relaxed);
            self.expect(bytes, limits)?;
        }
        Ok(())
    }

    /// Whether so many bytes would fit now.
    pub fn expect(&self, bytes: u64, limits: &Limits) -> Result<(), StoreError> {
        if bytes > limits.max_total_bytes {
            return Err(StoreError::TooMuch {
                limit: limits.max_total_bytes,
            });
        }
        let Some((free, keep)) = self.too_little(bytes, limits)? else {
            return Ok(());
        };
        // What was removed a moment ago may be on its way.
        if self.store.await_freed() && self.too_little(bytes, limits)?.is_none() {
            return Ok(());
        }
        Err(StoreError::LittleRoom {
            path: self.store.path().to_owned(),
            free,
            keep,
        })
    }

    /// What is free, and what is to stay so, if that is too little for so many bytes.
    fn too_little(&self, bytes: u64, limits: &Limits) -> Result<Option<(u64, u64)>, StoreError> {
        let path = &self.dir;
        let stat =
            rustix::fs::statvfs(path).map_err(|e| StoreError::io("look at", path)(e.into()))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let size = stat.f_blocks.saturating_mul(stat.f_frsize);
        let keep = limits
            .keep_free
            .unwrap_or((size / PART).min(Limits::KEEP_FREE));
        // A disk that says nothing of its size (some networks') says no more of what is free.
        let short = size > 0 && keep > 0 && free < bytes.saturating_add(keep);
        Ok(short.then_some((free, keep)))
    }

    /// Bytes that were written beside the layers themselves.
    pub(super) fn wrote(&self, bytes: u64) {
        self.room.written.fetch_add(bytes, Ordering::Relaxed);
    }
}
