//! The process that stays with a container from its start to its end.

use std::fs::File;
use std::io::{Read, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, pidfd_open, set_parent_process_death_signal,
    setsid, waitpid,
};

use super::attach::{DetachKeys, Hub, Left};
use super::channel::{self, Channel, FromChild, ToChild};
use super::child::{self, Failure, Inside, Paths, Plan, Program, Stdio};
use super::guard::{Guard, guard};
use super::stdio::{self, Moving, Output, Pumps};
use super::{NotStarted, OutOfReach, code_of, files, image, namespaces};
use crate::fuse::session::{Session, State};
use crate::ops::container::run::Ready;
use crate::ops::container::run::env;
use crate::ops::container::run::logs::LogWriter;
use crate::ops::container::run::mounts::{ReadyMount, ReadySource};
use crate::ops::container::run::security;
use crate::store::containers::{Container, ContainerLock, ContainerState, Status};
use crate::store::volumes::VolumeName;
use crate::store::{ImageRecord, Names, Store};
use crate::sys::container::{Namespaces, clone_into, close_handed_down, exit_now, signal};
use crate::sys::fork::{Fork, fork};
use crate::sys::proc::catches;
use crate::sys::signal::SignalFd;
use crate::sys::userns::write_maps;

/// A container to run.
#[derive(Debug)]
pub struct Job {
    /// Its store.
    pub store: Store,
    /// The container, which does not run.
    pub container: Container,
    /// The right to run it.
    pub lock: ContainerLock,
    /// What to mount, parents first.
    pub mounts: Vec<ReadyMount>,
    /// Volumes among that, to be held.
    pub volumes: Vec<VolumeName>,
    /// Trees that no image of the store is: what a build has made so far.
    pub images: Vec<ImageRecord>,
}

impl Job {
    /// A container of a store.
    pub fn new(store: &Store, ready: Ready) -> Job {
        Job {
            store: store.clone(),
            container: ready.container,
            lock: ready.lock,
            mounts: ready.mounts,
            volumes: ready.volumes,
            images: Vec::new(),
        }
    }
}

/// Runs a container in the foreground; its exit code. The job comes back: what happens to the container now is for the caller.
pub fn run(mut job: Job, _: OutOfReach) -> (Job, Result<u8, NotStarted>) {
    let result = supervise(&mut job, &Output::Caller, None, || {});
    let result = noted(&mut job, result);
    (job, result)
}

/// Starts a container behind the caller's back and returns when its program runs. When it ends, `finish` gets the job, in the
/// process that was left with it.
pub fn run_detached(
    mut job: Job,
    _: OutOfReach,
    finish: impl FnOnce(Job),
) -> Result<(), NotStarted> {
    let preparing = "preparing the supervisor";
    let pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
    let (read, write) = pipe.map_err(|e| NotStarted::because(preparing)(e.into()))?;
    match fork().map_err(NotStarted::because(preparing))? {
        Fork::Parent(_) => {
            drop(write);
            let mut said = String::new();
            File::from(read)
                .read_to_string(&mut said)
                .map_err(NotStarted::because("waiting for the supervisor"))?;
            let verdict = said
                .strip_suffix('\n')
                .and_then(|said| said.split_once(' '));
            match verdict {
                Some(("0", _)) => Ok(()),
                Some((code, text)) => Err(NotStarted {
                    code: code.parse().unwrap_or(125),
                    text: text.to_owned(),
                }),
                None => Err(NotStarted {
                    code: 125,
                    text: "the supervisor died while starting".to_owned(),
                }),
            }
        }
        Fork::Child => {
            drop(read);
            detach();
            let mut told = Some(File::from(write));
            let mut tell = |code: u8, text: &str| {
                if let Some(mut to) = told.take() {
                    // The starter was killed: the container runs all the same.
                    let _ = writeln!(to, "{code} {text}");
                }
            };
            let log = LogWriter::open(&job.container.log());
            let result = match log {
                Ok(log) => {
                    let output = Output::Log(Arc::new(Mutex::new(log)));
                    supervise(&mut job, &output, None, || tell(0, ""))
                }
                Err(error) => Err(NotStarted::because("opening the log")(error)),
            };
            let result = noted(&mut job, result);
            // Cleaned up before the starter hears of a failure: it finds nothing left.
            finish(job);
            if let Err(error) = &result {
                tell(error.code, &error.text);
            }
            exit_now(0)
        }
    }
}

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
            let result = noted(&mut job, result);
            finish(job);
            let code = match &result {
                Ok(code) => *code,
                Err(error) => {
                    // Without a starter there is nobody to tell.
                    let _ = writeln!(&to, "{} {}", error.code, error.text);
                    error.code
                }
            };
            exit_now(code.into())
        }
    }
}

