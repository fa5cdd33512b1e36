//! Who has listed which tag, and which removals are staged.
//!
//! A [`Process`] that has listed a root directory may unlink what is inside: each unlink is answered with success, and only
//! noted here. The stage ends when the root directory is removed, by whomever, or when the process does. Then the kernel's
//! link counts of the files, which it has lowered by itself, are made true again.
//!
//! Nothing here can be grown without bound by others: listers are a bounded list, oldest out first; a stage costs its process
//! one request per entry.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::fs::api::{FsError, InodeNo, KernelCache};
use crate::fs::images::lasting::Lasting;
use crate::sys::proc;

/// So many listings are remembered: `ls -R images` makes one per tag.
const MAX_LISTERS: usize = 4096;
/// How long a refusal stands before users are looked for again: `rm -r` goes on asking for every file.
const REFUSAL: Duration = Duration::from_secs(1);
/// How long a process may be on its way in after it has asked for the root directory's attributes.
const ENTERING: Duration = Duration::from_millis(100);
/// How often a watcher wakes up for nothing.
const NAP: Duration = Duration::from_secs(3600);

/// One process, for ever: its pid and when it started.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(in crate::fs::images) struct Process {
    pub pid: u32,
    start: u64,
}

impl Process {
    /// The process of thread `tid`; `None` for one of a foreign pid namespace, or gone.
    fn of_thread(tid: u32) -> Option<Process> {
        let pid = proc::thread_group(tid)?;
        let start = proc::start_time(pid)?;
        Some(Process { pid, start })
    }
}

/// What is known of a process and a tree.
pub(super) enum Verdict {
    /// It has a stage.
    Staged,
    /// It has a stage, and somebody may have entered since users were looked for.
    Entered,
    /// It was refused a moment ago, for this reason.
    Refused(String),
    Unknown,
}

#[derive(Debug)]
enum Stage {
    Open {
        what: String,
        leaves: Vec<InodeNo>,
        handle: Arc<proc::Process>,
    },
    Refused {
        why: String,
        when: Instant,
    },
}

#[derive(Debug, Default)]
struct State {
    listers: VecDeque<(InodeNo, Process)>,
    stages: HashMap<(InodeNo, Process), Stage>,
    watched: HashSet<Process>,
    /// When somebody else than its remover last asked for the root directory of a tree with a stage.
    asked: HashMap<InodeNo, Instant>,
}

/// All listers and stages, by the root directory's number.
pub(in crate::fs::images) struct Stages {
    cache: Arc<dyn KernelCache>,
    lasting: Option<Arc<Lasting>>,
    state: Mutex<State>,
    /// How many stages there are, to know cheaply that there is none.
    open: AtomicUsize,
}

impl Stages {
    pub(crate) fn new(cache: Arc<dyn KernelCache>, lasting: Option<Arc<Lasting>>) -> Arc<Stages> {
        // What an earlier process had staged has ended with it.
        for ino in lasting.iter().flat_map(|lasting| lasting.staged()) {
            cache.invalidate_inode(InodeNo(ino), true);
        }
        Arc::new(Stages {
            cache,
            lasting,
            state: Mutex::default(),
            open: AtomicUsize::new(0),
        })
    }

    /// Notes that thread `tid` asks for the root directory, as whoever enters does; whether it is to ask again each time.
    pub(crate) fn note_asking(&self, root: InodeNo, tid: u32) -> bool {
        if self.open.load(Ordering::SeqCst) == 0 {
            return false;
        }
        let mut state = self.state.lock();
        let removers: Vec<u32> = state
            .stages
            .iter()
            .filter(|((of, _), stage)| *of == root && matches!(stage, Stage::Open { .. }))
            .map(|((_, process), _)| process.pid)
            .collect();
        if removers.iter().any(|remover| *remover != tid) {
            state.asked.insert(root, Instant::now());
        }
        !removers.is_empty()
    }

    pub(crate) fn note_listing(&self, root: InodeNo, tid: u32) {
        let Some(process) = Process::of_thread(tid) else {
            return;
        };
        let mut state = self.state.lock();
        let entry = (root, process);
        state.listers.retain(|known| *known != entry);
        state.listers.push_back(entry);
        while state.listers.len() > MAX_LISTERS {
            state.listers.pop_front();
        }
    }

    /// The process of a thread, if it has listed the root directory or has a stage there.
    pub(crate) fn lister(&self, root: InodeNo, tid: u32) -> Option<Process> {
        // One of many unlinks: while the process lives its pid is nobody else's.
        for ((of, process), stage) in &self.state.lock().stages {
            if (*of, process.pid) == (root, tid)
                && let Stage::Open { handle, .. } = stage
                && handle.wait(Duration::ZERO).is_ok_and(|ended| !ended)
            {
                return Some(*process);
            }
        }
        let process = Process::of_thread(tid)?;
        let key = (root, process);
        let state = self.state.lock();
        let known = state.stages.contains_key(&key) || state.listers.contains(&key);
        known.then_some(process)
    }

    /// The process of a thread, if it has the root directory open.
    pub(crate) fn holder(&self, root: InodeNo, tid: u32) -> Option<Process> {
        let process = Process::of_thread(tid)?;
        let open = proc::open_inodes(process.pid);
        open.contains(&root.0).then_some(process)
    }

    pub(super) fn verdict(&self, root: InodeNo, process: Process) -> Verdict {
        let state = self.state.lock();
        let asked = state.asked.get(&root);
        match state.stages.get(&(root, process)) {
            Some(Stage::Open { .. }) if asked.is_some_and(|at| at.elapsed() < ENTERING) => {
                Verdict::Entered
            }
            Some(Stage::Open { .. }) => Verdict::Staged,
            Some(Stage::Refused { why, when }) if when.elapsed() < REFUSAL => {
                Verdict::Refused(why.clone())
            }
            Some(Stage::Refused { .. }) | None => Verdict::Unknown,
        }
    }

