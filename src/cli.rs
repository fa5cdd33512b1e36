//! The command line: parse, call one `ops` function, format. Sole user of clap.
//!
//! A verb is one file: `Args` (clap), `run(args, &Context) -> anyhow::Result<ExitCode>`, a variant of [`Verb`] and an
//! arm in [`run`]. Names, flags and texts are docker's.
//!
//! Exit codes: 0 success (a reader that closed our output early included), 1 the verb failed wholly or in part, 2 the
//! command line is wrong. Errors go to stderr; what docker's daemon would say carries docker's prefix
//! `Error response from daemon: `, everything else starts with `mica: `.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod output;

pub use output::{DaemonError, print_error};

/// A filesystem for container images and volumes.
#[derive(Parser)]
#[command(name = "mica", version, max_term_width = 100, propagate_version = true)]
struct Cli {
    /// The store's directory [env: MICA_STORE] [default: /var/lib/mica for root, else ~/.local/share/mica]
    #[arg(long, global = true, value_name = "DIR")]
    store: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Work with images: the same verbs as on top
    #[command(subcommand)]
    Image(ImageVerb),
}

/// The noun forms: `mica image ls`.
#[derive(Subcommand)]
enum ImageVerb {}

/// What every verb gets from the global options.
pub struct Context {
    /// `--store`, when given.
    pub store: Option<PathBuf>,
}

/// The program: parses the process's arguments and runs the verb.
pub fn main() -> ExitCode {
    init_logging();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout with 0, usage errors to stderr with 2; nobody is left to tell if that fails.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let context = Context { store: cli.store };
    match run(cli.verb, &context) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb, _context: &Context) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Image(verb) => match verb {},
    }
}

/// Log lines go to stderr: warnings and errors, or what `MICA_LOG` asks for (env_logger's syntax).
fn init_logging() {
    let environment = env_logger::Env::new()
        .filter_or("MICA_LOG", "warn")
        .write_style("MICA_LOG_STYLE");
    // A second initialisation (tests) keeps the first.
    let _ = env_logger::Builder::from_env(environment).try_init();
}

/// Whether the verb stopped because nobody reads its output any more (`mica images | head -1`).
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|e| e.kind() == io::ErrorKind::BrokenPipe)
}
