//! A server's side of being kept: what it tells its keeper, and how the next server begins with it.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use parking_lot::Mutex;
use rustix::fs::{CWD, Mode, OFlags, openat};
use serde::{Deserialize, Serialize};

use super::MountPlan;
use super::keeper::{Keeper, Line, MAX_NAMES, Message, own_line};
use crate::fs::Lasting;
use crate::fs::volumes::Record;
use crate::fuse::handshake::Agreement;
use crate::fuse::notify::NotifyQueue;
use crate::fuse::options::MountOptions;
use crate::fuse::session::Session;
use crate::sys::descriptor_holder::DescriptorHolder;
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
    /// Of M, of its stores if it has them, and of its volumes.
    connections: Vec<ConnectionFacts>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct ConnectionFacts {
    part: Part,
    path: PathBuf,
    id: u64,
    unique: Option<u64>,
    device: (u32, u32),
    question: Vec<u8>,
    answer: Vec<u8>,
}

/// What the server before has left of one connection.
#[derive(Debug)]
pub(super) struct ConnectionBefore {
    pub mounted: Mounted,
    pub connection: OwnedFd,
    pub agreement: Agreement,
    pub lasting: Arc<Lasting>,
    pub names: Vec<File>,
}

/// What the server before has left of the volumes.
#[derive(Debug)]
pub(super) struct VolumesBefore {
    facts: ConnectionFacts,
    pub connection: OwnedFd,
    pub record: Arc<Record>,
    /// The line to the holder of its descriptors.
    pub holder: OwnedFd,
}

/// What the server before has left.
#[derive(Debug)]
pub(super) struct Before {
    pub plan: MountPlan,
    pub images: ConnectionBefore,
    pub stores: Option<ConnectionBefore>,
    pub volumes: Option<VolumesBefore>,
    pub keeper: Keeper,
}

impl Before {
    /// Takes it from the keeper, which is at the other end of standard input.
    pub(super) fn take() -> anyhow::Result<Before> {
        let line = own_line()?;
        let Some((Message::Keep { names, state }, files)) =
            line.receive().context("asking the keeper")?
        else {
            bail!("nobody has said what to serve");
        };
        Before::of(line, &names, &state, files)
    }

    fn of(
        line: Line,
        names: &[usize],
        state: &[u8],
        files: Vec<OwnedFd>,
    ) -> anyhow::Result<Before> {
        let facts: Facts = serde_json::from_slice(state).context("what the keeper has said")?;
        let mut options = MountOptions::parse(&facts.options)?;
        options.trash = facts.trash;
        // The first is the program that serves, which is this one or is not wanted.
        let mut files = files.into_iter().skip(1);
        let (mut images, mut stores, mut volumes) = (None, None, None);
        for (facts, names) in facts.connections.into_iter().zip(names) {
            match facts.part {
                Part::Images => images = Some(ConnectionBefore::of(facts, *names, &mut files)?),
                Part::Stores => stores = Some(ConnectionBefore::of(facts, *names, &mut files)?),
                Part::Volumes => volumes = Some(VolumesBefore::of(facts, &mut files)?),
            }
        }
        Ok(Before {
            plan: MountPlan {
                store: facts.store,
                mount_point: facts.mount_point,
                foreground: facts.foreground,
                options,
                words: facts.options,
            },
            images: images.context("a connection is missing")?,
            stores,
            volumes,
            keeper: Keeper::starter(line),
        })
    }
}

impl VolumesBefore {
    fn of(
        facts: ConnectionFacts,
        files: &mut impl Iterator<Item = OwnedFd>,
    ) -> anyhow::Result<VolumesBefore> {
        let mut next = || files.next().context("a descriptor is missing");
        let (connection, record, holder) = (next()?, next()?, next()?);
        let record = Record::open(File::from(record)).context("the record of the volumes")?;
        Ok(VolumesBefore {
            facts,
            connection,
            record,
            holder,
        })
    }

    pub(super) fn mounted(&self) -> Mounted {
        self.facts.mounted()
    }

    pub(super) fn agreement(&self) -> Agreement {
        self.facts.agreement()
    }
}

impl ConnectionFacts {
    fn of(part: Part, mounted: &Mounted, agreement: &Agreement) -> ConnectionFacts {
        ConnectionFacts {
            part,
            path: mounted.path.clone(),
            id: mounted.id,
            unique: mounted.unique,
            device: (mounted.device.major, mounted.device.minor),
            question: agreement.question.clone(),
            answer: agreement.answer.clone(),
        }
    }

    fn mounted(&self) -> Mounted {
        Mounted {
            path: self.path.clone(),
            id: self.id,
            unique: self.unique,
            device: DeviceId {
                major: self.device.0,
                minor: self.device.1,
            },
        }
    }

    fn agreement(&self) -> Agreement {
        Agreement {
            question: self.question.clone(),
            answer: self.answer.clone(),
        }
    }
}

