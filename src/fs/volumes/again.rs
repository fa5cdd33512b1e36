//! Requests that an earlier process has read and not answered, which the kernel sends again (`FUSE_NOTIFY_RESEND`, Linux 6.9).
//!
//! The earlier process may have done what they ask for. Whoever is about to do something that cannot be done twice notes first what there
//! was before ([`VolumeTree::about_to`]); the next process, asked again, looks whether it is still so. Without a note nothing was done.
//! A reference on an inode, or an open file, that the kernel was not told of is given back before the request is done again.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use rustix::io::Errno;

use super::super::api::InodeNo;
use super::VolumeTree;
use super::attr::{FileNo, VolumeError};
use super::nodes::Node;
use super::record::Record;
use crate::sys::beneath;

/// `FUSE_UNIQUE_RESEND`.
const AGAIN: u64 = 1 << 63;
/// Each thread has two notes; the others are of earlier processes.
const THREADS: u32 = 64;
/// In a note: the inode was entered for the kernel, once.
const ENTERED: u64 = u64::MAX;

thread_local! {
    static REQUEST: Cell<u64> = const { Cell::new(0) };
    static THREAD: u32 = {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % THREADS
    };
}

/// What earlier processes have left undone, or unsaid.
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    notes: HashMap<u64, Vec<Note>>,
    files: HashMap<u64, (InodeNo, FileNo)>,
}

/// What there was before: a host's inode and device, or a size; zeros for nothing.
type Note = [u64; 2];

/// The request that the calling thread is at.
pub(super) fn request() -> u64 {
    REQUEST.get() & !AGAIN
}

fn is_again() -> bool {
    REQUEST.get() & AGAIN != 0
}

impl Unanswered {
    /// What is in the record of an earlier process, which is told on to the next.
    pub(super) fn of(before: &Record, now: &Record) -> Unanswered {
        let mut all = Unanswered::default();
        for ((request, note), at) in before.steps().into_iter().zip(2 * THREADS..) {
            all.notes.entry(request).or_default().push(note);
            now.put_step(at, request, note);
        }
        all
    }

    pub(super) fn put_file(&mut self, request: u64, ino: InodeNo, file: FileNo) {
        self.files.insert(request, (ino, file));
    }
}

impl VolumeTree {
    /// The calling thread is at a request. A file is given back that was opened for it before, and that the kernel was not told of.
    pub fn begins(&self, request: u64) -> Option<(InodeNo, FileNo)> {
        REQUEST.set(request);
        if !is_again() {
            return None;
        }
        let mut unanswered = self.unanswered.lock();
        let notes = unanswered.notes.get(&self::request());
        let entered = notes
            .into_iter()
            .flatten()
            .find(|[_, what]| *what == ENTERED);
        let entered = entered.copied();
        let file = unanswered.files.remove(&self::request());
        drop(unanswered);
        if let Some([ino, _]) = entered {
            self.nodes.forget(InodeNo(ino), 1);
        }
        file
    }

    /// Notes what there is before the calling thread changes it.
    pub(super) fn about_to(&self, what: impl FnOnce() -> Note) {
        if let Some(record) = &self.files.record {
            record.put_step(THREAD.with(|thread| 2 * thread), request(), what());
        }
    }

    /// Notes that an inode was entered for the kernel.
    pub(super) fn has_entered(&self, ino: InodeNo) {
        if let Some(record) = &self.files.record {
            record.put_step(
                THREAD.with(|thread| 2 * thread + 1),
                request(),
                [ino.0, ENTERED],
            );
        }
    }

    /// What there was before the request was begun for the first time, if it was.
    pub(super) fn before(&self) -> Option<Note> {
        is_again().then_some(())?;
        let unanswered = self.unanswered.lock();
        let notes = unanswered.notes.get(&request())?;
        notes.iter().find(|[_, what]| *what != ENTERED).copied()
    }

    /// What a name is, to be noted.
    pub(super) fn what_is(&self, parent: &Node, name: &[u8]) -> Note {
        let child = self.host.child(parent, name);
        child.and_then(beneath::stat).map_or([0, 0], |stat| {
            let device = beneath::device(&stat);
            let device = u64::from(device.major) << 32 | u64::from(device.minor);
            [stat.stx_ino, device]
        })
    }

    /// Makes `name`; what the same request has made before is there already.
    pub(super) fn once(
        &self,
        parent: &Node,
        name: &[u8],
        make: impl FnOnce() -> Result<(), VolumeError>,
    ) -> Result<(), VolumeError> {
        let before = self.before();
        self.about_to(|| before.unwrap_or_else(|| self.what_is(parent, name)));
        match make() {
            Err(VolumeError::Host(Errno::EXIST)) if before == Some([0, 0]) => Ok(()),
            made => made,
        }
    }

    /// Removes `name`, unless the same request has done so before.
    pub(super) fn remove_once(
        &self,
        parent: &Node,
        name: &[u8],
        remove: impl FnOnce() -> Result<(), VolumeError>,
    ) -> Result<(), VolumeError> {
        if let Some(before) = self.before()
            && before != [0, 0]
            && self.what_is(parent, name) != before
        {
            return Ok(());
        }
        self.about_to(|| self.what_is(parent, name));
        remove()
    }

    /// Moves `from` to `to`, unless the same request has done so before.
    pub(super) fn move_once(
        &self,
        from: (&Node, &[u8]),
        to: (&Node, &[u8]),
        rename: impl FnOnce() -> Result<(), VolumeError>,
    ) -> Result<(), VolumeError> {
        if let Some(before) = self.before()
            && before != [0, 0]
            && self.what_is(from.0, from.1) != before
            && self.what_is(to.0, to.1) == before
        {
            return Ok(());
        }
        self.about_to(|| self.what_is(from.0, from.1));
        rename()
    }
}

/// To be held for a moment.
pub(super) type Table = Mutex<Unanswered>;
