//! `mica umount`.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::daemon;

use super::Context;

/// Take a mount away
///
/// Returns when its daemon has ended. The user who mounted may do it, and root.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Where mica is mounted
    #[arg(value_name = "MOUNTPOINT", add = super::completion::mounts())]
    mount_point: PathBuf,
    /// Detach the mount now, even if it is in use; its daemon ends with the last user
    #[arg(short, long)]
    lazy: bool,
}

/// Unmounts.
pub(super) fn run(args: Args, _context: &Context) -> anyhow::Result<ExitCode> {
    daemon::unmount(&args.mount_point, args.lazy)?;
    Ok(ExitCode::SUCCESS)
}