/// How the caller leaves.
struct Leaving<'a> {
    keys: &'a DetachKeys,
    /// To the process that the caller waits for.
    to: &'a File,
}

impl Leaving<'_> {
    /// Leaves everything of the caller's behind, and lets him go.
    fn leave(&self, job: &Job, hub: &Hub, moving: &mut Moving) -> std::io::Result<()> {
        hub.log_to(LogWriter::open(&job.container.log())?);
        moving.leave();
        set_parent_process_death_signal(None)?;
        detach();
        let mut to = self.to;
        writeln!(to, "{LEFT}")
    }
}

/// The word for a caller who has left.
pub(super) const LEFT: &str = "left";

/// In the process that the caller waits for: passes signals on until the supervisor has ended, or was left.
pub(super) fn wait_for_supervisor(child: u32, line: OwnedFd) -> Result<Left, NotStarted> {
    let waiting = "waiting for the supervisor";
    let pid = i32::try_from(child).ok().and_then(Pid::from_raw);
    let process = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty()));
    let Some(Ok(process)) = process else {
        return Err(NotStarted::because(waiting)(
            std::io::ErrorKind::Other.into(),
        ));
    };
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
        let mut said = vec![0; 64 << 10];
        let length = rustix::io::retry_on_intr(|| rustix::io::read(&line, said.as_mut_slice()));
        let length = length.unwrap_or(0);
        let said = String::from_utf8_lossy(said.get(..length).unwrap_or_default()).into_owned();
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
pub(super) fn detach() {
    if let Err(error) = close_handed_down() {
        log::debug!("closing inherited descriptors: {error}");
    }
    // Fails only for who leads a session already.
    let _ = setsid();
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        let done = rustix::stdio::dup2_stdin(&null)
            .and_then(|()| rustix::stdio::dup2_stdout(&null))
            .and_then(|()| rustix::stdio::dup2_stderr(&null));
        if let Err(error) = done {
            log::debug!("leaving the standard descriptors: {error}");
        }
    }
}

/// Writes down why a container was not started.
fn noted(job: &mut Job, result: Result<u8, NotStarted>) -> Result<u8, NotStarted> {
    if let Err(error) = &result {
        let state = ContainerState {
            error: error.text.clone(),
            status: match job.container.state.status {
                Status::Running { .. } => Status::Created,
                other => other,
            },
            ..job.container.state.clone()
        };
        if let Err(error) = job.container.write_state(state, &job.lock) {
            log::warn!("{error}");
        }
    }
    result
}

/// The container while it lives.
#[derive(Debug)]
pub(super) struct Living {
    pid: Pid,
    process: OwnedFd,
    reaped: Option<WaitStatus>,
    /// Ends after the container.
    guard: Guard,
}

impl Living {
    fn kill(&self) {
        // It may have ended.
        let _ = signal(&self.process, libc::SIGKILL);
    }

    fn wait(&mut self) -> WaitStatus {
        loop {
            if let Some(status) = self.reaped {
                return status;
            }
            match waitpid(Some(self.pid), WaitOptions::empty()) {
                Ok(Some((_, status))) => self.reaped = Some(status),
                Ok(None) | Err(rustix::io::Errno::INTR) => {}
                // Nobody else waits for it.
                Err(error) => {
                    log::error!("waiting for the container: {error}");
                    exit_now(125)
                }
            }
        }
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        if self.reaped.is_none() {
            self.kill();
            self.wait();
        }
    }
}

