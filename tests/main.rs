//! All tests of mica in one binary.
//!
//! Tiers by name: `fuse_` and `root_` need root, /dev/fuse and a private mount namespace (each test makes its own).

mod common;
mod levels;
mod oracle;
mod semantics;
