//! All tests of mica in one binary.
//!
//! Tiers by name: `fuse_` and `root_` need root, /dev/fuse and a private mount namespace (each test makes its own);
//! `net_` needs `docker-registry` and `skopeo`, and talks to this machine only, but for one that installs a package with apt.

// Helpers of tests count as tests; clippy sees only the functions with the attribute.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    unreachable_pub
)]

mod boundary;
mod boundary_process;
mod build;
mod chaos;
mod cli;
mod commit;
mod common;
mod cve;
mod engines;
mod ephemeral;
mod everyday;
mod faults;
mod freeing;
mod hold;
mod hostile;
mod import;
mod levels;
mod load;
mod mounting;
mod oracle;
mod power;
mod readme;
mod registry;
mod requests;
mod running;
mod runtimes;
mod sample;
mod save;
mod semantics;
mod session;
mod staging;
mod store;
mod surviving;
mod tiny;
mod usage;
mod volume_files;
