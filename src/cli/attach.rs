//! `mica attach`.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use super::Context;
use super::not_started::failed;
use crate::ops::container as containers;
use crate::ops::container::run::RunError;
use crate::registry::docker_config;
use crate::runtime::{self, AttachOptions, DetachKeys, Left};
use crate::store::containers::Container;

/// Stay with a container that runs
///
/// Its output comes here, what is typed goes to it if it was started with -i, and its exit status is this command's. Of one that
/// has a terminal ctrl-p ctrl-q leaves, and it goes on; the exit status is 1 then.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Leave by these keys in place of ctrl-p,ctrl-q, or of those in docker's config.json: characters, or ctrl-LETTER, with commas
    /// between
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Give it nothing of standard input
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_possible_values = true)]
    no_stdin: bool,
    /// Pass signals on to it; with =false they end this command alone
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "true", hide_possible_values = true, hide_default_value = true)]
    sig_proxy: bool,
    /// Name or ID
    #[arg(value_name = "CONTAINER", add = super::completion::containers())]
    container: String,
}

/// docker's status of `attach` and `exec` for who has left; of `run` and `start` it is 0.
pub(super) const LEFT: u8 = 1;

/// The keys of `--detach-keys`, else those of docker's `config.json`. A bad word of the file counts for nothing, and is said.
pub(super) fn keys(text: Option<&str>) -> Result<DetachKeys, RunError> {
    if let Some(text) = text.filter(|text| !text.is_empty()) {
        return DetachKeys::parse(text).map_err(RunError::Usage);
    }
    if !io::stdin().is_terminal() {
        // Nobody types any.
        return Ok(DetachKeys::default());
    }
    let Some(text) = docker_config::text("detachKeys") else {
        return Ok(DetachKeys::default());
    };
    Ok(DetachKeys::parse(&text).unwrap_or_else(|why| {
        log::warn!("docker's config.json: {why}; ctrl-p,ctrl-q count");
        DetachKeys::default()
    }))
}

/// Attaches.
pub(super) fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let options = AttachOptions {
        stdin: !args.no_stdin,
        signals: args.sig_proxy,
        keys: keys(args.detach_keys.as_deref())?,
    };
    let container = containers::find(&context.store()?, &args.container)?;
    Ok(ExitCode::from(match to(&container, &options, LEFT) {
        Ok(code) => code,
        // docker's status for what its daemon refuses.
        Err(error) => match failed(&error) {
            125 => 1,
            code => code,
        },
    }))
}

/// Attaches to one that runs; the exit code of this command,
/// with `gone` for who leaves it.
pub(super) fn to(container: &Container, options: &AttachOptions, gone: u8) -> anyhow::Result<u8> {
    let refused = |text: &str| Err(RunError::Refused(text.to_owned()).into());
    if !container.is_running() {
        return refused("You cannot attach to a stopped container, start it first");
    }
    if container.is_paused() {
        return refused("You cannot attach to a paused container, unpause it first");
    }
    Ok(left(runtime::attach(container, options)?, gone))
}

/// The exit code of who came away; `gone` of who has left.
pub(super) fn left(left: Left, gone: u8) -> u8 {
    match left {
        Left::Ended(code) => code,
        Left::Detached => {
            if io::stderr().is_terminal() {
                // docker's words; the line is one that the program has begun.
                eprintln!("\nread escape sequence");
            }
            gone
        }
    }
}
