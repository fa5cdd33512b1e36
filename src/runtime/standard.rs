//! Standard descriptors: a program's three, the caller's terminal, and how bytes are written to what may not wait.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// What the program reads from and writes to, unless it has a terminal.
#[derive(Debug)]
pub(in crate::runtime) struct Stdio(pub(in crate::runtime) [OwnedFd; 3]);

/// A thread that moves bytes.
pub(in crate::runtime) fn thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    std::thread::Builder::new()
        .name("mica-stdio".to_owned())
        .stack_size(128 * 1024)
        .spawn(work)
}

/// Writes all of it, to what may be set not to wait.
pub(in crate::runtime) fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut fds = [PollFd::from_borrowed_fd(to, PollFlags::OUT)];
                // Interrupted or not: it is tried again.
                let _ = poll(&mut fds, None);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The caller's terminal without echo, line editing and signals; as it was when dropped.
#[derive(Debug)]
pub(in crate::runtime) struct RawTerminal(Termios);

impl RawTerminal {
    pub(in crate::runtime) fn enter() -> io::Result<RawTerminal> {
        let stdin = io::stdin();
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(RawTerminal(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // Nobody is left to tell.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}