impl ConnectionBefore {
    fn of(
        facts: ConnectionFacts,
        names: usize,
        files: &mut impl Iterator<Item = OwnedFd>,
    ) -> anyhow::Result<ConnectionBefore> {
        let mut next = || files.next().context("a descriptor is missing");
        let (connection, table, counters) = (next()?, next()?, next()?);
        let lasting = Lasting::open(File::from(table), File::from(counters))
            .context("the memory of the server before")?;
        Ok(ConnectionBefore {
            mounted: facts.mounted(),
            connection,
            agreement: facts.agreement(),
            lasting,
            names: files.take(names).map(File::from).collect(),
        })
    }
}

/// Whether this program understands what a keeper tells: nothing is served, and nothing is changed.
pub(super) fn try_kept() -> anyhow::Result<()> {
    let before = Before::take()?;
    before.keeper.served().context("telling the keeper")
}

/// Which of a mount's connections.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Part {
    Images,
    Stores,
    Volumes,
}

impl Part {
    /// Among those that are told.
    fn position(self) -> usize {
        match self {
            Part::Images => 0,
            Part::Stores => 1,
            // Has no names to be told.
            Part::Volumes => 2,
        }
    }
}

/// What is to be kept of a mount, as its keeper has it.
#[derive(Debug)]
pub(super) struct Keeping {
    plan: MountPlan,
    store: PathBuf,
    /// The program that serves.
    program: OwnedFd,
    state: Mutex<State>,
    /// What is recorded of the volumes, and the process that holds their descriptors. None: they end with this process.
    volumes: Option<(Arc<Record>, OwnedFd)>,
    holder: Mutex<Option<DescriptorHolder>>,
}

#[derive(Debug, Default)]
struct State {
    images: One,
    stores: One,
    volumes: One,
    keeper: Option<Keeper>,
}

/// One connection.
#[derive(Debug, Default)]
struct One {
    kept: Option<KeptConnection>,
    /// Those that the kernel may know things by: the present ones, and older ones until it has forgotten what was different then. Known
    /// before the connection is.
    names: Vec<Arc<File>>,
    /// The keeper has it.
    told: bool,
}

impl State {
    fn of(&mut self, part: Part) -> &mut One {
        match part {
            Part::Images => &mut self.images,
            Part::Stores => &mut self.stores,
            Part::Volumes => &mut self.volumes,
        }
    }

    /// In the order in which they are told. Without M's own there is nothing to keep.
    fn all(&self) -> impl Iterator<Item = (&One, &KeptConnection)> {
        let others = self
            .images
            .kept
            .as_ref()
            .map(|_| [&self.stores, &self.volumes]);
        let all = [&self.images]
            .into_iter()
            .chain(others.into_iter().flatten());
        all.filter_map(|one| Some((one, one.kept.as_ref()?)))
    }

    fn told(&mut self) {
        for one in [&mut self.images, &mut self.stores, &mut self.volumes] {
            one.told = one.kept.is_some();
        }
    }
}

#[derive(Debug)]
struct KeptConnection {
    facts: ConnectionFacts,
    connection: OwnedFd,
    memory: [File; 2],
}

