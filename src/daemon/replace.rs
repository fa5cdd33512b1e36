//! `mica mount --replace`: this program takes the place of a running daemon's.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::store::{LiveLease, OpenMode, Store, notify};
use crate::sys::mount::{FS_TYPE, MountPoint};
use crate::sys::procfs;

/// How long the next daemon may take: as long as a keeper waits for this program, and then for the one before.
const PATIENCE: Duration = Duration::from_secs(25);
const LOOK: Duration = Duration::from_millis(20);

/// Has the daemon of the mount at `path`, of the store at `store`, be followed by one that runs this program. Returns when that
/// one serves.
pub fn replace(store: &Path, path: &Path) -> anyhow::Result<()> {
    let point = MountPoint::open(path)?;
    let shown = point.path().display().to_string();
    if point.mounted_here()?.is_none_or(|m| m.fs_type != FS_TYPE) {
        bail!("{shown}: no mica is mounted there to be replaced");
    }
    let store = Store::open(store, OpenMode::Existing)?;
    let place = point.path().to_owned();
    drop(point);
    let Some(before) = daemon(&store, &place)? else {
        bail!(
            "{shown}: no daemon of the store {} serves it; --store chooses another",
            store.path().display()
        );
    };
    let program = std::env::current_exe().context("finding this program")?;
    let asked = notify::replace(&before, &program);
    asked.with_context(|| format!("{shown}: stays as it is"))?;
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if let Some(next) = daemon(&store, &place)?
            && next.record.pid != before.record.pid
            && notify::serves(&next)
        {
            return check(&shown, &next, &program);
        }
        thread::sleep(LOOK);
    }
    bail!("{shown}: no other daemon has begun; daemon.log in the store says why")
}

/// The daemon of a mount.
fn daemon(store: &Store, place: &Path) -> anyhow::Result<Option<LiveLease>> {
    let mut leases = store.live_leases()?.into_iter();
    Ok(leases.find(|lease| lease.mountpoint() == Some(place)))
}

/// The one before goes on if this program could not.
fn check(shown: &str, next: &LiveLease, program: &Path) -> anyhow::Result<()> {
    match fs::read_link(procfs::path(next.record.pid, "exe")) {
        Ok(running) if running != program => bail!(
            "{shown}: this version could not begin, and the one before serves on; daemon.log in the store says why"
        ),
        _ => Ok(()),
    }
}
