//! `info/events`: what has happened in the store, in docker's text, newest last; and the log lines of what is done through this mount.

use jiff::tz::TimeZone;

use crate::fs::api::{Caller, FsError};
use crate::fs::images::Superblock;
use crate::ops::events;

/// So much of the store's log is shown.
const MAX_BYTES: u64 = 256 * 1024;

/// What is done through a mount, for the daemon's log.
#[derive(Debug, Default)]
pub(in crate::fs::images) struct Events(());

impl Events {
    /// Logs one event. `text` is ours or a validated name: one line.
    pub(crate) fn note(&self, caller: Option<&Caller>, text: &str) {
        let by = caller.map(|caller| format!(" (pid {}, uid {})", caller.pid, caller.uid));
        log::info!("{text}{}", by.unwrap_or_default());
    }
}

impl Superblock {
    pub(super) fn events_text(&self) -> Result<String, FsError> {
        let zone = TimeZone::system();
        let lines = self.store.last_events(MAX_BYTES)?;
        let lines = lines.iter().map(|event| events::line(event, &zone));
        // Attributes hold an image's labels.
        let safe = lines.map(|line| format!("{}\n", line.replace(char::is_control, " ")));
        Ok(safe.collect())
    }
}
