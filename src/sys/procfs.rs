//! Files below `/proc`, by their paths. What is in them is read by others.

use std::fs;
use std::io;

/// A file about process or thread `pid` in `/proc`.
pub fn path(pid: u32, name: &str) -> String {
    format!("/proc/{pid}/{name}")
}

/// How many threads this process has.
pub fn own_threads() -> io::Result<usize> {
    Ok(fs::read_dir("/proc/self/task")?.count())
}
