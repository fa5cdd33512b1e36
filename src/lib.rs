//! mica: container images and volumes as a directory tree.
//!
//! Modules form levels; a module imports strictly lower levels only (see `doc/ARCHITECTURE.md`).
//!
//! | level | modules |
//! |---|---|
//! | L0 | [`oci`], [`sys`] |
//! | L1 | [`tree`] |
//! | L2 | [`layer`] |
//! | L3 | [`store`], [`registry`] |
//! | L4 | [`ops`] |
//! | L5 | [`fs`] |
//! | L6 | [`fuse`] |
//! | L7 | [`daemon`], [`runtime`] |
//! | L8 | [`cli`] |

#![cfg_attr(
    test,
    allow(
        clippy::cast_possible_truncation,
        clippy::indexing_slicing,
        clippy::expect_used,
        clippy::panic,
        unreachable_pub
    )
)]

// What the tests inside share with those outside calls the library by its name.
#[cfg(test)]
extern crate self as mica;

pub mod archive;
pub mod cli;
pub mod daemon;
pub mod fs;
pub mod fuse;
pub mod layer;
pub mod mount_paths;
pub mod oci;
pub mod ops;
pub mod registry;
pub mod runtime;
pub mod store;
pub mod sys;
pub mod text;
pub mod tree;
