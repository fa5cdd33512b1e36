//! Stopping all processes of a container for a while.
//!
//! SIGSTOP to each, found by their PID namespace and by descent, until none is found that still runs. Ordinary users have no
//! freezer of control groups. What was stopped before stays stopped afterwards. A child of this process stops and wakes them:
//! it sees the end of a socket when this process ends, killed or not, and then they go on.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::{Errno, read, write};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, socketpair};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, setsid, waitpid,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::container::exit_now;
use super::fork::{Fork, close_inherited, fork};
use super::proc::{self, start_time};
use super::procfs;

/// Processes are stopped in a moment; what is in an uninterruptible wait is as good as stopped after this long.
const PATIENCE: Duration = Duration::from_secs(2);

/// Stopped processes; they go on when this is dropped, and when this process and those that it has forked meanwhile have ended.
#[derive(Debug)]
pub struct Frozen {
    keeper: Pid,
    socket: OwnedFd,
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Err(error) = rustix::net::shutdown(&self.socket, Shutdown::Both) {
            log::warn!("waking the container: {error}");
        }
        while let Err(Errno::INTR) = waitpid(Some(self.keeper), WaitOptions::empty()) {}
    }
}

/// Stops the process `init`, all in its PID namespace and their descendants. One that has ended is no error. Only while this
/// process has one thread.
pub fn freeze(init: u32) -> io::Result<Frozen> {
    let (flags, stream) = (SocketFlags::CLOEXEC, SocketType::STREAM);
    let (ours, theirs) = socketpair(AddressFamily::UNIX, stream, flags, None)?;
    let keeper = match fork()? {
        Fork::Child => keep(init, &theirs),
        Fork::Parent(pid) => proc::pid(pid),
    };
    drop(theirs);
    let frozen = Frozen {
        keeper: keeper.ok_or_else(|| io::Error::other("a child without a number"))?,
        socket: ours,
    };
    // A byte when all stand still, or the reason why not.
    let mut said = vec![0; 1024];
    match read(&frozen.socket, &mut said)? {
        0 => Err(io::Error::other("the process that stops it was killed")),
        length => match said.get(..length).unwrap_or_default() {
            [STANDS_STILL] => Ok(frozen),
            reason => Err(io::Error::other(
                String::from_utf8_lossy(reason).into_owned(),
            )),
        },
    }
}

/// All processes of the container stand still.
const STANDS_STILL: u8 = 0;

/// In a child: stops the processes, and wakes them at the end of the parent's side.
fn keep(init: u32, socket: &OwnedFd) -> ! {
    // What is sent to the group of the parent, by a terminal or by hand, does not keep it from waking them.
    if let Err(error) = setsid() {
        log::debug!("leaving the session: {error}");
    }
    if let Err(error) = close_inherited(&[socket.as_fd()]) {
        log::debug!("closing inherited descriptors: {error}");
    }
    let (stopped, said) = match stop_all(init) {
        Ok(stopped) => (Some(stopped), vec![STANDS_STILL]),
        Err(error) => (None, error.to_string().into_bytes()),
    };
    // If nobody is there any more, the next read says so too.
    if write(socket, &said).is_ok() {
        let mut none = [0];
        while let Err(Errno::INTR) = read(socket, &mut none) {}
    }
    drop(stopped);
    exit_now(0)
}

/// Stops the process `init`, all in its PID namespace and their descendants, and leaves them so; which they are, by number and start
/// time. With `userns` as root of its user namespace: some may be of other ids than the caller. Only while this process has one
/// thread.
pub fn hold(init: u32, userns: bool) -> io::Result<Vec<(u32, u64)>> {
    as_its_root(init, userns, || {
        let mut stopped = stop_all(init)?;
        let pids: Vec<u32> = stopped.processes.keys().copied().collect();
        // They stay as they are.
        stopped.processes.clear();
        Ok(pids
            .into_iter()
            .filter_map(|pid| Some((pid, start_time(pid)?)))
            .collect())
    })
}

