//! What has happened through this mount: `info/events`, one line each, newest last.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::fs::face::Caller;

/// So many bytes of lines are kept; the oldest go first.
const MAX_BYTES: usize = 256 * 1024;

/// The lines.
#[derive(Debug, Default)]
pub(in crate::fs) struct Events(Mutex<Lines>);

#[derive(Debug, Default)]
struct Lines {
    lines: VecDeque<String>,
    bytes: usize,
}

impl Events {
    /// Notes one event, here and in the log. `text` is ours or a validated name: one line.
    pub fn note(&self, caller: Option<&Caller>, text: &str) {
        let by = caller.map(|caller| format!(" (pid {}, uid {})", caller.pid, caller.uid));
        let text = format!("{text}{}", by.unwrap_or_default());
        log::info!("{text}");
        let line = format!("{} {text}\n", jiff::Timestamp::now());
        let mut lines = self.0.lock();
        lines.bytes += line.len();
        lines.lines.push_back(line);
        while lines.bytes > MAX_BYTES
            && let Some(oldest) = lines.lines.pop_front()
        {
            lines.bytes -= oldest.len();
        }
    }

    /// All lines.
    pub fn text(&self) -> String {
        self.0.lock().lines.iter().map(String::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_lines_go() {
        let events = Events::default();
        for n in 0..5000 {
            events.note(None, &format!("event {n} {}", "x".repeat(100)));
        }
        let text = events.text();
        assert!(text.len() <= MAX_BYTES);
        assert!(text.ends_with('\n') && text.contains("event 4999 "));
        assert!(!text.contains("event 0 "));
    }
}
