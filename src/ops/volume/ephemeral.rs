//! The life of ephemeral volumes: when one ends, and ending it.
//!
//! A volume that has had no user waits for its first one for [`Times::wait`], counted from when it became ephemeral. One that has
//! had users ends when it has had none for [`Times::linger`]. A daemon watches ([`Watcher`]); without a daemon the verbs on volumes
//! look ([`sweep`]), and then the time without users is counted from the first look that found none, never guessed.
//!
//! Ending is safe against a user who comes at that moment: after a look the name goes under the store's lock, if the volume is still
//! what it was and nobody has taken a lease meanwhile; mounts are told; then a second look, and whoever is found gets the volume
//! back. Only then the data is deleted, by who has held it since before. No look is taken under the lock: it reads what every
//! process has open, which can take long, and everybody else would wait.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use crate::ops::volume::VolumeError;
use crate::store::LiveLease;
use crate::store::{DataHold, Store, Volume, VolumeId, VolumeKind, VolumeName, Volumes};

use crate::ops::usage::volumes::{self as users, Look, VolumeUsers};
use crate::ops::volume::activity::{Activity, Files};
use crate::ops::volume::{Tell, delete_data};
use crate::sys::pause::pause;

/// How long ephemeral volumes live unused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Before their first user.
    pub wait: Duration,
    /// After their last one.
    pub linger: Duration,
}

impl Default for Times {
    fn default() -> Times {
        Times {
            wait: Duration::from_secs(60),
            linger: Duration::from_secs(2),
        }
    }
}

/// How long a watcher sleeps at most while there are ephemeral volumes.
const PACE: Duration = Duration::from_millis(500);
/// A look that takes long (thousands of processes) is taken less often: the pause is so many times longer.
const LEISURE: u32 = 5;
/// How often a watcher tries again after an error.
const AFTER_ERROR: Duration = Duration::from_secs(5);

/// From a thread that serves no requests.
const LOOK: Look = Look {
    maps: true,
    except: None,
};

/// Without a daemon: ends the ephemeral volumes whose time has come, and deletes data that a remover did not get to. The names of
/// those that ended.
pub fn sweep(store: &Store, times: Times) -> Result<Vec<VolumeName>, VolumeError> {
    if store.read_only().is_some() {
        return Ok(Vec::new());
    }
    store.delete_removed_volumes()?;
    let Some((volumes, found)) = unwatched(store)? else {
        return Ok(Vec::new());
    };
    let now = Timestamp::now();
    let mut ended = Vec::new();
    for volume in volumes.iter() {
        let VolumeKind::Ephemeral { since, used, idle } = volume.kind else {
            continue;
        };
        if found.any(volume) {
            if !used || idle.is_some() {
                let lock = store.lock()?;
                store.mark_volumes_used(&lock, std::slice::from_ref(&volume.name))?;
            }
        } else if is_over(volume, now, times) {
            ended.push(volume.clone());
        } else if used && idle.is_none() {
            let idle = Some(now);
            let kind = VolumeKind::Ephemeral { since, used, idle };
            let lock = store.lock()?;
            // Not if somebody else has changed it meanwhile.
            if store.volume(&volume.name)?.as_ref() == Some(volume) {
                store.set_volume_kind(&lock, &volume.name, kind)?;
            }
        }
    }
    let ended = evaporate(store, &ended, None, &|| {})?;
    Ok(ended.into_iter().map(|volume| volume.name).collect())
}

/// The ephemeral volumes that [`sweep`] would end now. Changes nothing.
pub fn due(store: &Store, times: Times) -> Result<Vec<Volume>, VolumeError> {
    let Some((volumes, found)) = unwatched(store)? else {
        return Ok(Vec::new());
    };
    let now = Timestamp::now();
    let over = |volume: &&Volume| !found.any(volume) && is_over(volume, now, times);
    Ok(volumes.iter().filter(over).cloned().collect())
}

/// The volumes and their users, if any is ephemeral and no daemon watches them.
fn unwatched(store: &Store) -> Result<Option<(Arc<Volumes>, VolumeUsers)>, VolumeError> {
    let volumes = store.volume_set()?;
    if !volumes.has_ephemeral() {
        return Ok(None);
    }
    let leases = store.live_leases()?;
    if leases.iter().any(LiveLease::is_daemon) {
        return Ok(None);
    }
    let found = users::find(store, &leases, LOOK)?;
    Ok(Some((volumes, found)))
}

/// Whether the time of an ephemeral volume without users has come.
fn is_over(volume: &Volume, now: Timestamp, times: Times) -> bool {
    match volume.kind {
        VolumeKind::Ephemeral {
            since, used: false, ..
        } => age(since, now) >= times.wait,
        VolumeKind::Ephemeral {
            idle: Some(idle), ..
        } => age(idle, now) >= times.linger,
        _ => false,
    }
}

