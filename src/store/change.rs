//! Changing the names: under the lock, in one step, and what is swept before and collected after.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::files;
use super::{
    Cause, GcPlan, Names, Snapshot, Store, StoreError, StoreLock, damaged_names, gc, index_json,
    lease, reserve, stamp,
};
use crate::sys::lock::LockMode;

impl Store {
    /// The lock that every change needs. Waits for it, then removes what dead processes left.
    pub fn lock(&self) -> Result<StoreLock, StoreError> {
        self.writable()?;
        let lock = self.lock_unswept()?;
        // What is over is nobody's doing, whoever comes by.
        self.on_behalf_of(Cause::default()).sweep(&lock);
        Ok(lock)
    }

    /// As [`Store::lock`], but removes nothing: for a dry run, or to plan the removal itself.
    pub fn lock_unswept(&self) -> Result<StoreLock, StoreError> {
        self.writable()?;
        StoreLock::exclusive(self.layout(), false)
    }

    /// Removes what dead processes left: their leases and private files, and blobs they had finished; and what
    /// has been in the trash long enough. A failure here is no reason to refuse a verb; the next one tries again.
    fn sweep(&self, lock: &StoreLock) {
        if self.has_unmade_volumes()
            && let Err(error) = self.unmake_volumes(lock)
        {
            log::warn!("volumes that somebody was making: {error}");
        }
        let swept = lease::leavings(self.layout(), LockMode::Exclusive).and_then(|leavings| {
            let expired = self.expire_trash(lock)?;
            if leavings.is_empty() && !expired {
                return Ok(());
            }
            self.collect(lock).map(drop)
        });
        if let Err(error) = swept {
            log::warn!("cannot remove what an earlier run left: {error}");
        }
    }

    /// Drops from the trash what has been there long enough; whether there was anything. Collect garbage afterwards.
    pub fn expire_trash(&self, lock: &StoreLock) -> Result<bool, StoreError> {
        let now = SystemTime::now();
        let over = |names: Arc<Names>| names.trash.next_end().is_some_and(|end| end <= now);
        // Names that cannot be read are for those who need them to report.
        if !self.names().is_ok_and(over) {
            return Ok(false);
        }
        self.change(lock, |names| Ok(names.trash.expire(now)))
    }

    /// Changes the names: `edit` gets the current ones, and what it leaves is committed in one atomic step,
    /// or, if it or the commit fails, nothing. On success the change is durable. No file is removed: collect
    /// garbage afterwards ([`Store::collect`]), then [`Store::publish`].
    pub fn change<T, E: From<StoreError>>(
        &self,
        lock: &StoreLock,
        edit: impl FnOnce(&mut Names) -> Result<T, E>,
    ) -> Result<T, E> {
        self.change_freeing(lock, 0, edit)
    }

    /// The same, with what the collection after it will free: it is noted with the event.
    pub fn change_freeing<T, E: From<StoreError>>(
        &self,
        _lock: &StoreLock,
        freed: u64,
        edit: impl FnOnce(&mut Names) -> Result<T, E>,
    ) -> Result<T, E> {
        self.writable()?;
        let before = self.names()?;
        let mut names = Names::clone(&before);
        let value = edit(&mut names)?;
        names.settle(&before)?;
        if names != *before {
            let mut events = self.changes(&before, &names);
            if let Some(event) = events.iter_mut().find(|event| event.action == "delete")
                && freed > 0
            {
                let freed = freed.to_string();
                event.attributes.insert("freed".to_owned(), freed);
            }
            self.commit_names(names)?;
            self.note(&events);
        }
        Ok(value)
    }

    fn commit_names(&self, names: Names) -> Result<(), StoreError> {
        let bytes =
            index_json::write(&names).map_err(|reason| damaged_names(self.layout(), reason))?;
        let file = self.replace_document(files::INDEX_JSON_NEW, files::INDEX_JSON, &bytes)?;
        self.0.untold.store(true, Ordering::Relaxed);
        reserve::keep(self.layout(), bytes.len() as u64);
        // The change is durable. Without a stamp the next reader parses the file.
        *self.0.names.lock() = file.metadata().ok().map(|stat| Snapshot {
            stamp: stamp(&stat),
            file: Arc::new(file),
            names: Arc::new(names),
        });
        Ok(())
    }

    /// Replaces a file at the top of the store, durably. On a full disk one that gets no longer takes the reserve.
    pub(super) fn replace_document(
        &self,
        temp: &str,
        name: &str,
        bytes: &[u8],
    ) -> Result<File, StoreError> {
        let path = self.path().join(name);
        let write = || crate::sys::atomic::replace(self.path(), temp, name, bytes);
        let shrinks = || {
            path.metadata()
                .is_ok_and(|stat| bytes.len() as u64 <= stat.len())
        };
        let file = match write() {
            // Not a second try at the same file: that one is gone.
            Err(error)
                if reserve::is_full(&error) && shrinks() && reserve::give_up(self.layout()) =>
            {
                write()
            }
            done => done,
        };
        file.map_err(StoreError::io("write", &path))
    }

    /// Removes everything that nothing reaches; the plan that was carried out.
    pub fn collect(&self, lock: &StoreLock) -> Result<GcPlan, StoreError> {
        let plan = gc::plan(self, &*self.names()?, lock)?;
        self.carry_out(&plan, lock)?;
        Ok(plan)
    }

    /// Removes what a plan made under the same lock says.
    pub fn carry_out(&self, plan: &GcPlan, lock: &StoreLock) -> Result<(), StoreError> {
        self.carry_out_held(plan, lock, false)
    }

    /// As [`Store::carry_out`]; `held`: somebody frees the large files.
    pub(super) fn carry_out_held(
        &self,
        plan: &GcPlan,
        lock: &StoreLock,
        held: bool,
    ) -> Result<(), StoreError> {
        self.writable()?;
        gc::apply(self, plan, lock, held)?;
        if !plan.is_empty() {
            reserve::keep(self.layout(), 0);
        }
        Ok(())
    }
}
