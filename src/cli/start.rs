//! `mica start` and `mica wait`.

use std::process::ExitCode;

use super::not_started::failed;
use super::output::{Lines, print_error};
use super::run::finish;
use super::{Context, attach};
use crate::ops::container as containers;
use crate::ops::container::run::{self, RunError};
use crate::runtime::{self, AttachOptions, DetachKeys, Job, OutOfReach};
use crate::store::Store;

/// Start containers that have ended
#[derive(clap::Args)]
pub(super) struct Args {
    /// Stay with it: its output comes here, its exit status is this command's
    #[arg(short, long)]
    attach: bool,
    /// Stay with it, and give it this standard input if it was made with -i
    #[arg(short, long)]
    interactive: bool,
    /// With -a: leave it by these keys in place of ctrl-p,ctrl-q
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Names or IDs
    #[arg(value_name = "CONTAINER", required = true, add = super::completion::containers())]
    containers: Vec<String>,
}

/// Starts containers.
pub(super) fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let out_of_reach = OutOfReach::ensure()?;
    let store = context.store()?;
    let stays = args.attach || args.interactive;
    let keys = attach::keys(args.detach_keys.as_deref())?;
    if stays && args.containers.len() > 1 {
        let text = "you cannot start and attach multiple containers at once";
        return Err(RunError::Usage(text.to_owned()).into());
    }
    let mut code = 0;
    let mut lines = Lines::default();
    for text in &args.containers {
        match start(&store, text, (stays, args.interactive), &keys, out_of_reach) {
            Ok(ended) if stays => code = ended,
            Ok(_) => lines.print(text),
            Err(error) => {
                failed(&error);
                code = 1;
            }
        }
    }
    lines.finish()?;
    Ok(ExitCode::from(code))
}

fn start(
    store: &Store,
    text: &str,
    (stays, stdin): (bool, bool),
    keys: &DetachKeys,
    out_of_reach: OutOfReach,
) -> anyhow::Result<u8> {
    let Some(ready) = run::again(store, text)? else {
        if stays {
            let options = AttachOptions {
                stdin,
                signals: true,
                keys: keys.clone(),
            };
            return attach::to(&containers::find(store, text)?, &options, 0);
        }
        // It runs already, which is no error.
        return Ok(0);
    };
    let job = Job::new(store, ready);
    if !stays {
        runtime::run_detached(job, out_of_reach, finish)?;
        return Ok(0);
    }
    Ok(super::run::stay(job, keys, out_of_reach)?)
}

/// Starts one in the background.
pub(super) fn again(store: &Store, text: &str, out_of_reach: OutOfReach) -> anyhow::Result<()> {
    let keys = DetachKeys::default();
    start(store, text, (false, false), &keys, out_of_reach).map(drop)
}

/// Wait for containers to end, and print their exit codes
#[derive(clap::Args)]
pub(super) struct WaitArgs {
    /// Names or IDs
    #[arg(value_name = "CONTAINER", required = true, add = super::completion::containers())]
    containers: Vec<String>,
}

/// Waits for containers.
pub(super) fn wait(args: WaitArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let store = context.store()?;
    let mut lines = Lines::default();
    let mut code = ExitCode::SUCCESS;
    for text in &args.containers {
        match containers::wait(&store, text) {
            Ok(ended) => lines.print(&ended.to_string()),
            Err(error) => {
                print_error(&error.into());
                code = ExitCode::FAILURE;
            }
        }
    }
    lines.finish()?;
    Ok(code)
}