/// A clock that was set back makes nothing older.
fn age(since: Timestamp, now: Timestamp) -> Duration {
    let age: SignedDuration = now.duration_since(since);
    Duration::try_from(age).unwrap_or_default()
}

/// Ends those of some ephemeral volumes that have no users and are still what they were; those that have ended. Needs no lock
/// held. `activity`: what the caller's own mount knows.
pub fn evaporate(
    store: &Store,
    volumes: &[Volume],
    activity: Option<&Activity>,
    tell: Tell<'_>,
) -> Result<Vec<Volume>, VolumeError> {
    let is_open = |volume: &Volume| {
        let files = activity.and_then(|activity| activity.of(&volume.id));
        files.is_some_and(|files| files.open > 0)
    };
    let before = store.volume_set()?;
    let found = users::find_among(store, &before, &store.live_leases()?, LOOK)?;
    let meant = |volume: &&Volume| {
        let now = before.by_id(&volume.id);
        let same = now.is_some_and(|now| now.name == volume.name && now.kind.is_ephemeral());
        same && !is_open(volume) && !found.any(volume)
    };
    let meant: Vec<&Volume> = volumes.iter().filter(meant).collect();
    if meant.is_empty() {
        return Ok(Vec::new());
    }
    pause("evaporating");
    let mut held: Vec<DataHold> = Vec::new();
    let removed = {
        let lock = store.lock()?;
        let now = store.volume_set()?;
        let leased = users::leased(&now, &store.live_leases()?);
        let mut names = Vec::new();
        for volume in meant {
            // Nobody has used it, changed it, or let it go meanwhile.
            let same = now.by_id(&volume.id) == before.by_id(&volume.id);
            if same
                && !is_open(volume)
                && !leased.any(volume)
                && let Some(hold) = store.hold_volume_data(volume)?
            {
                held.push(hold);
                names.push(volume.name.clone());
            }
        }
        if names.is_empty() {
            return Ok(Vec::new());
        }
        store.end_volumes(&lock, &names)?
    };
    pause("evaporating");
    tell();
    pause("evaporating");
    let before = store.volume_set()?.with(&removed);
    let found = users::find_among(store, &before, &store.live_leases()?, LOOK)?;
    let (back, ended): (Vec<_>, Vec<_>) = removed
        .into_iter()
        .zip(held)
        .partition(|(volume, _)| is_open(volume) || found.any(volume));
    pause("evaporating");
    if !back.is_empty() {
        let lock = store.lock()?;
        for (volume, _held) in back {
            log::debug!(
                "volume {}: somebody came at the last moment, it stays",
                volume.name
            );
            store.restore_volume(&lock, volume)?;
        }
        drop(lock);
        tell();
    }
    pause("evaporating");
    for (volume, hold) in &ended {
        delete_data(volume, store.delete_held_volume_data(volume, hold));
    }
    Ok(ended.into_iter().map(|(volume, _)| volume).collect())
}

/// Watches the ephemeral volumes of a store, for a daemon.
#[derive(Debug)]
pub struct Watcher<'a> {
    store: &'a Store,
    times: Times,
    activity: &'a Activity,
    lives: HashMap<VolumeId, Life>,
}

/// What a watcher knows of one volume.
#[derive(Debug)]
struct Life {
    /// When its wait for a first user ends.
    until: Instant,
    /// It has had a user.
    used: bool,
    /// Since when it has none.
    idle: Option<Instant>,
    /// The last file use that was taken into account.
    counted: Option<Instant>,
}

