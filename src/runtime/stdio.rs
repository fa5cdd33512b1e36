//! What goes in and out of a container: its caller's descriptors, pipes, a terminal, or a log.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use rustix::fs::{FileType, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

use super::child::Stdio;
use crate::ops::run::logs::{LogWriter, Stream};

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
pub(super) struct Pumps {
    /// From our standard input.
    input: Option<File>,
    outputs: Vec<(File, Stream)>,
}

/// Makes the child's standard descriptors, and what has to be moved to and from them. The caller's own are handed on where
/// that is exact and safe; a terminal is not: without `-t` a program must not find one.
pub(super) fn prepare(open_stdin: bool, output: &Output) -> io::Result<(Stdio, Pumps)> {
    let mut pumps = Pumps::default();
    let detached = matches!(output, Output::Log(_));
    let stdin = io::stdin();
    let input = match (open_stdin, detached) {
        (false, _) => OwnedFd::from(File::open("/dev/null")?),
        (true, false) if may_pass(stdin.as_fd()) => stdin.as_fd().try_clone_to_owned()?,
        (true, _) => {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            pumps.input = Some(File::from(write));
            read
        }
    };
    let mut out = |ours: BorrowedFd<'_>, stream| -> io::Result<OwnedFd> {
        if !detached && may_pass(ours) {
            return ours.try_clone_to_owned();
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        pumps.outputs.push((File::from(read), stream));
        Ok(write)
    };
    let output = out(io::stdout().as_fd(), Stream::Stdout)?;
    let errors = out(io::stderr().as_fd(), Stream::Stderr)?;
    Ok((Stdio([input, output, errors]), pumps))
}

/// Whether a descriptor gives nothing away but itself: no terminal, no directory.
fn may_pass(fd: BorrowedFd<'_>) -> bool {
    let Ok(stat) = rustix::fs::fstat(fd) else {
        return false;
    };
    // One opened with O_PATH leads to the file whatever its mode.
    let path = rustix::fs::fcntl_getfl(fd).is_ok_and(|flags| flags.contains(OFlags::PATH));
    let kind = FileType::from_raw_mode(stat.st_mode);
    let null = || {
        let null = rustix::fs::stat("/dev/null");
        null.is_ok_and(|null| null.st_rdev == stat.st_rdev)
    };
    !path
        && match kind {
            FileType::RegularFile | FileType::Fifo | FileType::Socket => true,
            FileType::CharacterDevice => null(),
            _ => false,
        }
}

/// The threads that move bytes.
#[derive(Debug, Default)]
pub(super) struct Moving {
    outputs: Vec<JoinHandle<()>>,
    /// Keeps the input of a detached container open.
    _input: Option<File>,
    raw: Option<RawTerminal>,
    master: Option<Arc<File>>,
}

impl Moving {
    /// Starts moving.
    pub(super) fn start(pumps: Pumps, output: &Output) -> io::Result<Moving> {
        let mut moving = Moving::default();
        if let Some(input) = pumps.input {
            match output {
                Output::Caller => {
                    // Never joined: it may wait for the caller's terminal for ever.
                    thread(move || copy(&mut io::stdin(), &mut { input }))?;
                }
                Output::Log(_) => moving._input = Some(input),
            }
        }
        for (from, stream) in pumps.outputs {
            let output = output.clone();
            let handle = thread(move || drain(from, stream, &output))?;
            moving.outputs.push(handle);
        }
        Ok(moving)
    }

    /// Starts moving between a container's terminal and the caller's, or a log.
    pub(super) fn start_terminal(
        master: OwnedFd,
        open_stdin: bool,
        output: &Output,
    ) -> io::Result<Moving> {
        let master = Arc::new(File::from(master));
        let mut moving = Moving {
            master: Some(Arc::clone(&master)),
            ..Moving::default()
        };
        moving.resize();
        if matches!(output, Output::Caller) {
            let stdin = io::stdin();
            if open_stdin {
                if stdin.is_terminal() {
                    moving.raw = Some(RawTerminal::enter()?);
                }
                let to = Arc::clone(&master);
                thread(move || {
                    copy(&mut io::stdin(), &mut &*to);
                    // The end of a file is what a terminal's user types as ^D.
                    let _ = (&*to).write_all(&[4]);
                })?;
            }
        }
        let output = output.clone();
        let from = master.try_clone()?;
        let handle = thread(move || drain(from, Stream::Stdout, &output))?;
        moving.outputs.push(handle);
        Ok(moving)
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

    /// Waits until everything the container has written has arrived, and gives the caller his terminal back.
    pub(super) fn finish(mut self) {
        for output in self.outputs.drain(..) {
            // A thread that panicked has said so.
            let _ = output.join();
        }
        drop(self.raw.take());
    }
}

fn thread(work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name("mica-stdio".to_owned())
        .stack_size(128 * 1024)
        .spawn(work)
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

fn drain(mut from: File, stream: Stream, output: &Output) {
    match (output, stream) {
        (Output::Caller, Stream::Stdout) => copy(&mut from, &mut io::stdout()),
        (Output::Caller, Stream::Stderr) => copy(&mut from, &mut io::stderr()),
        (Output::Log(log), _) => {
            let to = |bytes: &[u8]| log.lock().write(stream, bytes);
            let mut buffer = vec![0u8; 16 << 10];
            loop {
                match from.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(n) => {
                        if let Err(error) = to(buffer.get(..n).unwrap_or_default()) {
                            // The container goes on: a full disk is no reason to stop it.
                            log::warn!("writing the log: {error}");
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => break,
                }
            }
            if let Err(error) = log.lock().finish(stream) {
                log::warn!("writing the log: {error}");
            }
        }
    }
}

/// The caller's terminal without echo, line editing and signals; as it was when dropped.
#[derive(Debug)]
struct RawTerminal(Termios);

impl RawTerminal {
    fn enter() -> io::Result<RawTerminal> {
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
