//! A server's side of being kept: what it tells its keeper, and how the next server begins with it.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::MountPlan;
use super::keeper::{Keeper, Line, Message, own_line};
use crate::fs::Lasting;
use crate::fuse::handshake::Agreement;
use crate::fuse::notify::NotifyQueue;
use crate::fuse::options::MountOptions;
use crate::sys::mount::Mounted;
use crate::sys::mountinfo::DeviceId;

/// What a server must know that no descriptor says.
#[derive(Debug, Serialize, Deserialize)]
struct Facts {
    store: PathBuf,
    mount_point: PathBuf,
    options: Vec<String>,
    trash: Option<Duration>,
    /// Under a service manager, which is told who to follow, and has the words on stderr.
    foreground: bool,
    path: PathBuf,
    id: u64,
    unique: Option<u64>,
    device: (u32, u32),
    question: Vec<u8>,
    answer: Vec<u8>,
}

/// What the server before has left.
#[derive(Debug)]
pub(super) struct Before {
    pub plan: MountPlan,
    pub mounted: Mounted,
    pub connection: OwnedFd,
    pub agreement: Agreement,
    pub lasting: Arc<Lasting>,
    pub names: Vec<File>,
    pub keeper: Option<Keeper>,
}

impl Before {
    /// Takes it from the keeper, which is at the other end of standard input.
    pub fn take() -> anyhow::Result<Before> {
        let line = own_line()?;
        let Some((Message::Keep(state), files)) = line.receive().context("asking the keeper")?
        else {
            bail!("nobody has said what to serve");
        };
        Before::of(line, &state, files)
    }

    fn of(line: Line, state: &[u8], files: Vec<OwnedFd>) -> anyhow::Result<Before> {
        let facts: Facts = serde_json::from_slice(state).context("what the keeper has said")?;
        let mut options = MountOptions::parse(&facts.options)?;
        options.trash = facts.trash;
        let mut files = files.into_iter();
        let mut next = || files.next().context("a descriptor is missing");
        let (connection, table, counters) = (next()?, next()?, next()?);
        let lasting = Lasting::open(File::from(table), File::from(counters))
            .context("the memory of the server before")?;
        Ok(Before {
            plan: MountPlan {
                store: facts.store,
                mount_point: facts.mount_point,
                foreground: facts.foreground,
                options,
                words: facts.options,
            },
            mounted: Mounted {
                path: facts.path,
                id: facts.id,
                unique: facts.unique,
                device: DeviceId {
                    major: facts.device.0,
                    minor: facts.device.1,
                },
            },
            connection,
            agreement: Agreement {
                question: facts.question,
                answer: facts.answer,
            },
            lasting,
            names: files.map(File::from).collect(),
            keeper: Some(Keeper::starter(line)),
        })
    }
}

/// Whether this program understands what a keeper tells: nothing is served, and nothing is changed.
pub(super) fn try_kept() -> anyhow::Result<()> {
    let before = Before::take()?;
    match &before.keeper {
        Some(keeper) => keeper.served().context("telling the keeper"),
        None => Ok(()),
    }
}

/// Starts a keeper for what `plan` has mounted.
pub(super) fn start_keeper(
    plan: &MountPlan,
    store: &std::path::Path,
    mounted: &Mounted,
    (connection, agreement): (BorrowedFd<'_>, &Agreement),
    lasting: &Lasting,
    shown: &Shown,
) -> anyhow::Result<()> {
    let facts = Facts {
        store: store.to_owned(),
        mount_point: mounted.path.clone(),
        options: plan.words.clone(),
        trash: plan.options.trash,
        foreground: plan.foreground,
        path: mounted.path.clone(),
        id: mounted.id,
        unique: mounted.unique,
        device: (mounted.device.major, mounted.device.minor),
        question: agreement.question.clone(),
        answer: agreement.answer.clone(),
    };
    let state = serde_json::to_vec(&facts).context("describing the mount")?;
    let [table, counters] = lasting.files().context("the tree's memory")?;
    shown.tell(|names| {
        let mut files = vec![connection, table.as_fd(), counters.as_fd()];
        files.extend(names.iter().map(|file| file.as_fd()));
        let keeper = Keeper::start(state, &files)?;
        if plan.foreground
            && let Some(pid) = keeper.pid()
            && let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::MainPid(pid)])
        {
            log::warn!("telling the service manager of the keeper: {error}");
        }
        Ok(keeper)
    })
}

/// The names that the kernel may know things by: the present ones, and older ones until it has forgotten what was different then.
#[derive(Debug)]
pub(super) struct Shown {
    queue: Arc<NotifyQueue>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    names: Vec<Arc<File>>,
    keeper: Option<Keeper>,
}

impl Shown {
    pub(super) fn new(queue: Arc<NotifyQueue>) -> Arc<Shown> {
        Arc::new(Shown {
            queue,
            state: Mutex::default(),
        })
    }

    /// Begins with what the server before has shown, and its keeper.
    pub(super) fn inherit(&self, names: &[File], keeper: Keeper) -> anyhow::Result<()> {
        let names = names.iter().map(|file| file.try_clone().map(Arc::new));
        let mut state = self.state.lock();
        state.names = names.collect::<Result<_, _>>()?;
        state.keeper = Some(keeper);
        Ok(())
    }

    /// The names in `file` are about to be shown.
    pub(super) fn add(&self, file: Arc<File>) {
        let alone = self.queue.drain(Duration::ZERO);
        let mut state = self.state.lock();
        if alone {
            let older = state.names.len().saturating_sub(1);
            state.names.drain(..older);
        }
        if let Some(keeper) = &state.keeper
            && let Err(error) = keeper.names(file.as_fd(), alone)
        {
            // It has died; another gets all of them.
            log::debug!("telling the keeper: {error}");
        }
        state.names.push(file);
    }

    /// Has a keeper made, which is told of everything that is added from then on.
    fn tell(
        &self,
        start: impl FnOnce(&[Arc<File>]) -> anyhow::Result<Keeper>,
    ) -> anyhow::Result<()> {
        let mut state = self.state.lock();
        state.keeper = Some(start(&state.names)?);
        Ok(())
    }

    /// This process serves what it has inherited.
    pub(super) fn served(&self) -> anyhow::Result<()> {
        match &self.state.lock().keeper {
            Some(keeper) => keeper.served().context("telling the keeper"),
            None => Ok(()),
        }
    }

    /// Whether the keeper has died.
    pub(super) fn is_alone(&self) -> bool {
        let mut state = self.state.lock();
        match &mut state.keeper {
            Some(keeper) if keeper.is_gone() => {
                keeper.reap();
                state.keeper = None;
                true
            }
            Some(_) => false,
            None => true,
        }
    }

    /// Has the next server run `program`; why not, if it cannot.
    pub(super) fn try_program(&self, program: PathBuf) -> Result<(), String> {
        match &self.state.lock().keeper {
            Some(keeper) => keeper.try_program(program),
            None => Err("the mount has no keeper at the moment".to_owned()),
        }
    }

    /// A descriptor to wait with for the keeper's end.
    pub(super) fn watch(&self) -> Option<OwnedFd> {
        let state = self.state.lock();
        state.keeper.as_ref()?.as_fd().try_clone_to_owned().ok()
    }

    /// The mount is over.
    pub(super) fn end(&self) {
        let keeper = self.state.lock().keeper.take();
        if let Some(keeper) = keeper {
            keeper.end();
        }
    }
}
