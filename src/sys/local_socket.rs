//! Sockets by the name of a file, however long its path is, for this user and root alone.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

use crate::sys::fd;

/// An address that goes through a descriptor of the directory, which must stay open until it has been used.
fn address(path: &Path) -> io::Result<(File, String, SocketAddrUnix)> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let directory = File::open(path.parent().ok_or_else(invalid)?)?;
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(invalid)?.to_owned();
    let address = SocketAddrUnix::new(format!("{}/{name}", fd::path(&directory)))?;
    Ok((directory, name, address))
}

/// A stream socket that listens at `path`, mode 0600, with these flags and close-on-exec.
pub fn listen_at(path: &Path, flags: SocketFlags) -> io::Result<OwnedFd> {
    let (directory, name, address) = address(path)?;
    let flags = flags | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    bind(&socket, &address)?;
    // Whatever our umask is; the directory lets nobody else in meanwhile.
    let own = Mode::from_raw_mode(0o600);
    rustix::fs::chmodat(&directory, &name, own, AtFlags::empty())?;
    listen(&socket, 64)?;
    Ok(socket)
}

/// A connection to who listens at `path`.
pub fn connect_to(path: &Path) -> io::Result<OwnedFd> {
    let (_directory, _, address) = address(path)?;
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &address)?;
    Ok(socket)
}

/// Whether the other side of a connection is our own user or root.
pub fn is_ours(stream: impl AsFd) -> bool {
    let own = rustix::process::geteuid();
    rustix::net::sockopt::socket_peercred(stream)
        .is_ok_and(|peer| peer.uid == own || peer.uid.is_root())
}
