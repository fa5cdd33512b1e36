//! `mica events`.

use std::os::fd::AsFd;
use std::process::ExitCode;

use anyhow::Context as _;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::ops::events::{self, Filters};
use crate::ops::image::filter;
use crate::store::events::EVENTS;
use crate::sys::inotify::NameWatch;
use crate::text::template::Template;
use crate::text::time;

use super::{Context, output};

/// Print what happens in the store, as it happens
///
/// Goes on until it is interrupted, or until the time of --until. The past that can be asked for with --since is limited.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Only events for which this holds: event=ACTION, image=NAME, label=KEY[=VALUE], type=TYPE, volume=NAME,
    /// container=NAME; may be repeated
    #[arg(short, long = "filter", value_name = "FILTER", value_parser = filter::split, add = crate::cli::completion::filters(crate::cli::completion::OF_EVENTS))]
    filters: Vec<(String, String)>,
    /// Begin with the events since then: an age such as 10m or 2h, a date, Unix seconds
    #[arg(long, value_name = "TIME", value_parser = point)]
    since: Option<Timestamp>,
    /// End there; a time to come is waited for
    #[arg(long, value_name = "TIME", value_parser = point)]
    until: Option<Timestamp>,
    /// Print each event by a Go template, or "json"
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

fn point(text: &str) -> Result<Timestamp, String> {
    time::point(text, Timestamp::now()).ok_or_else(|| "not a time or an age".to_owned())
}

/// The longest sleep: a clock that is set is noticed.
const NAP: i64 = 10;

/// Prints events.
pub(super) fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let started = Timestamp::now();
    let filters = Filters::parse(&args.filters)?;
    let format = args.format.as_deref().filter(|format| !format.is_empty());
    let template = match format {
        None => None,
        Some("json") => Some(Template::parse("{{json .}}")?),
        Some(format) => Some(Template::parse(format)?),
    };
    let store = context.store()?;
    let watch = NameWatch::new(store.path(), EVENTS).context("watching the store")?;
    let mut reader = store.events();
    let zone = TimeZone::system();
    let from = args.since.unwrap_or(started);
    loop {
        // Before the reading: what is noted after it has a later time, or is read the next time.
        let now = Timestamp::now();
        let mut text = String::new();
        for event in reader.read()? {
            let in_time = event.time >= from && args.until.is_none_or(|until| event.time <= until);
            if !in_time || !filters.pass(&event) {
                continue;
            }
            text += &match &template {
                Some(template) => template.render(&events::value(&event)?)?,
                None => events::line(&event, &zone),
            };
            text.push('\n');
        }
        if !text.is_empty() {
            output::print_foreign(&text)?;
        }
        let left = args.until.map(|until| until.duration_since(now));
        if left.is_some_and(|left| !left.is_positive()) {
            return Ok(ExitCode::SUCCESS);
        }
        let seconds = left.map_or(NAP, |left| left.as_secs().saturating_add(1).min(NAP));
        let timeout = Timespec {
            tv_sec: seconds,
            tv_nsec: 0,
        };
        let mut fds = [PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for events"),
        }
        watch.changed().context("watching the store")?;
    }
}
