//! `mica volume`.

use std::process::ExitCode;

use clap::Subcommand;

use crate::ops::volume::ephemeral::{self as life, Times};
use crate::store::Store;

use super::Context;

mod create;
mod inspect;
mod keep;
mod ls;
mod plugin;
mod prune;
mod rm;

pub(super) use inspect::{find_name, inspection};
pub(super) use prune::{ANONYMOUS, TITLE, outlook};

/// The verbs on volumes.
#[derive(Subcommand)]
#[command(defer = true)]
pub(super) enum VolumeVerb {
    Create(create::Args),
    Inspect(inspect::Args),
    Keep(keep::Args),
    #[command(visible_alias = "list")]
    Ls(ls::Args),
    Plugin(plugin::Args),
    Prune(prune::Args),
    #[command(visible_alias = "remove")]
    Rm(rm::Args),
}

impl VolumeVerb {
    /// Runs the verb.
    pub(super) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        match self {
            VolumeVerb::Create(args) => create::run(args, context),
            VolumeVerb::Inspect(args) => inspect::run(args, context),
            VolumeVerb::Keep(args) => keep::run(args, context),
            VolumeVerb::Ls(args) => ls::run(args, context),
            VolumeVerb::Plugin(args) => plugin::run(args, context),
            VolumeVerb::Prune(args) => prune::run(args, context),
            VolumeVerb::Rm(args) => rm::run(args, context),
        }
    }
}

/// Where no daemon watches, the verbs end the ephemeral volumes whose time has come. What keeps that from being done keeps nobody
/// from anything else.
pub(super) fn sweep(store: &Store) {
    if let Err(error) = life::sweep(store, Times::default()) {
        log::warn!("ephemeral volumes: {error}");
    }
}
