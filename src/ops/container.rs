//! Containers: found by name or ID, listed, removed.

pub mod bundle;
pub mod commit;
pub mod copy;
pub mod diff;
pub mod hold;
pub mod inspect;
mod list;
mod pausing;
pub mod prune;
mod remove;
mod rename;
pub mod run;
mod signals;
mod top;

pub use list::{COLUMNS, Filters, Options as ListOptions, Row, list, table, values};
pub use pausing::{pause, unpause};
pub use remove::{RemoveOptions, finish, remove, sweep};
pub use rename::rename;
pub use signals::{kill, number_of, stop, wait};
pub use top::top;

use std::time::{Duration, Instant};

use crate::ops::container::run::RunError;
use crate::store::Store;
use crate::store::containers::{Container, ContainerLock};
use crate::sys::deep;

/// The container that `text` means: a name, an ID, or the beginning of one.
pub fn find(store: &Store, text: &str) -> Result<Container, RunError> {
    look(store, text)?.ok_or_else(|| RunError::NoSuch(text.to_owned()))
}

/// The same; `None`: there is none.
pub fn look(store: &Store, text: &str) -> Result<Option<Container>, RunError> {
    let name = text.strip_prefix('/').unwrap_or(text);
    let all = store.containers()?;
    let exact = |c: &&Container| c.record.id.as_str() == name || c.record.name == name;
    if let Some(found) = all.iter().find(exact) {
        return Ok(Some(found.clone()));
    }
    let is_hex = !name.is_empty() && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let mut begins = all
        .into_iter()
        .filter(|c| is_hex && c.record.id.as_str().starts_with(name));
    match (begins.next(), begins.next()) {
        (Some(_), Some(_)) => Err(RunError::Refused(format!(
            "Multiple IDs found with provided prefix: {text}"
        ))),
        (found, _) => Ok(found),
    }
}

/// How long it is waited for who only looks into a container that does not run, or starts or removes it.
const OTHERS: Duration = Duration::from_secs(60);

/// The right to run or remove the container that `text` means, with how it stands now; `None`: it runs.
pub fn take(store: &Store, text: &str) -> Result<(Container, Option<ContainerLock>), RunError> {
    let deadline = Instant::now() + OTHERS;
    loop {
        let container = find(store, text)?;
        match container.try_lock() {
            Ok(None) if !container.is_running() && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            // What it was before the lock it may be no more.
            Ok(Some(lock)) => return Ok((find(store, container.record.id.as_str())?, Some(lock))),
            Ok(None) => return Ok((container, None)),
            Err(error) if error.is_missing() && Instant::now() < deadline => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Disk space of what a container has changed, as far as this user may look.
pub fn changed(container: &Container) -> u64 {
    deep::files_allocated(&container.upper()).unwrap_or_else(|error| {
        log::warn!("the size of container {}: {error}", container.record.name);
        0
    })
}

/// Disk space of all that a container has: what it has changed, its output that was kept, its record, and the directories of all
/// that, which is what its removal gives back; as far as this user may look.
pub fn size(container: &Container) -> u64 {
    deep::tree_allocated(container.directory()).unwrap_or_else(|error| {
        log::warn!("the size of container {}: {error}", container.record.name);
        0
    })
}
