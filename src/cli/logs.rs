//! `mica logs`.

use std::io::{self, BufWriter, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use jiff::Timestamp;

use super::Context;
use crate::ops::container as containers;
use crate::ops::container::run::RunError;
use crate::ops::container::run::logs::{LogReader, Stream};
use crate::text::time;

/// How often a log is looked at that is being followed.
const PAUSE: Duration = Duration::from_millis(50);

/// Print what a detached container has printed
#[derive(clap::Args)]
pub(super) struct Args {
    /// Go on until it ends
    #[arg(short, long)]
    follow: bool,
    /// Only so many of the last lines, or all
    #[arg(short = 'n', long, value_name = "LINES", default_value = "all")]
    tail: String,
    /// Begin with the lines since then: an age such as 10m or 2h, a date, Unix seconds
    #[arg(long, value_name = "TIME", value_parser = point)]
    since: Option<Timestamp>,
    /// End with the lines of that time
    #[arg(long, value_name = "TIME", value_parser = point)]
    until: Option<Timestamp>,
    /// Print when each line was printed
    #[arg(short, long)]
    timestamps: bool,
    /// Name or ID of the container
    #[arg(add = super::completion::containers())]
    container: String,
}

fn point(text: &str) -> Result<Timestamp, String> {
    time::point(text, Timestamp::now()).ok_or_else(|| "not a time or an age".to_owned())
}

/// Prints a log.
pub(super) fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let store = context.store()?;
    let container = containers::find(&store, &args.container)?;
    let tail = match args.tail.as_str() {
        "all" => None,
        // docker takes a negative number for all.
        text if text.starts_with('-') => None,
        text => Some(
            text.parse()
                .map_err(|_| RunError::Refused(format!("invalid tail value: {text:?}")))?,
        ),
    };
    let mut log = match LogReader::open(&container.log()).map_err(reading())? {
        Some(log) => log,
        // It runs in the foreground of somebody, who has seen it all.
        None => return Ok(ExitCode::SUCCESS),
    };
    if let Some(tail) = tail {
        log.seek_to_last(tail).map_err(reading())?;
    }
    loop {
        // Looked at before the log: what it printed last is then there.
        let ended = !args.follow || container.is_gone()?;
        if print(&mut log, &args)? || ended {
            break;
        }
        std::thread::sleep(PAUSE);
    }
    Ok(ExitCode::SUCCESS)
}

fn reading() -> impl FnOnce(io::Error) -> RunError {
    RunError::io("reading the log")
}

/// Prints what is there, entry by entry; true: the rest is of another time. As it is, control characters included: it is what a
/// program has printed, and docker does the same.
fn print(log: &mut LogReader, args: &Args) -> anyhow::Result<bool> {
    let mut out = BufWriter::new(io::stdout().lock());
    while let Some(entry) = log.next_entry().map_err(reading())? {
        if args.since.is_some_and(|since| entry.time < since) {
            continue;
        }
        if args.until.is_some_and(|until| entry.time > until) {
            out.flush()?;
            return Ok(true);
        }
        let time = match args.timestamps {
            true => format!("{:.9} ", entry.time),
            false => String::new(),
        };
        match entry.stream {
            Stream::Stdout => write!(out, "{time}{}", entry.log)?,
            Stream::Stderr => {
                // In their order, should both go to one place.
                out.flush()?;
                let text = format!("{time}{}", entry.log);
                io::stderr().write_all(text.as_bytes())?;
            }
        }
    }
    out.flush()?;
    let over = args.until.is_some_and(|until| Timestamp::now() > until);
    Ok(over)
}
