//! What a store's owner has set for it, in `settings.json`: an object, one key per setting; keys that this mica does not know
//! are kept. A missing file says that nothing is set.

use std::fs;
use std::io;
use std::time::Duration;

use serde_json::{Map, Value};

use super::Store;
use super::error::StoreError;
use super::files;
use super::lock::StoreLock;
use crate::sys::atomic;

/// How long removed names are kept, in seconds.
const TRASH: &str = "trash_seconds";

impl Store {
    /// How long names that are removed can be brought back; `None`: not at all. What this handle was told
    /// ([`Store::use_trash`]), else what the store's owner has set.
    pub fn trash_time(&self) -> Result<Option<Duration>, StoreError> {
        let time = match *self.0.trash.lock() {
            Some(time) => time,
            None => self.trash_setting()?,
        };
        Ok(Some(time).filter(|time| !time.is_zero()))
    }

    /// For the removals through this handle, whatever the store says. Zero: no trash.
    pub fn use_trash(&self, time: Duration) {
        *self.0.trash.lock() = Some(time);
    }

    /// What is set for the store; zero if nothing is.
    pub fn trash_setting(&self) -> Result<Duration, StoreError> {
        let settings = self.settings()?;
        let seconds = settings.get(TRASH).and_then(Value::as_u64);
        Ok(Duration::from_secs(seconds.unwrap_or(0)))
    }

    /// Sets how long removed names are kept from now on; zero switches the trash off. What is in it stays as long as it was to.
    pub fn set_trash(&self, _lock: &StoreLock, time: Duration) -> Result<(), StoreError> {
        self.writable()?;
        let mut settings = self.settings()?;
        settings.insert(TRASH.to_owned(), time.as_secs().into());
        let path = self.path().join(files::SETTINGS);
        let mut bytes = serde_json::to_vec_pretty(&settings)
            .map_err(io::Error::from)
            .map_err(StoreError::io("write", &path))?;
        bytes.push(b'\n');
        atomic::replace(self.path(), files::SETTINGS_NEW, files::SETTINGS, &bytes)
            .map_err(StoreError::io("write", &path))?;
        Ok(())
    }

    fn settings(&self) -> Result<Map<String, Value>, StoreError> {
        let path = self.path().join(files::SETTINGS);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Map::new()),
            Err(error) => return Err(StoreError::io("read", &path)(error)),
        };
        serde_json::from_slice(&bytes).map_err(|error| StoreError::MetaDamaged {
            path,
            reason: error.to_string(),
        })
    }
}
