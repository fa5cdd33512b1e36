//! What a daemon knows of the use of its volumes without looking into `/proc`: files opened through its own mount.
//!
//! An open and a close that lie between two looks at the processes are a use all the same. The file system calls
//! [`Activity::opened`] when a regular file (or a device, a pipe) of a volume is opened, never for a directory, and
//! [`Activity::closed`] when the kernel has let go of it, mappings included.

use std::collections::HashMap;
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

impl Activity {
    /// A file of the volume was opened.
    pub fn opened(&self, volume: &VolumeId) {
        self.change(volume, |open| open.saturating_add(1));
    }

    /// A file of the volume was closed.
    pub fn closed(&self, volume: &VolumeId) {
        self.change(volume, |open| open.saturating_sub(1));
    }

    fn change(&self, volume: &VolumeId, count: impl FnOnce(usize) -> usize) {
        let mut state = self.state.lock();
        let last = Instant::now();
        // Looked up before it is cloned: opens are frequent.
        let open = match state.files.get_mut(volume) {
            Some(files) => {
                (files.open, files.last) = (count(files.open), last);
                files.open
            }
            None => {
                let open = count(0);
                state.files.insert(volume.clone(), Files { open, last });
                open
            }
        };
        // The first use begins a life, the last one ends it: those are worth a look.
        if open <= 1 {
            state.news = true;
            self.woken.notify_all();
        }
    }

    /// The open files of a volume; `None` if no file was ever opened.
    pub fn of(&self, volume: &VolumeId) -> Option<Files> {
        self.state.lock().files.get(volume).copied()
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
