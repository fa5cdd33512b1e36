//! `mica mount`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::daemon::{self, MountPlan};
use crate::fuse::options::MountOptions;

use super::Context;

/// Show the store's images as a directory tree
///
/// Returns when the tree can be used. A store that does not exist is made. The daemon ends with the mount (`mica umount`, umount,
/// SIGTERM) and logs to daemon.log in the store.
#[derive(clap::Args)]
pub(super) struct Args {
    /// An empty directory
    #[arg(value_name = "MOUNTPOINT")]
    mount_point: PathBuf,
    /// Stay in the foreground and log to stderr
    #[arg(short, long)]
    foreground: bool,
    /// Comma-separated: ro, strict (opening for writing fails at once), suid, dev, allow_other, rm=off|own|all
    /// (who may remove through the mount: nobody, the mounting user and root, all), nlink=shared (one link more of each
    /// file, so that `du` of one directory counts shared files once), trash=DURATION, fsname=NAME, and how long ephemeral
    /// volumes live unused: volume_wait=SECONDS (60, for the first user), volume_linger=SECONDS (2, after the last one), volume_cache=on|off
    /// (on: the kernel keeps names and attributes of volumes in the store that only this mount uses), survive=on|off (on: when the daemon dies
    /// another takes its place, and who uses images goes on), idmap=subid (an ordinary user's: owners are shown as his subordinate ids, as
    /// his podman has them, and M has the stores for it)
    #[arg(short = 'o', value_name = "OPTIONS")]
    options: Vec<String>,
    /// Take the place of the daemon of a mount with survive=on, without unmounting: for an upgrade of mica
    #[arg(long, conflicts_with_all = ["foreground", "options", "trash"])]
    replace: bool,
    /// Keep what is removed through the mount for so long (30m, 12h, 7d, off), whatever `mica trash` has set
    #[arg(long, value_name = "DURATION", value_parser = super::trash::duration)]
    trash: Option<Duration>,
}

/// Mounts.
pub(super) fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    if args.replace {
        daemon::replace(&context.store_path(), &args.mount_point)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut options = MountOptions::parse(&args.options)?;
    options.trash = args.trash.or(options.trash);
    daemon::mount(&MountPlan {
        store: context.store_path(),
        mount_point: args.mount_point,
        foreground: args.foreground,
        options,
        words: args.options,
    })?;
    Ok(ExitCode::SUCCESS)
}
