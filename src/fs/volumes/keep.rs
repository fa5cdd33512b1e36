//! What the kernel may keep of a volume, and when it has to forget it.
//!
//! A volume whose data lies in the store changes through mounts of the store and where it is mounted directly, into a container.
//! A mount that is alone with a volume ([`VolumeHold`]) lets the kernel keep names, absent names, attributes, ACLs and listings of
//! it without limit; others look at it uncached, and come in before they change something. Then the one that was alone
//!
//! 1. answers with nothing to be kept from now on (`gate`: an answer and what it says of keeping are one step),
//! 2. waits until each thread that was told to keep a name it knew already has taken note (`told`),
//! 3. has every name and inode it spoke of expire, waits until the kernel has done so,
//! 4. lets the others in.
//!
//! Why nothing slips through: a first lookup, and whatever makes a name, holds the lock of the directory until the kernel has
//! taken the answer in, and expiring a name waits for that lock; an inode that was told to expire ignores older answers
//! (`attr_version`). Only a name that is asked about again has neither, hence 2. Step 3 has the names first: then all
//! inodes are there. Names are told to expire, never dropped: working directories and mounts on them stay.
//!
//! Content is never kept here: it is the host's page cache, or read anew each time. The attributes of a file that is open for
//! writing are not kept (a mapping changes it and nobody says so), and expire when it is closed.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::super::api::{Caller, InodeNo};
use super::VolumeTree;
use super::attached::{Attached, Held, Keep, Mode};
use super::attr::VolumeError;
use super::nodes::Node;
use super::record::{Facts, Kind, Mark};
use crate::sys::procfs;

use crate::store::{VolumeHold, VolumeId, VolumeName};

/// How long is without limit: the kernel's own is beyond any machine's life.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long a name may be kept on a connection that outlives this process: the next one does not know all of them, and lets nobody in
/// before they have expired. Less than a newcomer waits.
const LASTING: Duration = Duration::from_secs(2);
/// And how long a thread may take to note it that has been answered.
const NOTED: Duration = Duration::from_secs(1);
/// Who was asked to let others in does not try to be alone again before; longer than a newcomer waits, and than one who is done takes
/// to leave (`IDLE` and two rounds of the sweep): a mount that tries before that leaves, and the other is alone with the volume.
const TRUCE: Duration = Duration::from_secs(9);
/// Who has not changed anything for so long leaves.
const IDLE: Duration = Duration::from_secs(4);
/// How long a thread may take to take note of an answer.
const NOTE_PATIENCE: Duration = Duration::from_secs(3);
/// A thread that has run for so long since its answer has taken note of it.
const SURELY_NOTED: u64 = 1_000_000;

/// What the kernel may keep of an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Keeping {
    /// The name, or that there is none.
    pub name: Duration,
    /// The attributes.
    pub attributes: Duration,
    /// Whether the volume is this mount's alone.
    pub alone: bool,
}

impl Keeping {
    const NOTHING: Keeping = Keeping {
        name: Duration::ZERO,
        attributes: Duration::ZERO,
        alone: false,
    };
}

/// How a name comes to be answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Named {
    /// It was looked up.
    Found,
    /// It was made, or is that of a handle: under the directory's lock, or no name at all.
    Made,
}

/// A change under way, or a file open for writing: others were let in before, and this mount stays.
#[derive(Debug)]
pub(super) struct Use(Option<Arc<Attached>>);

impl Drop for Use {
    fn drop(&mut self) {
        if let Some(Keep { uses, .. }) = self.0.as_ref().and_then(|volume| volume.keep.as_ref()) {
            uses.fetch_sub(1, Ordering::Release);
        }
    }
}

/// Threads that were told to keep a name they had, each with the number of its last such answer.
#[derive(Debug, Default)]
pub(super) struct Told {
    threads: Mutex<HashMap<u32, u64>>,
    answers: AtomicU64,
}

impl VolumeTree {
    /// Nothing is kept until the kernel is known to forget when told so (6.2).
    pub fn kernel_expires_names(&self, able: bool) {
        self.keeps
            .store(able && self.options.keep, Ordering::Relaxed);
    }

