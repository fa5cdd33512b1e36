//! The noun forms: `mica container ls`; and `mica container prune`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use super::output::Lines;
use super::prune::total;
use super::{Context, commit, diff, exec, kill, logs, prompt, ps, rm, run, start};
use crate::ops::containers::{self, RemoveOptions};

/// The verbs on containers.
#[derive(Subcommand)]
pub enum ContainerVerb {
    #[command(visible_aliases = ["list", "ps"])]
    Ls(ps::Args),
    #[command(disable_help_flag = true)]
    Run(Box<run::Args>),
    Exec(exec::Args),
    Logs(logs::Args),
    Start(start::Args),
    Stop(kill::StopArgs),
    Kill(kill::KillArgs),
    Wait(start::WaitArgs),
    Diff(diff::Args),
    Commit(commit::Args),
    #[command(visible_alias = "remove")]
    Rm(rm::Args),
    Prune(PruneArgs),
    /// Removes a directory of this user's ids; for `mica` itself.
    #[command(hide = true)]
    RemoveTree {
        /// Which.
        directory: PathBuf,
    },
}

impl ContainerVerb {
    /// Runs the verb.
    pub fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        match self {
            ContainerVerb::Ls(args) => ps::run(args, context),
            ContainerVerb::Run(args) => run::run(*args, context),
            ContainerVerb::Exec(args) => exec::run(args, context),
            ContainerVerb::Logs(args) => logs::run(args, context),
            ContainerVerb::Start(args) => start::run(args, context),
            ContainerVerb::Stop(args) => kill::stop(args, context),
            ContainerVerb::Kill(args) => kill::kill(args, context),
            ContainerVerb::Wait(args) => start::wait(args, context),
            ContainerVerb::Diff(args) => diff::run(args, context),
            ContainerVerb::Commit(args) => commit::run(args, context),
            ContainerVerb::Rm(args) => rm::run(args, context),
            ContainerVerb::Prune(args) => prune(args, context),
            ContainerVerb::RemoveTree { directory } => {
                crate::sys::userns::remove_tree(&directory)?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

/// Remove all containers that do not run
#[derive(clap::Args)]
pub struct PruneArgs {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

fn prune(args: PruneArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let warning = ["WARNING! This will remove all stopped containers.".to_owned()];
    if !args.force && !prompt::confirm(&warning)? {
        return Ok(ExitCode::SUCCESS);
    }
    let store = context.store()?;
    containers::sweep(&store);
    let mut lines = Lines::default();
    let mut bytes = 0u64;
    let stopped: Vec<_> = store
        .containers()?
        .into_iter()
        .filter(|container| !container.is_running())
        .collect();
    if !stopped.is_empty() {
        lines.print("Deleted Containers:");
    }
    for container in &stopped {
        let size = containers::size(container);
        containers::remove(
            &store,
            container.record.id.as_str(),
            RemoveOptions::default(),
        )?;
        bytes = bytes.saturating_add(size);
        lines.print(container.record.id.as_str());
    }
    if !stopped.is_empty() {
        lines.print("");
    }
    lines.print(&total(bytes, false));
    lines.finish()?;
    Ok(ExitCode::SUCCESS)
}
