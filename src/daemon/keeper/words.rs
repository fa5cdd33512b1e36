//! What a keeper says, as lines of the daemon's log.
//!
//! The logger of the other programs understands filters, for which it needs more memory than all the rest of the keeper.

use std::io::Write as _;

use log::{Level, LevelFilter, Log, Metadata, Record};

/// Writes warnings and errors to stderr.
#[derive(Debug)]
pub(in crate::daemon) struct Words;

impl Words {
    /// Has everything that this process says go there.
    pub(in crate::daemon) fn begin() {
        static WORDS: Words = Words;
        // A second one (tests) keeps the first.
        if log::set_logger(&WORDS).is_ok() {
            log::set_max_level(LevelFilter::Warn);
        }
    }
}

impl Log for Words {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let now = jiff::Timestamp::now();
        let now = jiff::Timestamp::from_second(now.as_second()).unwrap_or(now);
        let (level, target) = (record.level(), record.target());
        // One write, so that lines of others do not come in between. There is nobody to tell of a log that cannot be written.
        let line = format!("[{now} {level:<5} {target}] {}\n", record.args());
        let _ = std::io::stderr().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}
