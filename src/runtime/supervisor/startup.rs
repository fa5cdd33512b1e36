//! From a container that is made to one whose program runs.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::process::{Pid, PidfdFlags, WaitOptions, WaitStatus, pidfd_open, waitpid};

use super::Job;
use crate::fuse::session::Session;
use crate::ops::container::run::{env, security};
use crate::runtime::attach::{DetachKeys, Hub};
use crate::runtime::channel::{self, Channel, FromChild, ToChild};
use crate::runtime::child::{self, Inside, Paths, Plan, Program};
use crate::runtime::failure::Failure;
use crate::runtime::guard::{Guard, guard};
use crate::runtime::standard::Stdio;
use crate::runtime::stdio::{Output, RelayEnds, StdioRelay};
use crate::runtime::{NotStarted, code_of, image, namespaces};
use crate::store::Names;
use crate::store::containers::{ContainerState, Status};
use crate::sys::container::{Namespaces, clone_into, exit_now, signal};
use crate::sys::fork::Fork;
use crate::sys::userns::write_maps;

/// A container on its way to run.
pub(super) struct Startup {
    pub(super) hub: Option<Arc<Hub>>,
    pub(super) keys: Option<DetachKeys>,
    pub(super) names: Arc<Names>,
    pub(super) living: ChildProcess,
    pub(super) channel: Channel,
    pub(super) session: Option<Session>,
    pub(super) moving: Option<StdioRelay>,
    pub(super) ends: Option<RelayEnds>,
}

impl Startup {
    /// Does what the child asks for until its program runs.
    pub(super) fn until_running(
        &mut self,
        job: &mut Job,
        output: &Output,
    ) -> Result<(), NotStarted> {
        let talking = "talking to the container";
        let mut ready = false;
        loop {
            let message = self.channel.receive_while(self.session.as_ref());
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
                    let moving = StdioRelay::start_terminal(master, open, output, hub, keys)
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
        if let Some(ends) = self.ends.take()
            && self.moving.is_none()
        {
            let moving = StdioRelay::start(ends, output, self.hub.as_ref())
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

/// Starts the child. It waits for its ids, or mounts at once.
pub(in crate::runtime) fn spawn(
    job: &Job,
    plan: Plan,
    (stdio, ends): (Option<Stdio>, RelayEnds),
) -> Result<(ChildProcess, Channel, RelayEnds), NotStarted> {
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
    let living = ChildProcess {
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
    Ok((living, ours, ends))
}

pub(in crate::runtime) fn plan(job: &Job) -> Result<Plan, NotStarted> {
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

/// The container while it lives.
#[derive(Debug)]
pub(in crate::runtime) struct ChildProcess {
    pub(super) pid: Pid,
    pub(super) process: OwnedFd,
    reaped: Option<WaitStatus>,
    /// Ends after the container.
    guard: Guard,
}

impl ChildProcess {
    fn kill(&self) {
        // It may have ended.
        let _ = signal(&self.process, libc::SIGKILL);
    }

    pub(super) fn wait(&mut self) -> WaitStatus {
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

impl Drop for ChildProcess {
    fn drop(&mut self) {
        if self.reaped.is_none() {
            self.kill();
            self.wait();
        }
    }
}

pub(in crate::runtime) fn no_namespaces(error: &std::io::Error, rootless: bool) -> NotStarted {
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
pub(in crate::runtime) fn hint() -> &'static str {
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
