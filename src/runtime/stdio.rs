//! What goes in and out of a container: its caller's descriptors, pipes, a terminal, or a log.
//!
//! Of the caller's own only pipes and sockets are handed on, and the null device. A terminal is not: what is typed into it would
//! be the caller's typing. Nor is a file: by its descriptor it can be opened again in any way, truncated, and given another mode.
//! The bytes of both are moved.

mod relay;

use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fstat, openat};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::{tcgetwinsize, tcsetwinsize};

use self::relay::{FileInput, Running, Watch};
use super::attach::{DetachKeys, Hub};
use super::standard::{RawTerminal, Stdio, thread, write_all};
use crate::ops::container::run::logs::{LogWriter, Stream};
use crate::sys::container::read_only_clone;
use crate::sys::fd;

/// Where a container's output goes.
#[derive(Debug, Clone)]
pub(super) enum Output {
    /// To the caller's.
    Caller,
    /// To a log.
    Log(Arc<Mutex<LogWriter>>),
}

/// The supervisor's ends of what the child reads and writes.
#[derive(Debug, Default)]
pub(super) struct RelayEnds {
    input: Option<Input>,
    outputs: Vec<(File, Stream)>,
}

/// Standard input that is not handed on.
#[derive(Debug)]
enum Input {
    /// A regular file, and where its bytes go.
    File(FileInput, OwnedFd),
    /// Anything else.
    Other(File),
}

/// Makes the child's standard descriptors, and what has to be moved to and from them.
pub(super) fn prepare(open_stdin: bool, output: &Output) -> io::Result<(Stdio, RelayEnds)> {
    let mut ends = RelayEnds::default();
    let detached = matches!(output, Output::Log(_));
    let stdin = io::stdin();
    let given = match (open_stdin, detached) {
        (false, _) => Some(null()?),
        (true, false) => passed(stdin.as_fd())?,
        (true, true) => None,
    };
    let input = match given {
        Some(given) => given,
        None => {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            let is_file = !detached && kind_of(stdin.as_fd()) == Some(FileType::RegularFile);
            ends.input = Some(match is_file {
                true => {
                    let file = stdin.as_fd().try_clone_to_owned()?;
                    Input::File(FileInput::new(file, read.try_clone()?)?, write)
                }
                false => Input::Other(File::from(write)),
            });
            read
        }
    };
    let (stdout, stderr) = (io::stdout(), io::stderr());
    let mut out = |ours: BorrowedFd<'_>, stream| -> io::Result<(OwnedFd, bool)> {
        if !detached && let Some(passed) = passed(ours)? {
            return Ok((passed, false));
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        ends.outputs.push((File::from(read), stream));
        Ok((write, true))
    };
    let (output, moved) = out(stdout.as_fd(), Stream::Stdout)?;
    // One way for both keeps what is written to them in its order.
    let together = moved && !detached && is_same(stdout.as_fd(), stderr.as_fd());
    let errors = match together {
        true => output.try_clone()?,
        false => out(stderr.as_fd(), Stream::Stderr)?.0,
    };
    Ok((Stdio([input, output, errors]), ends))
}

/// The null device for all three.
pub(super) fn nothing() -> io::Result<Stdio> {
    Ok(Stdio([null()?, null()?, null()?]))
}

/// The null device, not to be changed: to root, also of a container, it is a file like any other.
fn null() -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let null = openat(CWD, "/dev/null", flags, Mode::empty())?;
    if !rustix::process::geteuid().is_root() {
        // Of another owner than any in the container.
        return Ok(null);
    }
    let view = read_only_clone(null.as_fd())?;
    Ok(openat(CWD, fd::path(&view), flags, Mode::empty())?)
}

/// What stands for a descriptor of the caller's in the container, if that gives nothing away but itself.
fn passed(fd: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    // One opened with O_PATH leads to the file whatever its mode.
    let path = rustix::fs::fcntl_getfl(fd).is_ok_and(|flags| flags.contains(OFlags::PATH));
    let Ok(stat) = fstat(fd) else { return Ok(None) };
    if path {
        return Ok(None);
    }
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Socket => Ok(Some(fd.try_clone_to_owned()?)),
        FileType::Fifo if is_unnamed(fd) => Ok(Some(fd.try_clone_to_owned()?)),
        FileType::CharacterDevice if is_null(&stat) => null().map(Some),
        _ => Ok(None),
    }
}

