//! The operating system: everything that needs `unsafe` or knows about `/proc`, mounts, locks and signals.

pub mod atomic;
pub mod beneath;
pub mod block_copy;
pub mod container;
pub mod deep;
pub mod fork;
pub mod freeze;
pub mod fusermount;
pub mod holders;
pub mod idmap;
pub mod inherited;
pub mod inotify;
pub mod io;
pub mod lock;
pub mod memory;
pub mod mount;
pub mod mountinfo;
pub mod new_file;
pub mod overlays;
pub mod own_binary;
pub mod passed;
pub mod pause;
pub mod proc;
pub mod signal;
pub mod source;
pub mod userns;
