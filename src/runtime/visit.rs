//! Looking into a container's file system and changing it, from outside: for `cp` and `export`.
//!
//! A process of mica's own, the **visitor**, has the container's root for its root and does there what it is asked for; files go
//! through a pipe, as a tar. In a container that runs it is a fork that has entered the mount namespace (and, of an ordinary
//! user's, the user namespace) and nothing else: no process in there sees it. For one that does not run the root is put together
//! as for a start, with the container's lock held, and the visitor stands where its program would.
//!
//! No path of the container is ever looked up on the host, and none of the host in the container.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::sync::Arc;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, waitpid};

use super::channel::{self, Channel, FromChild, ToChild};
use super::child;
use super::failure::{Fails as _, Failure};
use super::namespaces::Entrance;
use super::stdio::{self, RelayEnds};
use super::supervisor::{ChildProcess, Job, plan, spawn};
pub use super::visitor::Found;
use super::visitor::{Answer, Ask, Way, serve, way};
use super::{NotStarted, OutOfReach, files, image};
use crate::fuse::session::Session;
use crate::ops::container::copy::{CopyError, Notes};
use crate::ops::container::run::mounts::ReadySource;
use crate::store::Lease;
use crate::store::containers::{Container, ContainerState, Status};
use crate::store::volumes::VolumeHold;
use crate::sys::container::{exit_now, reset_signals};
use crate::sys::fork::{Fork, fork};

/// A visitor in a container. It ends when nobody asks any more: fields go in their order.
pub struct Visitor {
    channel: Channel,
    _stay: Stay,
}

/// What keeps the visitor where it is.
struct Stay {
    /// A process of its own in a container that runs.
    beside: Option<Pid>,
    /// The place of the program in one that does not.
    _instead: Option<Box<Instead>>,
}

struct Instead {
    _living: ChildProcess,
    _session: Option<Session>,
    _lease: Option<Lease>,
    _holds: Vec<VolumeHold>,
    _job: Job,
}

impl Drop for Stay {
    fn drop(&mut self) {
        if self.beside.is_some() {
            while let Err(rustix::io::Errno::INTR) = waitpid(self.beside, WaitOptions::empty()) {}
        }
    }
}

/// Visits a container that runs. Only while this process has one thread.
pub fn visit_running(container: &Container, _: OutOfReach) -> Result<Visitor, NotStarted> {
    let entering = "entering the container";
    let record = &container.record;
    let gone = || Failure::start(format!("container {} is not running", record.id));
    let Status::Running { pid, .. } = container.state.status else {
        return Err(gone().into());
    };
    let userns = record.ids.is_some();
    let entrance = Entrance::open(pid, userns, &container.state.namespaces);
    let entrance = entrance.map_err(NotStarted::because(entering))?;
    let entrance = entrance.ok_or_else(gone)?.files_only();
    if container.is_gone().unwrap_or(true) {
        return Err(gone().into());
    }
    let (ours, theirs) = channel::pair().map_err(NotStarted::because(entering))?;
    let user = record.config.user.clone();
    match fork().map_err(NotStarted::because(entering))? {
        Fork::Child => {
            drop(ours);
            reset_signals();
            let failure = match enter(entrance, userns, &theirs) {
                Ok(host) => serve(&theirs, host, true, &user),
                Err(failure) => failure,
            };
            let (code, text) = (failure.code, failure.text);
            let refused = false;
            // Without anybody who asks there is nobody to tell.
            let _ = theirs.send(&Answer::Failed { text, refused }, None);
            exit_now(i32::from(code))
        }
        Fork::Parent(pid) => {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            Ok(Visitor {
                channel: ours,
                _stay: Stay {
                    beside: pid,
                    _instead: None,
                },
            })
        }
    }
}

/// Moves the visitor in.
fn enter(entrance: Entrance, userns: bool, channel: &Channel) -> Result<Way, Failure> {
    let what = "entering the container";
    let keep: Vec<_> = entrance.descriptors().collect();
    child::leave_behind(channel, None, &keep)?;
    // While /proc is the host's: by it descriptors are opened again.
    let way = way()?;
    entrance.enter().fails(what)?;
    if userns {
        crate::sys::userns::become_root().fails(what)?;
    }
    Ok(way)
}

