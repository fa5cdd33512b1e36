//! The supervisor's side: whoever is attached gets the output and may give input.

use std::fs::File;
use std::io::{self, BufReader};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;
use rustix::net::SocketFlags;
use rustix::termios::{Winsize, tcsetwinsize};

use super::{END, ERR, HELLO, INPUT, OUT, SIZE, SOCKET, frame, read_frame};
use crate::ops::container::run::logs::{LogWriter, Stream};
use crate::sys::fd;
use crate::sys::local_socket::{is_ours, listen_at};

/// So many are attached at a time at most: each costs a thread and two descriptors of the supervisor.
const MAX_CLIENTS: usize = 64;

/// Who is attached, and where their input goes.
#[derive(Debug)]
pub(in crate::runtime) struct Hub {
    clients: Mutex<Vec<UnixStream>>,
    /// The program's input: a terminal's master side, or a pipe.
    input: Mutex<Option<Arc<File>>>,
    /// The master side, if there is a terminal.
    terminal: Mutex<Option<Arc<File>>>,
    has_terminal: bool,
    /// Where the output goes once the one who started the container has left it.
    log: Mutex<Option<LogWriter>>,
    directory: PathBuf,
    /// The directory, once the socket is in it.
    listening: Mutex<Option<File>>,
}

impl Hub {
    /// For the container of this directory. Nobody can attach yet.
    pub(in crate::runtime) fn new(directory: &Path, has_terminal: bool) -> Arc<Hub> {
        Arc::new(Hub {
            clients: Mutex::default(),
            input: Mutex::default(),
            terminal: Mutex::default(),
            has_terminal,
            log: Mutex::default(),
            directory: directory.to_owned(),
            listening: Mutex::default(),
        })
    }

    /// Input that is given goes here.
    pub(in crate::runtime) fn take_input(&self, input: Arc<File>) {
        *self.input.lock() = Some(input);
    }

    /// The terminal that gets the size of whoever is attached.
    pub(in crate::runtime) fn take_terminal(&self, master: Arc<File>) {
        *self.terminal.lock() = Some(master);
    }

    /// From now on one may attach.
    pub(in crate::runtime) fn listen(self: &Arc<Hub>) -> io::Result<()> {
        // Of a supervisor that was killed; this one holds the container's lock.
        let directory = File::open(&self.directory)?;
        match unlinkat(&directory, SOCKET, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let path = Path::new(&fd::path(&directory)).join(SOCKET);
        let listener = UnixListener::from(listen_at(&path, SocketFlags::empty())?);
        *self.listening.lock() = Some(directory);
        let hub = Arc::clone(self);
        let thread = thread::Builder::new()
            .name("mica-attach".to_owned())
            .stack_size(128 * 1024);
        thread.spawn(move || {
            loop {
                let stream = match listener.accept() {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        // For want of descriptors or memory: of others, and not for ever.
                        log::debug!("attaching: {error}");
                        thread::sleep(Duration::from_millis(100));
                        continue;
                    }
                };
                if !is_ours(&stream) || hub.is_full() {
                    continue;
                }
                if let Err(error) = hub.welcome(stream) {
                    log::debug!("attaching: {error}");
                }
            }
        })?;
        Ok(())
    }

    /// Whether nobody else can attach. Who has gone, and was not heard of since, does not count.
    fn is_full(&self) -> bool {
        let mut clients = self.clients.lock();
        if clients.len() >= MAX_CLIENTS {
            clients.retain(|client| !is_over(client));
        }
        clients.len() >= MAX_CLIENTS
    }

    fn welcome(self: &Arc<Hub>, stream: UnixStream) -> io::Result<()> {
        let open_stdin = self.input.lock().is_some();
        let hello = [u8::from(self.has_terminal), u8::from(open_stdin)];
        let reading = stream.try_clone()?;
        {
            // Nothing comes before it.
            let mut clients = self.clients.lock();
            crate::runtime::standard::write_all(stream.as_fd(), &frame(HELLO, &hello))?;
            stream.set_nonblocking(true)?;
            clients.push(stream);
        }
        let hub = Arc::clone(self);
        let thread = thread::Builder::new()
            .name("mica-attached".to_owned())
            .stack_size(128 * 1024);
        thread.spawn(move || {
            hub.listen_to(&reading);
            // Its other half is found gone at the next output.
            let _ = reading.shutdown(std::net::Shutdown::Both);
        })?;
        Ok(())
    }

