//! A command line that is wrong: what is said of it, and docker's exit statuses.
//!
//! 125: a flag is unknown or its value is none; 1: the verb is unknown, or has too few or too many arguments.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::CommandFactory as _;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::Cli;
use super::output::Printable;
use super::{absent, switches};

/// Prints help, a version or an error; the exit status.
pub(super) fn tell(error: &clap::Error) -> ExitCode {
    let is_run = is_run();
    // `-h NAME` is the host name, as docker's; without a name it is what it is everywhere else.
    let asks = std::env::args_os()
        .next_back()
        .is_some_and(|last| last == "-h");
    if is_run && asks && error.exit_code() != 0 {
        let mut command = Cli::command();
        command.build();
        if let Some(run) = command.find_subcommand_mut("run") {
            // Nobody is left to tell if that fails.
            let _ = run.print_help();
            return ExitCode::SUCCESS;
        }
    }
    let (text, code) = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Nobody is left to tell if that fails.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        // docker's client shows its help to who says nothing.
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            // Nobody is left to tell if that fails.
            let _ = write!(io::stdout(), "{}", error.render());
            return ExitCode::SUCCESS;
        }
        ErrorKind::InvalidSubcommand => (unknown_verb(error), 1),
        ErrorKind::UnknownArgument => {
            let found = string(error, ContextKind::InvalidArg).unwrap_or_default();
            match found.starts_with('-') {
                true => (format!("unknown flag: {found}{}", ending(error)), 125),
                false => (plain(error), 1),
            }
        }
        ErrorKind::MissingRequiredArgument
        | ErrorKind::MissingSubcommand
        | ErrorKind::TooFewValues
        | ErrorKind::TooManyValues => (plain(error), 1),
        _ => match switches::wrong(error) {
            Some(text) => (format!("{text}{}", ending(error)), 125),
            None => (plain(error), 125),
        },
    };
    // The same.
    let _ = writeln!(io::stderr(), "mica: {text}");
    // What a script sees of `run` is a container's exit code, or docker's for "not even started"; but without an image it is no run.
    let no_image = error.kind() == ErrorKind::MissingRequiredArgument;
    ExitCode::from(if is_run && !no_image { 125 } else { code })
}

/// Whether the verb is `run`, by what was understood up to the error: the verb stands before its options.
fn is_run() -> bool {
    let matches = Cli::command()
        .ignore_errors(true)
        .try_get_matches_from(std::env::args_os());
    matches.is_ok_and(|matches| match matches.subcommand() {
        Some(("container", noun)) => noun.subcommand_name() == Some("run"),
        Some((verb, _)) => verb == "run",
        None => false,
    })
}

fn string(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => Some(Printable(text).to_string()),
        _ => None,
    }
}

/// The verb that the usage line is about: `mica image`.
fn verb(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let usage = text.lines().find_map(|line| line.strip_prefix("Usage: "));
    let words = usage.unwrap_or("mica").split(' ');
    let words = words.take_while(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '-'));
    words.collect::<Vec<_>>().join(" ")
}

fn unknown_verb(error: &clap::Error) -> String {
    let name = string(error, ContextKind::InvalidSubcommand).unwrap_or_default();
    let parent = verb(error);
    match absent::verb(&name).filter(|_| ["mica", "mica container"].contains(&parent.as_str())) {
        Some(why) => format!("there is no {name} here: {why}"),
        None => format!(
            "unknown command: {parent} {name}\n\nRun '{parent} --help' for more information"
        ),
    }
}

fn ending(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let usage = text.lines().find(|line| line.starts_with("Usage: "));
    let usage = usage.map(|line| format!("\n\n{line}")).unwrap_or_default();
    format!(
        "{usage}\n\nRun '{} --help' for more information",
        verb(error)
    )
}

/// What clap says, without its guesses at what may have been meant: by letters alone they lead from `stats` to `trash`.
fn plain(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let said = text.split("\n\n").next().unwrap_or_default();
    let lines = said
        .lines()
        .filter(|line| !line.trim_start().starts_with("tip: "));
    let said = lines.collect::<Vec<_>>().join("\n");
    format!("{}{}", said.trim_end(), ending(error))
}
