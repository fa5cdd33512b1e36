//! `mica bundle`.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::ops::container::bundle::{self, BundleError, Options};

use super::Context;

/// Make an OCI runtime bundle of an image, to be run by runc or crun
///
/// DIR gets a config.json made from the image's configuration, and a rootfs that is an overlay of the image's tree in a
/// mount of mica and of DIR/upper: nothing is copied. It uses the host's network. Afterwards: runc run -b DIR NAME. To
/// take it away: umount DIR/rootfs, then rm -r DIR.
#[derive(clap::Args)]
pub(super) struct Args {
    /// No overlay: config.json names the image's tree in the mount of mica, as a read-only root
    #[arg(long)]
    read_only: bool,
    /// The process gets a terminal
    #[arg(short, long)]
    tty: bool,
    /// A name, a digest reference, an ID or the beginning of one
    #[arg(value_name = "IMAGE", add = super::completion::images())]
    image: String,
    /// The bundle: a new or an empty directory
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// The command, in place of the image's
    #[arg(
        value_name = "COMMAND",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<String>,
}

/// Makes the bundle.
pub(super) fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let options = Options {
        image: &args.image,
        directory: &args.directory,
        command: &args.command,
        terminal: args.tty,
        read_only: args.read_only,
    };
    match bundle::bundle(&context.store()?, &options) {
        Ok(_) => Ok(ExitCode::SUCCESS),
        // What a use case says in docker's words is printed as such.
        Err(BundleError::Image(error)) => Err(error.into()),
        Err(error) => Err(error.into()),
    }
}