impl Keeping {
    /// Of a mount that has no keeper yet.
    pub(super) fn new(
        plan: &MountPlan,
        store: &Path,
        holder: Option<(Arc<Record>, DescriptorHolder)>,
    ) -> anyhow::Result<Arc<Keeping>> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let program = openat(CWD, "/proc/self/exe", flags, Mode::empty());
        let volumes = match &holder {
            Some((record, holder)) => {
                let line = holder.as_fd().try_clone_to_owned()?;
                Some((Arc::clone(record), line))
            }
            None => None,
        };
        Ok(Arc::new(Keeping {
            volumes,
            holder: Mutex::new(holder.map(|(_, holder)| holder)),
            plan: plan.clone(),
            store: store.to_owned(),
            program: program.context("opening this program")?,
            state: Mutex::default(),
        }))
    }

    /// Of one whose keeper has started this process.
    pub(super) fn inherited(
        plan: &MountPlan,
        store: &Path,
        keeper: Keeper,
        holder: Option<(Arc<Record>, DescriptorHolder)>,
    ) -> anyhow::Result<Arc<Keeping>> {
        let keeping = Keeping::new(plan, store, holder)?;
        keeping.state.lock().keeper = Some(keeper);
        Ok(keeping)
    }

    /// A memory for a tree, whose names are told from now on.
    pub(super) fn memory(
        self: &Arc<Self>,
        part: Part,
        queue: &Arc<NotifyQueue>,
    ) -> anyhow::Result<Arc<Lasting>> {
        let memory = Lasting::new().context("making a memory for the tree")?;
        self.follow(part, queue, &memory);
        Ok(memory)
    }

    /// The memory that the server before has left.
    pub(super) fn inherit(
        self: &Arc<Self>,
        part: Part,
        queue: &Arc<NotifyQueue>,
        before: &ConnectionBefore,
    ) -> anyhow::Result<Arc<Lasting>> {
        let names = before.names.iter().map(|file| file.try_clone());
        let names = names.map(|file| file.map(Arc::new));
        let names = names.collect::<Result<_, _>>()?;
        *self.state.lock().of(part) = One {
            kept: None,
            names,
            told: true,
        };
        self.follow(part, queue, &before.lasting);
        Ok(Arc::clone(&before.lasting))
    }

    fn follow(self: &Arc<Self>, part: Part, queue: &Arc<NotifyQueue>, memory: &Arc<Lasting>) {
        let (keeping, queue) = (Arc::clone(self), Arc::clone(queue));
        memory.follow(move |file| keeping.show(part, &queue, file));
    }

    /// The names in `file` are about to be shown.
    fn show(&self, part: Part, queue: &NotifyQueue, file: Arc<File>) {
        let alone = queue.drain(Duration::ZERO);
        let mut state = self.state.lock();
        let told = state.of(part).told;
        if let Some(keeper) = state.keeper.as_ref().filter(|_| told)
            && let Err(error) = keeper.names(part.position(), file.as_fd(), alone)
        {
            // It has died; another gets all of them.
            log::debug!("telling the keeper: {error}");
        }
        let names = &mut state.of(part).names;
        let older = match alone {
            true => names.len().saturating_sub(1),
            false => (names.len() + 1).saturating_sub(MAX_NAMES),
        };
        names.drain(..older);
        names.push(file);
    }

    /// The connection that `session` serves is to be kept.
    pub(super) fn add(
        &self,
        part: Part,
        mounted: &Mounted,
        session: &Session,
        memory: &Lasting,
    ) -> anyhow::Result<()> {
        let (connection, agreement) = session.lasting().context("not a lasting connection")?;
        let facts = ConnectionFacts::of(part, mounted, agreement);
        let kept = KeptConnection {
            facts,
            connection: connection.try_clone()?,
            memory: memory.files().context("the tree's memory")?,
        };
        self.state.lock().of(part).kept = Some(kept);
        Ok(())
    }

    /// What is recorded of the volumes for the next server.
    pub(super) fn record(&self) -> Option<Arc<Record>> {
        self.volumes.as_ref().map(|(record, _)| Arc::clone(record))
    }

    /// The volumes are to be kept; to be told before this process serves them.
    pub(super) fn add_volumes(
        &self,
        mounted: &Mounted,
        connection: &OwnedFd,
        agreement: &Agreement,
    ) -> anyhow::Result<()> {
        let (record, holder) = self.volumes.as_ref().context("volumes that are not kept")?;
        let kept = KeptConnection {
            facts: ConnectionFacts::of(Part::Volumes, mounted, agreement),
            connection: connection.try_clone()?,
            memory: [record.file()?, holder.try_clone()?.into()],
        };
        self.state.lock().volumes.kept = Some(kept);
        Ok(())
    }

    /// Whether volumes outlive this process.
    pub(super) fn keeps_volumes(&self) -> bool {
        self.state.lock().volumes.kept.is_some()
    }

    /// A connection is over.
    pub(super) fn drop_part(&self, part: Part) {
        *self.state.lock().of(part) = One::default();
    }

    /// Has the keeper hold what there is to hold now.
    pub(super) fn tell(&self) -> anyhow::Result<()> {
        let mut state = self.state.lock();
        let Some(keeper) = &state.keeper else {
            return Ok(());
        };
        let (keep, files) = self.all(&state)?;
        if let Err(error) = keeper.keep(&keep, &files) {
            // It has died; another is told all of it.
            log::debug!("telling the keeper: {error}");
        }
        state.told();
        Ok(())
    }

    /// Starts a keeper.
    pub(super) fn start(&self) -> anyhow::Result<()> {
        let mut state = self.state.lock();
        let keeper = {
            let (keep, files) = self.all(&state)?;
            Keeper::start(&keep, &files)?
        };
        if self.plan.foreground
            && let Some(pid) = keeper.pid()
            && let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::MainPid(pid)])
        {
            log::warn!("telling the service manager of the keeper: {error}");
        }
        state.keeper = Some(keeper);
        state.told();
        Ok(())
    }

    fn all<'a>(&'a self, state: &'a State) -> anyhow::Result<(Message, Vec<BorrowedFd<'a>>)> {
        let (mut connections, mut names) = (Vec::new(), Vec::new());
        let mut files = vec![self.program.as_fd()];
        for (one, kept) in state.all() {
            connections.push(kept.facts.clone());
            names.push(one.names.len());
            files.push(kept.connection.as_fd());
            files.extend(kept.memory.iter().map(AsFd::as_fd));
            files.extend(one.names.iter().map(|file| file.as_fd()));
        }
        let place = state.images.kept.as_ref().map(|kept| &kept.facts.path);
        let facts = Facts {
            store: self.store.clone(),
            mount_point: place.unwrap_or(&self.plan.mount_point).clone(),
            options: self.plan.words.clone(),
            trash: self.plan.options.trash,
            foreground: self.plan.foreground,
            connections,
        };
        let state = serde_json::to_vec(&facts).context("describing the mount")?;
        Ok((Message::Keep { names, state }, files))
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
        if let Some(holder) = self.holder.lock().take() {
            holder.end();
        }
    }
}
