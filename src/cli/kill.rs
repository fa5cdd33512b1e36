//! `mica kill` and `mica stop`.

use std::process::ExitCode;
use std::time::Duration;

use super::Context;
use super::rm::each;
use crate::ops::containers;

/// Send a signal to containers
#[derive(clap::Args)]
pub struct KillArgs {
    /// Which signal, by name or number
    #[arg(short, long, default_value = "KILL")]
    signal: String,
    /// Names or IDs
    #[arg(value_name = "CONTAINER", required = true, add = super::completion::containers())]
    containers: Vec<String>,
}

/// Sends a signal.
pub fn kill(args: KillArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let store = context.store()?;
    let number = containers::number_of(&args.signal)?;
    each(&args.containers, |text| {
        containers::kill(&store, text, number)
    })
}

/// Stop containers
///
/// Sends the image's stop signal (TERM, if it names none), and KILL to what runs on after that.
#[derive(clap::Args)]
pub struct StopArgs {
    /// Seconds before it is killed; -1: never
    #[arg(
        short,
        long,
        visible_alias = "timeout",
        value_name = "SECONDS",
        default_value_t = 10,
        allow_negative_numbers = true
    )]
    time: i64,
    /// Send this signal
    #[arg(short, long)]
    signal: Option<String>,
    /// Names or IDs
    #[arg(value_name = "CONTAINER", required = true, add = super::completion::containers())]
    containers: Vec<String>,
}

/// Stops containers.
pub fn stop(args: StopArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let store = context.store()?;
    let patience = u64::try_from(args.time).ok().map(Duration::from_secs);
    let signal = args
        .signal
        .as_deref()
        .map(containers::number_of)
        .transpose()?;
    each(&args.containers, |text| {
        containers::stop(&store, text, patience, signal)
    })
}
