//! The line of a build that moves, on a terminal: what takes long, and how far it is.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::ops::build::moving::{Moving, Watcher};
use crate::text::format::human_size;

/// Between two pictures; what is over sooner is not shown.
const PAUSE: Duration = Duration::from_millis(80);
/// Where the terminal does not say how wide it is.
const USUAL: u16 = 80;

/// The line, on stderr.
#[derive(Debug, Default)]
pub(super) struct Line(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// `Step 3/8`, once there is one.
    step: String,
    /// When the last picture was due; `None`: nothing moves.
    last: Option<Instant>,
    shown: bool,
}

impl Line {
    /// A line, if there is a terminal to show it on.
    pub(super) fn new() -> Option<Arc<Line>> {
        io::stderr().is_terminal().then(Arc::default)
    }

    pub(super) fn watcher(self: &Arc<Line>) -> Watcher {
        let line = Arc::clone(self);
        Watcher::new(move |moving| line.moved(moving))
    }

    /// A step begins.
    pub(super) fn step(&self, number: usize, total: usize) {
        self.0.lock().step = format!("Step {number}/{total}");
    }

    fn moved(&self, moving: Moving) {
        let mut state = self.0.lock();
        if moving == Moving::Done {
            if state.shown {
                draw("");
            }
            state.shown = false;
            state.last = None;
            return;
        }
        let now = Instant::now();
        let last = *state.last.get_or_insert(now);
        if now.duration_since(last) < PAUSE {
            return;
        }
        state.last = Some(now);
        state.shown = true;
        draw(&fitted(&text(&state.step, moving), columns()));
    }
}

fn text(step: &str, moving: Moving) -> String {
    match moving {
        Moving::Context { entries: 0, bytes } => {
            format!("Reading the build context: {}", human_size(bytes))
        }
        Moving::Context { entries, bytes } => format!(
            "Reading the build context: {}, {entries} files",
            human_size(bytes)
        ),
        Moving::Layer { bytes } => format!("{step}: writing the layer: {}", human_size(bytes)),
        Moving::Done => String::new(),
    }
}

/// What fits on a line of so many columns; the last one stays free, some terminals would wrap. All of it is ASCII.
fn fitted(text: &str, columns: u16) -> String {
    let most = usize::from(columns).saturating_sub(1);
    text.chars().take(most).collect()
}

fn columns() -> u16 {
    let size = rustix::termios::tcgetwinsize(io::stderr());
    size.map_or(USUAL, |size| size.ws_col).clamp(1, 1000)
}

/// Replaces the line. A terminal that does not take it is no reason to stop.
fn draw(text: &str) {
    let _ = write!(io::stderr(), "\r{text}\x1b[K");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_fit_and_say_what_moves() {
        let context = Moving::Context {
            entries: 123_456,
            bytes: 12_345_678_901,
        };
        let layer = Moving::Layer {
            bytes: 12_345_678_901,
        };
        let whole = [
            "Reading the build context: 12.3GB, 123456 files",
            "Step 120/120: writing the layer: 12.3GB",
        ];
        for (moving, whole) in [context, layer].into_iter().zip(whole) {
            let text = text("Step 120/120", moving);
            assert_eq!(fitted(&text, 80), whole);
            assert_eq!(fitted(&text, 40), whole.get(..39).unwrap());
            assert_eq!(fitted(&text, 1), "");
        }
    }
}
