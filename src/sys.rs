//! The operating system: everything that needs `unsafe` or knows about `/proc`, mounts, locks and signals.

#![deny(
    clippy::undocumented_unsafe_blocks,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::panic
)]
#![warn(missing_docs, unreachable_pub)]
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

pub mod atomic;
pub mod beneath;
pub mod block_copy;
pub mod container;
pub mod counters;
pub mod deep;
pub mod fd;
pub mod fork;
pub mod freeze;
pub mod fuse_device;
pub mod fusermount;
pub mod holders;
pub mod idmap;
pub mod idmapped;
pub mod inherited;
pub mod inotify;
pub mod io;
pub mod local_socket;
pub mod lock;
pub mod memory;
pub mod message;
pub mod mount;
pub mod mountinfo;
pub mod new_file;
pub mod overlays;
pub mod own_binary;
pub mod own_files;
pub mod passed;
pub mod pause;
pub mod proc;
pub mod procfs;
pub mod signal;
pub mod source;
pub mod threads;
pub mod userns;
