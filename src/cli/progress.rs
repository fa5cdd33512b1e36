//! Progress of a load: bars on a terminal, otherwise one line per layer; always on stderr.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::ops::transfer::load::{Event, Sink};
use crate::sys::threads;

/// Shows a load as it runs.
pub struct Progress {
    bar: Option<Mutex<ProgressBar>>,
}

impl Progress {
    /// Bars if stderr is a terminal.
    pub fn new() -> Self {
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
                new.set_style(style());
                new.set_prefix(name.to_owned());
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

fn style() -> ProgressStyle {
    let template = match is_narrow(&std::io::stderr()) {
        true => "{prefix}: {decimal_bytes}/{decimal_total_bytes}",
        // The bar takes what the rest leaves, however wide the terminal is by then.
        false => "{prefix}: Loading layer [{wide_bar}] {decimal_bytes}/{decimal_total_bytes}",
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => style.progress_chars("=> "),
        Err(_) => ProgressStyle::default_bar(),
    }
}

/// Whether a bar with its figures does not fit on a line of this terminal.
pub(super) fn is_narrow(terminal: &impl std::os::fd::AsFd) -> bool {
    const FIGURES: u16 = 72;
    rustix::termios::tcgetwinsize(terminal)
        .is_ok_and(|size| size.ws_col > 0 && size.ws_col < FIGURES)
}
