//! `exec`: one more process in a container that runs.

use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, set_parent_process_death_signal, setsid,
    waitpid,
};

use super::attach::{DetachKeys, Left};
use super::channel::{self, Channel, FromChild};
use super::child::{self, Program};
use super::failure::Failure;
use super::namespaces::Entrance;
use super::standard::Stdio;
use super::stdio::{self, Output, RelayEnds, StdioRelay};
use super::supervisor::{
    LEFT, Watched, detach, tell, wait_for_supervisor, watch_process, with_output,
};
use super::{NotStarted, OutOfReach, code_of};
use crate::ops::container::run::{env, security};
use crate::store::containers::{Container, Status};
use crate::sys::container::{exit_now, reset_signals};
use crate::sys::fork::{Fork, fork};
use crate::sys::signal::SignalFd;

/// What to run, and how.
#[derive(Debug, Clone, Default)]
pub struct ExecOptions {
    /// The command.
    pub args: Vec<String>,
    /// Variables on top of the container's.
    pub env: Vec<String>,
    /// User, if not the container's.
    pub user: Option<String>,
    /// Working directory, if not the container's.
    pub working_dir: Option<String>,
    /// With a terminal.
    pub tty: bool,
    /// With our standard input.
    pub open_stdin: bool,
    /// Do not wait for its end, show nothing of it.
    pub detached: bool,
}

/// Runs a command in a container; its exit code.
pub fn exec(container: &Container, options: &ExecOptions, _: OutOfReach) -> Result<u8, NotStarted> {
    stay(container, options, None)
}

/// Runs a command at the caller's terminal, who can leave it by typing `keys`. It runs on then; a process that stays with it reads
/// its terminal, and what it prints is nobody's.
pub fn exec_attached(
    container: &Container,
    options: &ExecOptions,
    keys: &DetachKeys,
    _: OutOfReach,
) -> Result<Left, NotStarted> {
    let preparing = "preparing the command";
    let pipe = pipe_with(PipeFlags::CLOEXEC);
    let (read, write) = pipe.map_err(|error| NotStarted::because(preparing)(error.into()))?;
    match fork().map_err(NotStarted::because(preparing))? {
        Fork::Parent(child) => {
            drop(write);
            wait_for_supervisor(child, read)
        }
        Fork::Child => {
            drop(read);
            // Until it is left it ends with who started it, and the command with its terminal.
            if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
                log::debug!("tying the command to its starter: {error}");
            }
            let to = File::from(write);
            let code = match stay(container, options, Some((keys, &to))) {
                Ok(code) => code,
                Err(error) => {
                    tell(&to, &format!("{} {}", error.code, error.text));
                    error.code
                }
            };
            exit_now(code.into())
        }
    }
}

/// Starts the command and stays with it. With `leaving`, the keys that leave it and who is to be told.
fn stay(
    container: &Container,
    options: &ExecOptions,
    leaving: Option<(&DetachKeys, &File)>,
) -> Result<u8, NotStarted> {
    let preparing = "preparing the command";
    let record = &container.record;
    let userns = record.ids.is_some();
    let target = entrance(container)?;
    let program = program(container, options)?;
    let single_id = record.ids.as_ref().is_some_and(|ids| ids.is_single());
    let output = Output::Caller;
    let (stdio, ends) = match (options.tty, options.detached) {
        (true, _) => (None, RelayEnds::default()),
        (false, true) => (
            Some(stdio::nothing().map_err(NotStarted::because(preparing))?),
            RelayEnds::default(),
        ),
        (false, false) => {
            let (stdio, ends) = stdio::prepare(options.open_stdin, &output)
                .map_err(NotStarted::because(preparing))?;
            (Some(stdio), ends)
        }
    };
    let (ours, theirs) = channel::pair().map_err(NotStarted::because(preparing))?;
    let signals = SignalFd::block_forwarded(false).map_err(NotStarted::because(preparing))?;
    let joiner = match fork().map_err(NotStarted::because(preparing))? {
        Fork::Child => {
            drop(ours);
            if options.detached {
                detach();
            }
            let Err(failure) = join(target, userns, &program, &theirs, stdio, single_id);
            let (code, text) = (failure.code, failure.text);
            // Without a caller there is nobody to tell.
            let _ = theirs.send(&FromChild::Failed { code, text }, None);
            exit_now(i32::from(code))
        }
        Fork::Parent(child) => i32::try_from(child).ok().and_then(Pid::from_raw),
    };
    drop((theirs, stdio));
    let keys = leaving.map(|(keys, _)| keys);
    let (process, mut moving) = until_started(&ours, options, &output, keys)?;
    if options.detached {
        return Ok(0);
    }
    if moving.is_none() {
        let started = StdioRelay::start(ends, &output, None);
        moving = Some(started.map_err(NotStarted::because("moving its output"))?);
    }
    if let Some(process) = &process {
        let waiting = || NotStarted::because("waiting for the command");
        let watched = watch_process(process, &signals, None, moving.as_ref(), drop);
        let left = watched.map_err(waiting())? == Watched::Left;
        if let (true, Some(moving), Some((_, to))) = (left, &mut moving, leaving) {
            leave(moving, to).map_err(waiting())?;
            watch_process(process, &signals, None, None, drop).map_err(waiting())?;
        }
    }
    let code = loop {
        match waitpid(joiner, WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(Some((_, status))) => break code_of(status),
            Ok(None) | Err(_) => break 125,
        }
    };
    Ok(with_output(code, moving))
}

