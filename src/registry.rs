//! Images as they arrive from outside: archives and layout directories.
//!
//! Everything read here is hostile. This module says which images an input holds and where their bytes are; it neither
//! knows the store nor writes anything.

pub mod archive;
