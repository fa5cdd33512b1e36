//! What pull and push have in common: several names, all tags of a repository, how to reach registries, a bar for each layer.

use std::collections::HashMap;
use std::hash::Hash;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{
    DecimalBytes, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle,
};
use parking_lot::Mutex;

use super::output::{Lines, print_error};
use super::progress::moving;
use crate::oci::{Reference, Tag};
use crate::registry;
use crate::sys::threads;

/// Options of both verbs.
#[derive(clap::Args)]
pub(super) struct TransferArgs {
    /// All tags of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Print only the names of what is done
    #[arg(short, long)]
    pub quiet: bool,
    #[command(flatten)]
    transport: super::transport::TransportArgs,
}

impl TransferArgs {
    /// How to talk to registries.
    pub(super) fn registry(&self) -> registry::Options {
        self.transport.options()
    }

    /// Whether every tag of this repository is meant.
    pub(super) fn all_tags(&self, reference: &Reference) -> anyhow::Result<bool> {
        // docker's words.
        anyhow::ensure!(
            !self.all_tags || (reference.tag.is_none() && reference.digest.is_none()),
            "tag can't be used with --all-tags/-a"
        );
        Ok(self.all_tags)
    }

    /// Says which tag is meant where none is named.
    pub(super) fn say_default(&self, reference: &Reference, lines: &mut Lines) {
        if reference.tag.is_none() && reference.digest.is_none() && !self.quiet && !self.all_tags {
            lines.print(&format!("Using default tag: {}", Tag::latest()));
        }
    }
}

/// Does one name after the other; goes on after an error.
pub(super) fn each(
    names: &[String],
    mut one: impl FnMut(&str, &mut Lines) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    let mut lines = Lines::default();
    let mut code = ExitCode::SUCCESS;
    for name in names {
        if let Err(error) = one(name, &mut lines) {
            print_error(&error);
            code = ExitCode::FAILURE;
        }
    }
    lines.finish()?;
    Ok(code)
}

/// A bar for each layer on a terminal, else one line per state.
pub(super) struct Bars<K>(Option<Shown<K>>);

struct Shown<K> {
    all: MultiProgress,
    bars: Mutex<HashMap<K, ProgressBar>>,
}

impl<K: Eq + Hash> Bars<K> {
    /// Bars if stdout is a terminal.
    pub(super) fn new() -> Self {
        Bars(io::stdout().is_terminal().then(|| Shown {
            all: MultiProgress::with_draw_target(ProgressDrawTarget::stdout()),
            bars: Mutex::default(),
        }))
    }

    /// A layer is in this state. With `last` it stays in it.
    pub(super) fn state(&self, key: K, name: &str, state: &str, last: bool) {
        if self.0.is_none() {
            // A reader that has gone away is no reason to stop.
            let _ = writeln!(io::stdout(), "{name}: {state}");
        }
        self.show(key, name, state, last);
    }

    /// The same where only a bar shows it.
    pub(super) fn show(&self, key: K, name: &str, state: &str, last: bool) {
        self.with(key, name, |bar| {
            bar.set_style(style("{prefix}: {msg}"));
            match last {
                true => bar.finish_with_message(state.to_owned()),
                false => {
                    bar.set_message(state.to_owned());
                    bar.tick();
                }
            }
        });
    }

    /// Bytes of a layer are on their way, the first `kept` of them from an earlier time.
    pub(super) fn begin(&self, key: K, name: &str, doing: &'static str, size: u64, kept: u64) {
        self.with(key, name, |bar| {
            bar.set_length(size);
            let speed = move |state: &ProgressState| {
                let rate = DecimalBytes(speed(state.pos(), kept, state.elapsed()));
                format!(" {rate}/s")
            };
            bar.set_style(moving(name, doing, io::stdout, speed));
            bar.reset_elapsed();
            // Its thread is not optional to the library; without one bars move when something has come.
            if threads::are_there() {
                bar.enable_steady_tick(Duration::from_millis(200));
            }
        });
    }

    /// More of them.
    pub(super) fn advance(&self, key: K, name: &str, bytes: u64) {
        self.with(key, name, |bar| bar.inc(bytes));
    }

    fn with(&self, key: K, name: &str, change: impl FnOnce(&ProgressBar)) {
        if let Some(Shown { all, bars }) = &self.0 {
            let mut bars = bars.lock();
            let new = || all.add(ProgressBar::new(0).with_prefix(name.to_owned()));
            change(bars.entry(key).or_insert_with(new));
        }
    }
}

/// Bytes a second of what has come now.
fn speed(position: u64, kept: u64, elapsed: Duration) -> u64 {
    let millis = elapsed.as_millis().max(1);
    let bytes = u128::from(position.saturating_sub(kept));
    u64::try_from(bytes * 1000 / millis).unwrap_or(u64::MAX)
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regression_speed_counts_what_came_now() {
        let second = Duration::from_secs(1);
        assert_eq!(speed(73_000_000, 65_000_000, second), 8_000_000);
        assert_eq!(speed(30_000_000, 65_000_000, second), 0);
        assert_eq!(speed(16_000_000, 0, 2 * second), 8_000_000);
        assert_eq!(speed(0, 0, Duration::ZERO), 0);
    }
}
