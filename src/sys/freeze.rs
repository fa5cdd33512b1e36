//! Stopping all processes of a container for a while.
//!
//! SIGSTOP to each, found by their PID namespace and by descent, until none is found that still runs. Ordinary users have no
//! freezer of control groups. What was stopped before stays stopped afterwards. If this process is killed meanwhile, the
//! others stay stopped: `kill -CONT` wakes them.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Processes are stopped in a moment; what is in an uninterruptible wait is as good as stopped after this long.
const PATIENCE: Duration = Duration::from_secs(2);

/// Stopped processes; they go on when this is dropped.
#[derive(Debug, Default)]
pub struct Frozen {
    stopped: HashMap<u32, OwnedFd>,
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for pidfd in self.stopped.values() {
            // One that has ended meanwhile needs no waking.
            let _ = pidfd_send_signal(pidfd, Signal::CONT);
        }
    }
}

/// Stops the process `init`, all in its PID namespace and their descendants. One that has ended is no error.
pub fn freeze(init: u32) -> io::Result<Frozen> {
    let mut frozen = Frozen::default();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut running = false;
        for (pid, state) in members(init)? {
            match (state, frozen.stopped.contains_key(&pid)) {
                // Ended, or stopped by us, or by somebody else before.
                (b'Z' | b'X' | b'T' | b't', _) => {}
                (_, true) => running = true,
                (_, false) => {
                    running = true;
                    if let Some(pidfd) = stop(pid)? {
                        frozen.stopped.insert(pid, pidfd);
                    }
                }
            }
        }
        if !running || Instant::now() > deadline {
            return Ok(frozen);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn stop(pid: u32) -> io::Result<Option<OwnedFd>> {
    use rustix::io::Errno;
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let Some(raw) = raw else {
        return Ok(None);
    };
    let pidfd = match pidfd_open(raw, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(Errno::SRCH) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    match pidfd_send_signal(&pidfd, Signal::STOP) {
        Ok(()) => Ok(Some(pidfd)),
        Err(Errno::SRCH) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The processes of the container with their states.
fn members(init: u32) -> io::Result<Vec<(u32, u8)>> {
    let namespace =
        |pid: u32| -> Option<PathBuf> { fs::read_link(format!("/proc/{pid}/ns/pid")).ok() };
    let inside = namespace(init);
    // A process of the host's own namespace is no container.
    if inside.is_some() && inside == namespace(std::process::id()) {
        return Err(io::Error::other(format!(
            "process {init} has no PID namespace of its own"
        )));
    }
    let mut all: HashMap<u32, (u32, u8)> = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.parse().ok())
            && let Some(stat) = parent_and_state(pid)
        {
            all.insert(pid, stat);
        }
    }
    let belongs = |pid: &u32| {
        let mut at = *pid;
        // Parents of parents end at process 0.
        for _ in 0..all.len() {
            if at == init || (inside.is_some() && namespace(at) == inside) {
                return true;
            }
            match all.get(&at) {
                Some((parent, _)) if *parent > 1 => at = *parent,
                _ => return false,
            }
        }
        false
    };
    Ok(all
        .iter()
        .filter(|(pid, _)| belongs(pid))
        .map(|(pid, (_, state))| (*pid, *state))
        .collect())
}

fn parent_and_state(pid: u32) -> Option<(u32, u8)> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // `PID (NAME) STATE PARENT ..`, and a name may hold anything.
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let text = std::str::from_utf8(stat.get(close + 1..)?).ok()?;
    let mut fields = text.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    Some((fields.next()?.parse().ok()?, state))
}
