//! `volume prune`: volumes that nobody uses.
//!
//! Without `all` only anonymous ones. Ephemeral volumes are left to themselves: one without users has gone already, or has just been
//! made.

use std::collections::BTreeSet;

use crate::ops::volume::VolumeError;
use crate::store::containers::ContainerId;
use crate::store::{Store, Volume, VolumeName};

use crate::ops::usage::User;
use crate::ops::usage::volumes::{self as users, Look};
use crate::ops::volume::list::{self, Filters};
use crate::ops::volume::{Removal, Tell, remove};

/// What to prune.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Also volumes that somebody has named.
    pub all: bool,
    /// Only these.
    pub filters: Filters,
    /// Containers that go before, and so use nothing.
    pub without: BTreeSet<ContainerId>,
}

/// What went, or would go.
#[derive(Debug, Clone, Default)]
pub struct Pruned {
    /// The names, in order.
    pub volumes: Vec<VolumeName>,
    /// Bytes on disk.
    pub bytes: u64,
}

/// What [`prune`] would remove.
pub fn rehearse(store: &Store, options: &Options) -> Result<Pruned, VolumeError> {
    let mut pruned = Pruned::default();
    for volume in pick(store, options)? {
        pruned.bytes += list::size(store, &volume)?.unwrap_or(0);
        pruned.volumes.push(volume.name);
    }
    Ok(pruned)
}

/// Removes; with `shown` only of those that a user has agreed to. A volume that somebody begins to use meanwhile stays.
pub fn prune(
    store: &Store,
    options: &Options,
    shown: Option<&BTreeSet<VolumeName>>,
    tell: Tell<'_>,
) -> Result<Pruned, VolumeError> {
    let mut pruned = Pruned::default();
    for volume in pick(store, options)? {
        if shown.is_some_and(|shown| !shown.contains(&volume.name)) {
            continue;
        }
        let bytes = list::size(store, &volume)?.unwrap_or(0);
        let removal = Removal {
            look: Look {
                maps: true,
                except: None,
            },
            ..Removal::default()
        };
        match remove(store, &volume.name, &removal, tell) {
            Ok(_) => {
                pruned.bytes += bytes;
                pruned.volumes.push(volume.name);
            }
            Err(error @ VolumeError::InUse { .. }) => log::debug!("{error}"),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(pruned)
}

fn pick(store: &Store, options: &Options) -> Result<Vec<Volume>, VolumeError> {
    let all = options.filters.all().unwrap_or(options.all);
    let look = Look {
        maps: true,
        except: None,
    };
    let used = users::find(store, &store.live_leases()?, look)?;
    let goes_before = |user: &User| {
        let mut before = options.without.iter();
        before.any(|id| user.path.as_os_str() == id.as_str())
    };
    let mut picked = Vec::new();
    for volume in store.volumes()? {
        let meant = !volume.kind.is_ephemeral() && (all || volume.anonymous);
        if meant
            && options.filters.pass(&volume, || true)
            && !used.any(&volume)
            && list::containers(store, &volume.name)?
                .iter()
                .all(goes_before)
        {
            picked.push(volume);
        }
    }
    Ok(picked)
}
