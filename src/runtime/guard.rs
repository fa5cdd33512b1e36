//! The process that kills a container whose supervisor was killed.
//!
//! The kernel would do that too (`PR_SET_PDEATHSIG`), but forgets it when the program changes its user, as many an entry point
//! does, and the program may forget it itself.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::{Errno, read};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, chdir, setsid, waitpid};

use crate::sys::container::{exit_now, signal};
use crate::sys::fork::{Fork, close_inherited, fork};

/// Ends the guard when it is dropped.
#[derive(Debug)]
pub(super) struct Guard {
    keeper: Option<Pid>,
    line: Option<OwnedFd>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.line.take());
        while let Err(Errno::INTR) = waitpid(self.keeper, WaitOptions::empty()) {}
    }
}

/// Kills `process` when the guard is dropped or its holder ends. Only while the holder has one thread.
pub(super) fn guard(process: &OwnedFd) -> io::Result<Guard> {
    let (ours, line) = pipe_with(PipeFlags::CLOEXEC)?;
    match fork()? {
        Fork::Child => {
            drop(line);
            stand(process, &ours)
        }
        Fork::Parent(pid) => Ok(Guard {
            keeper: i32::try_from(pid).ok().and_then(Pid::from_raw),
            line: Some(line),
        }),
    }
}

fn stand(process: &OwnedFd, line: &OwnedFd) -> ! {
    // What is sent to the holder's group, or typed at its terminal, is not for the guard; nor is anything that the holder has open.
    let apart = || -> io::Result<()> {
        setsid()?;
        chdir("/")?;
        close_inherited(&[process.as_fd(), line.as_fd()])?;
        let null = File::options().read(true).write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        Ok(rustix::stdio::dup2_stderr(&null)?)
    };
    if let Err(error) = apart() {
        log::warn!("the container's guard: {error}");
    }
    let mut nothing = [0];
    while let Err(Errno::INTR) = read(line, &mut nothing) {}
    // It has ended already, as a rule.
    let _ = signal(process, libc::SIGKILL);
    exit_now(0)
}
