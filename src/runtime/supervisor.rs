//! The process that stays with a container from its start to its end.

mod attached;
mod startup;
mod watch;

use std::fs::File;
use std::io::Read as _;
use std::sync::Arc;

use parking_lot::Mutex;

use self::attached::Leaving;
pub use self::attached::run_attached;
pub(super) use self::attached::{LEFT, detach, tell, wait_for_supervisor};
use self::startup::Startup;
pub(super) use self::startup::{ChildProcess, hint, no_namespaces, plan, spawn};
use self::watch::Hint;
pub(super) use self::watch::{Watched, watch_process};
use super::attach::Hub;
use super::standard::Stdio;
use super::stdio::{self, Output, RelayEnds, StdioRelay};
use super::{NotStarted, OutOfReach, code_of, files, image};
use crate::ops::container::run::Ready;
use crate::ops::container::run::logs::LogWriter;
use crate::ops::container::run::mounts::{ReadyMount, ReadySource};
use crate::store::containers::{Container, ContainerLock, ContainerState, Status};
use crate::store::volumes::VolumeName;
use crate::store::{ImageRecord, Store};
use crate::sys::container::exit_now;
use crate::sys::fork::{Fork, fork};
use crate::sys::signal::SignalFd;

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
    let result = record_failure(&mut job, result);
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
                if let Some(to) = told.take() {
                    // If the starter was killed the container runs all the same.
                    attached::tell(&to, &format!("{code} {text}"));
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
            let result = record_failure(&mut job, result);
            // Cleaned up before the starter hears of a failure: it finds nothing left.
            finish(job);
            if let Err(error) = &result {
                tell(error.code, &error.text);
            }
            exit_now(0)
        }
    }
}

/// Writes down why a container was not started.
fn record_failure(job: &mut Job, result: Result<u8, NotStarted>) -> Result<u8, NotStarted> {
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
    let (living, channel, ends) = spawn(job, plan, stdio)?;
    // One without a terminal and a log speaks with its caller alone.
    let tty = job.container.record.config.tty;
    let hub =
        (tty || matches!(output, Output::Log(_))).then(|| Hub::new(job.container.directory(), tty));
    let mut start = Startup {
        hub,
        keys: leaving.map(|leaving| leaving.keys.clone()),
        names,
        living,
        channel,
        session: None,
        moving: None,
        ends: Some(ends),
    };
    start.until_running(job, output)?;
    let Startup {
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
pub(super) fn with_output(code: u8, moving: Option<StdioRelay>) -> u8 {
    match moving.map(StdioRelay::finish) {
        Some(Err(error)) => {
            log::error!("moving what the command reads and writes: {error}");
            code.max(1)
        }
        Some(Ok(())) | None => code,
    }
}

/// What the child reads and writes, unless it has a terminal.
fn standard(job: &Job, output: &Output) -> Result<(Option<Stdio>, RelayEnds), NotStarted> {
    let config = &job.container.record.config;
    if config.tty {
        return Ok((None, RelayEnds::default()));
    }
    let (stdio, ends) = stdio::prepare(config.open_stdin, output)
        .map_err(NotStarted::because("preparing the container"))?;
    Ok((Some(stdio), ends))
}
