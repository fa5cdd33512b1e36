//! The threads that move bytes between a container and what its caller has.
//!
//! Each watches a line beside its own two ends: when that is closed the program has ended, and what is there by then is all that
//! there will be. Something that the program has left behind may hold the other end open for as long as it likes.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, SeekFrom, fcntl_getfl, fcntl_setfl, seek};
use rustix::io::{Errno, ioctl_fionread};
use rustix::pipe::{PipeFlags, pipe_with};

/// What is moved at once.
const PIECE: usize = 64 << 10;
/// How long the output of a terminal may take from the program that wrote it to us: the kernel passes it on by a thread of its own.
const TERMINAL_DELAY: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};

/// Says when the program has ended: on drop.
#[derive(Debug)]
pub(super) struct Running {
    _line: OwnedFd,
}

/// Who wants to know.
pub(super) type Watch = Arc<OwnedFd>;

/// A line between the two.
pub(super) fn line() -> io::Result<(Running, Watch)> {
    let (watch, running) = pipe_with(PipeFlags::CLOEXEC)?;
    Ok((Running { _line: running }, Arc::new(watch)))
}

/// Waits until something can be done with a descriptor. False: the program has ended, and nothing can.
fn ready(
    fd: BorrowedFd<'_>,
    events: PollFlags,
    program: &Watch,
    delay: Timespec,
) -> io::Result<bool> {
    let mut ended = false;
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(fd, events),
            PollFd::new(&**program, PollFlags::IN),
        ];
        let waiting = match ended {
            true => poll(&mut fds[..1], Some(&delay)),
            false => poll(&mut fds, None),
        };
        match waiting {
            Err(Errno::INTR) => continue,
            other => other?,
        };
        let [one, other] = &fds;
        if !one.revents().is_empty() {
            return Ok(true);
        }
        if ended {
            return Ok(false);
        }
        ended = !other.revents().is_empty();
    }
}

/// Moves what the program writes to a sink: until its end, or until the sink fails.
pub(super) fn output(
    mut from: File,
    program: &Watch,
    terminal: bool,
    mut sink: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let delay = match terminal {
        true => TERMINAL_DELAY,
        false => Timespec::default(),
    };
    let mut buffer = vec![0u8; PIECE];
    while ready(from.as_fd(), PollFlags::IN, program, delay)? {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => sink(buffer.get(..n).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A terminal that nobody has open on the other side.
            Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A file that is a program's input: read from where its description stands, which in the end stands where the program has
/// stopped reading.
#[derive(Debug)]
pub(super) struct FileInput {
    /// What is to be read.
    file: OwnedFd,
    /// Where it stood.
    start: u64,
    /// The program's end of the pipe: what is in it has not been read.
    pipe: OwnedFd,
}

impl FileInput {
    /// For a regular file, with the program's end of a pipe.
    pub(super) fn new(file: OwnedFd, pipe: OwnedFd) -> io::Result<FileInput> {
        let start = seek(&file, SeekFrom::Current(0))?;
        Ok(FileInput { file, start, pipe })
    }

    /// Moves its bytes, until the program has ended or all have gone.
    pub(super) fn run(self, to: OwnedFd, program: &Watch) -> io::Result<()> {
        fcntl_setfl(&to, fcntl_getfl(&to)? | OFlags::NONBLOCK)?;
        let mut buffer = vec![0u8; PIECE];
        let mut at = self.start;
        let moved = (|| -> io::Result<()> {
            while ready(to.as_fd(), PollFlags::OUT, program, Timespec::default())? {
                let n =
                    rustix::io::retry_on_intr(|| rustix::io::pread(&self.file, &mut *buffer, at))?;
                if n == 0 {
                    return Ok(());
                }
                match rustix::io::write(&to, buffer.get(..n).unwrap_or_default()) {
                    Ok(written) => at += u64::try_from(written).unwrap_or(0),
                    Err(Errno::INTR | Errno::AGAIN) => {}
                    Err(error) => return Err(error.into()),
                }
                if ended(program)? {
                    return Ok(());
                }
            }
            Ok(())
        })();
        // The program sees the end.
        drop(to);
        while !ended(program)? {
            let mut fds = [PollFd::new(&**program, PollFlags::IN)];
            // Interrupted or not: it is looked at again.
            let _ = poll(&mut fds, None);
        }
        let unread = ioctl_fionread(&self.pipe)?;
        seek(&self.file, SeekFrom::Start(at.saturating_sub(unread)))?;
        moved
    }
}

fn ended(program: &Watch) -> io::Result<bool> {
    let mut fds = [PollFd::new(&**program, PollFlags::IN)];
    match poll(&mut fds, Some(&Timespec::default())) {
        Err(Errno::INTR) => Ok(false),
        n => Ok(n? > 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek as _, Write as _};

    #[test]
    fn what_was_not_read_is_given_back() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[b'x'; 200_000]).unwrap();
        file.seek(std::io::SeekFrom::Start(10)).unwrap();
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let program = File::from(read.try_clone().unwrap());
        let input = FileInput::new(file.try_clone().unwrap().into(), read).unwrap();
        let (running, watch) = line().unwrap();
        let mover = std::thread::spawn(move || input.run(write, &watch));
        let mut taken = vec![0u8; 100_007];
        (&program).read_exact(&mut taken).unwrap();
        drop(running);
        mover.join().unwrap().unwrap();
        assert_eq!(file.stream_position().unwrap(), 100_017);
    }

    #[test]
    fn what_is_left_behind_does_not_hold_the_output_up() {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        rustix::io::write(&write, b"all there is").unwrap();
        let (running, watch) = line().unwrap();
        drop(running);
        let mut got = Vec::new();
        let sink = |bytes: &[u8]| {
            got.extend_from_slice(bytes);
            Ok(())
        };
        output(File::from(read), &watch, false, sink).unwrap();
        assert_eq!(got, b"all there is");
        drop(write);
    }
}