fn supervise(
    job: &mut Job,
    output: &Output,
    leaving: Option<&Leaving<'_>>,
    started: impl FnOnce(),
) -> Result<u8, NotStarted> {
    let mut images = vec![job.container.record.image];
    images.extend(job.mounts.iter().filter_map(|mount| match &mount.source {
        ReadySource::Image { image, .. } => Some(*image),
        _ => None,
    }));
    let store_error = |error: crate::store::StoreError| NotStarted {
        code: 125,
        text: error.to_string(),
    };
    // Until the end of this function: none of them goes while the container runs.
    let _lease = match job.volumes.is_empty() {
        true => None,
        false => Some(job.store.lease_volumes(&job.volumes).map_err(store_error)?),
    };
    // It changes their data beside every mount: none keeps anything of them meanwhile.
    let _holds = (job.store.share_volumes(&job.volumes)).map_err(store_error)?;
    let names = image::names(&job.store, &images, &job.images).map_err(store_error)?;
    files::write(job.container.directory(), &job.container.record)
        .map_err(NotStarted::because("writing the files of /etc"))?;
    // Before any thread exists.
    let signals =
        SignalFd::block_forwarded(false).map_err(NotStarted::because("blocking signals"))?;
    let stdio = standard(job, output)?;
    let plan = plan(job)?;
    let (living, channel, pumps) = spawn(job, plan, stdio)?;
    // One without a terminal and a log speaks with its caller alone.
    let tty = job.container.record.config.tty;
    let hub =
        (tty || matches!(output, Output::Log(_))).then(|| Hub::new(job.container.directory(), tty));
    let mut start = Start {
        hub,
        keys: leaving.map(|leaving| leaving.keys.clone()),
        names,
        living,
        channel,
        session: None,
        moving: None,
        pumps: Some(pumps),
    };
    start.until_running(job, output)?;
    let Start {
        mut living,
        session,
        mut moving,
        hub,
        ..
    } = start;
    started();
    let mut hint = Hint::new(job, living.pid);
    let on_signal = |number| hint.sent(number);
    let mut on_signal = on_signal;
    loop {
        let event = watch_process(
            &living.process,
            &signals,
            session.as_ref(),
            moving.as_ref(),
            &mut on_signal,
        );
        match event.map_err(NotStarted::because("waiting for the container"))? {
            Watched::Ended => break,
            Watched::Left => {
                if let (Some(leaving), Some(hub), Some(moving)) = (leaving, &hub, &mut moving)
                    && let Err(error) = leaving.leave(job, hub, moving)
                {
                    log::error!("leaving the container: {error}");
                }
            }
        }
    }
    let code = code_of(living.wait());
    let shown = with_output(code, moving);
    let mut state = job.container.state.clone();
    state.namespaces.clear();
    if let Status::Running { started, .. } = state.status {
        let finished = jiff::Timestamp::now();
        state.status = Status::Exited {
            code,
            started,
            finished,
        };
    }
    if let Err(error) = job.container.write_state(state, &job.lock) {
        log::warn!("{error}");
    }
    if let Some(hub) = hub {
        hub.end(code);
    }
    Ok(shown)
}

/// The exit code of a program once its output is where it belongs: what is lost is no success.
pub(super) fn with_output(code: u8, moving: Option<Moving>) -> u8 {
    match moving.map(Moving::finish) {
        Some(Err(error)) => {
            log::error!("moving what the command reads and writes: {error}");
            code.max(1)
        }
        Some(Ok(())) | None => code,
    }
}

/// What the child reads and writes, unless it has a terminal.
fn standard(job: &Job, output: &Output) -> Result<(Option<Stdio>, Pumps), NotStarted> {
    let config = &job.container.record.config;
    if config.tty {
        return Ok((None, Pumps::default()));
    }
    let (stdio, pumps) = stdio::prepare(config.open_stdin, output)
        .map_err(NotStarted::because("preparing the container"))?;
    Ok((Some(stdio), pumps))
}

