//! A container at the caller's terminal, which the caller can leave: two processes, of which the one that is waited for goes as well.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, chdir, pidfd_open, set_parent_process_death_signal,
    setsid, waitpid,
};

use super::{Job, record_failure, supervise};
use crate::ops::container::run::logs::LogWriter;
use crate::runtime::attach::{DetachKeys, Hub, Left};
use crate::runtime::stdio::{Output, StdioRelay};
use crate::runtime::{NotStarted, OutOfReach, code_of};
use crate::sys::container::{close_handed_down, exit_now, signal};
use crate::sys::fork::{Fork, fork};
use crate::sys::signal::SignalFd;

/// Runs a container at the caller's terminal, who can leave it by typing `keys`. It runs on then, with the process that was left with
/// it, which gives the job to `finish` in the end.
pub fn run_attached(
    mut job: Job,
    keys: &DetachKeys,
    _: OutOfReach,
    finish: impl FnOnce(Job),
) -> Result<Left, NotStarted> {
    let preparing = "preparing the supervisor";
    let pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
    let (read, write) = pipe.map_err(|e| NotStarted::because(preparing)(e.into()))?;
    match fork().map_err(NotStarted::because(preparing))? {
        Fork::Parent(child) => {
            drop((write, job));
            wait_for_supervisor(child, read)
        }
        Fork::Child => {
            drop(read);
            // Until it is left it ends with who started it, and the container with it.
            if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
                log::debug!("tying the supervisor to its starter: {error}");
            }
            let to = File::from(write);
            let leaving = Leaving { keys, to: &to };
            let result = supervise(&mut job, &Output::Caller, Some(&leaving), || {});
            let result = record_failure(&mut job, result);
            finish(job);
            let code = match &result {
                Ok(code) => *code,
                Err(error) => {
                    tell(&to, &format!("{} {}", error.code, error.text));
                    error.code
                }
            };
            exit_now(code.into())
        }
    }
}

/// How the caller leaves.
pub(super) struct Leaving<'a> {
    pub(super) keys: &'a DetachKeys,
    /// To the process that the caller waits for.
    to: &'a File,
}

impl Leaving<'_> {
    /// Leaves everything of the caller's behind, and lets it go.
    pub(super) fn leave(
        &self,
        job: &Job,
        hub: &Hub,
        moving: &mut StdioRelay,
    ) -> std::io::Result<()> {
        hub.log_to(LogWriter::open(&job.container.log())?);
        moving.leave();
        set_parent_process_death_signal(None)?;
        detach();
        tell(self.to, LEFT);
        Ok(())
    }
}

/// The word for a caller who has left.
pub(in crate::runtime) const LEFT: &str = "left";

/// Says a line to the process that the caller waits for, at once: it may end when it has heard a part. It may have ended: then there is
/// nobody to tell.
pub(in crate::runtime) fn tell(mut to: &File, text: &str) {
    let _ = to.write_all(format!("{text}\n").as_bytes());
}

/// All that [`tell`] says before the other side is closed, or that the caller has left.
fn hear(mut line: &File) -> String {
    let mut said = Vec::new();
    let mut piece = vec![0; 64 << 10];
    while said.strip_suffix(b"\n") != Some(LEFT.as_bytes()) {
        match line.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => said.extend_from_slice(piece.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&said).into_owned()
}

/// In the process that the caller waits for: passes signals on until the supervisor has ended, or was left.
pub(in crate::runtime) fn wait_for_supervisor(
    child: u32,
    line: OwnedFd,
) -> Result<Left, NotStarted> {
    let waiting = "waiting for the supervisor";
    let pid = i32::try_from(child).ok().and_then(Pid::from_raw);
    let process = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty()));
    let Some(Ok(process)) = process else {
        return Err(NotStarted::because(waiting)(
            std::io::ErrorKind::Other.into(),
        ));
    };
    let line = File::from(line);
    let signals = SignalFd::block_forwarded(false).map_err(NotStarted::because(waiting))?;
    loop {
        let mut fds = [
            PollFd::new(&line, PollFlags::IN),
            PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(NotStarted::because(waiting)(error.into())),
        }
        let spoken = fds.first().is_some_and(|fd| !fd.revents().is_empty());
        while let Some(number) = signals
            .take_number()
            .map_err(NotStarted::because(waiting))?
        {
            // A terminal tells the whole group of its size itself.
            if !matches!(number, libc::SIGWINCH | libc::SIGCONT) {
                // It may have ended.
                let _ = signal(&process, number);
            }
        }
        if !spoken {
            continue;
        }
        let said = hear(&line);
        if said.trim_end() == LEFT {
            return Ok(Left::Detached);
        }
        let status = loop {
            match waitpid(pid, WaitOptions::empty()) {
                Ok(Some((_, status))) => break status,
                Ok(None) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(NotStarted::because(waiting)(error.into())),
            }
        };
        return match said.trim_end().split_once(' ') {
            Some((code, text)) => Err(NotStarted {
                code: code.parse().unwrap_or(125),
                text: text.to_owned(),
            }),
            None => Ok(Left::Ended(code_of(status))),
        };
    }
}

/// Leaves everything of the caller's behind.
pub(in crate::runtime) fn detach() {
    if let Err(error) = close_handed_down() {
        log::debug!("closing inherited descriptors: {error}");
    }
    // Fails only for who leads a session already.
    let _ = setsid();
    // Nor is his directory kept busy: all paths from here on are absolute.
    if let Err(error) = chdir("/") {
        log::debug!("leaving the directory: {error}");
    }
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        let done = rustix::stdio::dup2_stdin(&null)
            .and_then(|()| rustix::stdio::dup2_stdout(&null))
            .and_then(|()| rustix::stdio::dup2_stderr(&null));
        if let Err(error) = done {
            log::debug!("leaving the standard descriptors: {error}");
        }
    }
}