    /// Takes what a client sends, until it is gone or talks nonsense.
    fn listen_to(&self, stream: &UnixStream) {
        let mut reader = BufReader::new(Waiting(stream));
        while let Ok(Some((kind, data))) = read_frame(&mut reader) {
            match (kind, data.as_slice()) {
                (INPUT, data) => {
                    let input = self.input.lock().clone();
                    if let Some(input) = input
                        && crate::runtime::standard::write_all(input.as_fd(), data).is_err()
                    {
                        return;
                    }
                }
                (SIZE, [a, b, c, d]) => {
                    let size = Winsize {
                        ws_row: u16::from_be_bytes([*a, *b]),
                        ws_col: u16::from_be_bytes([*c, *d]),
                        ws_xpixel: 0,
                        ws_ypixel: 0,
                    };
                    if let Some(master) = self.terminal.lock().as_ref() {
                        // It may be gone already.
                        let _ = tcsetwinsize(&**master, size);
                    }
                }
                _ => return,
            }
        }
    }

    /// Gives output to who is attached. `program`: a line that is closed when the program has ended; then nobody is waited for long.
    pub(in crate::runtime) fn tell(&self, stream: Stream, bytes: &[u8], program: &OwnedFd) {
        let kind = match stream {
            Stream::Stdout => OUT,
            Stream::Stderr => ERR,
        };
        let mut clients = self.clients.lock();
        if !clients.is_empty() {
            let bytes = frame(kind, bytes);
            clients.retain(|client| send(client, &bytes, Some(program)).is_ok());
        }
    }

    /// Output for the log of one that was left; false: it has not been left.
    pub(in crate::runtime) fn logged(&self, stream: Stream, bytes: &[u8]) -> bool {
        let mut log = self.log.lock();
        let Some(log) = log.as_mut() else {
            return false;
        };
        if let Err(error) = log.write(stream, bytes) {
            // The container goes on: a full disk is no reason to stop it.
            log::warn!("writing the log: {error}");
        }
        true
    }

    /// Whoever has started the container leaves it.
    pub(in crate::runtime) fn log_to(&self, log: LogWriter) {
        *self.log.lock() = Some(log);
    }

    /// The program has ended, all its output has been told.
    pub(in crate::runtime) fn end(&self, code: u8) {
        if let Some(log) = self.log.lock().as_mut()
            && let Err(error) = log.finish(Stream::Stdout)
        {
            log::warn!("writing the log: {error}");
        }
        for client in self.clients.lock().drain(..) {
            // One that is gone needs no word.
            let _ = send(&client, &frame(END, &[code]), None);
            let _ = client.shutdown(std::net::Shutdown::Both);
        }
        if let Some(directory) = self.listening.lock().take() {
            // It goes with the directory at the latest.
            let _ = unlinkat(&directory, SOCKET, AtFlags::empty());
        }
    }
}

/// Whether the other side has hung up.
fn is_over(client: &UnixStream) -> bool {
    let mut fds = [PollFd::new(client, PollFlags::empty())];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
}

/// Reads from a socket that is set not to wait.
struct Waiting<'a>(&'a UnixStream);

impl io::Read for Waiting<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match (&mut &*self.0).read(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut fds = [PollFd::new(self.0, PollFlags::IN)];
                    // Interrupted or not: it is tried again.
                    let _ = poll(&mut fds, None);
                }
                read => return read,
            }
        }
    }
}

/// Writes all of it to a socket that is set not to wait, as long as it takes; when the program has ended, or without one, a second at
/// most.
fn send(client: &UnixStream, mut bytes: &[u8], program: Option<&OwnedFd>) -> io::Result<()> {
    const SECOND: Timespec = Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    };
    let mut program = program;
    while !bytes.is_empty() {
        match rustix::net::send(client, bytes, rustix::net::SendFlags::NOSIGNAL) {
            Ok(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let ready = match program {
                    Some(line) => {
                        let mut fds = [
                            PollFd::new(client, PollFlags::OUT),
                            PollFd::new(line, PollFlags::IN),
                        ];
                        let ready = poll(&mut fds, None);
                        let [_, line] = &fds;
                        if !line.revents().is_empty() {
                            program = None;
                        }
                        ready
                    }
                    None => {
                        let mut fds = [PollFd::new(client, PollFlags::OUT)];
                        poll(&mut fds, Some(&SECOND))
                    }
                };
                match ready {
                    Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
