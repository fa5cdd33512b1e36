//! A volume that has been visited, and the state of what the kernel keeps of it; the rules are in `keep`.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Instant;

use parking_lot::Mutex;

use super::super::api::InodeNo;
use super::record::Mark;
use crate::store::{VolumeHold, VolumeId};

/// Names noted for one volume beside those of its nodes; beyond, absent names are not kept.
const MAX_NAMES: usize = 1 << 17;

/// A volume that has been visited through this mount.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) id: VolumeId,
    /// Its number in this mount.
    pub(super) number: u32,
    pub(super) read_only: bool,
    /// What the kernel keeps of it; `None`: nothing, the data is not ours.
    pub(super) keep: Option<Keep>,
}

/// How a volume is held.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Mode {
    /// Not at all: it may be looked at.
    Out,
    /// The kernel keeps what it is told.
    Alone,
    /// The kernel keeps nothing any more, and may not have forgotten everything.
    Leaving,
    /// Others may change it, too.
    Shared,
}

#[derive(Debug)]
pub(super) struct Held {
    pub(super) mode: Mode,
    pub(super) mark: Mark,
    pub(super) hold: Option<VolumeHold>,
    /// What an earlier process has had the kernel keep, and this one does not know of, it keeps until then.
    pub(super) until: Option<Instant>,
    pub(super) not_alone_before: Option<Instant>,
    pub(super) last_use: Instant,
}

impl Held {
    /// What the next process is to begin with, before it is so; or after, where that keeps more.
    pub(super) fn note(&self, mode: Mode) {
        self.mark.backing(match mode {
            Mode::Out => 0,
            Mode::Shared => 1,
            Mode::Alone | Mode::Leaving => 2,
        });
    }
}

impl Mode {
    pub(super) fn recorded(number: u64) -> Mode {
        match number {
            1 => Mode::Shared,
            2 => Mode::Alone,
            _ => Mode::Out,
        }
    }
}

/// What is kept of one volume.
#[derive(Debug)]
pub(super) struct Keep {
    pub(super) alone: AtomicBool,
    /// Changes under way, and files open for writing.
    pub(super) uses: AtomicUsize,
    pub(super) held: Mutex<Held>,
    /// Names the kernel was told to keep, beside the one that each node has.
    pub(super) names: Mutex<HashSet<(InodeNo, Box<[u8]>)>>,
}

impl Keep {
    pub(super) fn new() -> Keep {
        Keep {
            alone: AtomicBool::new(false),
            uses: AtomicUsize::new(0),
            held: Mutex::new(Held {
                mode: Mode::Out,
                mark: Mark::default(),
                hold: None,
                until: None,
                not_alone_before: None,
                last_use: Instant::now(),
            }),
            names: Mutex::default(),
        }
    }

    /// Notes a name; false if there are too many.
    pub(super) fn note(&self, parent: InodeNo, name: &[u8]) -> bool {
        let mut names = self.names.lock();
        names.len() < MAX_NAMES && {
            names.insert((parent, name.into()));
            true
        }
    }
}
