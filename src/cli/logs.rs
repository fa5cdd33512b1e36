//! `mica logs`.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use super::Context;
use crate::ops::containers;
use crate::ops::run::RunError;
use crate::ops::run::logs::{Entry, LogReader, Stream};

/// How often a log is looked at that is being followed.
const PAUSE: Duration = Duration::from_millis(50);

/// Print what a detached container has printed
#[derive(clap::Args)]
pub struct Args {
    /// Go on until it ends
    #[arg(short, long)]
    follow: bool,
    /// Only so many of the last lines, or all
    #[arg(short = 'n', long, value_name = "LINES", default_value = "all")]
    tail: String,
    /// Print when each line was printed
    #[arg(short, long)]
    timestamps: bool,
    /// Name or ID of the container
    container: String,
}

/// Prints a log.
pub fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let store = context.store()?;
    let container = containers::find(&store, &args.container)?;
    let tail = match args.tail.as_str() {
        "all" => usize::MAX,
        // docker takes a negative number for all.
        text if text.starts_with('-') => usize::MAX,
        text => text
            .parse()
            .map_err(|_| RunError::Refused(format!("invalid tail value: {text:?}")))?,
    };
    let reading = || RunError::io("reading the log");
    let mut log = match LogReader::open(&container.log()).map_err(reading())? {
        Some(log) => log,
        // It runs in the foreground of somebody, who has seen it all.
        None => return Ok(ExitCode::SUCCESS),
    };
    let mut last = VecDeque::new();
    while let Some(entry) = log.next_entry().map_err(reading())? {
        last.push_back(entry);
        if last.len() > tail {
            last.pop_front();
        }
    }
    for entry in &last {
        print(entry, args.timestamps)?;
    }
    if !args.follow {
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        // Looked at before the log: what it printed last is then there.
        let ended = container.is_gone()?;
        while let Some(entry) = log.next_entry().map_err(reading())? {
            print(&entry, args.timestamps)?;
        }
        if ended {
            break;
        }
        std::thread::sleep(PAUSE);
    }
    Ok(ExitCode::SUCCESS)
}

fn print(entry: &Entry, timestamps: bool) -> io::Result<()> {
    let time = match timestamps {
        true => format!("{:.9} ", entry.time),
        false => String::new(),
    };
    let text = format!("{time}{}", entry.log);
    match entry.stream {
        Stream::Stdout => {
            let mut out = io::stdout().lock();
            out.write_all(text.as_bytes())?;
            out.flush()
        }
        Stream::Stderr => io::stderr().write_all(text.as_bytes()),
    }
}
