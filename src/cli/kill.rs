//! `mica kill`, `mica stop`, `mica pause` and `mica unpause`.

use std::process::ExitCode;
use std::time::Duration;

use super::Context;
use super::rm::each;
use crate::ops::container as containers;
use crate::ops::container::run::RunError;

/// Send a signal to containers
#[derive(clap::Args)]
pub(super) struct KillArgs {
    /// Which signal, by name or number
    #[arg(short, long, default_value = "KILL")]
    signal: String,
    /// Names or IDs
    #[arg(value_name = "CONTAINER", required = true, add = super::completion::containers())]
    containers: Vec<String>,
}

/// Sends a signal.
pub(super) fn kill(args: KillArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let store = context.store()?;
    let number = containers::number_of(&args.signal)?;
    each(&args.containers, |text| {
        containers::kill(&store, text, number)
    })
}

/// How containers are stopped, and which.
#[derive(clap::Args)]
pub(super) struct Stopping {
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
    pub(super) containers: Vec<String>,
}

impl Stopping {
    /// Seconds before it is killed, if it ever is, and the signal, if not the image's.
    pub(super) fn means(&self) -> Result<(Option<Duration>, Option<i32>), RunError> {
        let patience = u64::try_from(self.time).ok().map(Duration::from_secs);
        let signal = self.signal.as_deref().map(containers::number_of);
        Ok((patience, signal.transpose()?))
    }
}

/// Stop containers
///
/// Sends the image's stop signal (TERM, if it names none), and KILL to what runs on after that.
#[derive(clap::Args)]
pub(super) struct StopArgs {
    #[command(flatten)]
    stopping: Stopping,
}

/// Stops containers.
pub(super) fn stop(args: StopArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let store = context.store()?;
    let (patience, signal) = args.stopping.means()?;
    each(&args.stopping.containers, |text| {
        containers::stop(&store, text, patience, signal)
    })
}

/// Stop all processes of containers for a while
///
/// They stand still (SIGSTOP) until mica unpause, or until the container is stopped or killed.
#[derive(clap::Args)]
pub(super) struct PauseArgs {
    /// Names or IDs
    #[arg(value_name = "CONTAINER", required = true, add = super::completion::containers())]
    containers: Vec<String>,
}

/// Pauses containers.
pub(super) fn pause(args: PauseArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let store = context.store()?;
    each(&args.containers, |text| containers::pause(&store, text))
}

/// Let the processes of paused containers go on
#[derive(clap::Args)]
pub(super) struct UnpauseArgs {
    /// Names or IDs
    #[arg(value_name = "CONTAINER", required = true, add = super::completion::containers())]
    containers: Vec<String>,
}

/// Lets containers go on.
pub(super) fn unpause(args: UnpauseArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let store = context.store()?;
    each(&args.containers, |text| containers::unpause(&store, text))
}
