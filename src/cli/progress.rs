//! Progress of a load: bars on a terminal, otherwise one line per layer; always on stderr.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{DecimalBytes, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::ops::transfer::load::{Event, Sink};
use crate::sys::threads;

/// Shows a load as it runs.
pub(super) struct Progress {
    bar: Option<Mutex<ProgressBar>>,
}

impl Progress {
    /// Bars if stderr is a terminal.
    pub(super) fn new() -> Self {
        let bar = std::io::stderr()
            .is_terminal()
            .then(|| Mutex::new(ProgressBar::hidden()));
        Progress { bar }
    }
}

impl Sink for Progress {
    fn event(&self, event: Event<'_>) {
        let Some(bar) = &self.bar else {
            if let Event::Done { layer, existed } = event {
                line(&layer.short(), existed);
            }
            return;
        };
        // A panic elsewhere is no reason to add another.
        let mut bar = bar
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match event {
            Event::Begin { name, size } => {
                let new = ProgressBar::with_draw_target(Some(size), ProgressDrawTarget::stderr());
                let none = |_: &ProgressState| String::new();
                new.set_style(moving(name, "Loading layer", std::io::stderr, none));
                // Its thread is not optional to the library; without one bars move when something has come.
                if threads::are_there() {
                    new.enable_steady_tick(Duration::from_millis(100));
                }
                *bar = new;
            }
            Event::Advance(bytes) => bar.inc(bytes),
            Event::Done { layer, existed } => {
                bar.finish_and_clear();
                line(&layer.short(), existed);
            }
            Event::Failed => bar.finish_and_clear(),
        }
    }
}

fn line(layer: &str, existed: bool) {
    let what = if existed { "Already exists" } else { "Loaded" };
    // A closed stderr is no reason to stop.
    let _ = writeln!(std::io::stderr(), "{layer}: {what}");
}

/// A line for what moves, as much of it as fits on this terminal, whose size may change meanwhile: the layer's name, what is done with
/// it, a bar, the bytes, and what `last` adds.
pub(super) fn moving<T: AsFd + 'static>(
    name: &str,
    doing: &'static str,
    terminal: fn() -> T,
    last: impl Fn(&ProgressState) -> String + Clone + Send + Sync + 'static,
) -> ProgressStyle {
    let name = name.to_owned();
    let draw = move |state: &ProgressState, out: &mut dyn fmt::Write| {
        let columns = match rustix::termios::tcgetwinsize(terminal()) {
            Ok(size) if size.ws_col > 0 => size.ws_col,
            _ => 80,
        };
        let (done, all) = (state.pos(), state.len().unwrap_or_default());
        let text = line_of(columns, (&name, doing), (done, all), &last(state));
        // It is text in memory.
        let _ = out.write_str(&text);
    };
    match ProgressStyle::with_template("{line}") {
        Ok(style) => style.with_key("line", draw),
        Err(_) => ProgressStyle::default_bar(),
    }
}

/// The last column stays free: some terminals would wrap. All of it is ASCII.
fn line_of(
    columns: u16,
    (name, doing): (&str, &str),
    (done, all): (u64, u64),
    last: &str,
) -> String {
    /// With the longest words and figures there are.
    const ALL: u16 = 72;
    /// A shorter bar says nothing.
    const BAR: usize = 3;
    let most = usize::from(columns).saturating_sub(1);
    let bytes = format!("{}/{}", DecimalBytes(done), DecimalBytes(all));
    let (mut head, mut tail) = (format!("{name}: "), bytes);
    if columns >= ALL {
        head.push_str(doing);
        head.push(' ');
        tail.push_str(last);
    }
    let room = most.saturating_sub(head.len() + tail.len() + "[] ".len());
    if room >= BAR {
        let room_u64 = u64::try_from(room).unwrap_or(u64::MAX);
        let filled = u128::from(done.min(all)) * u128::from(room_u64) / u128::from(all.max(1));
        let filled = usize::try_from(filled).unwrap_or(room);
        head.push('[');
        head.push_str(&"=".repeat(filled));
        if filled < room {
            head.push('>');
            head.push_str(&" ".repeat(room - filled - 1));
        }
        head.push_str("] ");
    }
    head.push_str(&tail);
    head.chars().take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_what_fits() {
        let what = ("0123456789ab", "Downloading");
        for (columns, line) in [
            (
                80,
                "0123456789ab: Downloading [=======>       ] 60.00 MB/120.00 MB 120.00 MB/s",
            ),
            (40, "0123456789ab: [=>  ] 60.00 MB/120.00 MB"),
            (36, "0123456789ab: 60.00 MB/120.00 MB"),
            (20, "0123456789ab: 60.00"),
            (1, ""),
        ] {
            let found = line_of(columns, what, (60_000_000, 120_000_000), " 120.00 MB/s");
            assert!(found.len() < usize::from(columns), "{found}");
            let squeezed = |text: &str| text.replace(['=', '>', ' '], "");
            assert_eq!(squeezed(&found), squeezed(line), "{columns}");
        }
        for (bytes, bar) in [
            ((0, 0), "[>   ]"),
            ((0, 9), "[>   ]"),
            ((9, 9), "[====]"),
            ((12, 9), "[====]"),
            ((u64::MAX, u64::MAX), "[====]"),
        ] {
            let long = line_of(71, what, bytes, "");
            let (_, rest) = long.split_once('[').unwrap();
            let (found, _) = rest.split_once(']').unwrap();
            assert_eq!(found.contains('>'), bar.contains('>'), "{long}");
        }
    }
}