/// A pipe, not a FIFO of some file system, whose mode and owner could be changed through it.
fn is_unnamed(fd: BorrowedFd<'_>) -> bool {
    // statfs(2)
    const PIPEFS_MAGIC: i64 = 0x5049_5045;
    rustix::fs::fstatfs(fd).is_ok_and(|fs| fs.f_type == PIPEFS_MAGIC)
}

fn is_null(stat: &Stat) -> bool {
    let null = rustix::fs::stat("/dev/null");
    null.is_ok_and(|null| null.st_rdev == stat.st_rdev)
}

fn kind_of(fd: BorrowedFd<'_>) -> Option<FileType> {
    let stat = fstat(fd).ok()?;
    Some(FileType::from_raw_mode(stat.st_mode))
}

/// Whether two descriptors are of one file.
fn is_same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    match (fstat(one), fstat(other)) {
        (Ok(one), Ok(other)) => (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino),
        _ => false,
    }
}

/// The threads that move bytes.
#[derive(Debug, Default)]
pub(super) struct StdioRelay {
    threads: Vec<JoinHandle<io::Result<()>>>,
    running: Option<Running>,
    /// Keeps the input of a detached container open.
    _input: Option<Input>,
    raw: Option<RawTerminal>,
    master: Option<Arc<File>>,
    /// Can be read when the caller has typed what detaches.
    left: Option<OwnedFd>,
    /// The caller has left.
    alone: Arc<AtomicBool>,
}

impl StdioRelay {
    /// Starts moving; whoever attaches to `hub` has a part in it.
    pub(super) fn start(
        ends: RelayEnds,
        output: &Output,
        hub: Option<&Arc<Hub>>,
    ) -> io::Result<StdioRelay> {
        let (running, watch) = relay::line()?;
        let mut moving = StdioRelay {
            running: Some(running),
            ..StdioRelay::default()
        };
        match (ends.input, output) {
            (None, _) => {}
            (Some(input), Output::Log(_)) => {
                if let (Some(hub), Input::Other(to)) = (hub, &input) {
                    hub.take_input(Arc::new(to.try_clone()?));
                }
                moving._input = Some(input);
            }
            (Some(Input::File(input, to)), Output::Caller) => {
                let watch = Arc::clone(&watch);
                moving.threads.push(thread(move || input.run(to, &watch))?);
            }
            (Some(Input::Other(to)), Output::Caller) => {
                // Never joined: it may wait for the caller's terminal for ever.
                thread(move || copy(&mut io::stdin(), &mut { to }))?;
            }
        }
        for (from, stream) in ends.outputs {
            moving.drain(from, stream, output, &watch, false, hub)?;
        }
        Ok(moving)
    }

    /// Starts moving between a container's terminal and the caller's, or a log.
    pub(super) fn start_terminal(
        master: OwnedFd,
        open_stdin: bool,
        output: &Output,
        hub: Option<&Arc<Hub>>,
        keys: Option<&DetachKeys>,
    ) -> io::Result<StdioRelay> {
        let (running, watch) = relay::line()?;
        let master = Arc::new(File::from(master));
        let mut moving = StdioRelay {
            master: Some(Arc::clone(&master)),
            running: Some(running),
            ..StdioRelay::default()
        };
        moving.resize();
        if let Some(hub) = hub {
            hub.take_terminal(Arc::clone(&master));
            if open_stdin {
                hub.take_input(Arc::clone(&master));
            }
        }
        if matches!(output, Output::Caller) {
            let stdin = io::stdin();
            if open_stdin {
                if stdin.is_terminal() {
                    moving.raw = Some(RawTerminal::enter()?);
                }
                let to = Arc::clone(&master);
                if let Some(keys) = keys.filter(|_| stdin.is_terminal()) {
                    let (left, line) = pipe_with(PipeFlags::CLOEXEC)?;
                    moving.left = Some(left);
                    let keys = keys.clone();
                    thread(move || typed(keys, &to, line))?;
                } else {
                    thread(move || {
                        copy(&mut io::stdin(), &mut &*to);
                        // The end of a file is what a terminal's user types as ^D.
                        let _ = (&*to).write_all(&[4]);
                    })?;
                }
            }
        }
        let from = master.try_clone()?;
        moving.drain(from, Stream::Stdout, output, &watch, true, hub)?;
        Ok(moving)
    }