/// Lets them go on: those given, or all that stand still.
pub fn release(init: u32, userns: bool, held: Option<&[(u32, u64)]>) -> io::Result<()> {
    as_its_root(init, userns, || {
        let mut stopped = Stopped::default();
        for (pid, state) in members(init)? {
            let was_held = |held: &[(u32, u64)]| {
                let start = start_time(pid);
                held.iter()
                    .any(|(number, time)| *number == pid && Some(*time) == start)
            };
            if !matches!(state, b'T' | b't') || !held.is_none_or(was_held) {
                continue;
            }
            let raw = proc::pid(pid);
            let pidfd = raw.map(|raw| pidfd_open(raw, PidfdFlags::empty()));
            if let Some(Ok(pidfd)) = pidfd {
                stopped.processes.insert(pid, pidfd);
            }
        }
        Ok(Vec::new())
    })?;
    Ok(())
}

/// Does something as root of the user namespace of a process, in a child, or here if there is none.
fn as_its_root(
    init: u32,
    userns: bool,
    work: impl FnOnce() -> io::Result<Vec<(u32, u64)>>,
) -> io::Result<Vec<(u32, u64)>> {
    if !userns {
        return work();
    }
    let (user, _) = super::proc::namespace(init, "user")?;
    let (flags, stream) = (SocketFlags::CLOEXEC, SocketType::STREAM);
    let (ours, theirs) = socketpair(AddressFamily::UNIX, stream, flags, None)?;
    match fork()? {
        Fork::Child => {
            let entered = move_into_link_name_space(user.as_fd(), Some(LinkNameSpaceType::User));
            let done = entered.map_err(io::Error::from).and_then(|()| work());
            let said = done.map_err(|error| error.to_string());
            let said = serde_json::to_vec(&said).unwrap_or_default();
            let sent = std::fs::File::from(theirs);
            exit_now(i32::from((&sent).write_all(&said).is_err()))
        }
        Fork::Parent(pid) => {
            drop(theirs);
            let mut said = Vec::new();
            std::fs::File::from(ours).read_to_end(&mut said)?;
            let pid = proc::pid(pid);
            while let Err(Errno::INTR) = waitpid(pid, WaitOptions::empty()) {}
            let said: Result<Vec<(u32, u64)>, String> = serde_json::from_slice(&said)?;
            said.map_err(io::Error::other)
        }
    }
}

/// Stopped processes; they go on when this is dropped.
#[derive(Debug, Default)]
struct Stopped {
    processes: HashMap<u32, OwnedFd>,
}

impl Drop for Stopped {
    fn drop(&mut self) {
        for (pid, pidfd) in &self.processes {
            match pidfd_send_signal(pidfd, Signal::CONT) {
                // One that has ended meanwhile needs no waking.
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => log::error!("process {pid} stands still: {error}"),
            }
        }
    }
}

fn stop_all(init: u32) -> io::Result<Stopped> {
    let mut stopped = Stopped::default();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut running = false;
        for (pid, state) in members(init)? {
            match (state, stopped.processes.contains_key(&pid)) {
                // Ended, or stopped by us, or by somebody else before.
                (b'Z' | b'X' | b'T' | b't', _) => {}
                (_, true) => running = true,
                (_, false) => {
                    running = true;
                    if let Some(pidfd) = stop(pid)? {
                        stopped.processes.insert(pid, pidfd);
                    }
                }
            }
        }
        if !running || Instant::now() > deadline {
            return Ok(stopped);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn stop(pid: u32) -> io::Result<Option<OwnedFd>> {
    let raw = proc::pid(pid);
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
    let namespace = |pid: u32| proc::namespace_name(pid, "pid");
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
    let stat = fs::read(procfs::path(pid, "stat")).ok()?;
    // `PID (NAME) STATE PARENT ..`, and a name may hold anything.
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let text = std::str::from_utf8(stat.get(close + 1..)?).ok()?;
    let mut fields = text.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    Some((fields.next()?.parse().ok()?, state))
}