/// Starts the child. It waits for its ids, or mounts at once.
pub(super) fn spawn(
    job: &Job,
    plan: Plan,
    (stdio, pumps): (Option<Stdio>, Pumps),
) -> Result<(Living, Channel, Pumps), NotStarted> {
    let preparing = "preparing the container";
    let record = &job.container.record;
    let rootless = plan.inside.rootless;
    let guard = guard().map_err(NotStarted::because(preparing))?;
    let (ours, theirs) = channel::pair().map_err(NotStarted::because(preparing))?;
    let namespaces = Namespaces {
        user: record.ids.is_some(),
        container: true,
        ..Namespaces::default()
    };
    let child = match clone_into(namespaces).map_err(|error| no_namespaces(&error, rootless))? {
        Fork::Child => {
            drop(ours);
            guard.leave();
            child::main(plan, theirs, stdio)
        }
        Fork::Parent(child) => child,
    };
    drop((theirs, stdio));
    let pid = i32::try_from(child).ok().and_then(Pid::from_raw);
    let process = pid.map(|pid| Ok((pid, pidfd_open(pid, PidfdFlags::empty())?)));
    let (pid, process) = match process {
        Some(Ok(found)) => found,
        Some(Err::<_, rustix::io::Errno>(error)) => {
            return Err(NotStarted::because(preparing)(error.into()));
        }
        None => {
            return Err(NotStarted::because(preparing)(
                std::io::ErrorKind::Other.into(),
            ));
        }
    };
    let living = Living {
        pid,
        process,
        reaped: None,
        guard,
    };
    living
        .guard
        .watch(&living.process)
        .map_err(NotStarted::because(preparing))?;
    if let Some(ids) = &record.ids {
        write_maps(child, ids).map_err(|error| NotStarted {
            code: 125,
            text: format!(
                "writing the id map of the user namespace: {error}{}",
                hint()
            ),
        })?;
        ours.send(&ToChild::Mapped, None)
            .map_err(NotStarted::because(preparing))?;
    }
    Ok((living, ours, pumps))
}

pub(super) fn plan(job: &Job) -> Result<Plan, NotStarted> {
    let record = &job.container.record;
    let config = &record.config;
    let args = config.entrypoint.iter().chain(&config.cmd).flatten();
    let store = job.store.path();
    let directory = job.container.directory().strip_prefix(store);
    let directory =
        directory.map_err(|_| Failure::start("not a container of this store".into()))?;
    let paths = Paths {
        store: store.to_owned(),
        directory: directory.to_owned(),
        rootless: record.ids.is_some(),
        mounts: job.mounts.clone(),
    };
    let inside = Inside {
        image: record.image.0.hex(),
        rootless: record.ids.is_some(),
        single_id: record.ids.as_ref().is_some_and(|ids| ids.is_single()),
        volatile: record.auto_remove,
        read_only: record.read_only,
        hostname: record.hostname.clone(),
        shm_size: record.shm_size,
        visited: false,
        program: Program {
            args: args.cloned().collect(),
            env: env::of_process(record),
            cwd: config.working_dir.clone(),
            make_cwd: true,
            user: config.user.clone(),
            tty: config.tty,
            init: record.init,
            tied: true,
            capabilities: record.capabilities.clone(),
            filter: security::program(record).map_err(Failure::start)?,
            new_privileges: record.security.new_privileges,
            ulimits: record.ulimits.clone(),
        },
    };
    Ok(Plan { paths, inside })
}

pub(super) fn no_namespaces(error: &std::io::Error, rootless: bool) -> NotStarted {
    let text = match rootless {
        true => format!(
            "an ordinary user needs user namespaces, and the kernel refuses one: {error}{}",
            hint()
        ),
        false => format!("making namespaces: {error} (root needs CAP_SYS_ADMIN for that)"),
    };
    NotStarted { code: 125, text }
}

/// What to enable, by what the system says about itself.
pub(super) fn hint() -> &'static str {
    let read = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/{name}"));
        text.ok().map(|text| text.trim().to_owned())
    };
    if read("kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        "; enable them: sysctl -w kernel.unprivileged_userns_clone=1"
    } else if read("user/max_user_namespaces").as_deref() == Some("0") {
        "; enable them: sysctl -w user.max_user_namespaces=15000"
    } else if read("kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1") {
        "; enable them: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    } else {
        ""
    }
}

/// A container on its way to run.
struct Start {
    hub: Option<Arc<Hub>>,
    keys: Option<DetachKeys>,
    names: Arc<Names>,
    living: Living,
    channel: Channel,
    session: Option<Session>,
    moving: Option<Moving>,
    pumps: Option<Pumps>,
}