impl<'a> Watcher<'a> {
    /// A watcher that has seen nothing yet: a volume whose last user left before has its whole time from now on.
    pub fn new(store: &'a Store, times: Times, activity: &'a Activity) -> Watcher<'a> {
        Watcher {
            store,
            times,
            activity,
            lives: HashMap::new(),
        }
    }

    /// Looks once and ends what has to end; when to look again at the latest. `None`: when something changes.
    pub fn look(&mut self, tell: Tell<'_>) -> Option<Duration> {
        match self.try_look(tell) {
            Ok(pause) => pause,
            Err(error) => {
                log::warn!("ephemeral volumes: {error}");
                Some(AFTER_ERROR)
            }
        }
    }

    fn try_look(&mut self, tell: Tell<'_>) -> Result<Option<Duration>, VolumeError> {
        let volumes = self.store.volume_set()?;
        // One that is ephemeral again begins anew.
        let lives = |id: &VolumeId| volumes.by_id(id).is_some_and(|v| v.kind.is_ephemeral());
        self.lives.retain(|id, _| lives(id));
        self.activity.retain(|id| volumes.by_id(id).is_some());
        // The end of a use is seen in time by the next look; its beginning only until it has been written down.
        let unused = |volume: &&Volume| volume.kind.is_ephemeral() && !was_used(volume);
        let unused = volumes.iter().filter(unused).map(|v| v.id.clone());
        self.activity.await_use(unused.collect());
        if !volumes.has_ephemeral() {
            return Ok(None);
        }
        let began = Instant::now();
        let found = users::find(self.store, &self.store.live_leases()?, LOOK)?;
        let took = began.elapsed();
        let mut next = PACE;
        let (mut first_used, mut over) = (Vec::new(), Vec::new());
        for volume in volumes.iter().filter(|volume| volume.kind.is_ephemeral()) {
            let life = self.lives.entry(volume.id.clone());
            let life = life.or_insert_with(|| Life::of(volume, self.times));
            let pause = life.judge(found.any(volume), self.activity.of(&volume.id), self.times);
            if life.used && !was_used(volume) {
                first_used.push(volume.name.clone());
            }
            match pause {
                Some(pause) if pause.is_zero() => over.push(volume.clone()),
                Some(pause) => next = next.min(pause),
                None => {}
            }
        }
        if !first_used.is_empty() {
            let lock = self.store.lock()?;
            self.store.mark_volumes_used(&lock, &first_used)?;
        }
        for volume in evaporate(self.store, &over, Some(self.activity), tell)? {
            let life = self.lives.remove(&volume.id);
            let why = match life.is_some_and(|life| life.used) {
                true => "its last user has gone",
                false => "nobody has used it",
            };
            log::info!("volume {}: {why}, it has evaporated", volume.name);
        }
        Ok(Some(next.max(took * LEISURE)))
    }
}

impl Life {
    /// Of a volume seen for the first time.
    fn of(volume: &Volume, times: Times) -> Life {
        let VolumeKind::Ephemeral { since, used, .. } = volume.kind else {
            return Life {
                until: Instant::now() + times.wait,
                used: false,
                idle: None,
                counted: None,
            };
        };
        Life {
            until: Instant::now() + times.wait.saturating_sub(age(since, Timestamp::now())),
            used,
            idle: None,
            counted: None,
        }
    }

    /// How long it has left as of now, if nobody comes: nothing when it is over, `None` while it has users.
    fn judge(&mut self, in_use: bool, files: Option<Files>, times: Times) -> Option<Duration> {
        let now = Instant::now();
        if in_use || files.is_some_and(|files| files.open > 0) {
            (self.used, self.idle) = (true, None);
            return None;
        }
        if let Some(Files { last, .. }) = files
            && self.counted != Some(last)
        {
            // Opened and closed since the last look.
            (self.used, self.counted) = (true, Some(last));
            self.idle = self.idle.max(Some(last));
        }
        let end = match self.used {
            true => *self.idle.get_or_insert(now) + times.linger,
            false => self.until,
        };
        Some(end.saturating_duration_since(now))
    }
}

fn was_used(volume: &Volume) -> bool {
    matches!(volume.kind, VolumeKind::Ephemeral { used: true, .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_judged_by_its_users() {
        let ms = Duration::from_millis;
        let times = Times {
            wait: ms(1000),
            linger: ms(40),
        };
        let fresh = || Life {
            until: Instant::now() + times.wait,
            used: false,
            idle: None,
            counted: None,
        };
        let left = |life: &mut Life, in_use, files| life.judge(in_use, files, times);
        let mut life = fresh();
        assert!(left(&mut life, false, None).unwrap() > ms(40));
        assert_eq!(left(&mut life, true, None), None);
        assert!(left(&mut life, false, None).unwrap() <= ms(40));
        std::thread::sleep(ms(30));
        // A new user within the time: the next one has all of it again.
        assert_eq!(left(&mut life, true, None), None);
        assert!(left(&mut life, false, None).unwrap() > ms(30));
        std::thread::sleep(ms(50));
        assert_eq!(left(&mut life, false, None), Some(Duration::ZERO));

        // A use between two looks.
        let mut life = fresh();
        let closed = Files {
            open: 0,
            last: Instant::now(),
        };
        assert!(left(&mut life, false, Some(closed)).unwrap() <= ms(40));
        assert!(life.used);
        let open = Files { open: 1, ..closed };
        assert_eq!(left(&mut life, false, Some(open)), None);

        let mut unused = fresh();
        std::thread::sleep(times.wait);
        assert_eq!(left(&mut unused, false, None), Some(Duration::ZERO));
    }
}
