//! The process that kills a container whose supervisor was killed.
//!
//! The kernel would do that too (`PR_SET_PDEATHSIG`), but forgets it when the program changes its user, as many an entry point
//! does, and the program may forget it itself.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, chdir, setsid, waitpid};
use serde::{Deserialize, Serialize};

use super::channel::{self, Channel};
use crate::sys::container::{exit_now, signal};
use crate::sys::fork::{Fork, close_inherited, fork};

/// Ends the guard when it is dropped.
#[derive(Debug)]
pub(super) struct Guard {
    keeper: Option<Pid>,
    line: Option<Channel>,
}

/// What is said on the line.
#[derive(Debug, Serialize, Deserialize)]
enum Word {
    /// With a descriptor: the process to kill when the line ends.
    Watch,
}

impl Guard {
    /// Tells the guard whom it is there for.
    pub(super) fn watch(&self, process: &OwnedFd) -> io::Result<()> {
        let line = self.line.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        line.send(&Word::Watch, Some(process.as_fd()))
    }

    /// In a process that was forked off the holder: as if it had never had the guard.
    pub(super) fn leave(mut self) {
        drop(self.line.take());
        std::mem::forget(self);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.line.take());
        while let Err(Errno::INTR) = waitpid(self.keeper, WaitOptions::empty()) {}
    }
}

/// Puts up a guard, before there is anybody to watch: from the first moment of the container somebody is there. Only while the
/// holder has one thread.
pub(super) fn guard() -> io::Result<Guard> {
    let (ours, theirs) = channel::pair()?;
    match fork()? {
        Fork::Child => {
            drop(ours);
            stand(&theirs)
        }
        Fork::Parent(pid) => Ok(Guard {
            keeper: i32::try_from(pid).ok().and_then(Pid::from_raw),
            line: Some(ours),
        }),
    }
}

fn stand(line: &Channel) -> ! {
    // What is sent to the holder's group, or typed at its terminal, is not for the guard; nor is anything that the holder has open.
    let apart = || -> io::Result<()> {
        setsid()?;
        chdir("/")?;
        close_inherited(&[line.as_fd()])?;
        let null = File::options().read(true).write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        Ok(rustix::stdio::dup2_stderr(&null)?)
    };
    if let Err(error) = apart() {
        log::warn!("the container's guard: {error}");
    }
    let mut watched = None;
    // The end of the line is that of its holder.
    while let Ok(Some((Word::Watch, process))) = line.receive::<Word>() {
        watched = process;
    }
    if let Some(process) = watched {
        // It has ended already, as a rule.
        let _ = signal(process, libc::SIGKILL);
    }
    exit_now(0)
}