/// The namespaces of a container that runs.
fn entrance(container: &Container) -> Result<Entrance, NotStarted> {
    let record = &container.record;
    let not_running = || Failure::start(format!("container {} is not running", record.id));
    let Status::Running { pid, .. } = container.state.status else {
        return Err(not_running().into());
    };
    if container.is_paused() {
        let name = &record.name;
        let text = format!("Container {name} is paused, unpause the container before exec");
        return Err(Failure::start(text).into());
    }
    let target = match Entrance::open(pid, record.ids.is_some(), &container.state.namespaces) {
        Ok(Some(target)) => target,
        // Either it is another process's number by now, or the process has left what was made for it.
        Ok(None) if !container.is_gone().unwrap_or(true) => {
            let text = format!(
                "process 1 of container {} has left its namespaces: exec cannot follow",
                record.id
            );
            return Err(Failure::start(text).into());
        }
        Err(error) if !is_end(&error) => {
            return Err(NotStarted::because("looking for the container")(error));
        }
        Ok(None) | Err(_) => return Err(not_running().into()),
    };
    // The process id may have become another's between the look and the opening.
    match container.is_gone().unwrap_or(true) {
        true => Err(not_running().into()),
        false => Ok(target),
    }
}

/// The command, with what the container's own process would have got.
fn program(container: &Container, options: &ExecOptions) -> Result<Program, NotStarted> {
    let record = &container.record;
    let mut env = env::of_process(record);
    if options.tty && !env.iter().any(|variable| variable.starts_with("TERM=")) {
        env.push("TERM=xterm".to_owned());
    }
    for variable in &options.env {
        env::set(&mut env, variable);
    }
    env.retain(|variable| variable.contains('='));
    let user = options.user.clone();
    let cwd = options.working_dir.clone();
    Ok(Program {
        args: options.args.clone(),
        env,
        cwd: cwd.unwrap_or_else(|| record.config.working_dir.clone()),
        make_cwd: false,
        user: user.unwrap_or_else(|| record.config.user.clone()),
        tty: options.tty,
        init: false,
        tied: false,
        capabilities: record.capabilities.clone(),
        filter: security::program(record).map_err(Failure::start)?,
        new_privileges: record.security.new_privileges,
        ulimits: record.ulimits.clone(),
    })
}

/// Reads what the command's own process says until it runs: which that is, and what relays its terminal if it has one.
fn until_started(
    ours: &Channel,
    options: &ExecOptions,
    output: &Output,
    keys: Option<&DetachKeys>,
) -> Result<(Option<OwnedFd>, Option<StdioRelay>), NotStarted> {
    let mut process = None;
    let mut moving = None;
    loop {
        let message = ours
            .receive::<FromChild>()
            .map_err(NotStarted::because("talking to the command"))?;
        match message {
            Some((FromChild::Process { pid }, _)) => {
                let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
                process = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
            }
            Some((FromChild::Terminal, Some(master))) => {
                let terminal =
                    StdioRelay::start_terminal(master, options.open_stdin, output, None, keys);
                moving = Some(terminal.map_err(NotStarted::because("opening the terminal"))?);
            }
            Some((FromChild::Failed { code, text }, _)) => {
                return Err(Failure { code, text }.into());
            }
            Some(_) => return Err(Failure::start("an unexpected message".to_owned()).into()),
            None => return Ok((process, moving)),
        }
    }
}

/// Leaves everything of the caller's behind, and lets it go.
fn leave(moving: &mut StdioRelay, to: &File) -> std::io::Result<()> {
    moving.leave();
    set_parent_process_death_signal(None)?;
    detach();
    tell(to, LEFT);
    Ok(())
}

/// Whether an error of looking at a process says that it has ended.
fn is_end(error: &std::io::Error) -> bool {
    matches!(
        rustix::io::Errno::from_io_error(error),
        Some(rustix::io::Errno::SRCH | rustix::io::Errno::NOENT)
    )
}

/// Enters the container's namespaces and starts the program there. Comes back only with a failure.
fn join(
    target: Entrance,
    userns: bool,
    program: &Program,
    channel: &Channel,
    stdio: Option<Stdio>,
    single_id: bool,
) -> Result<std::convert::Infallible, Failure> {
    let entering = |error| Failure::start(format!("entering the container: {error}"));
    let keep: Vec<BorrowedFd<'_>> = target.descriptors().collect();
    // What the caller's terminal says to the programs in front of it is not for the one between: it would end before the command.
    let _ = setsid();
    reset_signals();
    child::leave_behind(channel, stdio.as_ref(), &keep)?;
    target.enter().map_err(entering)?;

    if userns {
        crate::sys::userns::become_root()
            .map_err(|error| Failure::start(format!("entering the container: {error}")))?;
    }
    child::come_with_little(program)?;
    let forked =
        fork_inside().map_err(|error| Failure::start(format!("starting the command: {error}")))?;
    match forked {
        Fork::Child => child::run_program(program, channel, stdio, None, None, single_id),
        Fork::Parent(pid) => {
            // From here on only the child speaks.
            let told = channel.send(&FromChild::Process { pid }, None);
            drop(stdio);
            if told.is_err()
                || crate::sys::fork::close_inherited(&[rustix::stdio::stderr()]).is_err()
            {
                exit_now(125)
            }
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            loop {
                match waitpid(pid, WaitOptions::empty()) {
                    Err(rustix::io::Errno::INTR) => {}
                    Ok(Some((_, status))) => exit_now(i32::from(code_of(status))),
                    Ok(None) | Err(_) => exit_now(125),
                }
            }
        }
    }
}

/// [`fork`] for a process whose `/proc` is that of another process id namespace already; it is a fresh fork itself, so it has
/// one thread.
fn fork_inside() -> std::io::Result<Fork> {
    crate::sys::fork::fork_single()
}
