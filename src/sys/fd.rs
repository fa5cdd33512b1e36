//! Descriptors as paths, for calls that take nothing else.

use std::os::fd::{AsFd, AsRawFd as _};

/// A path that leads to what is open, whatever its name is by now; for as long as it is open, so it is lent and not given.
pub fn path(descriptor: &impl AsFd) -> String {
    format!("/proc/self/fd/{}", descriptor.as_fd().as_raw_fd())
}
