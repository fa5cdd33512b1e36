//! Checksums of blocks as they stream by.

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// The block being summed.
#[derive(Default)]
pub(super) struct BlockSums<const BLOCK: usize> {
    hash: Xxh3,
    /// Bytes of the current block in `hash`.
    filled: usize,
}

impl<const BLOCK: usize> std::fmt::Debug for BlockSums<BLOCK> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockSums")
            .field("filled", &self.filled)
            .finish_non_exhaustive()
    }
}

impl<const BLOCK: usize> BlockSums<BLOCK> {
    /// The next bytes; complete blocks go to `out`.
    pub(super) fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<u64>) {
        if self.filled > 0 {
            let (now, later) = bytes.split_at((BLOCK - self.filled).min(bytes.len()));
            self.add(now);
            bytes = later;
            if self.filled == BLOCK {
                self.end(out);
            }
        }
        while let Some((block, rest)) = bytes.split_at_checked(BLOCK) {
            out.push(xxh3_64(block));
            bytes = rest;
        }
        self.add(bytes);
    }

    /// The end of what is summed.
    pub(super) fn end(&mut self, out: &mut Vec<u64>) {
        if self.filled > 0 {
            out.push(self.hash.digest());
            self.hash.reset();
            self.filled = 0;
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.hash.update(bytes);
            self.filled += bytes.len();
        }
    }
}
