//! What a daemon knows of the use of its volumes without looking into `/proc`: files opened through its own mount.
//!
//! An open and a close that lie between two looks at the processes are a use all the same. The file system calls
//! [`Activity::opened`] when a regular file (or a device, a pipe) of a volume is opened, never for a directory, and
//! [`Activity::closed`] when the kernel has let go of it, mappings included.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::store::VolumeId;

/// Open files by volume; shared by the file system and whoever ends ephemeral volumes.
#[derive(Debug, Default)]
pub struct Activity {
    state: Mutex<State>,
    woken: Condvar,
}

#[derive(Debug, Default)]
struct State {
    files: HashMap<VolumeId, Files>,
    /// Volumes whose next use is worth a look at once.
    awaited: HashSet<VolumeId>,
    /// Something happened since the last [`Activity::wait`].
    news: bool,
}

/// Open files of one volume.
#[derive(Debug, Clone, Copy)]
pub struct Files {
    /// Open now.
    pub open: usize,
    /// When the last one was closed or opened.
    pub last: Instant,
}

impl State {
    /// How many files of the volume are open now.
    fn change(&mut self, volume: &VolumeId, count: impl FnOnce(usize) -> usize) -> usize {
        let last = Instant::now();
        // Looked up before it is cloned: opens are frequent.
        match self.files.get_mut(volume) {
            Some(files) => {
                (files.open, files.last) = (count(files.open), last);
                files.open
            }
            None => {
                let open = count(0);
                self.files.insert(volume.clone(), Files { open, last });
                open
            }
        }
    }
}

impl Activity {
    /// A file of the volume was opened.
    pub fn opened(&self, volume: &VolumeId) {
        let mut state = self.state.lock();
        // The first of them; and a thread woken for each file costs more than the file.
        if state.change(volume, |open| open.saturating_add(1)) == 1
            && state.awaited.contains(volume)
        {
            state.news = true;
            self.woken.notify_all();
        }
    }

    /// A file of the volume was closed.
    pub fn closed(&self, volume: &VolumeId) {
        let mut state = self.state.lock();
        state.change(volume, |open| open.saturating_sub(1));
    }

    /// The open files of a volume; `None` if no file was ever opened.
    pub fn of(&self, volume: &VolumeId) -> Option<Files> {
        self.state.lock().files.get(volume).copied()
    }

    /// From now on the first use of these volumes ends [`Activity::wait`]; of others it does not.
    pub fn await_use(&self, volumes: HashSet<VolumeId>) {
        self.state.lock().awaited = volumes;
    }

    /// Forgets volumes that are not there any more.
    pub fn retain(&self, is_there: impl Fn(&VolumeId) -> bool) {
        let mut state = self.state.lock();
        state
            .files
            .retain(|id, files| files.open > 0 || is_there(id));
    }

    /// Something else happened that is worth a look: volumes have changed, or the daemon ends.
    pub fn wake(&self) {
        self.state.lock().news = true;
        self.woken.notify_all();
    }

    /// Waits until something happens, at most `timeout`; without one for as long as it takes.
    pub fn wait(&self, timeout: Option<Duration>) {
        let mut state = self.state.lock();
        let until = timeout.map(|timeout| Instant::now() + timeout);
        while !state.news {
            match until {
                None => self.woken.wait(&mut state),
                Some(until) => {
                    if self.woken.wait_until(&mut state, until).timed_out() {
                        break;
                    }
                }
            }
        }
        state.news = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regression_only_a_use_that_is_awaited_wakes() {
        let id = |digit: &str| VolumeId::parse(&digit.repeat(32)).unwrap();
        let (persistent, waiting) = (id("a"), id("b"));
        let activity = Activity::default();
        activity.await_use(HashSet::from([waiting.clone()]));
        let woken = || std::mem::take(&mut activity.state.lock().news);
        for _ in 0..3 {
            activity.opened(&persistent);
            activity.closed(&persistent);
            assert!(!woken());
        }
        assert_eq!(activity.of(&persistent).map(|files| files.open), Some(0));
        activity.opened(&waiting);
        assert!(woken());
        activity.opened(&waiting);
        activity.closed(&waiting);
        assert!(!woken());
        activity.wake();
        assert!(woken());
    }
}
