//! Memory that the allocator keeps though nobody uses it.

/// Gives free memory back to the system. Walks the whole heap, which takes milliseconds: after large work, never in a request.
#[allow(unsafe_code)]
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim may be called at any time, by any thread; it takes the allocator's own locks and moves nothing that
    // is in use. 0: keep nothing at the top of the heap.
    unsafe {
        libc::malloc_trim(0);
    }
}