    fn drain(
        &mut self,
        from: File,
        stream: Stream,
        output: &Output,
        watch: &Watch,
        terminal: bool,
        hub: Option<&Arc<Hub>>,
    ) -> io::Result<()> {
        let (output, watch) = (output.clone(), Arc::clone(watch));
        let (hub, alone) = (hub.cloned(), Arc::clone(&self.alone));
        let handle = thread(move || {
            let hub = hub.as_deref();
            drain(from, stream, &output, &watch, terminal, hub, &alone)
        })?;
        self.threads.push(handle);
        Ok(())
    }

    /// Gives the container's terminal the size of the caller's.
    pub(super) fn resize(&self) {
        let Some(master) = &self.master else { return };
        let stdin = io::stdin();
        let size = tcgetwinsize(&stdin).or_else(|_| tcgetwinsize(io::stdout()));
        if let Ok(size) = size {
            // It may be gone already.
            let _ = tcsetwinsize(&**master, size);
        }
    }

    /// Can be read when the caller has typed what detaches.
    pub(super) fn left(&self) -> Option<&OwnedFd> {
        self.left.as_ref()
    }

    /// The caller leaves: the terminal is as it was, and no concern of ours any more.
    pub(super) fn leave(&mut self) {
        self.alone.store(true, Ordering::SeqCst);
        drop(self.left.take());
        drop(self.raw.take());
        // The size is that of whoever attaches.
        self.master = None;
    }

    /// The program has ended: waits until everything it has written has arrived, and gives the caller the terminal back. The
    /// error is that something has not arrived.
    pub(super) fn finish(mut self) -> io::Result<()> {
        drop(self.running.take());
        let mut result = Ok(());
        for thread in self.threads.drain(..) {
            // One that panicked has said so.
            if let Ok(done) = thread.join() {
                result = result.and(done);
            }
        }
        drop(self.raw.take());
        result
    }
}

/// Copies until the end, or until either side fails: a reader that has gone away, a terminal hung up.
fn copy(from: &mut impl Read, to: &mut impl Write) {
    let mut buffer = vec![0u8; 32 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(n) => {
                if to.write_all(buffer.get(..n).unwrap_or_default()).is_err() || to.flush().is_err()
                {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// Passes on what is typed, until it is what detaches: `line` is told then.
fn typed(mut keys: DetachKeys, to: &File, line: OwnedFd) {
    let mut buffer = vec![0u8; 32 << 10];
    loop {
        let got = match io::stdin().read(&mut buffer) {
            Ok(0) => {
                // The end of a file is what a terminal's user types as ^D.
                let _ = (&*to).write_all(&[4]);
                break;
            }
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        let mut pass = Vec::new();
        let leaves = keys.feed(buffer.get(..got).unwrap_or_default(), &mut pass);
        if (&*to).write_all(&pass).is_err() {
            break;
        }
        if leaves {
            // Whoever waits hears it, or has gone.
            let _ = rustix::io::write(&line, &[0]);
            break;
        }
    }
    // Its end would be a word, too.
    std::mem::forget(line);
}

fn drain(
    from: File,
    stream: Stream,
    output: &Output,
    watch: &Watch,
    terminal: bool,
    hub: Option<&Hub>,
    alone: &AtomicBool,
) -> io::Result<()> {
    let tell = |bytes: &[u8]| {
        if let Some(hub) = hub {
            hub.tell(stream, bytes, watch);
        }
    };
    let Output::Log(log) = output else {
        let (stdout, stderr) = (io::stdout(), io::stderr());
        let to = match stream {
            Stream::Stdout => stdout.as_fd(),
            Stream::Stderr => stderr.as_fd(),
        };
        let sink = |bytes: &[u8]| {
            let written = match hub.is_some_and(|hub| hub.logged(stream, bytes)) {
                true => Ok(()),
                false => write_all(to, bytes),
            };
            tell(bytes);
            match written {
                // It was on its way to a terminal that has been hung up since it was left.
                Err(_) if alone.load(Ordering::SeqCst) => Ok(()),
                other => other,
            }
        };
        return match relay::output(from, watch, terminal, sink) {
            // Nobody reads it any more, which is the reader's decision.
            Err(error) if error.raw_os_error() == Some(Errno::PIPE.raw_os_error()) => Ok(()),
            other => other,
        };
    };
    let moved = relay::output(from, watch, terminal, |bytes| {
        if let Err(error) = log.lock().write(stream, bytes) {
            // The container goes on: a full disk is no reason to stop it.
            log::warn!("writing the log: {error}");
        }
        tell(bytes);
        Ok(())
    });
    if let Err(error) = moved.and_then(|()| log.lock().finish(stream)) {
        log::warn!("writing the log: {error}");
    }
    Ok(())
}
