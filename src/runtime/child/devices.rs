//! What a container's `/dev` is made of.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, mkdirat, openat};
use rustix::pty::OpenptFlags;

use super::filesystems::put;
use super::sources::clone;

/// The container's terminal.
pub(super) struct Terminal {
    pub(super) master: OwnedFd,
    pub(super) slave: OwnedFd,
}

/// A terminal of the container's own, which is its console too. Before anything of others is mounted on `/dev`.
pub(super) fn terminal(dev: &OwnedFd, pts: &OwnedFd) -> rustix::io::Result<Terminal> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = openat(pts, "ptmx", flags, Mode::empty())?;
    rustix::pty::unlockpt(&master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    let console = file_in(dev, "console", 0o600)?;
    if let Err(error) = clone(&slave, false).and_then(|mount| put(&mount, &console)) {
        log::debug!("/dev/console: {error}");
    }
    Ok(Terminal { master, slave })
}

/// A new file of the container's `/dev`, to mount on.
pub(super) fn file_in(dev: &OwnedFd, name: &str, mode: u32) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    openat(dev, name, flags, Mode::from_raw_mode(mode))?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dev, name, flags, Mode::empty())
}

/// A new directory of it.
pub(super) fn directory_in(dev: &OwnedFd, name: &str) -> rustix::io::Result<OwnedFd> {
    mkdirat(dev, name, Mode::from_raw_mode(0o755))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dev, name, flags, Mode::empty())
}
