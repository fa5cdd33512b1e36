//! `mica exec`.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;

use super::Context;
use super::attach::{self, LEFT};
use super::not_started::failed;
use super::run::{PRIVILEGED, lines, variable};
use crate::ops::container as containers;
use crate::ops::container::run::RunError;
use crate::runtime::{self, ExecOptions, OutOfReach};

/// Run a command in a container that runs
///
/// With -it ctrl-p ctrl-q leaves the command, and it goes on; the exit status is 1 then.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Give the command this standard input
    #[arg(short, long)]
    interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// Do not wait for its end, show nothing of it
    #[arg(short, long)]
    detach: bool,
    /// With -it: leave it by these keys in place of ctrl-p,ctrl-q, or of those in docker's config.json
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Set a variable: NAME=VALUE, or NAME for the value it has here
    #[arg(short, long, value_name = "VARIABLE")]
    env: Vec<String>,
    /// Set the variables in a file, one per line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Run as this user: NAME|UID[:GROUP|GID]
    #[arg(short, long)]
    user: Option<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Refused: says what to do instead
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false")]
    privileged: bool,
    /// Name or ID of the container
    #[arg(add = super::completion::containers())]
    container: String,
    /// The command
    #[arg(
        value_name = "COMMAND",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<String>,
}

/// Runs a command.
pub(super) fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    Ok(ExitCode::from(match exec(args, context) {
        Ok(code) => code,
        // docker's status for what its daemon refuses.
        Err(error) => match failed(&error) {
            125 => 1,
            code => code,
        },
    }))
}

fn exec(args: Args, context: &Context) -> anyhow::Result<u8> {
    if args.tty && args.interactive && !args.detach && !io::stdin().is_terminal() {
        return Err(RunError::NotATty.into());
    }
    if args.privileged {
        return Err(RunError::Refused(PRIVILEGED.to_owned()).into());
    }
    let keys = attach::keys(args.detach_keys.as_deref())?;
    let out_of_reach = OutOfReach::ensure()?;
    let container = containers::find(&context.store()?, &args.container)?;
    if !container.is_running() {
        let id = &container.record.id;
        return Err(RunError::Refused(format!("container {id} is not running")).into());
    }
    if container.is_paused() {
        let id = &container.record.id;
        let text = format!("Container {id} is paused, unpause the container before exec");
        return Err(RunError::Refused(text).into());
    }
    let mut env = Vec::new();
    for path in &args.env_file {
        env.extend(lines(path)?.iter().filter_map(|line| variable(line)));
    }
    env.extend(args.env.iter().filter_map(|text| variable(text)));
    let options = ExecOptions {
        args: args.command,
        env,
        user: args.user,
        working_dir: args.workdir,
        tty: args.tty,
        open_stdin: args.interactive,
        detached: args.detach,
    };
    if args.tty && args.interactive && !args.detach {
        let left = runtime::exec_attached(&container, &options, &keys, out_of_reach)?;
        return Ok(attach::left(left, LEFT));
    }
    Ok(runtime::exec(&container, &options, out_of_reach)?)
}
