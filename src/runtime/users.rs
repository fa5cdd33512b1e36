//! The lists of users and groups of a container.

use std::fs::File;
use std::io::{self, Read as _};

use rustix::fs::{CWD, Mode, OFlags, openat};

/// More of a list of users or groups is not read.
const MAX_LIST: u64 = 16 << 20;

/// A file of the container's, which can be anything: a pipe that nobody writes to, or a link to a device that never ends.
pub(in crate::runtime) fn read_list(path: &str) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(openat(CWD, path, flags, Mode::empty())?);
    let mut bytes = Vec::new();
    if file.metadata()?.is_file() {
        file.take(MAX_LIST).read_to_end(&mut bytes)?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
