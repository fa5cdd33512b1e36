//! While the program runs: signals are passed on, and its end is waited for.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Pid;

use super::Job;
use crate::fuse::session::{Session, State};
use crate::runtime::stdio::StdioRelay;
use crate::sys::container::signal;
use crate::sys::proc::catches;
use crate::sys::signal::SignalFd;

/// What there is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::runtime) enum Watched {
    /// The program has ended.
    Ended,
    /// The caller has typed what detaches.
    Left,
}

/// Passes signals on until the container has ended, or is left.
pub(in crate::runtime) fn watch_process(
    process: &OwnedFd,
    signals: &SignalFd,
    session: Option<&Session>,
    moving: Option<&StdioRelay>,
    mut sent: impl FnMut(i32),
) -> std::io::Result<Watched> {
    loop {
        let mut fds = vec![
            PollFd::new(process, PollFlags::IN),
            PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
        ];
        let left = moving.and_then(StdioRelay::left);
        fds.extend(left.map(|left| PollFd::new(left, PollFlags::IN)));
        fds.extend(session.map(|s| PollFd::from_borrowed_fd(s.event_fd(), PollFlags::IN)));
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ended = fds.first().is_some_and(|fd| !fd.revents().is_empty());
        let is_left = left.is_some() && fds.get(2).is_some_and(|fd| !fd.revents().is_empty());
        while let Some(number) = signals.take_number()? {
            match number {
                libc::SIGWINCH => {
                    if let Some(moving) = moving {
                        moving.resize();
                    }
                }
                number => {
                    // It may have ended.
                    let _ = signal(process, number);
                    sent(number);
                }
            }
        }
        if ended {
            return Ok(Watched::Ended);
        }
        if is_left {
            return Ok(Watched::Left);
        }
        if let Some(session) = session
            && let State::Broken(reason) = session.state()
        {
            log::error!("{reason}; the container is killed");
            signal(process, libc::SIGKILL)?;
        }
    }
}

/// What to say to somebody who presses Ctrl-C in vain.
pub(super) struct Hint {
    pid: u32,
    name: String,
    /// Whether the program itself is process 1, to which the kernel does not give a signal that it has no handler for.
    applies: bool,
    pressed: u32,
}

impl Hint {
    pub(super) fn new(job: &Job, pid: Pid) -> Hint {
        let record = &job.container.record;
        Hint {
            pid: pid.as_raw_nonzero().get().unsigned_abs(),
            name: record.name.clone(),
            applies: !record.init,
            pressed: 0,
        }
    }

    pub(super) fn sent(&mut self, number: i32) {
        if number != libc::SIGINT || !self.applies {
            return;
        }
        self.pressed += 1;
        if self.pressed == 2 && !catches(self.pid, number) {
            log::warn!(
                "the command is process 1 of its container and ignores Ctrl-C: `mica kill {}` ends it; started with --init, Ctrl-C will",
                self.name
            );
        }
    }
}
