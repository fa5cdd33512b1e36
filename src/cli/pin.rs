//! `mica pin` and `mica unpin`.

use std::process::ExitCode;

use crate::ops::image::pin;

use super::Context;
use super::output;

/// Keep tags as they are: neither untagged nor moved nor pruned
///
/// A pinned tag is let go by `mica unpin` only; -f does not help. Without a name the pinned tags are listed. The same through a
/// mount: `setfattr -n user.mica.pin` on the tag directory, or `chattr +i`.
#[derive(clap::Args)]
pub(super) struct PinArgs {
    /// Tags
    #[arg(value_name = "NAME[:TAG]", add = super::completion::images())]
    names: Vec<String>,
}

/// Let pinned tags go
#[derive(clap::Args)]
pub(super) struct UnpinArgs {
    /// Tags
    #[arg(value_name = "NAME[:TAG]", required = true, add = super::completion::images())]
    names: Vec<String>,
}

/// Pins tags, or lists those that are.
pub(super) fn pin(args: PinArgs, context: &Context) -> anyhow::Result<ExitCode> {
    if args.names.is_empty() {
        let store = context.existing_store()?;
        let names = store.map(|store| store.names()).transpose()?;
        let tags = names.iter().flat_map(|names| &names.tags);
        let pinned = tags.filter(|(_, record)| record.pinned);
        output::print(
            &pinned
                .map(|(tag, _)| format!("{tag}\n"))
                .collect::<String>(),
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    set(&args.names, true, context)
}

/// Lets tags go.
pub(super) fn unpin(args: UnpinArgs, context: &Context) -> anyhow::Result<ExitCode> {
    set(&args.names, false, context)
}

fn set(names: &[String], pinned: bool, context: &Context) -> anyhow::Result<ExitCode> {
    let store = context.store()?;
    pin::set(&store, names, pinned)?;
    Ok(ExitCode::SUCCESS)
}