    /// Answers with what the kernel may keep of `ino`: one step for whoever has it forget.
    pub fn answering<T>(
        &self,
        caller: &Caller,
        ino: InodeNo,
        named: Named,
        fresh: bool,
        answer: impl FnOnce(Keeping) -> T,
    ) -> T {
        let Ok(node) = self.nodes.get(ino) else {
            return answer(Keeping::NOTHING);
        };
        let _gate = self.gate.read();
        if !node.is_alone() {
            return answer(Keeping::NOTHING);
        }
        let name = match named {
            Named::Made => self.longest(),
            Named::Found if fresh || self.tell(caller.pid) => self.longest(),
            Named::Found => Duration::ZERO,
        };
        let attributes = match node.is_written() {
            true => Duration::ZERO,
            false => FOR_EVER,
        };
        answer(Keeping {
            name,
            attributes,
            alone: true,
        })
    }

    /// Answers that there is no `name`.
    pub fn answering_nothing<T>(
        &self,
        parent: InodeNo,
        name: &[u8],
        answer: impl FnOnce(Duration) -> T,
    ) -> T {
        let Ok(node) = self.nodes.get(parent) else {
            return answer(Duration::ZERO);
        };
        let _gate = self.gate.read();
        match &node.volume.keep {
            Some(keep) if node.is_alone() && keep.note(parent, name) => answer(self.longest()),
            _ => answer(Duration::ZERO),
        }
    }

    /// How long a name may be kept.
    fn longest(&self) -> Duration {
        match self.files.record {
            Some(_) => LASTING,
            None => FOR_EVER,
        }
    }

    /// Remembers that a thread is told to keep a name it asked about again; false if it cannot be watched.
    fn tell(&self, thread: u32) -> bool {
        if thread == 0 {
            return false;
        }
        let answer = self.told.answers.fetch_add(1, Ordering::Relaxed);
        self.told.threads.lock().insert(thread, answer);
        true
    }

    /// A thread that asks something has taken note of its last answer.
    pub fn asks(&self, caller: &Caller) {
        let mut threads = self.told.threads.lock();
        if !threads.is_empty() {
            threads.remove(&caller.pid);
        }
    }

