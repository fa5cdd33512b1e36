//! `mica rename`, `mica restart`, `mica top` and `mica port`.

use std::process::ExitCode;

use super::kill::Stopping;
use super::rm::each;
use super::{Context, output, start};
use crate::ops::container as containers;
use crate::ops::container::run::RunError;
use crate::runtime::OutOfReach;

/// Give a container another name
#[derive(clap::Args)]
pub(super) struct RenameArgs {
    /// Name or ID
    #[arg(value_name = "CONTAINER", add = super::completion::containers())]
    container: String,
    /// Its new name
    #[arg(value_name = "NEW_NAME")]
    name: String,
}

/// Renames a container.
pub(super) fn rename(args: RenameArgs, context: &Context) -> anyhow::Result<ExitCode> {
    containers::rename(&context.store()?, &args.container, &args.name)?;
    Ok(ExitCode::SUCCESS)
}

/// Stop containers and start them again
#[derive(clap::Args)]
pub(super) struct RestartArgs {
    #[command(flatten)]
    stopping: Stopping,
}

/// Restarts containers; one that does not run is started.
pub(super) fn restart(args: RestartArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let out_of_reach = OutOfReach::ensure()?;
    let store = context.store()?;
    let (patience, signal) = args.stopping.means()?;
    each(&args.stopping.containers, |text| {
        let container = containers::find(&store, text)?;
        if container.record.auto_remove && container.is_running() {
            // It would be gone before it could start.
            return Err(anyhow::Error::from(RunError::Refused(format!(
                "cannot restart container {text}: it is removed when it ends (--rm)"
            ))));
        }
        containers::stop(&store, text, patience, signal)?;
        start::again(&store, text, out_of_reach)
    })
}

/// Show the processes of a container, by the host's ps
#[derive(clap::Args)]
pub(super) struct TopArgs {
    /// Name or ID
    #[arg(value_name = "CONTAINER", add = super::completion::containers())]
    container: String,
    /// Options of ps; -ef without any
    #[arg(
        value_name = "PS_OPTIONS",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    options: Vec<String>,
}

/// Shows processes.
pub(super) fn top(args: TopArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let text = containers::top(&context.store()?, &args.container, &args.options)?;
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Show which ports of a container are published: none, since the network is the host's
#[derive(clap::Args)]
pub(super) struct PortArgs {
    /// Name or ID
    #[arg(value_name = "CONTAINER", add = super::completion::containers())]
    container: String,
    /// A port, with its protocol: 80/tcp
    #[arg(value_name = "PORT")]
    port: Option<String>,
}

/// Shows nothing.
pub(super) fn port(args: PortArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let container = containers::find(&context.store()?, &args.container)?;
    match args.port {
        None => Ok(ExitCode::SUCCESS),
        Some(port) => {
            let port = match port.contains('/') {
                true => port,
                false => format!("{port}/tcp"),
            };
            let name = &container.record.name;
            Err(RunError::Usage(format!(
                "no public port '{port}' published for {name}: containers use the host's network, the port is open as it is"
            ))
            .into())
        }
    }
}