/// Visits a container that does not run. Only while this process has one thread.
pub fn visit_stopped(mut job: Job, _: OutOfReach) -> Result<Visitor, NotStarted> {
    let talking = "talking to the container";
    let store_error = |error: crate::store::StoreError| NotStarted {
        code: 125,
        text: error.to_string(),
    };
    let mut images = vec![job.container.record.image];
    images.extend(job.mounts.iter().filter_map(|mount| match &mount.source {
        ReadySource::Image { image, .. } => Some(*image),
        _ => None,
    }));
    let lease = match job.volumes.is_empty() {
        true => None,
        false => Some(job.store.lease_volumes(&job.volumes).map_err(store_error)?),
    };
    let holds = (job.store.share_volumes(&job.volumes)).map_err(store_error)?;
    let names = image::names(&job.store, &images, &job.images).map_err(store_error)?;
    files::write(job.container.directory(), &job.container.record)
        .map_err(NotStarted::because("writing the files of /etc"))?;
    let mut plan = plan(&job)?;
    plan.inside.visited = true;
    plan.inside.program.tty = false;
    let nothing = stdio::nothing().map_err(NotStarted::because(talking))?;
    let (living, channel, _) = spawn(&job, plan, (Some(nothing), RelayEnds::default()))?;
    let mut session = None;
    loop {
        let message = channel.receive_while(session.as_ref());
        match message.map_err(NotStarted::because(talking))? {
            Some((FromChild::Connection, Some(connection))) => {
                let ids = job.container.record.ids.as_ref();
                let squash = ids.is_some_and(|ids| ids.is_single());
                let served = image::serve(&job.store, Arc::clone(&names), connection, squash);
                session = Some(served.map_err(NotStarted::because("serving the image"))?);
            }
            Some((FromChild::Ready { made }, _)) => {
                let mut state: ContainerState = job.container.state.clone();
                state.made.extend(made);
                job.container
                    .write_state(state, &job.lock)
                    .map_err(store_error)?;
                break;
            }
            Some((FromChild::Failed { code, text }, _)) => {
                return Err(Failure { code, text }.into());
            }
            Some(_) | None => {
                return Err(Failure::start("the visitor died on its way in".to_owned()).into());
            }
        }
    }
    channel
        .send(&ToChild::Go, None)
        .map_err(NotStarted::because(talking))?;
    Ok(Visitor {
        channel,
        _stay: Stay {
            beside: None,
            _instead: Some(Box::new(Instead {
                _living: living,
                _session: session,
                _lease: lease,
                _holds: holds,
                _job: job,
            })),
        },
    })
}

impl Visitor {
    /// What is at a path, by docker's rules: `None`, nothing.
    pub fn look(&self, path: &[u8]) -> Result<Option<Found>, CopyError> {
        let path = path.to_vec();
        self.ask(&Ask::Look { path }, None)?;
        match self.answer()? {
            Answer::Found(found) => Ok(found),
            answer => Err(unexpected(answer)),
        }
    }

    /// What is there, as a tar whose first entry is called `name` (empty: what is in the directory), to be read until its end,
    /// then [`Visitor::done`].
    pub fn read(&self, path: &[u8], name: &[u8]) -> Result<File, CopyError> {
        let (path, name) = (path.to_vec(), name.to_vec());
        self.piped(&Ask::Read { path, name }, false)
    }

    /// The container's own file system.
    pub fn read_root(&self) -> Result<File, CopyError> {
        self.piped(&Ask::ReadRoot, false)
    }

    /// A tar goes into a directory: to be written and closed, then [`Visitor::done`]. `own`: all is the container's user's.
    pub fn write(&self, directory: &[u8], own: bool) -> Result<File, CopyError> {
        let directory = directory.to_vec();
        self.piped(&Ask::Write { directory, own }, true)
    }

    /// How it went.
    pub fn done(&self) -> Result<Notes, CopyError> {
        match self.answer()? {
            Answer::Done(notes) => Ok(notes),
            answer => Err(unexpected(answer)),
        }
    }

    fn piped(&self, ask: &Ask, writing: bool) -> Result<File, CopyError> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| lost(error.into()))?;
        let (ours, theirs) = match writing {
            true => (write, read),
            false => (read, write),
        };
        self.ask(ask, Some(theirs.as_fd()))?;
        Ok(File::from(ours))
    }

    fn ask(
        &self,
        ask: &Ask,
        descriptor: Option<std::os::fd::BorrowedFd<'_>>,
    ) -> Result<(), CopyError> {
        match self.channel.send(ask, descriptor) {
            // Why it is gone is what it has said last.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            sent => sent.map_err(lost),
        }
    }

    fn answer(&self) -> Result<Answer, CopyError> {
        let served = self._stay._instead.as_ref();
        let session = served.and_then(|instead| instead._session.as_ref());
        let answer = self.channel.receive_while(session).map_err(lost)?;
        answer
            .map(|(answer, _)| answer)
            .ok_or_else(|| lost(std::io::ErrorKind::UnexpectedEof.into()))
    }
}

fn lost(error: std::io::Error) -> CopyError {
    CopyError::Usage(format!("the visitor in the container: {error}"))
}

fn unexpected(answer: Answer) -> CopyError {
    match answer {
        Answer::Failed {
            text,
            refused: true,
        } => CopyError::Refused(text),
        Answer::Failed { text, .. } => CopyError::Usage(text),
        _ => CopyError::Usage("the visitor in the container answers something else".to_owned()),
    }
}