    /// Waits until every thread has taken note of what it has been told before; false if one does not.
    fn all_noted(&self) -> bool {
        let until = Instant::now() + NOTE_PATIENCE;
        let told = self.told.threads.lock().clone();
        let mut waiting: Vec<_> = told.into_iter().map(|told| (told, None)).collect();
        loop {
            waiting.retain_mut(|((thread, answer), ran)| {
                let last = self.told.threads.lock().get(thread).copied();
                last == Some(*answer) && !has_noted(*thread, ran)
            });
            if waiting.is_empty() {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// The kernel was told to keep `name`, which is not that of a node any more, or not its only one.
    pub(super) fn also_named(&self, volume: &Attached, parent: InodeNo, name: &[u8]) {
        if let Some(keep) = &volume.keep
            && keep.alone.load(Ordering::Acquire)
            && !keep.note(parent, name)
        {
            self.cache.expire_entry(parent, name);
        }
    }

    /// Before a change: whoever is alone with the volume elsewhere lets this mount in.
    pub(super) fn using(&self, volume: &Arc<Attached>) -> Result<Use, VolumeError> {
        let Some(keep) = &volume.keep else {
            return Ok(Use(None));
        };
        let mut held = keep.held.lock();
        held.last_use = Instant::now();
        if matches!(held.mode, Mode::Out)
            && let Some(hold) = self.hold(volume, &mut held)
        {
            // One that is about to end has no name, and gets it back: there is a user. The name is for messages.
            let name = match self.volume_of(volume) {
                Some(volume) => Ok(volume.name),
                None => VolumeName::parse(volume.id.as_str()),
            };
            let name = name.map_err(|_| rustix::io::Errno::STALE)?;
            let own = self.options.lease.as_ref();
            self.store.share_volume(hold, &volume.id, &name, own)?;
            held.mode = Mode::Shared;
            held.note(Mode::Shared);
        }
        keep.uses.fetch_add(1, Ordering::AcqRel);
        drop(held);
        Ok(Use(Some(Arc::clone(volume))))
    }

    /// The means to hold it; `None` where there can be no lock, and so nobody who keeps anything.
    fn hold<'a>(&self, volume: &Attached, held: &'a mut Held) -> Option<&'a VolumeHold> {
        if held.hold.is_none() {
            match self.store.volume_hold(&volume.id) {
                Ok(hold) => {
                    held.mark = self.mark_hold(volume.number, &hold);
                    held.hold = Some(hold);
                }
                Err(error) => log::debug!("{error}"),
            }
        }
        held.hold.as_ref()
    }

    fn mark_hold(&self, volume: u32, hold: &VolumeHold) -> Mark {
        let facts = Facts {
            volume,
            ..Facts::default()
        };
        match &self.files.record {
            Some(record) => record.mark(hold, Kind::Hold, &facts, None),
            None => Mark::default(),
        }
    }

    /// Goes on with the hold of an earlier process, which has been there all the time: what the kernel keeps of the volume is true, but
    /// for changes that were not answered.
    pub(super) fn restore_hold(&self, volume: &Attached, hold: VolumeHold, mode: u64) {
        let Some(keep) = &volume.keep else {
            return;
        };
        let mut held = keep.held.lock();
        held.mark = self.mark_hold(volume.number, &hold);
        held.mode = Mode::recorded(mode);
        held.note(held.mode);
        match held.mode {
            Mode::Alone => {
                held.until = Some(Instant::now() + LASTING + NOTED);
                keep.alone.store(true, Ordering::Release);
            }
            // It may have got in without being recorded.
            Mode::Out => {
                if let Err(error) = hold.let_go() {
                    log::warn!("volume {}: {error}", volume.id);
                }
            }
            Mode::Shared | Mode::Leaving => {}
        }
        held.hold = Some(hold);
    }

    /// Takes the volume for itself, if nobody else has it.
    pub(super) fn try_alone(&self, volume: &Arc<Attached>) {
        let Some(keep) = &volume.keep else {
            return;
        };
        if !self.keeps.load(Ordering::Relaxed) {
            return;
        }
        // Who has it at the moment is in the middle of a change.
        let Some(mut held) = keep.held.try_lock() else {
            return;
        };
        let now = Instant::now();
        if matches!(held.mode, Mode::Alone | Mode::Leaving)
            || held.not_alone_before.is_some_and(|before| now < before)
        {
            return;
        }
        let shared = matches!(held.mode, Mode::Shared);
        let idle = now.duration_since(held.last_use) > IDLE;
        let Some(hold) = self.hold(volume, &mut held) else {
            return;
        };
        match hold.try_alone() {
            Ok(true) => {
                held.note(Mode::Alone);
                held.mode = Mode::Alone;
                keep.alone.store(true, Ordering::Release);
            }
            // Uses begin under the lock that is held here.
            Ok(false) if shared && idle && keep.uses.load(Ordering::Acquire) == 0 => {
                match hold.let_go() {
                    Ok(()) => {
                        held.mode = Mode::Out;
                        held.note(Mode::Out);
                    }
                    Err(error) => log::warn!("volume {}: {error}", volume.id),
                }
            }
            Ok(false) => {}
            Err(error) => log::debug!("volume {}: {error}", volume.id),
        }
    }

    /// From now on the kernel keeps nothing of the volume; what it has been told is queued to be forgotten. Whether there is
    /// anything to wait for, after which [`VolumeTree::let_in`] is to be called.
    pub fn stop_keeping(&self, id: &VolumeId) -> Result<bool, VolumeError> {
        let Some(volume) = self.known.by_id(id) else {
            return Ok(false);
        };
        let Some(keep) = &volume.keep else {
            return Ok(false);
        };
        {
            let mut held = keep.held.lock();
            match held.mode {
                Mode::Out => return Ok(false),
                Mode::Shared => {
                    held.not_alone_before = Some(Instant::now() + TRUCE);
                    return Ok(false);
                }
                Mode::Alone | Mode::Leaving => held.mode = Mode::Leaving,
            }
            let _gate = self.gate.write();
            keep.alone.store(false, Ordering::Release);
        }
        if !self.all_noted() {
            return Err(rustix::io::Errno::BUSY.into());
        }
        self.have_forgotten(&volume, keep);
        Ok(true)
    }

    /// Has the kernel asked to forget all that it was told to keep of a volume.
    pub(super) fn have_forgotten(&self, volume: &Attached, keep: &Keep) {
        let nodes = self.nodes.of(volume.number);
        let inside = nodes.iter().filter(|node| !node.top);
        for (parent, name) in inside.filter_map(|node| node.last_name()) {
            self.cache.expire_entry(parent, &name);
        }
        for (parent, name) in &*keep.names.lock() {
            self.cache.expire_entry(*parent, name);
        }
        for node in &nodes {
            let attrs_only = node.kind != rustix::fs::FileType::Directory;
            self.cache.invalidate_inode(node.ino, attrs_only);
        }
    }

    /// The kernel has forgotten everything of the volume: others may change it.
    pub fn let_in(&self, id: &VolumeId) -> Result<(), VolumeError> {
        let Some(volume) = self.known.by_id(id) else {
            return Ok(());
        };
        let Some(keep) = &volume.keep else {
            return Ok(());
        };
        let until = keep.held.lock().until;
        if let Some(until) = until {
            thread::sleep(until.saturating_duration_since(Instant::now()));
        }
        let mut held = keep.held.lock();
        if !matches!(held.mode, Mode::Leaving) {
            return Ok(());
        }
        if let Some(hold) = &held.hold {
            hold.try_share().map_err(super::attr::io_error)?;
        }
        held.mode = Mode::Shared;
        held.note(Mode::Shared);
        held.not_alone_before = Some(Instant::now() + TRUCE);
        keep.names.lock().clear();
        drop(held);
        // Which volume the name stands for is told when that changes; not waited for, since the directory of volumes may be
        // locked by who waits for us.
        for node in self.nodes.of(volume.number) {
            if let Some((parent, name)) = node.last_name().filter(|_| node.top) {
                self.cache.expire_entry(parent, &name);
            }
        }
        Ok(())
    }

    /// Now and then: takes volumes that are free, leaves those that others want.
    pub(super) fn keep_more(&self) {
        for volume in self.known.all() {
            self.try_alone(&volume);
        }
    }

    /// The kernel has seen the end of a listing through a handle that keeps it, after others were let in.
    pub(super) fn forget_listing(&self, node: &Node) {
        if !node.is_alone() {
            self.cache.invalidate_inode(node.ino, false);
        }
    }
}

impl Node {
    /// Whether the kernel may keep anything of its volume, now or at another time.
    pub(super) fn is_kept(&self) -> bool {
        self.volume.keep.is_some()
    }

    /// Whether the kernel may keep what it is told of it; to be asked with the gate held.
    pub(super) fn is_alone(&self) -> bool {
        let keep = self.volume.keep.as_ref();
        keep.is_some_and(|keep| keep.alone.load(Ordering::Acquire))
    }
}

/// Whether a thread that was answered has gone on since: it sleeps, it is gone, or it has run for long enough. An answer makes it
/// ready to run at once, and it sleeps no more before it has taken note.
fn has_noted(thread: u32, ran: &mut Option<u64>) -> bool {
    let Ok(stat) = fs::read_to_string(procfs::path(thread, "stat")) else {
        return true;
    };
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.as_bytes());
    if state.and_then(|rest| rest.first()) != Some(&b'R')
        && state.and_then(|rest| rest.first()) != Some(&b'D')
    {
        return true;
    }
    let schedule = fs::read_to_string(procfs::path(thread, "schedstat")).unwrap_or_default();
    let now = schedule.split_ascii_whitespace().next();
    let Some(now) = now.and_then(|now| now.parse::<u64>().ok()) else {
        return false;
    };
    let before = *ran.get_or_insert(now);
    now.saturating_sub(before) > SURELY_NOTED
}
