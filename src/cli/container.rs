//! The noun forms: `mica container ls`; and `mica container prune`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use super::prune::{report, total};
use super::{
    Context, attach, commit, cp, create, diff, exec, export, inspect, kill, logs, prompt, ps,
    rename, rm, run, start,
};
use crate::ops::container as containers;
use crate::ops::container::prune::{Filters, Pruned};
use crate::ops::image::filter;

/// The verbs on containers.
#[derive(Subcommand)]
#[command(defer = true)]
pub(super) enum ContainerVerb {
    #[command(visible_aliases = ["list", "ps"])]
    Ls(ps::Args),
    #[command(disable_help_flag = true)]
    Run(Box<run::Args>),
    #[command(disable_help_flag = true)]
    Create(Box<create::CreateArgs>),
    Exec(exec::Args),
    Attach(attach::Args),
    Cp(cp::Args),
    Export(export::Args),
    Logs(logs::Args),
    Start(start::Args),
    Stop(kill::StopArgs),
    Kill(kill::KillArgs),
    Pause(kill::PauseArgs),
    Unpause(kill::UnpauseArgs),
    Wait(start::WaitArgs),
    Restart(rename::RestartArgs),
    Rename(rename::RenameArgs),
    Top(rename::TopArgs),
    Port(rename::PortArgs),
    Inspect(inspect::ContainerArgs),
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
    pub(super) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        match self {
            ContainerVerb::Ls(args) => ps::run(args, context),
            ContainerVerb::Run(args) => run::run(*args, context),
            ContainerVerb::Create(args) => create::run(*args, context),
            ContainerVerb::Exec(args) => exec::run(args, context),
            ContainerVerb::Attach(args) => attach::run(args, context),
            ContainerVerb::Cp(args) => cp::run(args, context),
            ContainerVerb::Export(args) => export::run(args, context),
            ContainerVerb::Logs(args) => logs::run(args, context),
            ContainerVerb::Start(args) => start::run(args, context),
            ContainerVerb::Stop(args) => kill::stop(args, context),
            ContainerVerb::Kill(args) => kill::kill(args, context),
            ContainerVerb::Pause(args) => kill::pause(args, context),
            ContainerVerb::Unpause(args) => kill::unpause(args, context),
            ContainerVerb::Wait(args) => start::wait(args, context),
            ContainerVerb::Restart(args) => rename::restart(args, context),
            ContainerVerb::Rename(args) => rename::rename(args, context),
            ContainerVerb::Top(args) => rename::top(args, context),
            ContainerVerb::Port(args) => rename::port(args, context),
            ContainerVerb::Inspect(args) => inspect::containers(args, context),
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
///
/// With what they have changed, and their output. Asks before, and says which.
#[derive(clap::Args)]
pub(super) struct PruneArgs {
    /// Only containers for which this holds: label=KEY[=VALUE], label!=KEY[=VALUE], until=TIME (made then or before: an age such
    /// as 12h or 30d, a date, Unix seconds); may be repeated
    #[arg(long = "filter", value_name = "FILTER", value_parser = filter::split, add = crate::cli::completion::filters(crate::cli::completion::OF_PRUNED_CONTAINERS))]
    filters: Vec<(String, String)>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Print what would be removed and how much space that frees; remove nothing, with -f neither
    #[arg(long)]
    dry_run: bool,
}

/// docker's words above the list.
pub(super) const TITLE: &str = "Deleted Containers:";

/// The lines of a question.
pub(super) fn outlook(pruned: &Pruned) -> impl Iterator<Item = String> {
    let containers = pruned.containers.iter();
    containers.map(|(id, name)| format!("  would delete: container {} ({name})", id.short()))
}

/// The lines under the title.
pub(super) fn lines(pruned: &Pruned) -> Vec<String> {
    let containers = pruned.containers.iter();
    containers.map(|(id, _)| id.to_string()).collect()
}

fn prune(args: PruneArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let store = context.store()?;
    let filters = Filters::parse(&args.filters, jiff::Timestamp::now())?;
    if args.dry_run {
        let pruned = containers::prune::rehearse(&store, &filters)?;
        return report(TITLE, &lines(&pruned), pruned.bytes, true);
    }
    let mut shown = None;
    if !args.force {
        let plan = containers::prune::rehearse(&store, &filters)?;
        let mut warning = vec!["WARNING! This will remove all stopped containers.".to_owned()];
        warning.extend(outlook(&plan));
        if !args.filters.is_empty() {
            warning.push(String::new());
            warning.push("  Items to be pruned will be filtered with:".to_owned());
            let texts = args.filters.iter();
            warning.extend(texts.map(|(name, value)| format!("  - {name}={value}")));
        }
        warning.push(format!("  {}", total(plan.bytes, true)));
        if !prompt::confirm(&warning)? {
            return Ok(ExitCode::SUCCESS);
        }
        shown = Some(plan.ids());
    }
    let pruned = containers::prune::prune(&store, &filters, shown.as_ref())?;
    containers::sweep(&store);
    report(TITLE, &lines(&pruned), pruned.bytes, false)
}