    pub(crate) fn refuse(&self, root: InodeNo, process: Process, why: &str) {
        let refused = Stage::Refused {
            why: why.to_owned(),
            when: Instant::now(),
        };
        let mut state = self.state.lock();
        state.stages.retain(|_, stage| match stage {
            Stage::Open { .. } => true,
            Stage::Refused { when, .. } => when.elapsed() < REFUSAL,
        });
        state.stages.insert((root, process), refused);
    }

    /// Opens a stage. `what` is removed, for the log.
    pub(crate) fn begin(
        self: &Arc<Self>,
        root: InodeNo,
        process: Process,
        what: String,
    ) -> Result<(), FsError> {
        let io = |source| FsError::Io {
            context: format!("watching process {}", process.pid),
            source,
        };
        let handle = proc::Process::open(process.pid).map_err(io)?;
        // Ended this moment, or the pid is another's by now: whoever asked gets no answer.
        let is_it = proc::start_time(process.pid) == Some(process.start);
        let Some(handle) = handle.filter(|_| is_it).map(Arc::new) else {
            return Err(FsError::ReadOnly);
        };
        let mut state = self.state.lock();
        if !state.watched.contains(&process) {
            self.watch(process, handle.clone()).map_err(io)?;
            state.watched.insert(process);
        }
        let stage = Stage::Open {
            what,
            leaves: Vec::new(),
            handle,
        };
        state.stages.insert((root, process), stage);
        self.count(&mut state);
        // Since users were looked for somebody may have come.
        state.asked.insert(root, Instant::now());
        drop(state);
        // From now on who enters asks us first.
        self.cache.invalidate_attributes_now(root);
        Ok(())
    }

    /// The process has begun to remove a tree that somebody has entered: nothing of it has happened.
    pub(crate) fn withdraw(&self, root: InodeNo, process: Process) {
        let mut state = self.state.lock();
        let stage = state.stages.remove(&(root, process));
        self.count(&mut state);
        drop(state);
        if let Some(Stage::Open { leaves, .. }) = stage {
            self.restore(&leaves);
        }
    }

    /// After the stages have changed.
    fn count(&self, state: &mut State) {
        let open = |stage: &&Stage| matches!(stage, Stage::Open { .. });
        let count = state.stages.values().filter(open).count();
        self.open.store(count, Ordering::SeqCst);
        if count == 0 {
            state.asked.clear();
        }
    }

    pub(crate) fn add_leaf(&self, root: InodeNo, process: Process, leaf: InodeNo) {
        if let Some(Stage::Open { leaves, .. }) = self.state.lock().stages.get_mut(&(root, process))
        {
            if let Some(lasting) = &self.lasting {
                lasting.put_staged(leaf.0);
            }
            leaves.push(leaf);
        }
    }

    /// The tree is removed: its stages end, and nobody has listed it any more.
    pub(crate) fn finish(&self, root: InodeNo) {
        let mut ended = Vec::new();
        {
            let mut state = self.state.lock();
            state.listers.retain(|(listed, _)| *listed != root);
            state.stages.retain(|(of, _), stage| {
                let ends = *of == root;
                if let (true, Stage::Open { leaves, .. }) = (ends, stage) {
                    ended.append(leaves);
                }
                !ends
            });
            state.asked.remove(&root);
            self.count(&mut state);
        }
        self.restore(&ended);
    }

    /// Waits in a thread for the end of a process.
    fn watch(self: &Arc<Self>, process: Process, handle: Arc<proc::Process>) -> io::Result<()> {
        let stages = self.clone();
        let wait = move || {
            loop {
                match handle.wait(NAP) {
                    Ok(true) => break,
                    Ok(false) => {}
                    Err(error) => {
                        log::error!("watching process {}: {error}", process.pid);
                        break;
                    }
                }
            }
            // Waits for whoever began the stage: it is in the table by then.
            stages.process_ended(process);
        };
        let thread = thread::Builder::new()
            .name("mica-stage".to_owned())
            .stack_size(128 * 1024);
        thread.spawn(wait).map(drop)
    }

    fn process_ended(&self, process: Process) {
        let mut dropped = Vec::new();
        {
            let mut state = self.state.lock();
            state.watched.remove(&process);
            state.listers.retain(|(_, lister)| *lister != process);
            state.stages.retain(|(_, of), stage| {
                let ends = *of == process;
                if let (true, Stage::Open { what, leaves, .. }) = (ends, stage) {
                    dropped.push((std::mem::take(what), std::mem::take(leaves)));
                }
                !ends
            });
            self.count(&mut state);
        }
        for (what, leaves) in dropped {
            log::info!(
                "process {} ended before it removed {what}: the {} files it has unlinked stay",
                process.pid,
                leaves.len()
            );
            self.restore(&leaves);
        }
    }

    /// The kernel has lowered the link counts of these files: it must ask again.
    fn restore(&self, leaves: &[InodeNo]) {
        for leaf in leaves {
            self.cache.invalidate_inode(*leaf, true);
            if let Some(lasting) = &self.lasting {
                lasting.drop_staged(leaf.0);
            }
        }
    }

    #[cfg(test)]
    pub fn open_stages(&self) -> usize {
        let state = self.state.lock();
        state
            .stages
            .values()
            .filter(|stage| matches!(stage, Stage::Open { .. }))
            .count()
    }
}

impl std::fmt::Debug for Stages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stages")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