impl Start {
    /// Does what the child asks for until its program runs.
    fn until_running(&mut self, job: &mut Job, output: &Output) -> Result<(), NotStarted> {
        let talking = "talking to the container";
        let mut ready = false;
        loop {
            let message = self.channel.receive::<FromChild>();
            let message = message.map_err(NotStarted::because(talking))?;
            match message {
                Some((FromChild::Connection, Some(connection))) => {
                    let record = &job.container.record;
                    let squash = record.ids.as_ref().is_some_and(|ids| ids.is_single());
                    let session =
                        image::serve(&job.store, Arc::clone(&self.names), connection, squash)
                            .map_err(NotStarted::because("serving the image"))?;
                    self.session = Some(session);
                }
                Some((FromChild::Terminal, Some(master))) => {
                    let open = job.container.record.config.open_stdin;
                    let (hub, keys) = (self.hub.as_ref(), self.keys.as_ref());
                    let moving = Moving::start_terminal(master, open, output, hub, keys)
                        .map_err(NotStarted::because("opening the terminal"))?;
                    self.moving = Some(moving);
                }
                Some((FromChild::Ready { made }, _)) => {
                    self.ready(job, output, made)?;
                    ready = true;
                }
                Some((FromChild::Failed { code, text }, _)) => {
                    let text = match code {
                        125 if job.container.record.ids.is_some() => format!("{text}{}", hint()),
                        _ => text,
                    };
                    return Err(Failure { code, text }.into());
                }
                Some(_) => {
                    return Err(Failure::start("an unexpected message".to_owned()).into());
                }
                // Closed by the exec.
                None if ready => return Ok(()),
                None => {
                    let code = code_of(self.living.wait());
                    return Err(Failure::start(format!(
                        "the container's first process died while starting: status {code}"
                    ))
                    .into());
                }
            }
        }
    }

    /// Everything is in place: writes down that the container runs, and lets it.
    fn ready(
        &mut self,
        job: &mut Job,
        output: &Output,
        made: Vec<String>,
    ) -> Result<(), NotStarted> {
        let mut all = std::mem::take(&mut job.container.state.made);
        all.extend(made);
        let pid = self.living.pid.as_raw_nonzero().get().unsigned_abs();
        let user = job.container.record.ids.is_some();
        // It waits for our word, so they are still those that were made for it.
        let namespaces = namespaces::numbers(pid, user)
            .map_err(NotStarted::because("looking at the namespaces"))?;
        let state = ContainerState {
            status: Status::Running {
                pid,
                started: jiff::Timestamp::now(),
            },
            error: String::new(),
            made: all,
            namespaces,
        };
        let written = job.container.write_state(state, &job.lock);
        written.map_err(|error| NotStarted {
            code: 125,
            text: error.to_string(),
        })?;
        if let Some(pumps) = self.pumps.take()
            && self.moving.is_none()
        {
            let moving = Moving::start(pumps, output, self.hub.as_ref())
                .map_err(NotStarted::because("moving its output"))?;
            self.moving = Some(moving);
        }
        if let Some(hub) = &self.hub {
            // A store may be where no socket can be: then nobody attaches.
            if let Err(error) = hub.listen() {
                log::debug!("listening to who attaches: {error}");
            }
        }
        match self.channel.send(&ToChild::Go, None) {
            // It is called running already, and somebody has killed it: its exit status tells.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            sent => sent.map_err(NotStarted::because("starting the program")),
        }
    }
}

/// What there is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watched {
    /// The program has ended.
    Ended,
    /// The caller has typed what detaches.
    Left,
}

/// Passes signals on until the container has ended, or is left.
pub(super) fn watch_process(
    process: &OwnedFd,
    signals: &SignalFd,
    session: Option<&Session>,
    moving: Option<&Moving>,
    mut sent: impl FnMut(i32),
) -> std::io::Result<Watched> {
    loop {
        let mut fds = vec![
            PollFd::new(process, PollFlags::IN),
            PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
        ];
        let left = moving.and_then(Moving::left);
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
struct Hint {
    pid: u32,
    name: String,
    /// Whether the program itself is process 1, to which the kernel does not give a signal that it has no handler for.
    applies: bool,
    pressed: u32,
}

impl Hint {
    fn new(job: &Job, pid: Pid) -> Hint {
        let record = &job.container.record;
        Hint {
            pid: pid.as_raw_nonzero().get().unsigned_abs(),
            name: record.name.clone(),
            applies: !record.init,
            pressed: 0,
        }
    }

    fn sent(&mut self, number: i32) {
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
