//! `mica hold`.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use super::volume::find_name;
use super::{Context, completion};
use crate::ops::container::hold::shown;
use crate::ops::container::run::mounts;
use crate::ops::volume::VolumeError;
use crate::runtime::View;
use crate::store::Store;

/// Run a command with volumes kept in use, or mounted for it
///
/// None of the volumes is removed, renamed or evaporates before the command and all its children have ended. The command takes the
/// place of mica: process id, signals and exit status are its own. 127: it was not found, 126: it could not be run.
///
/// With -v and --mount the command, a program of the host, sees a volume's own directory or the tree of an image at a place that
/// exists, in a mount namespace of its own: at the host's speed, with all that the host's file system can. Without root it is in a
/// user namespace, in which other users' files belong to nobody and programs such as sudo do nothing.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Mount a volume: NAME:/DESTINATION[:ro]
    #[arg(short, long, value_name = "VOLUME")]
    volume: Vec<String>,
    /// Mount a volume or the tree of an image: type=volume|image,src=..,dst=..[,readonly][,volume-subpath=..|image-subpath=..]
    #[arg(long, value_name = "MOUNT")]
    mount: Vec<String>,
    /// Names
    #[arg(value_name = "VOLUME", required_unless_present_any = ["volume", "mount"], id = "volumes",
          add = completion::volumes())]
    volumes: Vec<String>,
    /// The command, after --
    #[arg(value_name = "COMMAND", last = true, required = true)]
    command: Vec<OsString>,
}

/// Takes a lease and becomes the command.
pub(super) fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let store = context.store()?;
    super::volume::sweep(&store);
    hold(&args, &store)?;
    let mut words = args.command.into_iter();
    let program = words.next().unwrap_or_default();
    let error = Command::new(&program).args(words).exec();
    // The lease ends with this process; its file goes with the next change of the store.
    super::print_error(&anyhow::anyhow!("{}: {error}", program.to_string_lossy()));
    Ok(match error.kind() {
        io::ErrorKind::NotFound => ExitCode::from(127),
        _ => ExitCode::from(126),
    })
}

/// Takes what the command shall keep, and goes where it shall be.
fn hold(args: &Args, store: &Store) -> anyhow::Result<()> {
    let mut wanted = Vec::new();
    for text in &args.volume {
        wanted.push(mounts::parse_volume(text)?);
    }
    for text in &args.mount {
        wanted.push(mounts::parse_mount(text)?);
    }
    let shown = shown(store, &wanted)?;
    let names = args.volumes.iter().map(|text| find_name(text));
    let mut names = names.collect::<Result<Vec<_>, _>>()?;
    names.extend(shown.volumes.iter().cloned());
    names.sort();
    names.dedup();
    let view = match shown.mounts.is_empty() {
        true => None,
        false => Some(View::prepare(store, &shown.images)?),
    };
    let lease = store.lease_volumes(&names).map_err(VolumeError::from)?;
    if let Some(view) = view {
        // The command changes their data beside every mount: none keeps anything of them meanwhile.
        let holds = store.share_volumes(&shown.volumes);
        let holds = holds.map_err(VolumeError::from)?;
        let (ready, _) = mounts::ready(store, &shown.mounts, &|_| false)?;
        view.enter(ready)?;
        for hold in holds {
            hold.keep_over_exec()?;
        }
    }
    lease.keep_over_exec()?;
    Ok(())
}
