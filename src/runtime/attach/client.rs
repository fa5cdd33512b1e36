//! The side of who attaches.

use std::io::{self, BufReader, IsTerminal as _, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::{Winsize, tcgetwinsize};

use super::super::NotStarted;
use super::super::failure::Failure;
use super::super::standard::{RawTerminal, thread, write_all};
use super::{DetachKeys, END, ERR, HELLO, INPUT, OUT, SIZE, SOCKET, frame, read_frame};
use crate::store::containers::Container;
use crate::sys::local_socket::connect_to;
use crate::sys::proc::Process;
use crate::sys::signal::SignalFd;

/// How to attach.
#[derive(Debug, Clone)]
pub struct AttachOptions {
    /// Our standard input goes to the program, if it reads any.
    pub stdin: bool,
    /// Signals that come to us go to the program.
    pub signals: bool,
    /// What leaves it.
    pub keys: DetachKeys,
}

/// How one came away from a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// It has ended, with this exit code.
    Ended(u8),
    /// It goes on.
    Detached,
}

/// Stays with a container that runs until it ends, or until it is left by keys.
pub fn attach(container: &Container, options: &AttachOptions) -> Result<Left, NotStarted> {
    let attaching = "attaching to the container";
    let record = &container.record;
    let refused = |text: String| NotStarted::from(Failure::start(text));
    let connected = connect_to(&container.directory().join(SOCKET));
    let stream = connected.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => refused(format!(
            "container {} cannot be attached to: without -t its output goes to where it was started",
            record.name
        )),
        _ => NotStarted::because(attaching)(error),
    })?;
    let stream = UnixStream::from(stream);
    let process = container.state.status.pid().map(Process::open);
    let process = process.and_then(|process| process.ok().flatten());
    let mut reader = BufReader::new(stream.try_clone().map_err(NotStarted::because(attaching))?);
    let hello = read_frame(&mut reader).map_err(NotStarted::because(attaching))?;
    let (tty, reads) = match hello {
        Some((HELLO, said)) => (said.first() == Some(&1), said.get(1) == Some(&1)),
        _ => return Err(refused(format!("container {} has ended", record.id))),
    };
    // Not before: a supervisor that does not answer is left by any signal.
    let signals = SignalFd::block_forwarded(false).map_err(NotStarted::because(attaching))?;
    let with_input = options.stdin && reads;
    let stdin = io::stdin();
    if tty && with_input && !stdin.is_terminal() {
        return Err(NotStarted {
            code: 1,
            text: "the input device is not a TTY".to_owned(),
        });
    }
    let client = Client {
        writer: Arc::new(Mutex::new(stream)),
        tty,
    };
    let (detached, detach) = pipe_with(PipeFlags::CLOEXEC)
        .map_err(|error| NotStarted::because(attaching)(error.into()))?;
    let mut raw = None;
    let mut detach = Some(detach);
    if with_input {
        if tty {
            raw = Some(RawTerminal::enter().map_err(NotStarted::because(attaching))?);
        }
        let writer = Arc::clone(&client.writer);
        let keys = tty.then(|| options.keys.clone());
        let line = detach.take();
        // Never joined: it may wait for the caller's terminal for ever.
        thread(move || give(&writer, keys, line)).map_err(NotStarted::because(attaching))?;
    }
    client.resize(true);
    let left = client.stay(
        &mut reader,
        &signals,
        &detached,
        process.as_ref(),
        options.signals,
    );
    drop(raw);
    let left = left.map_err(NotStarted::because(attaching))?;
    match left {
        Some(left) => Ok(left),
        // Its supervisor was killed.
        None => match container.wait() {
            Ok(Some(code)) => Ok(Left::Ended(code)),
            Ok(None) => Ok(Left::Ended(137)),
            Err(error) => Err(refused(error.to_string())),
        },
    }
}

/// Sends what is typed, or what a pipe has.
fn give(writer: &Mutex<UnixStream>, mut keys: Option<DetachKeys>, line: Option<OwnedFd>) {
    let mut buffer = vec![0; 32 << 10];
    let mut stdin = io::stdin();
    loop {
        let got = match stdin.read(&mut buffer) {
            // The line stays open: nothing was left, there is only nothing more to send.
            Ok(0) => break,
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        let input = buffer.get(..got).unwrap_or_default();
        let mut pass = Vec::new();
        let leaves = match &mut keys {
            Some(keys) => keys.feed(input, &mut pass),
            None => {
                pass.extend_from_slice(input);
                false
            }
        };
        if !pass.is_empty() && writer.lock().write_all(&frame(INPUT, &pass)).is_err() {
            break;
        }
        if leaves {
            if let Some(line) = &line {
                // Whoever waits has gone, or hears it.
                let _ = rustix::io::write(line, &[0]);
            }
            break;
        }
    }
    std::mem::forget(line);
}

struct Client {
    writer: Arc<Mutex<UnixStream>>,
    tty: bool,
}

impl Client {
    /// Gives the container's terminal the size of ours; at `first` another before, so that what fills the screen paints it anew.
    fn resize(&self, first: bool) {
        let size = tcgetwinsize(io::stdin()).or_else(|_| tcgetwinsize(io::stdout()));
        let (true, Ok(size)) = (self.tty, size) else {
            return;
        };
        let send = |size: Winsize| {
            let rows = size.ws_row.to_be_bytes();
            let columns = size.ws_col.to_be_bytes();
            // It has ended: the reader sees it.
            let _ = self
                .writer
                .lock()
                .write_all(&frame(SIZE, &[rows, columns].concat()));
        };
        if first {
            send(Winsize {
                ws_row: size.ws_row.saturating_add(1),
                ..size
            });
        }
        send(size);
    }

    /// `None`: the connection ended without a word.
    fn stay(
        &self,
        reader: &mut BufReader<UnixStream>,
        signals: &SignalFd,
        detached: &OwnedFd,
        process: Option<&Process>,
        pass_signals: bool,
    ) -> io::Result<Option<Left>> {
        loop {
            if reader.buffer().is_empty() {
                let mut fds = [
                    PollFd::new(reader.get_ref(), PollFlags::IN),
                    PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
                    PollFd::new(detached, PollFlags::IN),
                ];
                match poll(&mut fds, None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
                let [output, _, left] = &fds;
                if left.revents().contains(PollFlags::IN) {
                    return Ok(Some(Left::Detached));
                }
                let quiet = output.revents().is_empty();
                while let Some(number) = signals.take_number()? {
                    match (number, process) {
                        (libc::SIGWINCH, _) => self.resize(false),
                        (number, Some(process)) if pass_signals => {
                            // It may have ended.
                            let _ = process.signal(number);
                        }
                        (libc::SIGINT | libc::SIGTERM | libc::SIGHUP | libc::SIGQUIT, _) => {
                            return Ok(Some(Left::Detached));
                        }
                        _ => {}
                    }
                }
                if quiet {
                    continue;
                }
            }
            let (stdout, stderr) = (io::stdout(), io::stderr());
            match read_frame(reader)? {
                Some((OUT, bytes)) => write_all(stdout.as_fd(), &bytes)?,
                Some((ERR, bytes)) => write_all(stderr.as_fd(), &bytes)?,
                Some((END, code)) => {
                    return Ok(Some(Left::Ended(code.first().copied().unwrap_or(0))));
                }
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }
}
