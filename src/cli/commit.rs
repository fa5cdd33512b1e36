//! `mica commit`.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::ArgAction;

use crate::oci::change;
use crate::ops::container::commit::{self, Options};
use crate::ops::{container as containers, image::tag};
use crate::store::containers::Container;
use crate::sys::userns;

use super::Context;
use super::output::{self, Lines};

/// Make an image of what a container has changed
///
/// The new image is the container's with one layer more and the container's configuration. Volumes and whatever else is
/// mounted into the container are not part of it. Prints the new image's ID.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Who made it ("Hannibal Smith <hannibal@a-team.com>")
    #[arg(
        short,
        long,
        value_name = "AUTHOR",
        default_value = "",
        hide_default_value = true
    )]
    author: String,
    /// What for
    #[arg(
        short,
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    message: String,
    /// A change to the configuration, as a line of a Dockerfile: CMD ENTRYPOINT ENV EXPOSE HEALTHCHECK LABEL ONBUILD
    /// STOPSIGNAL USER VOLUME WORKDIR; may be repeated
    #[arg(short, long, value_name = "CHANGE")]
    change: Vec<String>,
    /// Stop the container's processes (SIGSTOP) while its files are read
    #[arg(short, long, value_name = "BOOL", action = ArgAction::Set, default_value_t = true,
          default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    pause: bool,
    /// Do not stop the container's processes
    #[arg(long, conflicts_with = "pause")]
    no_pause: bool,
    /// The container: its name, its ID or the beginning of it
    #[arg(value_name = "CONTAINER", add = super::completion::containers())]
    container: String,
    /// The new image's name
    #[arg(value_name = "REPOSITORY[:TAG]")]
    target: Option<String>,
}

/// Commits a container.
pub(super) fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let target = tag::parse_targets(args.target.as_slice())?.pop();
    let changes = change::parse(&args.change)?;
    let store = context.store()?;
    let container = containers::find(&store, &args.container)?;
    let mut frozen = match args.pause && !args.no_pause {
        true => commit::pause(&container)?,
        false => None,
    };
    let options = Options {
        container: &container,
        target,
        author: &args.author,
        message: &args.message,
        changes,
        now: jiff::Timestamp::now(),
    };
    as_its_root(&container, |elsewhere| {
        // Whoever has stopped them lets them go on.
        let frozen = if elsewhere { None } else { frozen.take() };
        let committed = commit::commit(&store, &options, frozen)?;
        if committed.sockets > 0 {
            log::info!("{} sockets were left out", committed.sockets);
        }
        let mut lines = Lines::default();
        lines.print(&committed.id.to_string());
        lines.finish()?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Does `work` where all of a container's files can be read: an ordinary user's has files of other ids than the user's own, which
/// only root of such a user namespace may read. `work` hears whether it is in another process than the caller.
pub(super) fn as_its_root(
    container: &Container,
    work: impl FnOnce(bool) -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    let ids = container.record.ids.as_ref();
    let Some(ids) = ids.filter(|_| !rustix::process::geteuid().is_root()) else {
        return work(false);
    };
    let work = || match work(true) {
        Ok(_) => true,
        Err(error) if super::is_broken_pipe(&error) => true,
        Err(error) => {
            output::print_error(&error);
            false
        }
    };
    let done = userns::as_root_of(ids, work)
        .context("making a user namespace, to read the container's files in")?;
    Ok(match done {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
