//! The operating system: everything that needs `unsafe` or knows about `/proc`, mounts and signals.

pub mod fork;
pub mod fusermount;
pub mod mount;
pub mod mountinfo;
pub mod proc;
pub mod signal;
