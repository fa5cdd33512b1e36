//! What containers and volumes take on disk, as `info/df` shows it: measured in a thread of its own.
//!
//! Whoever may read M may look at `info/df`, and every `stat` of it renders it. A walk over every file of every volume in a request
//! would keep its thread, and with a few such requests all of them, for as long as that takes.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::Mutex;

use crate::ops::space::df::{self, Walked};
use crate::store::Store;

/// How old a result becomes at least before it is measured anew.
const PACE: Duration = Duration::from_millis(500);
/// What takes long is measured less often: the pause is so many times longer.
const LEISURE: u32 = 5;

/// The last result.
#[derive(Debug, Default)]
pub(in crate::fs::images) struct Measured(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    last: Option<(Arc<Walked>, Timestamp)>,
    measuring: bool,
    /// When it may be measured again.
    next: Option<Instant>,
}

impl Measured {
    /// What is known and since when; begins to measure if that is old. `None`: nothing yet.
    pub(in crate::fs::images) fn last(&self, store: &Store) -> Option<(Arc<Walked>, Timestamp)> {
        let mut state = self.0.lock();
        let due = state.next.is_none_or(|next| Instant::now() >= next);
        if due && !state.measuring {
            let (shared, store) = (Arc::clone(&self.0), store.clone());
            let thread = thread::Builder::new()
                .name("mica-measure".to_owned())
                .spawn(move || measure(&shared, &store));
            match thread {
                Ok(_) => state.measuring = true,
                // What is known is shown; the next one who asks tries again.
                Err(error) => log::debug!("cannot measure volumes: {error}"),
            }
        }
        state.last.clone()
    }
}

fn measure(shared: &Mutex<State>, store: &Store) {
    let (began, when) = (Instant::now(), Timestamp::now());
    let walked = store
        .live_leases()
        .map_err(Into::into)
        .and_then(|leases| df::walk(store, &leases));
    let mut state = shared.lock();
    match walked {
        Ok(walked) => state.last = Some((Arc::new(walked), when)),
        Err(error) => log::warn!("measuring containers and volumes: {error}"),
    }
    state.measuring = false;
    state.next = Some(Instant::now() + PACE.max(began.elapsed() * LEISURE));
}
