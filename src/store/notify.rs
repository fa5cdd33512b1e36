//! Telling live mounts that the store has changed, and waiting until they show it.
//!
//! Protocol: connect to the daemon's socket, send `sync\n`, read `ok\n`. The daemon answers when every name
//! that changed before the request is invalidated in the kernel.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::layout::Layout;
use super::lease::{LeaseId, LeaseKind, LiveLease};

/// How long a verb waits for all mounts together.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks every live mount but `except` to catch up; all at once. The answer names those that did not.
pub(super) fn notify(
    layout: &Layout,
    leases: &[LiveLease],
    except: Option<&LeaseId>,
) -> Vec<LiveLease> {
    let until = Instant::now() + PATIENCE;
    let asked: Vec<_> = leases
        .iter()
        .filter(|lease| matches!(lease.record.kind, LeaseKind::Daemon { .. }))
        .filter(|lease| Some(&lease.id) != except)
        .map(|lease| (lease, ask(layout, &lease.id, until)))
        .collect();
    let mut silent = Vec::new();
    for (lease, stream) in asked {
        if let Err(error) = stream.and_then(|stream| hear(stream, until)) {
            log::warn!("mount {} did not catch up: {error}", lease.id.as_str());
            silent.push(lease.clone());
        }
    }
    silent
}

fn ask(layout: &Layout, id: &LeaseId, until: Instant) -> io::Result<UnixStream> {
    // A socket address holds 108 bytes; the store's path may be longer.
    let dir = File::open(layout.leases())?;
    let address = SocketAddrUnix::new(format!(
        "/proc/self/fd/{}/{}.sock",
        dir.as_raw_fd(),
        id.as_str()
    ))?;
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    set_socket_timeout(&socket, Timeout::Send, Some(left(until)?))?;
    connect(&socket, &address)?;
    let mut stream = UnixStream::from(socket);
    stream.write_all(b"sync\n")?;
    Ok(stream)
}

fn hear(mut stream: UnixStream, until: Instant) -> io::Result<()> {
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
