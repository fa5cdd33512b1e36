//! Telling live mounts that the store has changed, and waiting until they show it.
//!
//! Protocol: connect to the daemon's socket, send `sync\n`, read `ok\n`. The daemon answers when every name
//! that changed before the request is invalidated in the kernel. `hold` and `freed` are those of [`super::freeing`].

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::VolumeId;
use super::ids::LeaseId;
use super::lease::LiveLease;
use crate::oci::Digest;
use crate::sys::fd;

/// How long a verb waits for all mounts together.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a daemon may take to try another program.
const REPLACE_PATIENCE: Duration = Duration::from_secs(15);

/// How long one daemon may look for users, and how much it may say of them.
const USERS_PATIENCE: Duration = Duration::from_secs(2);
const MAX_ANSWER: u64 = 16 << 20;

/// Asks every live mount but `except` to catch up; all at once. The answer names those that did not.
pub(super) fn notify(leases: &[LiveLease], except: Option<&LeaseId>) -> Vec<LiveLease> {
    let until = Instant::now() + PATIENCE;
    let asked: Vec<_> = leases
        .iter()
        .filter(|lease| lease.is_daemon())
        .filter(|lease| Some(&lease.id) != except)
        .map(|lease| (lease, ask(&lease.socket, b"sync\n", until)))
        .collect();
    let mut silent = Vec::new();
    for (lease, stream) in asked {
        if let Err(error) = stream.and_then(|stream| hear(&stream, until)) {
            if let Some(mountpoint) = lease.mountpoint() {
                let mountpoint = mountpoint.display();
                let error = match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                        "its daemon does not answer".to_owned()
                    }
                    _ => error.to_string(),
                };
                log::warn!("{mountpoint} does not show it yet: {error}; it will by itself");
            }
            silent.push(lease.clone());
        }
    }
    silent
}

/// Asks a daemon to let others at the data of a volume; returns when its kernel has forgotten what it kept of it.
pub(super) fn share(lease: &LiveLease, volume: &VolumeId, until: Instant) -> io::Result<()> {
    let request = format!("share {}\n", volume.as_str());
    hear(&ask(&lease.socket, request.as_bytes(), until)?, until)
}

/// Has a daemon hold the files of blobs and layers until the connection ends; then it frees them, if they have been unlinked.
pub(super) fn hold(lease: &LiveLease, blobs: &[Digest], until: Instant) -> io::Result<UnixStream> {
    let lines: String = blobs
        .iter()
        .map(|blob| format!("{}\n", blob.hex()))
        .collect();
    let stream = ask(&lease.socket, format!("hold\n{lines}\n").as_bytes(), until)?;
    hear(&stream, until)?;
    Ok(stream)
}

/// Waits until a daemon has freed all that it was asked to hold.
pub(super) fn freed(lease: &LiveLease, until: Instant) -> io::Result<()> {
    hear(&ask(&lease.socket, b"freed\n", until)?, until)
}

/// What a daemon says of who uses its mount: the answer to `users\n`, whose form is not ours. It sees what its own namespaces show.
pub fn users(lease: &LiveLease) -> io::Result<String> {
    let until = Instant::now() + USERS_PATIENCE;
    let stream = ask(&lease.socket, b"users\n", until)?;
    stream.set_read_timeout(Some(left(until)?))?;
    let mut text = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut text)?;
    Ok(text)
}

/// Asks a daemon to be followed by one that runs `program`.
pub fn replace(lease: &LiveLease, program: &Path) -> io::Result<()> {
    let until = Instant::now() + REPLACE_PATIENCE;
    let request = [b"replace ", program.as_os_str().as_bytes(), b"\n"].concat();
    let stream = ask(&lease.socket, &request, until)?;
    stream.set_read_timeout(Some(left(until)?))?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer)?;
    match answer.trim_end() {
        "ok" => Ok(()),
        answer => Err(io::Error::other(
            answer.strip_prefix("error: ").unwrap_or(answer).to_owned(),
        )),
    }
}

/// Whether a daemon answers.
pub fn serves(lease: &LiveLease) -> bool {
    let until = Instant::now() + PATIENCE;
    let asked = ask(&lease.socket, b"sync\n", until);
    asked.and_then(|stream| hear(&stream, until)).is_ok()
}

fn ask(socket: &Path, request: &[u8], until: Instant) -> io::Result<UnixStream> {
    // A socket address holds 108 bytes; the store's path may be longer.
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let dir = File::open(socket.parent().ok_or_else(invalid)?)?;
    let name = socket.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(invalid)?;
    let address = SocketAddrUnix::new(format!("{}/{name}", fd::path(&dir)))?;
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    set_socket_timeout(&socket, Timeout::Send, Some(left(until)?))?;
    connect(&socket, &address)?;
    let mut stream = UnixStream::from(socket);
    stream.write_all(request)?;
    Ok(stream)
}

fn hear(mut stream: &UnixStream, until: Instant) -> io::Result<()> {
    let mut answer = [0u8; 3];
    let mut got = 0;
    while let Some(rest) = answer.get_mut(got..).filter(|rest| !rest.is_empty()) {
        stream.set_read_timeout(Some(left(until)?))?;
        match stream.read(rest)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => got += n,
        }
    }
    if answer == *b"ok\n" {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "unknown answer"))
    }
}

fn left(until: Instant) -> io::Result<Duration> {
    match until.checked_duration_since(Instant::now()) {
        Some(left) if !left.is_zero() => Ok(left),
        _ => Err(io::ErrorKind::TimedOut.into()),
    }
}
