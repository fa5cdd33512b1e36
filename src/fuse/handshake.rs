//! A connection that may be served by one process after the other.
//!
//! The kernel asks its first question (INIT) once. So what it asked and what it was answered is kept, and each later server is asked the same by
//! us, through a socket that then becomes the connection; it must answer the same, as the kernel goes on to act upon the first answer.
//!
//! What becomes of requests that a server has read and not answered when it ends:
//! - where the kernel can send them again (Linux 6.9), all servers and all their threads read from one open file, which does not end with them, and
//!   the next server asks for them;
//! - else each server reads from clones of its own, whose end ends their requests with ECONNABORTED, and the connection stands by the open
//!   file that nobody reads.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use fuser::SessionACL;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::kernel;
use crate::sys::fuse_device;

/// More than the kernel's first question and any answer.
const BUFFER: usize = 128 << 10;
/// `FUSE_NOTIFY_RESEND`.
const RESEND: i32 = 7;

/// The kernel's first question and its answer, as they went through the connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Agreement {
    /// `fuse_in_header` and `fuse_init_in`.
    pub question: Vec<u8>,
    /// `fuse_out_header` and `fuse_init_out`.
    pub answer: Vec<u8>,
}

/// How a connection comes to its server.
#[derive(Debug)]
pub enum Link {
    /// Just mounted, and to end with this server.
    Own(OwnedFd),
    /// Just mounted; others may serve it after this server.
    First(OwnedFd),
    /// Served before.
    Next(OwnedFd, Agreement),
}

/// What came of it.
pub(super) struct Linked<A: fuser::Filesystem> {
    pub(super) session: fuser::Session<A>,
    /// The open file that the connection stands by, and what was agreed; if others may serve it.
    pub(super) lasting: Option<(OwnedFd, Agreement)>,
}

/// Gives `connection` to fuser.
pub(super) fn link<A: fuser::Filesystem>(
    adapter: A,
    link: Link,
    mut config: fuser::Config,
) -> io::Result<Linked<A>> {
    // Who may come in is the kernel's business (allow_other), which is stricter and knows the whole request.
    let acl = SessionACL::All;
    let (connection, before) = match link {
        Link::Own(connection) => {
            return Ok(Linked {
                session: fuser::Session::from_fd(adapter, connection, acl, config)?,
                lasting: None,
            });
        }
        Link::First(connection) => (connection, None),
        Link::Next(connection, agreement) => (connection, Some(agreement)),
    };
    let question = match &before {
        Some(agreement) => agreement.question.clone(),
        None => read(&connection)?,
    };
    let flags = SocketFlags::CLOEXEC;
    let (inner, outer) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    rustix::io::write(&outer, &question)?;
    let number = inner.as_raw_fd();
    // The answer goes into the socket's buffer.
    let again = kernel::sends_again(&question);
    config.clone_fd &= !again;
    let session = fuser::Session::from_fd(adapter, inner, acl, config)?;
    let answer = read(&outer)?;
    let agreement = Agreement { question, answer };
    match before {
        None => {
            rustix::io::write(&connection, &agreement.answer)?;
        }
        Some(before) if before.answer != agreement.answer => {
            return Err(io::Error::other(
                "this version of mica does not agree with the kernel on what the one before did; unmount, and mount anew",
            ));
        }
        Some(_) => {}
    }
    if again {
        fuse_device::put_in_place(connection.as_fd(), number)?;
    } else {
        let clone = fuse_device::clone_connection(connection.as_fd())?;
        fuse_device::put_in_place(clone.as_fd(), number)?;
    }
    Ok(Linked {
        session,
        lasting: Some((connection, agreement)),
    })
}

/// Has the kernel send again what was read and not answered. Before anything is read.
pub(super) fn ask_again(connection: &OwnedFd, agreement: &Agreement) -> io::Result<()> {
    if !kernel::sends_again(&agreement.question) {
        return Ok(());
    }
    let mut message = Vec::with_capacity(16);
    message.extend(16u32.to_ne_bytes());
    message.extend(RESEND.to_ne_bytes());
    message.extend(0u64.to_ne_bytes());
    match rustix::io::write(connection, &message) {
        // Unmounted meanwhile: who reads is told.
        Ok(_) | Err(rustix::io::Errno::NODEV | rustix::io::Errno::NOTCONN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn read(from: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; BUFFER];
    let length = rustix::io::retry_on_intr(|| rustix::io::read(from, &mut buffer))?;
    buffer.truncate(length);
    Ok(buffer)
}
